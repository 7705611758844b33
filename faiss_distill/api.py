"""``distill``, ``evaluate`` and ``operating_points``: tune an index, measure it, and explore its search parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from faiss_distill.building.factory import options_of
from faiss_distill.checks import did_you_mean, integer
from faiss_distill.config import DistillConfig, as_config
from faiss_distill.data import query_encoders
from faiss_distill.data.relevance import open_relevant
from faiss_distill.errors import InputError
from faiss_distill.evaluation.measure import NPROBES, Evaluation, QuerySet, measure
from faiss_distill.evaluation.operating_points import OperatingPoints, explore, settings
from faiss_distill.index.copies import copy_of
from faiss_distill.index.registry import IndexAdapter, open_to_measure
from faiss_distill.index.search_parameters import takes_parameters
from faiss_distill.index.sources import as_index
from faiss_distill.integrations import stores
from faiss_distill.learning.teacher import Teacher
from faiss_distill.tuning.report import DistillReport
from faiss_distill.tuning.task import Task, open_queries, open_task
from faiss_distill.tuning.trainer import DistillTrainer

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from faiss_distill.typing import (
        IdsLike,
        IndexLike,
        LabelsLike,
        PathLike,
        QueryInputsLike,
        TeacherLike,
        VectorsLike,
    )

BLOCK_ROWS = DistillConfig.block_rows


def distill(
    index: IndexLike,
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
    teacher: TeacherLike | None = None,
    invlists_file: PathLike | None = None,
    inplace: bool = True,
    group: ProcessGroup | None = None,
    workdir: PathLike | None = None,
    resume: bool = False,
    on_epoch: Callable[[dict[str, float | None]], object] | None = None,
    column: str | None = None,
    config: DistillConfig | PathLike | None = None,
    **options: Any,
) -> DistillReport:
    """Fine-tune an existing faiss index by ranking distillation, in place or in a copy.

    The exact embeddings teach the quantized index to rank (Distill-VQ, SIGIR 2022, DOI 10.1145/3477495.3531799). Its
    coarse centroids, PQ codebooks, codes and the list of each vector change. The object, ids, ``ntotal``, ``nprobe``
    and bytes per vector stay the same. The result is kept only if held-out queries show, beyond chance, that it is
    better; otherwise, and after any error, the index is bitwise as it was.

    While an index is tuned in place, no other thread may use it: faiss's searches release Python's global lock, and one
    whose lists are replaced meanwhile may crash the process. To keep serving, tune a copy and swap the reference,
    which is atomic::

        self.index = distill(self.index, embeddings, queries, inplace=False).index

    Args:
        index: a trained, filled faiss index, or the path of one, inner product or L2: an IVF or flat index with product
            or additive quantizers, FastScan or not, or ``IndexIVFFlat``, ``IndexIVFScalarQuantizer`` or
            ``IndexIVFRaBitQ``; on its own or inside ``IndexPreTransform``, ``IndexIDMap``, ``IndexIDMap2``,
            ``IndexRefineFlat`` and ``IndexRefine``; or several in an ``IndexShards`` or ``IndexReplicas``.
            :doc:`/guide` has a table. Or a vector store that searches one (:doc:`/stores`): of LangChain, LlamaIndex,
            Haystack, txtai, vicinity, DSPy or Hugging Face datasets.
        embeddings: the vectors that were added to it, ``(n, d)``: a numpy array or memmap, a torch tensor, a flat index
            that holds them, or the path of a file or folder (:doc:`/files`). Any float dtype, or integers of 8 bits.
            They are read in blocks and need not fit in memory. Row ``i`` belongs to id ``i`` (rows of removed ids are
            ignored), or to ``ids[i]``. With ``encoding="frozen"`` a sample and its ``ids`` are enough, if the index has
            PQ codes in lists. Not needed if the index holds them: in an ``IndexRefineFlat``, or an ``IndexRefine`` by a
            scalar quantizer of 8 bits or more. Nor with a vector store that keeps them, or the texts that they are of,
            which it then embeds again; those that you pass are taken in place of these.
        queries: real queries ``(nq, d)``, from a log, in any of these forms, without labels; texts for a vector store
            that embeds them. If None, documents are used as queries, which works less well; the report says so. What
            real queries gain is then known only if some are passed as ``validation_queries``.
        ids: id of each embedding, integers ``(n,)``.
        relevant: ids of the documents relevant to each query: integers ``(nq,)`` or ``(nq, r)``, -1 as padding; a list
            of lists; a dict from query row to ids, or to ids with grades; a scipy sparse matrix, queries by ids; the
            path of a ``.npy`` or a qrels file (TREC, BEIR), see :func:`faiss_distill.read_qrels`. Adds label metrics to
            the report and allows ``gt`` candidates.
        validation_queries: queries that choose the epoch and judge the result. If None, some of ``queries`` are
            held out for that (``config.validation_fraction``). At least 20; without ``queries``, they judge what
            documents used as queries have taught.
        validation_relevant: as ``relevant``, for ``validation_queries``.
        query_encoder: a ``torch.nn.Module`` from query inputs to embeddings ``(nq, d)``, which is trained along with
            the index (Distill-VQ Eq. 5), in place, on ``config.device`` and in the mode that it is in (call its
            ``train()`` for dropout). The teacher keeps using ``queries``. If the result is kept, search with the
            module's embeddings; otherwise its weights are as they were. For example :class:`LinearAdapter`.
        query_inputs: what the encoder takes: an array or a list (of texts, say) with one entry for each query; None for
            the queries themselves. If ``queries`` is None, they are what the encoder makes of these at the start. What
            the index finds with that is then what the result is compared with, rather than what ``queries`` find.
        validation_query_inputs: as ``query_inputs``, for ``validation_queries``.
        teacher: the training queries' nearest documents, if you know them: a pair ``(ids, scores)``, integers and
            floats of shape ``(nq, K)``, with a row for each of ``queries``, best first, -1 where there are no more, K
            at least ``config.top_k``, and scores as faiss returns them (inner products, or squared L2 distances); or
            the ids alone; or the path of a ``.npz`` with arrays of these names, or of a file of ids; or a fuller faiss
            index with the same ids (``IndexFlat``, ``IndexHNSWFlat``, ``IndexIVFFlat``), or its path, which is searched
            as it is set and whose results are scored exactly. If None, the search is exhaustive, or limited to the
            nearest lists if that is cheaper and finds 98 %. The report says what share of the exact neighbours was
            found. The queries that judge are always searched exactly.
        invlists_file: a file that does not exist yet for the new inverted lists, which are mapped from there (faiss's
            ``OnDiskInvertedLists``). The index stores its absolute path; after moving both files, read the index with
            ``faiss.IO_FLAG_ONDISK_SAME_DIR``. If None, the lists are in memory, or, if those of the index are in
            such a file, in a new one next to it. The old file stays as it was.
        inplace: False leaves the index and the query encoder as they are. Other threads may use them meanwhile, but not
            change them. What is kept is in ``report.index`` and ``report.query_encoder``. Takes memory for one more
            copy of each. The new index shares nothing with the old one, except with ``encoding="frozen"`` a file of
            lists: then add to only one of them. If the parts of an ``IndexShards`` are to be searched by a thread each,
            set that again on the copy.
        group: a process group of ``torch.distributed``, such as ``torch.distributed.group.WORLD``, whose processes all
            make this call with the same arguments. Each trains on a share of every batch and encodes a share of the
            corpus, and the result is that of one process, up to rounding. Only the index of the first process is
            tuned; the other processes get its report. gloo for CPUs, NCCL with a CUDA device for each. None for this
            process alone.
        workdir: a folder, created if need be, that keeps the result of each stage and, during training, a checkpoint
            every ten seconds. If the process is killed, the same call with ``resume=True`` continues from there. Remove
            it when the index is written. It takes ``12 * top_k`` bytes of disk for each query and up to three copies of
            codes and lists.
        resume: continue with what ``workdir`` has; without it, a folder with stages of a run is refused.
        on_epoch: called after each epoch, and before the first, with what ``report.history`` has of it: a dict of
            ``epoch``, the mean ``loss`` of its steps (None before the first), and ``overlap_at_10`` and
            ``codes_scanned`` of the queries that choose the epoch. With a ``group`` it is called in the first process
            alone; with ``resume``, not for epochs that the work folder has. An exception from it ends the run, and the
            index is as it was.
        column: of a dataset of Hugging Face: the column whose index is meant, if it has several.
        config: options, or the path of a TOML file of them, see :meth:`DistillConfig.from_toml`; None for those that
            :func:`faiss_distill.index_factory` left with the index, or the defaults.
        **options: single options of :class:`DistillConfig`, over ``config``.

    Returns:
        What was found before and after, and ``report.index``, to search with from now on; ``print`` it.

    Raises:
        UnsupportedIndexError: the index, or a part of it, can't be tuned.
        InputError: something else about the arguments is wrong.

    Examples:
        >>> import faiss
        >>> from faiss_distill import distill
        >>> from faiss_distill.datasets import load_debian_packages
        >>> data = load_debian_packages()
        >>> index = faiss.index_factory(384, "IVF32,PQ32x4np", faiss.METRIC_INNER_PRODUCT)
        >>> index.train(data.documents[:4000])
        >>> index.add(data.documents[:4000])
        >>> index.nprobe = 4
        >>> report = distill(index, data.documents[:4000], data.queries[data.train], epochs=1, progress=False)
        >>> report.kept, index.ntotal
        (True, 4000)
    """
    try:
        config = replace(as_config(options_of(index) if config is None else config), **options)
    except TypeError as error:
        known = [*signature(distill).parameters, *(field.name for field in fields(DistillConfig))]
        near = next(filter(None, (did_you_mean(name, known) for name in options if name not in known)), "")
        if "texts" in options:
            near = "pass them as queries="
        if "metric" in options:
            near = "the metric is that of the index; for cosine, normalise all vectors and build it with inner product"
        reason = str(error).split(") ")[-1]
        raise TypeError(f"distill: {reason}; {near or 'see DistillConfig for the options'}") from None
    trainer = DistillTrainer(
        index,
        embeddings,
        queries,
        ids=ids,
        relevant=relevant,
        validation_queries=validation_queries,
        validation_relevant=validation_relevant,
        query_encoder=query_encoder,
        query_inputs=query_inputs,
        validation_query_inputs=validation_query_inputs,
        teacher=teacher,
        invlists_file=invlists_file,
        inplace=inplace,
        group=group,
        workdir=workdir,
        resume=resume,
        on_epoch=on_epoch,
        column=column,
        config=config,
    )
    return trainer.train()


def evaluate(
    index: IndexLike,
    embeddings: VectorsLike | None = None,
    queries: VectorsLike | None = None,
    *,
    ids: IdsLike | None = None,
    relevant: LabelsLike | None = None,
    query_encoder: nn.Module | None = None,
    query_inputs: QueryInputsLike | None = None,
    nprobe: int | Sequence[int] | None = None,
    top_k: int = 100,
    sample: bool = False,
    column: str | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measure an index against exact search, for instance on test queries that no tuning has seen.

    Args:
        index: as for :func:`distill`, or any without inverted lists, tunable or not: ``IndexFlat``, ``IndexHNSWFlat``
            and their like, to compare with; unchanged, and other threads may search it meanwhile.
        embeddings: as for :func:`distill`.
        queries: as for :func:`distill`, but needed.
        ids: as for :func:`distill`.
        relevant: as for :func:`distill`.
        query_encoder: as for :func:`distill`: the index is searched with its embeddings, exact search with ``queries``.
        query_inputs: as for :func:`distill`, but not without ``queries``.
        nprobe: lists to probe; by default 1, 4, 16 and 64. The index's own is always measured too.
        top_k: depth of the searches, at least 10.
        sample: whether ``embeddings`` are only a sample, with its ``ids``: what is found is then measured among these.
        column: as for :func:`distill`.
        progress: show progress bars on a terminal and in a notebook.

    Returns:
        One operating point for each nprobe; ``print`` it.

    Raises:
        UnsupportedIndexError: the index is not one that this package can measure.
        InputError: something else about the arguments is wrong.
    """
    passed = stores.opened(index, column, embeddings, queries, ids, progress=progress)
    with passed.explained():
        adapter = _open_apart(passed.index, sample)
        wanted = [p for p in NPROBES if p <= adapter.nlist] if nprobe is None else _nprobes(nprobe, adapter.nlist)
        task, searched = _open(adapter, passed, relevant, query_encoder, query_inputs, top_k, sample, progress)
    own = passed.nprobe or adapter.nprobe
    whole = measure(adapter, searched, own, wanted)
    if not task.partial:
        return whole
    with adapter.restrict(task.sample) as part:
        found = part.interruptibly(lambda: measure(adapter, searched, own, wanted))
    return found.at_the_cost_of(whole)


