"""The one line."""

from __future__ import annotations

from typing import Any

from faiss_distill.config import DistillConfig
from faiss_distill.report import DistillReport
from faiss_distill.trainer import DistillTrainer


def distill(
    index: Any,
    embeddings: Any,
    queries: Any = None,
    *,
    ids: Any = None,
    relevant: Any = None,
    validation_queries: Any = None,
    validation_relevant: Any = None,
    config: DistillConfig | None = None,
    **options: Any,
) -> DistillReport:
    """Fine-tune an existing faiss index in place by ranking distillation.

    The exact embeddings teach the quantized index to rank (Distill-VQ, SIGIR 2022, DOI 10.1145/3477495.3531799); its
    coarse centroids, PQ codebooks and codes change, and nothing else: the same object, ids, ``ntotal``, ``nprobe``,
    list of each vector and bytes per vector. The result is kept only if held-out queries say, beyond chance, that it
    is better; otherwise, and on any error, the index is bitwise as it was. No other thread may use the index while
    this runs.

    Args:
        index: a trained, filled ``faiss.IndexIVFPQ``, inner product or L2, on its own or inside ``IndexPreTransform``,
            ``IndexIDMap``, ``IndexIDMap2`` and ``IndexRefineFlat``.
        embeddings: the vectors that were added to it, ``(n, d)``: a numpy array or memmap, a torch tensor, or the path
            of a ``.npy``, ``.fvecs`` or ``.fbin`` file. Any float dtype; read in blocks, never held in memory whole.
            Row ``i`` belongs to id ``i`` (rows of removed ids are ignored), or to ``ids[i]``.
        queries: real queries ``(nq, d)``, from a log, in any of these forms; they need no labels. If None, documents
            stand in for queries: that works less well, and the report says so.
        ids: id of each embedding, integers ``(n,)``.
        relevant: ids of the documents relevant to each query, integers ``(nq,)`` or ``(nq, r)``, -1 as padding: adds
            label metrics to the report.
        validation_queries: queries that choose the best epoch and judge the result. If None, a part of ``queries``
            (``config.validation_fraction``) is held out for that.
        validation_relevant: as ``relevant``, for ``validation_queries``.
        config: options; None for the defaults.
        **options: single options of :class:`DistillConfig`, over ``config``.

    Returns:
        Before and after; ``print`` it.

    Raises:
        UnsupportedIndexError: the index, or a part of it, can't be tuned.
        InputError: something else about the arguments is wrong.

    Examples:
        >>> import faiss
        >>> from faiss_distill import distill
        >>> from faiss_distill.datasets import load_debian_packages
        >>> data = load_debian_packages()
        >>> index = faiss.index_factory(384, "IVF32,PQ16", faiss.METRIC_INNER_PRODUCT)
        >>> index.train(data.documents[:4000])
        >>> index.add(data.documents[:4000])
        >>> report = distill(index, data.documents[:4000], data.queries[data.train], epochs=1, progress=False)
        >>> report.kept, index.ntotal
        (True, 4000)
    """
    from dataclasses import replace

    try:
        config = replace(config or DistillConfig(), **options)
    except TypeError as error:
        raise TypeError(f"distill: {str(error).split(') ')[-1]}; see DistillConfig for the options") from None
    trainer = DistillTrainer(
        index,
        embeddings,
        queries,
        ids=ids,
        relevant=relevant,
        validation_queries=validation_queries,
        validation_relevant=validation_relevant,
        config=config,
    )
    return trainer.train()
