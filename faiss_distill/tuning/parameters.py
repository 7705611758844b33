"""What a tuning has learned, apart from the index: kept in a file, and put into other indexes of the same training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from faiss_distill.checks import flag
from faiss_distill.config import DistillConfig, Usual
from faiss_distill.data.formats.files import check_file
from faiss_distill.errors import InputError
from faiss_distill.index.registry import IndexAdapter
from faiss_distill.state import Float32, IndexState
from faiss_distill.tuning.gate import Gate
from faiss_distill.tuning.given import digest
from faiss_distill.tuning.task import Task
from faiss_distill.workdir import write_arrays

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from faiss_distill.tuning.drift import Drift
    from faiss_distill.tuning.report import DistillReport
    from faiss_distill.typing import FaissIndex, IdsLike, PathLike, TeacherLike, VectorsLike

FORMAT = 1
"""Of the file; another one is refused."""
ARRAYS = ("centroids", "codebooks", "queries", "validation_queries", "router", "norms")


@dataclass(frozen=True, eq=False)
class TunedParameters:
    """Learned centroids, router and codebooks, and the queries that lists and codes are chosen for.

    A corpus in shards that one machine can't hold is tuned on a sample: an index of the same training that holds some
    of the vectors. :meth:`apply` then puts what was learned into each shard, with lists and codes of its vectors chosen
    anew for these queries.

    Attributes:
        centroids: float32 ``(nlist, d)``.
        codebooks: float32 ``(nsplits, steps, ksub, dsub)``, or None for an index without any.
        queries: those trained on, as they were passed, float32 ``(nq, d_in)``; None where documents were used.
        validation_queries: those that chose and judged, float32 ``(nv, d_in)``, or None likewise.
        config: the options of the tuning.
        fits: what an index must be like, by name.
        router: what lists are found by, float32 ``(nlist, d)``; None where that is the centroids.
        norms: how additive codes round the norms that they store, float32: the ends, the values and the terms of
            these; None where none are stored.
    """

    centroids: Float32
    codebooks: Float32 | None
    queries: Float32 | None
    validation_queries: Float32 | None
    config: DistillConfig
    fits: Mapping[str, Any]
    router: Float32 | None = None
    norms: Float32 | None = None

    def apply(
        self,
        index: FaissIndex,
        embeddings: VectorsLike | None = None,
        *,
        ids: IdsLike | None = None,
        teacher: TeacherLike | None = None,
        invlists_file: PathLike | None = None,
        inplace: bool = True,
        keep: bool = False,
        group: ProcessGroup | None = None,
        workdir: PathLike | None = None,
        resume: bool = False,
        **options: Any,
    ) -> DistillReport:
        """Put them into an index of the same training, and choose lists and codes of its vectors for the queries.

        Nothing is learned, so that this takes the time of the teacher and of one pass over the vectors. As with
        :func:`faiss_distill.distill`, the result is judged by the validation queries, among the vectors of this index,
        and kept if it is better.

        Args:
            index: trained as the one that was tuned: a copy of it before anything was added, say, filled with others.
            embeddings: see :func:`faiss_distill.distill`, as for the other arguments.
            ids: id of each embedding.
            teacher: the queries' nearest documents in this index, if they are known.
            invlists_file: where new inverted lists go.
            inplace: whether the index itself or a copy is changed.
            keep: keep the result even where it is not better. faiss merges shards only if all have the same
                parameters.
            group: processes that share the work.
            workdir: a folder for what each stage has found.
            resume: whether to go on with what is there.
            **options: single options over ``config``, such as ``nprobe`` or ``device``.

        Returns:
            The report, see :class:`faiss_distill.DistillReport`.

        Raises:
            UnsupportedIndexError: the index can't be tuned.
            InputError: it is not of the same training, or something else about the arguments is wrong.
        """
        from faiss_distill.tuning.trainer import DistillTrainer  # which makes these

        trainer = DistillTrainer(
            index,
            embeddings,
            self.queries,
            ids=ids,
            validation_queries=self.validation_queries,
            teacher=teacher,
            invlists_file=invlists_file,
            inplace=inplace,
            group=group,
            workdir=workdir,
            resume=resume,
            config=self.options(**options),
            parameters=self,
            gate=Gate(decides=not flag("keep", keep)),
        )
        return trainer.train()

    def add(
        self,
        index: FaissIndex,
        embeddings: VectorsLike,
        *,
        ids: IdsLike | None = None,
        invlists_file: PathLike | None = None,
        **options: Any,
    ) -> DistillReport:
        """Add vectors that came later to an index that holds these parameters, in place of ``index.add``.

        Lists and codes of the new vectors are chosen for the queries of the log, among the new vectors alone; those of
        the vectors that the index holds stay as they are. If documents were used as queries, so are the new ones
        here. Nothing is judged: the result is kept as with :meth:`apply` and ``keep=True``, and the report says what
        was found among the new vectors, before (with codes from ``index.add``) and after. Where an exception is raised,
        the index is bitwise as it was. The more vectors come at once, the better their codes. Takes memory for a few
        copies of the index's codes and lists.

        Args:
            index: one that was tuned, or given these parameters by :meth:`apply`, and filled; also one that
                has grown since.
            embeddings: the new vectors, ``(n, d)`` in any of the forms of :func:`faiss_distill.distill`; more than
                100 of them, or than ``config.top_k`` if that is more.
            ids: id of each, integers ``(n,)``, none of them in the index; None to number them from ``ntotal`` on,
                as faiss does, and in any case for an index that takes no ids.
            invlists_file: where inverted lists go, new ones and old ones; see :func:`faiss_distill.distill`.
            **options: single options over ``config``, such as ``nprobe`` or ``device``.

        Returns:
            The report on the new vectors; its ``index`` is the index that was passed.

        Raises:
            UnsupportedIndexError: nothing can be added to such an index: one of shards or replicas, say.
            InputError: it does not hold these parameters, or something else about the arguments is wrong.
        """
        from faiss_distill.tuning.adding import add  # which applies these

        return add(self, index, embeddings, ids, invlists_file, options)

    def drift(
        self,
        index: FaissIndex,
        embeddings: VectorsLike | None = None,
        queries: VectorsLike | None = None,
        *,
        ids: IdsLike | None = None,
        new_ids: IdsLike | None = None,
        nprobe: int | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> Drift:
        """Whether another tuning is worth it, now that there are other queries, or more documents.

        The index is searched with the queries that judged the tuning and with the new ones, and compared with exact
        search. Another tuning is worth it if new queries find less than those, or new documents are found less often
        than old ones, beyond chance, and that costs .02 of the overlap@10. Nothing is tuned or changed. What is lost is
        no forecast of what another tuning gains, which is less; the gate of that tuning decides.

        Args:
            index: the tuned index, with whatever was added to it since.
            embeddings: the vectors behind it, all of them; see :func:`faiss_distill.distill`.
            queries: new ones, ``(nq, d)``, 50 or more; None if only documents are new.
            ids: id of each embedding.
            new_ids: ids of the documents that were added since the tuning, integers ``(m,)``; None if only queries are
                new.
            nprobe: lists to probe; by default what the tuning was judged at.
            seed: of the bootstrap.
            progress: show progress bars on a terminal and in a notebook.

        Returns:
            The verdict, see :class:`faiss_distill.Drift`; ``print`` it.

        Raises:
            UnsupportedIndexError: the index can't be tuned.
            InputError: documents were used as queries, so that there is nothing to compare with; the index is not of
                the same training; or something else about the arguments is wrong.
        """
        from faiss_distill.tuning.drift import drift  # which measures these

        return drift(self, index, embeddings, queries, ids, new_ids, nprobe, seed, progress)

    def options(self, **options: Any) -> DistillConfig:
        """The options of :meth:`apply`: those of the tuning, but for what only learning needs, and ``options``."""
        unused = {
            "batch_size": None,
            "max_memory": None,
            "candidates": DistillConfig.candidates,
            "loss": DistillConfig.loss,
        }
        return replace(self.config, **{**unused, "epochs": 0, **options})

    def save(self, path: PathLike) -> None:
        """Write them to a file of safetensors.

        Raises:
            OSError: it can't be written; what was at ``path`` is still there.
        """
        arrays = {name: getattr(self, name) for name in ARRAYS}
        given = {k: v for k, v in asdict(self.config).items() if not isinstance(v, Usual)}
        options = {k: getattr(v, "value", v) for k, v in given.items()}
        facts = {"format": FORMAT, "config": options, "fits": dict(self.fits)}
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items() if v is not None}
        write_arrays(Path(path), tensors, {"faiss_distill": json.dumps(facts)})

    @classmethod
    def load(cls, path: PathLike) -> TunedParameters:
        """Read a file that :meth:`save` has written.

        Raises:
            InputError: no such file, or another.
        """
        path = Path(path)
        check_file(path, "parameters")
        try:
            with safe_open(path, framework="np") as file:
                facts = json.loads((file.metadata() or {})["faiss_distill"])
                arrays = {name: file.get_tensor(name) if name in file.keys() else None for name in ARRAYS}  # noqa: SIM118
            if facts["format"] != FORMAT:
                raise KeyError(f"format {facts['format']}")
            config, fit = DistillConfig(**facts["config"]), facts["fits"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError("parameters", "a file of TunedParameters.save", f"{str(path)!r}: {error}") from error
        centroids = arrays.pop("centroids")
        if centroids is None:
            raise InputError("parameters", "a file of TunedParameters.save", f"{str(path)!r} without centroids")
        return cls(centroids, config=config, fits=fit, **arrays)

    def put_into(self, task: Task) -> IndexState:
        """The state of the vectors of a task under these parameters, with the lists and codes that they have.

        Raises:
            InputError: its index is not of the same training.
        """
        self.check_fits(task.adapter, task.state)
        fixed = task.adapter.traits.fixed
        if fixed is not None and not np.array_equal(self.centroids, task.state.centroids):
            raise InputError("parameters", "the centroids of the index", "others", fixed)
        if self.router is not None and task.adapter.traits.no_router is not None:
            raise InputError("parameters", "those without a router", "those with one", task.adapter.traits.no_router)
        if self.router is None and task.adapter.traits.router:
            raise InputError("parameters", "those with a router, as the index has one", "those without")
        return replace(task.sample, centroids=self.centroids, codebooks=self.codebooks, router=self.router)

    def check_fits(self, adapter: IndexAdapter, state: IndexState) -> None:
        """Refuse an index that is not of the same training, as far as its shapes and transforms tell.

        Raises:
            InputError: it is not.
        """
        for name, value in fits(adapter, state).items():
            if self.fits.get(name) != value:
                shown = "others" if name == "transforms" else f"{name} {value}"
                raise InputError(
                    "parameters", f"those of an index with the {name} {_shown(self.fits.get(name))}", shown,
                    "they fit indexes of the same training alone",
                )  # fmt: skip

    def check_held(self, state: IndexState) -> None:
        """Refuse an index whose centroids or codebooks are not these.

        Raises:
            InputError: they are others.
        """
        for name in ("centroids", "codebooks", "router"):
            own, held = getattr(self, name), getattr(state, name)
            if (own is None) != (held is None) or (own is not None and not np.array_equal(own, held)):
                raise InputError(
                    "index", f"one that holds these parameters, {name} and all", f"other {name}",
                    "apply them to it first, with all of its embeddings",
                )  # fmt: skip


def fits(adapter: IndexAdapter, state: IndexState) -> dict[str, Any]:
    """What an index must be like to be given the parameters of another one, by name, as JSON has it."""
    rounding = None if adapter.codebooks is None else adapter.codebooks.norms(adapter.codebooks.copy())
    return {
        "metric": state.metric.value,
        "coarse metric": state.coarse_metric.value,
        "by_residual": state.by_residual,
        "centroids": list(state.centroids.shape),
        "codebooks": None if state.codebooks is None else list(state.codebooks.shape),
        "rounded norms": None if rounding is None else len(rounding),
        "transforms": digest(*(array for step in adapter.transforms.steps for array in step or ("normalize",))),
    }


def _shown(value: Any) -> str:
    return f"{value[:8]}..." if isinstance(value, str) and len(value) == 64 else str(value)