def operating_points(
    index: IndexLike,
    embeddings: VectorsLike | None = None,
    queries: VectorsLike | None = None,
    *,
    ids: IdsLike | None = None,
    relevant: LabelsLike | None = None,
    query_encoder: nn.Module | None = None,
    query_inputs: QueryInputsLike | None = None,
    parameters: Mapping[str, Iterable[float]] | None = None,
    quality: str = "overlap_at_10",
    cost: str = "distances",
    top_k: int = 100,
    column: str | None = None,
    progress: bool = True,
) -> OperatingPoints:
    """What an index finds over the parameters of its search, and what that costs; for instance once it is tuned.

    Args:
        index: as for :func:`evaluate`; unchanged, and other threads may search it meanwhile.
        embeddings: as for :func:`distill`.
        queries: as for :func:`distill`, but needed; others than those to report on, as they choose.
        ids: as for :func:`distill`.
        relevant: as for :func:`distill`.
        query_encoder: as for :func:`evaluate`.
        query_inputs: as for :func:`evaluate`.
        parameters: values to try of each, such as ``{"nprobe": range(1, 65)}``; by default those of faiss's
            ``ParameterSpace``: powers of two of ``nprobe``, ``quantizer_efSearch`` of an HNSW coarse quantizer,
            ``efSearch`` of an HNSW index and ``k_factor_rf`` of a refinement.
        quality: what counts as found: ``"overlap_at_10"``, ``"nearest_in_10"`` or ``"recall_at_k"``, or with labels
            ``"mrr_at_10"``, ``"label_recall_at_10"`` or ``"label_recall_at_k"``.
        cost: ``"distances"``, which are counted, or ``"latency_ms"``, which is measured, and noisy.
        top_k: depth of the searches, at least 10.
        column: as for :func:`distill`.
        progress: show progress bars on a terminal and in a notebook.

    Returns:
        The points measured and their Pareto front; ``print`` it, :meth:`~OperatingPoints.plot` it, or
        :meth:`~OperatingPoints.set_on` the index what finds enough.

    Raises:
        UnsupportedIndexError: the index is not one that this package can measure.
        InputError: something else about the arguments is wrong.

    Examples:
        >>> import faiss
        >>> from faiss_distill.datasets import load_debian_packages
        >>> data = load_debian_packages()
        >>> index = faiss.index_factory(384, "IVF32,PQ32x4np", faiss.METRIC_INNER_PRODUCT)
        >>> index.train(data.documents[:4000])
        >>> index.add(data.documents[:4000])
        >>> points = operating_points(index, data.documents[:4000], data.queries[data.validation])
        >>> points.set_on(index, at_least=0.3).nprobe == index.nprobe
        True
    """
    passed = stores.opened(index, column, embeddings, queries, ids, progress=progress)
    with passed.explained():
        adapter = _open_apart(passed.index)
        tried = settings(adapter, parameters, quality, cost, relevant is not None)
        _, searched = _open(adapter, passed, relevant, query_encoder, query_inputs, top_k, False, progress)
    return explore(adapter, searched, tried, quality, cost, progress)


