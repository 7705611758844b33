"""The tuning run, stage by stage: open, teach, learn, encode, write back, judge, commit."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from faiss_distill.checks import flag
from faiss_distill.columns import mapped_in
from faiss_distill.config import MAX_SEED, Assignment, DistillConfig, Encoding, as_config
from faiss_distill.data.queries import Given
from faiss_distill.errors import InputError
from faiss_distill.evaluation.measure import NPROBES, Evaluation, QuerySet, measure
from faiss_distill.index.copies import copy_of
from faiss_distill.index.lists_file import new_lists_file
from faiss_distill.index.parts.transaction import Transaction
from faiss_distill.index.registry import IndexAdapter, open_index
from faiss_distill.index.sources import as_index
from faiss_distill.integrations import stores
from faiss_distill.learning.documents import Documents
from faiss_distill.learning.list_teacher import ListTeacher
from faiss_distill.learning.objective import Objective, Selection
from faiss_distill.learning.optimise import optimise
from faiss_distill.learning.taught import Taught
from faiss_distill.learning.teacher import Teacher, calibrate_temperature
from faiss_distill.stages import TENFOLD, Stages
from faiss_distill.state import IndexState, Int64
from faiss_distill.tuning.gate import Gate
from faiss_distill.tuning.given import digest, digest_of_all, given
from faiss_distill.tuning.memory import check_memory, columns_folder, enough_memory
from faiss_distill.tuning.parameters import TunedParameters, fits
from faiss_distill.tuning.report import DistillReport, versions
from faiss_distill.tuning.settle import check_depths, settle
from faiss_distill.tuning.split import Splitter, check_number
from faiss_distill.tuning.task import WITHOUT, open_queries, open_task
from faiss_distill.tuning.teachers import open_teacher, teacher_of
from faiss_distill.tuning.weights import Weights
from faiss_distill.tuning.write_back import mined, written
from faiss_distill.workdir import NOWHERE, Stored, Workdir, open_workdir
from faiss_distill.world import open_world

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from faiss_distill.typing import (
        FaissIndex,
        IdsLike,
        LabelsLike,
        PathLike,
        QueryInputsLike,
        TeacherLike,
        VectorsLike,
    )

logger = logging.getLogger(__name__)

MAX_SELECTION = 500
"""Of the held-out queries, those that choose the epoch, at most; a quarter if there are fewer than 2,000."""


@dataclass(frozen=True)
class _Learned:
    """What training made, before the index has it.

    Attributes:
        state: of all vectors of the index.
        sample: of those whose embeddings were passed.
        change: puts ``state`` into the index.
        queries: those that judge, from the query encoder as it was trained.
        before: what they found.
        train: the queries trained on, with what the teacher found.
        teacher: what found their neighbours, as the report has it.
        compiled: whether the search for codes was.
        n_selection: queries that chose the epoch.
        temperature: what scores were divided by.
        history: of the epochs.
        best_epoch: the one that was taken.
    """

    state: IndexState
    sample: IndexState
    change: Transaction
    queries: QuerySet
    before: Evaluation
    train: Taught
    teacher: Mapping[str, Any]
    compiled: bool
    n_selection: int
    temperature: float
    history: tuple[dict[str, float | None], ...]
    best_epoch: int


class DistillTrainer:
    """Fine-tunes one index. Everything is checked on construction; only :meth:`train` changes the index.

    Memory beyond the index: the queries with their Top-K, two copies of codes and lists, the new inverted lists beside
    the old ones, and of the corpus the larger of ``config.block_rows`` rows and the Top-K of 500 queries
    (``500 * config.top_k`` rows at most); ``config.max_memory`` bounds it. Documents that are used as queries count as
    queries. Additive codes need a table of all training queries and codewords, 1 GiB at most.

    Args:
        index: see :func:`faiss_distill.distill`, as for all arguments.
        embeddings: the vectors behind the index, ``(n, d)``; a sample of them if codes are frozen; None if the index
            holds them.
        queries: training queries ``(nq, d)``, or None.
        ids: id of each embedding, or None if row ``i`` belongs to id ``i``.
        relevant: relevant ids of ``queries``.
        validation_queries: queries that choose and judge; held out of ``queries`` if None.
        validation_relevant: relevant ids of ``validation_queries``.
        query_encoder: a module that is trained along, in place.
        query_inputs: what it takes, one for each of ``queries``.
        validation_query_inputs: one for each of ``validation_queries``.
        invlists_file: where new inverted lists go.
        inplace: whether :meth:`train` changes the index and the encoder themselves, or copies that it makes.
        config: the options, or the path of a TOML file of them.
        teacher: what finds the training queries' neighbours.
        gate: what decides whether the result is kept.
        group: the processes that share the work.
        workdir: a folder for what each stage has found.
        resume: whether to go on with what a killed run has left there.
        on_epoch: called after each epoch.
        parameters: centroids and codebooks to start from, in place of the index's own.
        exact: the class of the exact teacher, or what makes one of the same arguments.
        column: of a dataset, the one whose index is meant.

    Attributes:
        config: the options, with those settled that the index leaves no choice in.
        task: what was passed, opened and lined up with the index.
        training_queries: those that are trained on.
        validation_queries: others, which choose the epoch and judge.
        exact: exact search.
        query_encoder: as passed; with ``inplace=False`` a copy, which training makes anew.
        world: the processes that share the work.

    Raises:
        UnsupportedIndexError: the index can't be tuned.
        InputError: something else about the arguments is wrong.
    """

    def __init__(
        self,
        index: FaissIndex | PathLike,
        embeddings: VectorsLike | None = None,
        queries: VectorsLike | None = None,
        *,
        ids: IdsLike | None = None,
        relevant: LabelsLike | None = None,
        validation_queries: VectorsLike | None = None,
        validation_relevant: LabelsLike | None = None,
        query_encoder: nn.Module | None = None,
        query_inputs: QueryInputsLike | None = None,
        validation_query_inputs: QueryInputsLike | None = None,
        invlists_file: PathLike | None = None,
        inplace: bool = True,
        config: DistillConfig | PathLike | None = None,
        teacher: TeacherLike | None = None,
        gate: Gate | None = None,
        group: ProcessGroup | None = None,
        workdir: PathLike | None = None,
        resume: bool = False,
        on_epoch: Callable[[dict[str, float | None]], object] | None = None,
        parameters: TunedParameters | None = None,
        exact: Callable[..., Teacher] = Teacher,
        column: str | None = None,
    ) -> None:
        """Check everything, load the queries and split them."""
        self.config = config = as_config(config)
        self.world = world = open_world(group)
        if not world.main:
            config = replace(config, progress=False)
        self._gate = gate or Gate()
        self._stages = Stages()
        rng = np.random.default_rng(config.seed)
        with self._stages("check", TENFOLD), world.together():
            if on_epoch is not None and not callable(on_epoch):
                raise InputError("on_epoch", "something to call with a dict after each epoch", repr(on_epoch))
            self._on_epoch = on_epoch
            self._device = _device(config.device)
            self._file = str(index) if isinstance(index, str | Path) else None
            given_as = stores.opened(
                index, column, embeddings, queries, ids, validation_queries, progress=config.progress
            )
            index, queries, validation_queries = as_index(given_as.index), given_as.queries, given_as.validation_queries
            self._store = given_as.store
            if config.nprobe is None and given_as.nprobe is not None:
                config = replace(config, nprobe=given_as.nprobe)
            with given_as.explained():
                adapter = open_index(index)
            self._index: Any = index
            self._inplace = inplace
            self.config = config = settle(config, adapter)
            self._invlists_file = invlists_file
            self._lists_file = self._new_lists_file(adapter)
            sets = 1 + (validation_queries is not None or validation_query_inputs is not None)
            self._columns = columns_folder(adapter, sets * max(config.max_queries, config.fill_to), config, workdir)
        with self._stages("check", TENFOLD), world.together(), mapped_in(self._columns), given_as.explained():
            self.task = task = open_task(
                adapter, given_as.embeddings, given_as.ids, partial=self._frozen, queries=queries
            )
            check_depths(config, task)
            self._passed = parameters
            start = self._start
            self.query_source = "documents" if queries is None and query_inputs is None else "queries"
            if isinstance(query_encoder, nn.Module):
                query_encoder = query_encoder if inplace else copy.deepcopy(query_encoder)
                query_encoder.to(self._device)
            self.query_encoder = self._encoder = query_encoder
            self._encoded_alone = query_inputs is not None  # queries themselves are the teacher's
            if queries is not None and sets == 1:  # told before all embeddings are read
                check_number(open_queries(adapter, queries, "queries", config.block_rows, WITHOUT).n, "queries")
            task.corpus.check_finite(config.block_rows, config.progress, world.share(task.corpus.n))
            neighbours, self._fuller_index = open_teacher(teacher, adapter.index.d)
            splitter = Splitter(task, config, rng, query_encoder, self._device)
            self.training_queries, self.validation_queries, self._compared = splitter.split(
                Given(queries, relevant, query_inputs, neighbours),
                Given(validation_queries, validation_relevant, validation_query_inputs),
            )
            self._warn_of_documents()
            n_queries = len(self.training_queries.vectors) + len(self.validation_queries.vectors)
            check_memory(adapter, n_queries, config)
            task.check(self.training_queries.asked, rng, tunes=True)
        self._folder = workdir
        with self._stages("check", TENFOLD):
            self._given: dict[str, Any] = {}
            if world.size > 1 or workdir is not None:  # nobody else asks
                self._given = given(
                    task, start, config, self.training_queries, self.validation_queries, self._fuller_index,
                    query_encoder,
                )  # fmt: skip
            world.check_same(self._given)
            with world.together(), open_workdir(workdir, world) as found:
                if found.keeps:
                    self._given |= {"embeddings": digest_of_all(task.corpus, config.block_rows)}
                found.begin(self._given, flag("resume", resume))
        self.exact = exact(adapter.metric, adapter.normalizes, config.block_rows, config.device, config.progress, world)
        self._nprobe = config.nprobe or adapter.nprobe

    def train(self) -> DistillReport:
        """Tune the index, or a copy, and the query encoder with it, if that makes search better.

        An exception leaves both as they were. So does what a signal handler raises, save in the last moment: raised
        when both are committed already, it leaves both tuned.

        Returns:
            What was found before and after, whether the result was kept, and why.

        Raises:
            InputError: the index was changed since the trainer was made.
        """
        if self.config.nprobe is None and self._nprobe == 1 < self.task.adapter.nlist and self.world.main:
            logger.warning("judged at nprobe 1, faiss's default: set the one that you search with, or pass nprobe=")
        if not self._inplace:
            self.task = replace(self.task, adapter=open_index(copy_of(self._index)))
            self.query_encoder = copy.deepcopy(self._encoder)
        with ExitStack() as stack:
            stack.enter_context(mapped_in(self._columns))
            with self.world.together():
                self._check_unchanged()
                self._lists_file = self._new_lists_file(self.task.adapter)
                workdir = stack.enter_context(open_workdir(self._folder, self.world))
                if workdir.keeps:  # once tuned, it is another index
                    workdir.begin(self._given | {"index": digest(*vars(self.task.state).values())}, resume=True)
            stack.enter_context(enough_memory(self.config.device))
            with Transaction([] if self.query_encoder is None else [Weights(self.query_encoder)]) as change:
                learned = change.interruptibly(partial(self._learn, workdir))
                if learned is None:
                    return change.interruptibly(self._told)
                report = self._write_back(learned, change)
        if report.kept and self._lists_file is not None and self._lists_file.exists():
            logger.info("the inverted lists are in %s: write the index, which refers to it", self._lists_file)
        logger.info("%s: %s", "kept" if report.kept else "not kept", report.reason)
        return report

    def _learn(self, workdir: Workdir = NOWHERE) -> _Learned | None:
        """Everything up to the change of the index; None where that is for another process to do."""
        config, task, world = self.config, self.task, self.world
        with self._stages("teacher", TENFOLD):
            taught = workdir.stage("teacher", self._teach)
            known = {name: array.numpy() for name, array in taught.arrays.items()}
            train = task.lined_up(self.training_queries, known["top"], known["scores"])
            held_out = task.lined_up(self.validation_queries, known["held_out_top"], known["held_out_scores"])
        # No query both chooses the epoch and judges the result.
        n_selection = min(len(held_out.top) // 4, MAX_SELECTION)
        judges = held_out.take(slice(n_selection, None))
        with self._stages("judging", TENFOLD):
            # A query encoder may have learned before: what it makes of the queries counts too, and where it has inputs
            # of its own nothing else does, as searches will have no more than these.
            encoders = [self.query_encoder] if self._encoded_alone else dict.fromkeys((None, self.query_encoder))
            asked = [task.query_set(judges, encoder, self._device) for encoder in encoders]
            before = None
            if world.main:
                found = [self._measure(queries, task.sample) for queries in asked]
                before = max(found, key=lambda evaluation: evaluation.own.overlap_at_10)
        temperature = config.temperature or calibrate_temperature(
            train.scores[:1000, : config.top_k], config.perplexity
        )
        temperature = world.agreed(temperature)
        with self._stages("training"):
            documents = Documents(
                task.corpus,
                task.adapter.transforms,
                task.sample,
                train,
                self._nprobe,
                config,
                self._device,
                self._stages,
                world,
            )
            mine = partial(mined, task, documents, train, config.mixture.depth("hard"), self._nprobe)
            objective = Objective(documents, train, self.exact, temperature, config, mine)
            selection = Selection(documents, held_out.take(slice(0, n_selection)), self._nprobe)
            # Dropout in a query encoder draws on torch's own generator.
            devices = [self._device] if self._device.type == "cuda" else []
            with torch.enable_grad(), torch.random.fork_rng(devices):
                torch.manual_seed((config.seed + world.rank) % (MAX_SEED + 1))
                learned = optimise(
                    self._start, self.query_encoder, documents, objective, selection, len(train.top), config,
                    self._gate.start_counts, workdir, task.sample, self._on_epoch,
                )  # fmt: skip
        with self._stages("codes", TENFOLD):
            quantizer, sample = written(task, documents, learned.student, learned.placement)
        if before is None:
            return None
        with self._stages("commit", TENFOLD):
            state = sample
            if sample.n < task.state.n:
                state = replace(
                    task.state, centroids=sample.centroids, codebooks=sample.codebooks, router=sample.router
                )
            words = task.adapter.words(state, None if self._passed is None else self._passed.norms)
            change = task.adapter.write(state, quantizer, not self._frozen, words, self._lists_file)
        return _Learned(
            state, sample, change, task.query_set(judges, learned.student.query_encoder, self._device), before, train,
            taught.facts, documents.compiled, n_selection, temperature, learned.history, learned.best_epoch,
        )  # fmt: skip

    def _teach(self) -> Stored:
        """What the teacher finds for the training queries, and exact search for those held out."""
        config, task, training = self.config, self.task, self.training_queries
        rng = np.random.default_rng(config.seed)
        teacher = teacher_of(task, training, self._fuller_index, self.exact, config.depth, rng)
        train = task.taught(training, teacher, config.depth)
        held_out = task.taught(self.validation_queries, self.exact, config.top_k)
        found = {"top": train.top, "scores": train.scores}
        found |= {"held_out_top": held_out.top, "held_out_scores": held_out.scores}
        return Stored(
            {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in found.items()},
            {
                "teacher": teacher.kind,
                "teacher_lists": teacher.probed if isinstance(teacher, ListTeacher) else None,
                "teacher_cost": teacher.cost,
                "teacher_agreement": teacher.agreement,
            },
        )

    def _write_back(self, learned: _Learned, change: Transaction) -> DistillReport:
        """Put what was learned into the index, as part of ``change``, and commit that if search is better."""
        with self._stages("commit", TENFOLD):
            change.join(learned.change)
        with self._stages("judging", TENFOLD):
            after = change.interruptibly(lambda: self._measure(learned.queries, learned.sample))
        report = change.interruptibly(lambda: self._report(learned, after))
        change.interruptibly(
            lambda: self.world.agreed(
                replace(report, index=None, query_encoder=None, parameters=None)  # type: ignore[arg-type]
            )
        )
        if report.kept:
            change.commit()
            if self._inplace:
                self.task = replace(self.task, state=learned.state)
        return report

    def _told(self) -> DistillReport:
        """The outcome in the first process, whose index alone is changed."""
        report: DistillReport | None = self.world.agreed(None)
        assert report is not None
        return replace(report, index=self._index)

    def _report(self, learned: _Learned, after: Evaluation) -> DistillReport:
        """The outcome, if the index stays as it is; judged here."""
        kept, reason, gain, interval = self._gate.judge(
            learned.before,
            after,
            self.config,
            self.query_encoder is not None,
            "queries" if self._judged_by == "queries" else "documents used as queries",
        )
        learns = self._passed is None
        if kept and learns and not learned.best_epoch and self.config.encoding is not Encoding.FROZEN:
            new = "codes are" if self.config.lists is Assignment.FIXED else "lists and codes are"
            why = "training did not help" if self.config.epochs else "nothing was trained, as epochs=0 asks"
            reason += f"; {why}: only the {new} new"
        train = learned.train
        until = "; it searches the index as it was until you put report.index there"
        return DistillReport(
            kept=kept,
            reason=reason,
            index=self.task.adapter.index if kept else self._index,
            description=self.task.adapter.description,
            metric=self.task.adapter.metric.value,
            n=self.task.state.n,
            n_embeddings=self.task.sample.n,
            query_source=self.query_source,
            judged_by=self._judged_by,
            compared=self._compared,
            n_train=len(train.top),
            n_stand_ins=0 if train.queries.rows is None else int((train.queries.rows >= 0).sum()),
            n_selection=learned.n_selection,
            n_validation=len(learned.queries.truth),
            before=learned.before,
            after=after,
            gain=gain,
            interval=interval,
            temperature=learned.temperature,
            **learned.teacher,
            history=learned.history,
            best_epoch=learned.best_epoch,
            query_encoder=self.query_encoder if kept else None,
            applied=self._passed is not None,
            router_bytes=self._router_bytes(learned.state),
            parameters=self._parameters(learned.state) if kept else None,
            compiled=learned.compiled,
            seconds=_with_total(self._stages.seconds),
            seconds_tenfold=_with_total(self._stages.tenfold),
            config=self.config,
            versions=versions(),
            read_from=self._file,
            store=None if self._store is None else self._store.found + (until if kept and not self._inplace else ""),
            held_out=self.validation_queries.origin[learned.n_selection :],
            list_sizes=self._list_sizes(learned.state),
        )

    @property
    def _judged_by(self) -> str:
        """What the validation queries are: real ones, unless documents had to be used."""
        return "queries" if self.validation_queries.rows is None else "documents"

    def _warn_of_documents(self) -> None:
        """Say that what is trained on is unlike what is asked, if nothing else is there to train on."""
        alone = self.query_source == "documents"
        if alone and self._compared is not None and self._compared.unlike and self.world.main:
            logger.warning("%s: pass queries= to train on them", self._compared)

    def _list_sizes(self, new: IndexState) -> tuple[Int64, Int64]:
        """How many vectors each list holds, before and after."""
        nlist = self.task.adapter.nlist
        before, after = (np.bincount(state.assignment, minlength=nlist) for state in (self.task.state, new))
        return before, after

    def _router_bytes(self, new: IndexState) -> int:
        """What the index grows by if it is given a router, or each of its parts is."""
        if new.router is None or self.task.state.router is not None:
            return 0
        return new.router.nbytes * len(self.task.adapter.cores)

    @property
    def _start(self) -> IndexState:
        """What training starts from: the index as it is or with parameters that were passed, and a router if asked."""
        start = self.task.sample if self._passed is None else self._passed.put_into(self.task)
        return replace(start, router=start.centroids) if self.config.router and start.router is None else start

    def _parameters(self, state: IndexState) -> TunedParameters | None:
        """What was learned, for other indexes; not without the query encoder that was trained along."""
        if self.query_encoder is not None:
            return None
        adapter, passed = self.task.adapter, self._passed
        return TunedParameters(
            state.centroids, state.codebooks, self.training_queries.real, self.validation_queries.real, self.config,
            fits(adapter, self.task.state), state.router, adapter.norms(state) if passed is None else passed.norms,
        )  # fmt: skip

    def _measure(self, queries: QuerySet, sample: IndexState) -> Evaluation:
        """What the index finds now, among those of its vectors that are in ``sample``."""
        nprobes = {*NPROBES, max(1, self._nprobe // 2)}
        whole = measure(self.task.adapter, queries, self._nprobe, nprobes)
        if sample.n == self.task.state.n:
            return whole
        with self.task.adapter.restrict(sample) as part:
            among = part.interruptibly(lambda: measure(self.task.adapter, queries, self._nprobe, nprobes))
        return among.at_the_cost_of(whole)

    @property
    def _frozen(self) -> bool:
        """Whether stored codes stay."""
        return self.config.encoding is Encoding.FROZEN

    def _new_lists_file(self, adapter: IndexAdapter) -> Path | None:
        return new_lists_file(adapter, self._invlists_file, self._frozen)

    def _check_unchanged(self) -> None:
        """Refuse an index that is not the one that was checked: its lists would be overwritten with stale ones."""
        now = self.task.adapter.extract()
        same = [np.array_equal(getattr(now, name), value) for name, value in vars(self.task.state).items()]
        if not all(same):
            raise InputError(
                "index", "the index as it was when the trainer was made", "a changed one", "make a new trainer"
            )


def _with_total(seconds: dict[str, float]) -> dict[str, float]:
    return {**seconds, "total": sum(seconds.values())}


def _device(name: str) -> torch.device:
    """A device that torch can compute on."""
    try:
        (torch.ones(1, device=name) + 1).item()
    except Exception as error:  # each backend has its own way to be missing
        reason = str(error).partition("\n")[0]
        hint = ""
        if reason.startswith("Expected one of "):  # all of torch's
            reason = "no device of torch; 'cpu' and 'cuda' are the usual ones"
        elif name.startswith("cuda") and not torch.cuda.is_available():
            hint = "leave it out to use the CPU, or install a torch with CUDA on a machine with a GPU"
        raise InputError("device", "one that torch can use", f"{name!r}: {reason}", hint) from error
    return torch.device(name)
