"""An index trained, filled and tuned in one call."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import faiss
import numpy as np

from faiss_distill.building.estimates import duration, rows_to_train_on, training_seconds
from faiss_distill.building.factory import as_metric, index_factory, parse
from faiss_distill.building.factory_hints import reason
from faiss_distill.checks import integer
from faiss_distill.config import DistillConfig, as_config
from faiss_distill.data.ids import NOTHING, as_ids
from faiss_distill.data.vectors import Vectors
from faiss_distill.errors import InputError
from faiss_distill.index.sources import open_embeddings
from faiss_distill.progress import progress_bar, waiting
from faiss_distill.state import Float32, Int64
from faiss_distill.tuning.report import DistillReport
from faiss_distill.tuning.trainer import DistillTrainer

if TYPE_CHECKING:
    from faiss_distill.typing import FaissIndex, IdsLike, PathLike, VectorsLike


class Built(NamedTuple):
    """What :func:`build` gives.

    Attributes:
        index: the faiss index, trained, filled and tuned.
        report: of the tuning; None without the token.
    """

    index: FaissIndex  # type: ignore[assignment]  # in place of tuple.index
    report: DistillReport | None


def build(
    factory: str,
    embeddings: VectorsLike,
    queries: VectorsLike | None = None,
    *,
    metric: int | str = "l2",
    ids: IdsLike | None = None,
    nprobe: int | None = None,
    config: DistillConfig | PathLike | None = None,
    **options: Any,
) -> Built:
    """Train, fill and tune an index in one call.

    Args:
        factory: see :func:`faiss_distill.building.factory.parse`. Without the token the index is built, and not tuned:
            queries and options of the tuning are then refused.
        embeddings: as for :func:`faiss_distill.distill`. faiss trains on all of them, or on a sample of a large corpus
            (seeded by ``config.seed``); they are added in blocks.
        queries: as for :func:`faiss_distill.distill`.
        metric: ``"l2"`` or ``"ip"`` (inner product); or faiss's constant.
        ids: ids to store, integers ``(n,)``, for an IVF index or one in an ``IDMap`` or ``IDMap2``.
        nprobe: to set on the index, and judge it by; faiss's own is 1.
        config: options of the tuning, or the path of a TOML file of them, in place of those of the token.
        **options: other arguments of :class:`DistillTrainer`, such as ``relevant`` and ``validation_queries``.

    Returns:
        The index and the report.

    Raises:
        InputError: something about the arguments is wrong.
        UnsupportedIndexError: the index can't be tuned.
    """
    plain, own = parse(factory)
    if own is None:
        for name, value in {"config": config, "queries": queries, **options}.items():
            if value is not None:
                raise InputError(
                    name, "it with a factory string that ends in Distill", repr(factory), f"to tune, {factory},Distill"
                )
    settled = as_config(own if config is None else config)
    inspect.signature(DistillTrainer).bind(None, **options)  # an unknown one is a TypeError before all the work
    metric = as_metric(metric)
    corpus, ids = open_embeddings(embeddings, ids)
    if corpus.n == 0 or corpus.d == 0:
        raise InputError("embeddings", "at least one vector", f"shape {(corpus.n, corpus.d)}")
    stored = None if ids is None else _ids_to_store(ids, corpus.n)
    index = index_factory(corpus.d, plain, metric)
    if nprobe is not None:
        _set_nprobe(index, plain, nprobe)
    corpus.check_finite(settled.block_rows, settled.progress)
    fill(index, corpus, stored, settled)
    if own is None:
        return Built(index, None)
    trainer = DistillTrainer(index, cast(Any, corpus), queries, ids=stored, config=settled, **options)
    return Built(index, trainer.train())


def _ids_to_store(ids: Any, n: int) -> Int64:
    stored = as_ids(ids, "ids")
    if stored.shape != (n,):
        raise InputError("ids", f"{n} integers, one a row", f"shape {stored.shape}")
    if (stored == NOTHING).any():
        row = np.flatnonzero(stored == NOTHING)[0]
        raise InputError("ids", "none that is -1, which faiss returns where it found nothing", f"-1 in row {row}")
    return stored


def _set_nprobe(index: Any, plain: str, nprobe: Any) -> None:
    nprobe = integer("nprobe", nprobe, 1)
    try:
        faiss.ParameterSpace().set_index_parameter(index, "nprobe", nprobe)
    except RuntimeError as error:
        raise InputError("nprobe", f"None for {plain!r}, which has no lists", str(nprobe)) from error


def fill(index: Any, corpus: Vectors, stored: Int64 | None, config: DistillConfig) -> None:
    """Train an index and add the corpus, with progress if ``config`` has it.

    Args:
        index: untrained.
        corpus: the vectors.
        stored: ids to store, or None for the rows' numbers.
        config: for ``block_rows``, ``seed`` and ``progress``.

    Raises:
        InputError: the vectors are too few, or the index keeps no ids.
    """
    rows = _training_rows(index, corpus, config)
    try:
        with waiting("faiss trains", partial(training_seconds, index, corpus.n), duration, config.progress):
            index.train(rows)
    except RuntimeError as error:
        raise InputError(
            "embeddings", f"enough to train {type(index).__name__} on", f"{corpus.n}: {reason(error)}"
        ) from error
    with progress_bar(corpus.n, "faiss adds", "rows", config.progress) as bar:
        for start, block in corpus.blocks(config.block_rows):
            _add(index, start, block, stored)
            bar.update(len(block))


def _add(index: Any, start: int, block: Float32, stored: Int64 | None) -> None:
    if stored is None and not isinstance(index, faiss.IndexIDMap):
        index.add(block)
        return
    part = np.arange(start, start + len(block)) if stored is None else stored[start : start + len(block)]
    try:
        index.add_with_ids(block, part)
    except RuntimeError as error:
        raise InputError(
            "ids", f"None for an {type(index).__name__}, which keeps none", "some", "put it into an IDMap"
        ) from error


def _training_rows(index: Any, corpus: Any, config: DistillConfig) -> Any:
    try:
        nlist = faiss.extract_index_ivf(index).nlist
    except RuntimeError:  # it has none
        nlist = 0
    wanted = rows_to_train_on(corpus.n, nlist)
    if corpus.n <= wanted:
        return corpus.block(0, corpus.n)
    return corpus.take(np.sort(np.random.default_rng(config.seed).permutation(corpus.n)[:wanted]))
