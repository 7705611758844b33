"""The tuning run: split, teacher, optimise, encode, validate, commit."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from tqdm import tqdm

from faiss_distill import inputs
from faiss_distill.adapters import open_index
from faiss_distill.candidates import LocalQueries
from faiss_distill.config import DistillConfig, Encoding
from faiss_distill.encoding import QueryAwareEncoder
from faiss_distill.errors import InputError
from faiss_distill.evaluation import Evaluation, QuerySet, measure
from faiss_distill.optimisation import Documents, Objective, Selection, Taught, optimise
from faiss_distill.report import DistillReport
from faiss_distill.state import Float32, IVFPQState
from faiss_distill.students import IVFPQStudent, nearest_codes
from faiss_distill.teacher import Teacher, calibrate_temperature

logger = logging.getLogger(__name__)

MAX_SELECTION = 500
"""Of the held-out queries, those that choose the best epoch, at most; a quarter if there are fewer than 2,000."""


class DistillTrainer:
    """Fine-tunes one index. Everything is checked on construction; only :meth:`train` changes the index.

    Memory beyond the index: the queries with their Top-K, two copies of ids and codes, the new inverted lists beside
    the old ones, and of the corpus the larger of ``config.block_rows`` rows and the Top-K of 500 queries
    (``500 * config.top_k`` rows at most). Documents that stand in for queries count as queries.

    Args:
        index: see :func:`faiss_distill.distill`, as for all arguments.
        embeddings: the vectors behind the index, ``(n, d)``.
        queries: training queries ``(nq, d)``, or None.
        ids: id of each embedding, or None if row ``i`` belongs to id ``i``.
        relevant: relevant ids of ``queries``.
        validation_queries: queries that choose and judge; held out of ``queries`` if None.
        validation_relevant: relevant ids of ``validation_queries``.
        config: the options.

    Raises:
        UnsupportedIndexError: the index can't be tuned.
        InputError: something else about the arguments is wrong.
    """

    def __init__(
        self,
        index: Any,
        embeddings: Any,
        queries: Any = None,
        *,
        ids: Any = None,
        relevant: Any = None,
        validation_queries: Any = None,
        validation_relevant: Any = None,
        config: DistillConfig | None = None,
    ) -> None:
        """Check everything, load the queries and split them."""
        self.config = config = config or DistillConfig()
        self.seconds: dict[str, float] = {}
        rng = np.random.default_rng(config.seed)
        try:
            self._device = torch.empty(0, device=config.device).device
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device: expected one that torch can use, got {config.device!r}: {error}") from error
        with self._phase("check"):
            self._adapter = adapter = open_index(index)
            self._state = adapter.extract()
            self._labels = adapter.outer_ids(self._state.ids)
            self._corpus = inputs.open_corpus(adapter, embeddings, self._labels, ids)
            if config.top_k >= self._state.n:
                raise InputError(f"top_k: expected less than the {self._state.n} vectors stored, got {config.top_k}")
            if config.nprobe is not None and config.nprobe > adapter.ivf.nlist:
                raise InputError(f"nprobe: expected at most nlist={adapter.ivf.nlist}, got {config.nprobe}")
            self.query_source = "documents" if queries is None else "queries"
            splitter = inputs.Splitter(adapter, self._corpus, self._labels, config, rng)
            self._train, self._validation = splitter.split(queries, relevant, validation_queries, validation_relevant)
            self._corpus.check_finite(config.block_rows, config.progress)
            inputs.check_corpus(adapter, self._state, self._corpus, rng)
        self._teacher = Teacher(adapter.metric, adapter.normalizes, config.block_rows, config.device, config.progress)
        self._nprobe = config.nprobe or adapter.nprobe

    def train(self) -> DistillReport:
        """Tune the index in place, if that makes it better.

        Returns:
            What was found before and after, whether the result was kept, and why.

        Raises:
            InputError: the index was changed since the trainer was made.
        """
        self._check_unchanged()
        with self._phase("teacher"):
            train, held_out = self._teach(self._train), self._teach(self._validation)
        # No query both chooses the epoch and judges the result.
        n_selection = min(len(held_out.top) // 4, MAX_SELECTION)
        judges = self._query_set(held_out.take(slice(n_selection, None)))
        with self._phase("evaluate"):
            before = measure(self._adapter, judges, self._nprobe)
        temperature = calibrate_temperature(train.scores[:1000], self.config.perplexity)
        with self._phase("optimise"):
            documents = Documents(self._corpus, self._adapter, self._state.assignment, self._device)
            objective = Objective(documents, train, self._teacher, temperature, self.config.sampled)
            selection = Selection(documents, held_out.take(slice(0, n_selection)), self._nprobe)
            student, history = optimise(self._state, objective, selection, len(train.top), self.config, self._device)
        with self._phase("encode"):
            quantizer, state = self._encode(student, train)
        with self._phase("commit"):
            change = self._adapter.write(state, quantizer)
        with change:
            with self._phase("evaluate"):
                after = measure(self._adapter, judges, self._nprobe)
            kept, reason, gain, interval = self._judge(before, after)
            if kept:
                change.commit()
        if kept:
            self._state = state
        logger.info("%s: %s", "kept" if kept else "not kept", reason)
        return DistillReport(
            kept=kept,
            reason=reason,
            index=self._adapter.description,
            metric=self._adapter.metric.value,
            n=self._state.n,
            query_source=self.query_source,
            n_train=len(train.top),
            n_selection=n_selection,
            n_validation=len(judges.truth),
            before=before,
            after=after,
            gain=gain,
            interval=interval,
            temperature=temperature,
            history=tuple(history),
            seconds={**self.seconds, "total": sum(self.seconds.values())},
            config=self.config,
        )

    def _check_unchanged(self) -> None:
        """Refuse an index that is not the one that was checked: its lists would be overwritten with stale ones."""
        now = open_index(self._adapter.index).extract()
        same = [np.array_equal(getattr(now, name), value) for name, value in vars(self._state).items()]
        if not all(same):
            raise InputError("index: expected it as it was when the trainer was made, got another; make a new one")

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _teach(self, queries: inputs.Queries) -> Taught:
        top, scores = self._teacher.top_k(self._corpus, queries.vectors, self.config.top_k, queries.rows)
        return Taught(queries, top, scores)

    def _query_set(self, taught: Taught) -> QuerySet:
        rows = taught.queries.rows
        return QuerySet(
            vectors=taught.queries.vectors,
            truth=self._labels[taught.top],
            exclude=None if rows is None else self._labels[rows],
            relevant=taught.queries.relevant,
        )

    @torch.no_grad()
    def _encode(self, student: IVFPQStudent, train: Taught) -> tuple[Any, IVFPQState]:
        """Codes of the whole corpus under the learned parameters, and a quantizer that holds its centroids."""
        config, state = self.config, self._state
        quantizer = self._adapter.quantizer_with(student.centroids.detach().cpu().numpy())
        centroids: Float32 = quantizer.reconstruct_n(0, len(state.centroids))  # what it kept of them: fp16 rounds
        student.centroids.copy_(torch.from_numpy(centroids))
        codebooks = student.codebooks.detach()
        if config.encoding is Encoding.QUERY_AWARE:
            queries = torch.from_numpy(self._adapter.transform(train.queries.vectors)).to(self._device)
            encoder = QueryAwareEncoder(queries, state.metric, config)
            local = LocalQueries(train.top, train.scores, config.local_queries)
        codes = np.empty_like(state.codes)
        with tqdm(total=state.n, desc="encode", unit="docs", disable=None if config.progress else True) as bar:
            for start, block in self._corpus.blocks(config.block_rows):
                stop = start + len(block)
                vectors = torch.from_numpy(self._adapter.transform(block)).to(self._device)
                residuals = student.residuals(vectors, torch.from_numpy(state.assignment[start:stop]).to(self._device))
                if config.encoding is Encoding.QUERY_AWARE:
                    near = torch.from_numpy(local.of(start, stop)).to(self._device)
                    chosen = encoder(vectors, residuals, codebooks, near)
                else:
                    chosen = nearest_codes(residuals, codebooks)
                codes[start:stop] = chosen.cpu().numpy()
                bar.update(len(block))
        return quantizer, replace(state, centroids=centroids, codebooks=codebooks.cpu().numpy(), codes=codes)

    def _judge(self, before: Evaluation, after: Evaluation) -> tuple[bool, str, float, tuple[float, float]]:
        """Whether the tuned index is better, by a paired bootstrap over the judging queries."""
        config, own, new = self.config, before.own, after.own
        difference = after.overlap - before.overlap
        test = stats.bootstrap(
            (difference,), np.mean, n_resamples=2000, batch=100, confidence_level=config.confidence,
            method="percentile", rng=np.random.default_rng(config.seed),
        )  # fmt: skip
        low, high = (float(x) for x in test.confidence_interval)
        gain = float(difference.mean())
        measured = f"{gain:+.3f} [{low:+.3f}, {high:+.3f}] on {len(difference)} held-out queries"
        where = f"overlap@10 at nprobe {own.nprobe}"
        if not low > 0:
            reason = f"{where} did not rise for certain: {measured}"
            if config.encoding is Encoding.QUERY_AWARE:
                reason += "; more queries help, and with few of them encoding='nearest' may do better"
            return False, reason, gain, (low, high)
        if new.codes_scanned > own.codes_scanned * (1 + config.max_scan_increase):
            reason = (
                f"{where} rose by {measured}, but codes scanned rose too, from {own.codes_scanned:.0f} to "
                f"{new.codes_scanned:.0f} a query (max_scan_increase={config.max_scan_increase})"
            )
            return False, reason, gain, (low, high)
        return True, f"{where} rose by {measured}", gain, (low, high)
