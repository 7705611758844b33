"""The data of a table, and the indexes over it: built, tuned, measured."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.suite.cache import Arrays, Cache, digest, library_source
from benchmarks.suite.measure import FaissSearcher, Measured, Searcher, TestQueries, measure
from benchmarks.suite.results import Row
from benchmarks.suite.sets import SETTINGS, load
from faiss_distill import DistillTrainer, LinearAdapter
from faiss_distill.config import DistillConfig
from faiss_distill.data.vectors import Vectors
from faiss_distill.datasets import RetrievalData
from faiss_distill.learning.teacher import Teacher
from faiss_distill.losses import LOSSES
from faiss_distill.state import Float32, Int64
from faiss_distill.tuning.gate import Gate, Verdict

METRICS = {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
QUICK_DOCUMENTS, QUICK_QUERIES = 3_000, (2_000, 300, 500)


@dataclass(frozen=True)
class CachedTeacher(Teacher):
    """A teacher that remembers what it found.

    Attributes:
        cache: where.
    """

    cache: Cache = field(kw_only=True)

    def top_k(self, corpus: Vectors, queries: Float32, k: int, exclude: Int64 | None = None) -> tuple[Int64, Float32]:
        """See :class:`Teacher`."""

        def search() -> Arrays:
            ids, scores = super(CachedTeacher, self).top_k(corpus, queries, k, exclude)
            return {"ids": ids, "scores": scores}

        blocks = (digest(block) for _, block in corpus.blocks(self.block_rows))
        key = digest(self.metric.value, str(self.normalize), *blocks, queries, k, exclude, faiss.__version__)
        found = self.cache.get("teacher", key, search)
        return found["ids"], found["scores"]


class OpenGate(Gate):
    """Keeps everything, so that a table shows what a method does even where a user would be spared it.

    What a closed gate would have said is in the report's reason.
    """

    def judge(self, *arguments: Any, **options: Any) -> Verdict:
        """See :class:`Gate`."""
        return super().judge(*arguments, **options)._replace(kept=True)


def cut(data: RetrievalData, n_documents: int, n_queries: tuple[int, int, int]) -> RetrievalData:
    """The first ``n_queries`` of each split, and ``n_documents`` documents among which are those labelled relevant."""
    splits = (data.train, data.validation, data.test)
    chosen = np.concatenate(
        [np.arange(s.start, min(s.start + n, s.stop)) for s, n in zip(splits, n_queries, strict=True)]
    )
    labelled = np.unique(data.relevant[chosen])
    others = np.setdiff1d(np.arange(len(data.documents)), labelled)
    rows = np.sort(np.concatenate([labelled, others[: max(0, n_documents - len(labelled))]]))
    ends = np.cumsum([0, *(min(n, s.stop - s.start) for s, n in zip(splits, n_queries, strict=True))]).tolist()
    relevant = np.searchsorted(rows, data.relevant[chosen])
    return RetrievalData(
        data.documents[rows],
        data.queries[chosen],
        relevant,
        *(slice(*pair) for pair in pairwise(ends)),
    )


def needs_labels(config: DistillConfig) -> bool:
    """Whether a method learns from labels; no other gets to see them."""
    return LOSSES[config.loss].compares == "labels" or config.mixture.has("gt")


def tuned_key(
    start: NDArray[np.uint8],
    documents: str,
    train: Float32,
    labels: Int64 | None,
    validation: Float32,
    config: DistillConfig,
    adapter: bool,
    source: str,
) -> str:
    """Digest of all that the outcome of a tuning depends on.

    Args:
        start: the serialized index.
        documents: digest of the embeddings.
        train: training queries, float32 ``(nq, d)``.
        labels: rows of the documents relevant to them, int64 ``(nq,)``, or None.
        validation: held-out queries, float32 ``(nv, d)``.
        config: the options, with the seed.
        adapter: whether queries go through a linear adapter that learns.
        source: digest of the library.
    """
    versions = f"torch {torch.__version__}, faiss {faiss.__version__}"
    return digest(start, documents, train, labels, validation, repr(config), int(adapter), source, versions)


class Experiment:
    """What all rows of a table share.

    Args:
        directory: folder of the full set, or of one of :mod:`benchmarks.suite.sets`; None for the packaged sample.
        quick: a small part of the sample, one epoch, one seed: to see that everything runs.
        seeds: tunings of each method.
        cache: holds what was built, taught and tuned.

    Attributes:
        data: documents, queries, labels.
        name: of the data: a key of ``SETTINGS``.
        nlist: lists, unless a table varies them.
        nprobe: lists probed, unless a table varies them.
        bytes: of a code, unless a table varies them.
        metric: ``"ip"``, or ``"l2"`` in a variant.
        seeds: 0, 1, ...
    """

    def __init__(self, directory: Path | None, quick: bool, seeds: int, cache: Cache) -> None:
        """Load the data."""
        if quick and directory:
            raise ValueError("quick: expected without data, as it cuts the packaged sample")
        name, data = load(directory)
        self.name = "quick" if quick else name
        self.data = cut(data, QUICK_DOCUMENTS, QUICK_QUERIES) if quick else data
        self.nlist, self.nprobe, self.bytes = SETTINGS[self.name]
        self.metric = "ip"
        self.seeds = range(1 if quick else seeds)
        self.cache = cache
        # Now: the files may change while it runs. And threads, of which the timings depend.
        harness = Path(__file__).read_text(encoding="utf-8")
        self._source = digest(library_source(), harness, torch.get_num_threads(), faiss.omp_get_max_threads())

    def variant(self, data: RetrievalData | None = None, metric: str = "ip") -> Experiment:
        """The same experiment on other data, or with another metric."""
        other = copy.copy(self)
        for name in ("queries", "_documents_digest"):  # cached
            other.__dict__.pop(name, None)
        other.data, other.metric = data or self.data, metric
        return other

    @property
    def quick(self) -> bool:
        """Whether it is only about seeing that everything runs."""
        return self.name == "quick"

    def factory(self, nlist: int | None = None, size: int | None = None, opq: bool = True) -> str:
        """Factory string of an index of ``size`` bytes a vector, without polysemous training (``np``).

        The rotation pads dimensions that ``size`` segments don't divide.
        """
        size, d = size or self.bytes, self.data.documents.shape[1]
        padded = f"_{size * math.ceil(d / size)}" if d % size else ""
        return (f"OPQ{size}{padded}," if opq else "") + f"IVF{nlist or self.nlist},PQ{size}np"

    @cached_property
    def queries(self) -> TestQueries:
        """The test queries with their exact Top-10."""
        vectors, documents = self.data.queries[self.data.test], self.data.documents

        def search() -> Arrays:
            return {"ids": faiss.knn(vectors, documents, 10, METRICS[self.metric])[1]}

        key = digest(self.metric, self._documents_digest, vectors, faiss.__version__)
        truth = self.cache.get("truth", key, search)["ids"]
        return TestQueries(vectors, truth, self.data.relevant[self.data.test, None])

    def build(self, factory: str) -> tuple[NDArray[np.uint8], float]:
        """A filled index, serialized, and the seconds that its train and add took."""

        def make() -> Arrays:
            index = faiss.index_factory(self.data.documents.shape[1], factory, METRICS[self.metric])
            kept = _hurry(index) if self.quick else None
            start = time.perf_counter()
            index.train(self.data.documents)
            index.add(self.data.documents)
            seconds = time.perf_counter() - start
            del kept
            print(f"  {factory}: built in {seconds:.0f} s", flush=True)
            return {"index": faiss.serialize_index(index), "seconds": np.array(seconds)}

        key = digest(factory, self.metric, self._documents_digest, faiss.__version__, str(self.quick))
        built = self.cache.get("index", key, make)
        return built["index"], float(built["seconds"])

    def tune(
        self,
        start: NDArray[np.uint8],
        config: DistillConfig,
        label: str,
        adapter: bool,
        n_queries: int | None = None,
        judged: bool = False,
    ) -> tuple[FaissSearcher, dict[str, Any]]:
        """A tuned copy of a serialized index, with a linear query adapter if asked, and what the trainer reported.

        Given ``n_queries``, the trainer gets a random choice of so many training queries, and nothing else; if it is to
        be ``judged``, the validation queries as well, by which the gate then decides.
        """
        data = self.data
        train, validation = data.queries[data.train], data.queries[data.validation]
        labels = data.relevant[data.train] if needs_labels(config) else None
        if labels is not None and labels.min() < 0:
            raise ValueError(f"{label}: expected data with labels, got {self.name}")
        if n_queries is not None:
            train = train[np.random.default_rng(config.seed).permutation(len(train))[:n_queries]]
            validation = validation if judged else validation[:0]

        def make() -> Arrays:
            index = faiss.deserialize_index(start)
            encoder = LinearAdapter(train.shape[1]) if adapter else None
            trainer = DistillTrainer(
                index, data.documents, train if len(train) else None, query_encoder=encoder,
                relevant=labels, validation_queries=validation if len(validation) else None,
                config=replace(config, progress=False), gate=(Gate if judged else OpenGate)(start_counts=False),
                exact=partial(CachedTeacher, cache=self.cache),
            )  # fmt: skip
            report = trainer.train()
            seconds = sum(report.seconds[stage] for stage in ("training", "lists", "codes"))
            details = {
                "seed": config.seed,
                "train_seconds": seconds,
                "best_epoch": report.best_epoch,
                "gate": report.reason,
                "kept": report.kept,
                "temperature": report.temperature,
                "history": report.history,
                "seconds": report.seconds,
            }
            print(f"  {label}, seed {config.seed}: {report.seconds['total']:.0f} s; {report.reason}", flush=True)
            made = {"index": faiss.serialize_index(index), "details": np.array(json.dumps(details))}
            return made if encoder is None else {**made, "matrix": encoder.matrix}

        key = tuned_key(start, self._documents_digest, train, labels, validation, config, adapter, self._source)
        tuned = self.cache.get("tuned", key, make)
        searcher = FaissSearcher(faiss.deserialize_index(tuned["index"]), tuned.get("matrix"))
        return searcher, json.loads(str(tuned["details"]))

    def row(
        self,
        name: str,
        factory: str,
        config: DistillConfig | None = None,
        *,
        nprobe: int | None = None,
        search_nprobe: int | None = None,
        group: str = "",
        baseline: bool = False,
        x: float | None = None,
        adapter: bool = False,
        n_queries: int | None = None,
        judged: bool = False,
    ) -> Row:
        """Build, tune for each seed (not at all without ``config``), and measure.

        Args:
            name: of the method.
            factory: of the index that it starts from.
            config: the method's settings; the seed is ours.
            nprobe: lists probed while the epoch is chosen, and when searching.
            search_nprobe: lists probed when searching, if others.
            group: see :class:`Row`, as for ``baseline`` and ``x``.
            baseline: one of the rows that the others are compared with.
            x: where a plot has it.
            adapter: whether queries go through a linear adapter that learns.
            n_queries: see :meth:`tune`.
            judged: likewise; the name of the row then says what was decided.
        """
        nprobe = nprobe or self.nprobe
        probed = search_nprobe or nprobe
        start, build_seconds = self.build(factory)
        settings: dict[str, Any] = {"factory": factory, "nprobe": probed, "build_seconds": build_seconds}
        runs: list[Measured] = []
        details: list[dict[str, Any]] = []
        if config is None:
            runs.append(measure(FaissSearcher(faiss.deserialize_index(start)), self.queries, probed))
        else:
            config = replace(config, nprobe=nprobe, epochs=min(config.epochs, 1) if self.quick else config.epochs)
            settings["config"] = asdict(config)
            for seed in self.seeds:
                label = f"{group}, {name}" if group else name
                searcher, detail = self.tune(start, replace(config, seed=seed), label, adapter, n_queries, judged)
                runs.append(measure(searcher, self.queries, probed))
                details.append(detail)
        if judged:
            name += f", kept {sum(detail['kept'] for detail in details)} of {len(details)}"
        return Row(name, tuple(runs), group, baseline, settings, tuple(details), x)

    def peer_row(self, name: str, searchers: Sequence[Searcher], settings: dict[str, Any]) -> Row:
        """A baseline that is no faiss index, one searcher for each seed."""
        runs = tuple(measure(searcher, self.queries, self.nprobe) for searcher in searchers)
        return Row(name, runs, baseline=True, settings=settings)

    @cached_property
    def _documents_digest(self) -> str:
        return digest(self.data.documents)


def _hurry(index: Any) -> Any:
    """Train an OPQ in few iterations, and have faiss say nothing about few points.

    Returns:
        What faiss points to: to be kept while it trains.
    """
    ivf: Any = faiss.downcast_index(faiss.extract_index_ivf(index))
    if hasattr(ivf, "pq"):
        ivf.pq.cp.min_points_per_centroid = 1
    if not isinstance(index, faiss.IndexPreTransform):
        return None
    chain: Any = index.chain
    opq: Any = faiss.downcast_VectorTransform(chain.at(0))
    pq = faiss.ProductQuantizer(opq.d_out, opq.M, 8)
    pq.cp.min_points_per_centroid = 1
    opq.pq, opq.niter, opq.niter_pq_0 = pq, 8, 10
    return pq
