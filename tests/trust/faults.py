"""Faults at every point of a write-back, each in a process of its own that is forked for it.

Run by ``test_interrupts.py``, as ``python faults.py PLACE STEP CASE...``; prints one line of JSON a case.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np
import torch

from faiss_distill import DistillConfig, DistillTrainer
from faiss_distill.data import query_encoders
from faiss_distill.data.query_encoders import LinearAdapter
from faiss_distill.index.parts import coarse_quantizers, codebooks, interrupts, norms, transaction, write_back
from faiss_distill.index.registry import FAMILIES, open_index
from faiss_distill.tuning import trainer
from faiss_distill.tuning.gate import Gate, Verdict

D, N = 16, 400
MODULES = (
    interrupts,
    transaction,
    write_back,
    coarse_quantizers,
    codebooks,
    norms,
    query_encoders,
    trainer,
    contextlib,
    signal,
)
TRACED = {module.__file__ for module in MODULES} | {__file__}
OUTCOMES = ("before", "after", "half", "past the end")
ROUNDS = 2
BROKEN = 100
"""Exit status of a process that found what must not be, and says so on its standard error."""


class TimeLimitError(Exception):
    """What the handler of a signal raises, as a task queue's soft time limit does."""


@dataclass(frozen=True)
class Decided(Gate):
    """Decides the same whatever was found."""

    kept: bool = True

    def judge(self, *_: object) -> Verdict:
        return Verdict(self.kept, "", 0.0, (0.0, 0.0))


def small(example: str) -> str:
    """A factory string of the registry, for 400 vectors of 16 dimensions."""
    for large, less in (
        ("IVF4096", "IVF8"),
        ("OPQ16", "OPQ4"),
        ("PQ32x4", "PQ8x4"),
        ("x4x8", "x2x4"),
        ("4x4x8", "2x2x4"),
        ("RQ32x4fs", "RQ4x4fs"),
        ("LSQ32x4fs", "LSQ4x4fs"),
        ("Q8x4x4fs", "Q2x2x4fs"),
    ):
        example = example.replace(large, less)
    example = re.sub(r"(RQ|LSQ)[\dx]+x4fsr?$", r"\g<0>_Nrq2x4", example)  # norms, for L2
    return re.sub(r"PQ16np$", "PQ4x4np", re.sub(r"Q(4x2x4)$", "Q2x2x4", example.replace("Q16x8", "Q2x4")))


FACTORIES = {
    **{kind.__name__: small(family.example) for kind, family in FAMILIES.items() if family.example},
    "a graph of centroids, containers": "IDMap2,OPQ4,IVF8_HNSW8,PQ4x4np,RFlat",
    "quantized centroids, norms": "IVF8(SQ8),RQ2x4_Nqint8",
    "a direct map": "IVF8,PQ4x4np",
    "lists of the caller's": "IVF8,PQ4x4np",
    "lists on disk": "IVF8,PQ4x4np",
    "IndexShards": "IVF8,PQ4x4np",
    "IndexReplicas": "IVF8,PQ4x4np",
}