def _open_apart(index: Any, sample: bool = False) -> IndexAdapter:
    """An index opened to measure it; a copy where measuring would set or restrict it for a while."""
    index = as_index(index)
    adapter = open_to_measure(index)
    if takes_parameters(index) and not (sample and adapter.traits.takes_a_sample):
        return adapter
    return open_to_measure(copy_of(index))


def _nprobes(given: Any, nlist: int) -> list[int]:
    """One nprobe or several, in a list."""
    several = given if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [given]
    try:
        return [integer("nprobe", nprobe, 1, nlist) for nprobe in several]
    except (InputError, TypeError) as error:  # one can't iterate over an array of one number
        raise InputError("nprobe", f"integers from 1 to nlist={nlist}", repr(given)) from error


def _open(
    adapter: IndexAdapter,
    passed: stores.Passed,
    relevant: Any,
    query_encoder: Any,
    query_inputs: Any,
    top_k: int,
    sample: bool,
    progress: bool,
) -> tuple[Task, QuerySet]:
    """What was passed, lined up with the index, and the queries with exact results."""
    queries = passed.queries
    if queries is None:
        raise InputError("queries", "those to search with", "None")
    top_k = integer("top_k", top_k, 10)
    task = open_task(adapter, passed.embeddings, passed.ids, partial=sample, queries=queries)
    corpus = task.corpus
    if top_k > corpus.n:
        raise InputError("top_k", f"at most the {corpus.n} vectors {'passed' if sample else 'stored'}", str(top_k))
    opened = open_queries(adapter, queries, "queries", BLOCK_ROWS)
    known = None if relevant is None else open_relevant(relevant, opened.n, task.ids, "relevant")
    if known is not None and sample:  # the others can't be found among these
        known = np.where(np.isin(known, task.sample_ids), known, -1)
    corpus.check_finite(BLOCK_ROWS, progress)
    vectors = opened.block(0, opened.n)
    task.check(vectors, np.random.default_rng(0), tunes=False)
    asked = vectors
    if query_encoder is None and query_inputs is not None:
        raise InputError("query_inputs", "together with query_encoder=", "it without one")
    if query_encoder is not None:
        entries = vectors if query_inputs is None else query_encoders.as_inputs(query_inputs, "query_inputs")
        if len(entries) != len(vectors):
            raise InputError("query_inputs", f"one for each of {len(vectors)} queries", str(len(entries)))
        device = query_encoders.home(query_encoder)
        query_encoders.check_encoder(query_encoder, entries, adapter.index.d, device)
        asked = query_encoders.embed(query_encoder, entries, device).cpu().numpy()
    top, _ = Teacher(adapter.metric, adapter.normalizes, BLOCK_ROWS, progress=progress).top_k(corpus, vectors, top_k)
    return task, QuerySet(asked, task.sample_ids[top], None, known)