class Case:
    """An index that is about to be changed."""

    def __init__(self, name: str, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.name, self.folder = name, folder
        self.x = rng.standard_normal((N, D)).astype(np.float32)
        self.queries = rng.standard_normal((300, D)).astype(np.float32)
        self.index, self.kept_alive = self._build(), []
        if name in {kind.__name__ for kind in FAMILIES}:
            assert type(open_index(self.index).core).__name__ == name
        if name == "a direct map":
            self.index.set_direct_map_type(2)
        if name == "lists of the caller's":
            lists = faiss.ArrayInvertedLists(self.index.nlist, self.index.code_size)
            lists.merge_from(self.index.invlists, 0)
            self.index.replace_invlists(lists, False)
            self.kept_alive.append(lists)
        if name == "lists on disk":
            lists = faiss.OnDiskInvertedLists(self.index.nlist, self.index.code_size, str(folder / "lists"))
            lists.merge_from_1(self.index.invlists)
            lists.prefetch_nthread = 0  # its threads don't live on in a forked process, where it would wait for them
            lists.this.disown()
            self.index.replace_invlists(lists, True)

    def _build(self):
        factory = FACTORIES[self.name]
        index = faiss.index_factory(D, factory, faiss.METRIC_L2)
        index.train(self.x)
        if self.name not in ("IndexShards", "IndexReplicas"):
            self.parts = [index]
            return self._filled(index, self.x, np.arange(N))
        replicas = self.name == "IndexReplicas"
        whole = faiss.IndexReplicas(D, False) if replicas else faiss.IndexShards(D, False, False)
        self.parts = [faiss.clone_index(index) for _ in range(2)]
        for i, part in enumerate(self.parts):
            rows = np.arange(N) if replicas else np.arange(i, N, 2)
            (whole.addIndex if replicas else whole.add_shard)(self._filled(part, self.x[rows], rows))
        whole.syncWithSubIndexes()
        return whole

    @staticmethod
    def _filled(index, x, ids):
        if isinstance(index, faiss.IndexIDMap | faiss.IndexIVF):
            index.add_with_ids(x, ids)
        else:
            index.add(x)
        return index

    @property
    def file(self) -> Path:
        """Where new lists go, if the old ones are on disk."""
        return self.folder / "lists.tuned"

    def content(self) -> bytes:
        """All that the index is."""
        return b"".join(faiss.serialize_index(part).tobytes() for part in self.parts)

    def use(self) -> None:
        """What a user goes on to do, to the end."""
        assert self.index.search(self.queries[:20], 3)[1].max() < N
        for part in self.parts:
            self._filled(part, self.x[:20], np.arange(N, N + 20))
            with contextlib.suppress(RuntimeError):  # where faiss can't
                part.remove_ids(np.arange(50))
            part.search(self.queries[:20], 3)
        self.index, part = None, None
        self.parts.clear()
        gc.collect()


class WriteBack:
    """A change of an index, judged and committed, or left to be undone."""

    def __init__(self, case: Case, commit: bool) -> None:
        adapter = open_index(case.index)
        rng, state = np.random.default_rng(1), adapter.extract()
        jitter = lambda x: (x + 0.1 * x.std() * rng.standard_normal(x.shape)).astype(np.float32)  # noqa: E731
        quantizer, centroids = adapter.quantizer_with(jitter(state.centroids))
        new = replace(state, centroids=centroids, assignment=rng.integers(0, adapter.nlist, state.n))
        if state.codebooks is not None:
            codes = rng.integers(0, state.codebooks.shape[-2], state.codes.shape).astype(state.codes.dtype)
            new = replace(new, codebooks=jitter(state.codebooks), codes=codes)
        else:
            encode = adapter.encoder(quantizer)
            vectors = adapter.decode(state, np.arange(state.n))
            new = new if encode is None else replace(new, codes=encode(vectors, new.assignment))
        self.search, self.commit = lambda: case.index.search(case.queries, 3), commit
        self.change = adapter.write(new, quantizer, file=case.file if case.name == "lists on disk" else None)

    def run(self) -> None:
        with self.change as change:
            change.interruptibly(self.search)
            if self.commit:
                change.commit()

    def content(self) -> bytes:
        return b""


class Tuning:
    """The end of a tuning with a query encoder: what training made is written back, judged and committed."""

    def __init__(self, case: Case, commit: bool) -> None:
        self.encoder, config = LinearAdapter(D), DistillConfig(
            epochs=1, top_k=10, candidates="in_batch + top10:5", progress=False, fill_to=0, local_queries=0,
            perplexity=5.0,
        )  # fmt: skip
        self.trainer = DistillTrainer(
            case.index, case.x, case.queries, query_encoder=self.encoder, query_inputs=case.queries, config=config,
            invlists_file=case.file if case.name == "lists on disk" else None, gate=Decided(kept=commit),
        )  # fmt: skip
        old = {name: value.clone() for name, value in self.encoder.state_dict().items()}
        learned = self.trainer._learn()
        trained = {name: value.clone() for name, value in self.encoder.state_dict().items()}
        self.encoder.load_state_dict(old)
        self.trainer._learn = lambda workdir: (self.encoder.load_state_dict(trained), learned)[1]

    def run(self) -> None:
        self.trainer.train()

    def content(self) -> bytes:
        return torch.cat([value.ravel() for value in self.encoder.state_dict().values()]).numpy().tobytes()


class Tracer:
    """Calls ``fault`` the ``number``-th time that the interpreter enters, leaves, or comes to a line of what is traced.

    Of the times that it comes to the same line, as in a loop, the first ``ROUNDS`` count.
    """

    def __init__(self, number: int, fault) -> None:
        self.left, self.fault = number, fault
        self.met: Counter[tuple[object, ...]] = Counter()

    def __call__(self, frame, event, arg):
        code = frame.f_code
        if code.co_filename not in TRACED or (code.co_filename == signal.__file__ and code.co_name != "signal"):
            return None
        self.met[code, event, frame.f_lineno] += 1
        self.left -= self.met[code, event, frame.f_lineno] <= ROUNDS
        if self.left == 0:
            self.left -= 1
            sys.settrace(None)
            self.fault()
        return self


def throw() -> None:
    raise TimeLimitError


class Faults:
    """What becomes of an index when its change meets a fault."""

    def __init__(self, case: Case, change) -> None:
        self.case, self.change = case, change
        self.came: list[int] = []
        self.before = self._content()
        with tempfile.TemporaryFile() as file:  # what there is after a change that meets none
            if os.fork() == 0:
                change.run()
                file.write(self._content())
                file.flush()
                os._exit(0)
            assert os.wait()[1] == 0
            file.seek(0)
            self.after = file.read()
        case.file.unlink(missing_ok=True)
        gc.collect()
        gc.freeze()  # or a collection in each process would copy all that it shares with this one

    def _content(self) -> bytes:
        return self.case.content() + self.change.content()

    def _handle(self, number, frame) -> None:
        self.came.append(number)
        raise TimeLimitError

    def _run(self, tracer: Tracer) -> None:
        try:
            sys.settrace(tracer)
            self.change.run()
        except TimeLimitError:
            pass
        finally:
            sys.settrace(None)

    def tried(self, place: str, number: int) -> str:
        """The outcome with one fault, in a process of its own."""
        lists = self.case.folder / "lists"
        content = lists.read_bytes() if lists.exists() else b""
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(OUTCOMES.index(getattr(self, place)(number)))
            except BaseException as error:
                print(f"{self.case.name}, {place} {number}: {error!r}", file=sys.stderr, flush=True)  # noqa: T201
                os._exit(BROKEN)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if content:
            lists.write_bytes(content)
        self.case.file.unlink(missing_ok=True)
        return OUTCOMES[status] if 0 <= status < len(OUTCOMES) else f"broken: {status}"

    def signal(self, number: int) -> str:
        """A signal at one point of the main thread, with a handler that raises."""
        signal.signal(signal.SIGUSR1, self._handle)
        tracer = Tracer(number, lambda: signal.raise_signal(signal.SIGUSR1))
        self._run(tracer)
        if tracer.left > 0:
            return "past the end"
        assert len(self.came) == 1, "the signal was lost"
        assert signal.getsignal(signal.SIGUSR1) == self._handle, "the handler was"
        return self._outcome()

    def storm(self, number: int) -> str:
        """Signals from a timer that begin at some moment, and follow each other closely."""
        run = type(self.change).run.__code__

        def handle(number, frame):
            self.came.append(number)
            inside = any(called.f_code is run for called, _ in traceback.walk_stack(None))
            if len(self.came) < 10 and inside:  # not in this test's own code
                raise TimeLimitError

        signal.signal(signal.SIGALRM, handle)
        rng = np.random.default_rng(number)
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 2e-2), rng.uniform(1e-3, 4e-3))
        with contextlib.suppress(TimeLimitError):
            self.change.run()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return self._outcome()

    def thread(self, number: int) -> str:
        """An exception thrown into another thread, which nothing can hold back."""
        tracer = Tracer(number, throw)

        thread = threading.Thread(target=self._run, args=(tracer,))
        thread.start()
        thread.join()
        return "past the end" if tracer.left > 0 else self._outcome(half=True)

    def _outcome(self, half: bool = False) -> str:
        """Which state the index is in, once all of the change is gone and the index was used and freed."""
        self.change.change = self.change.trainer = None
        gc.collect()
        content, made = self._content(), self.case.file.exists()
        outcome = {self.after: "after", self.before: "before"}.get(content, "half")
        assert half or outcome != "half", "neither as before nor as after"
        assert half or made == (outcome == "after" and b"lists.tuned" in content), "the file of the lists"
        self.case.use()
        return outcome


def main(place: str, change: str, step: int, names: list[str]) -> None:
    """Print what became of the faults of one kind, at each ``step``-th point, or ``step`` of them in a storm."""
    for name in names:
        for commit in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                case = Case(name, Path(folder))
                faults = Faults(case, (WriteBack if change == "write-back" else Tuning)(case, commit))
                found: Counter[str] = Counter()
                # Without a commit there is less to go wrong.
                numbers = range(step) if place == "storm" else range(1, 10**6, step if commit else 4 * step)
                for number in numbers:
                    outcome = faults.tried(place, number)
                    if outcome == "past the end":
                        break
                    found[outcome] += 1
                print(json.dumps({"case": name, "commit": commit, **found}), flush=True)  # noqa: T201


if __name__ == "__main__":
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:] or list(FACTORIES))
