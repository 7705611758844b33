"""The gate: whether the tuned index is better than the one before, and why, by queries that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from faiss_distill.config import DistillConfig, Encoding
from faiss_distill.evaluation.measure import Evaluation
from faiss_distill.state import Float32
from faiss_distill.tuning.bootstrap import percentile_interval


class Verdict(NamedTuple):
    """What the gate says.

    Attributes:
        kept: whether the tuned index is better.
        reason: why, in a sentence.
        gain: mean difference of overlap@10 at the judged nprobe, after minus before.
        interval: its paired bootstrap interval.
    """

    kept: bool
    reason: str
    gain: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Gate:
    """Decides whether what was learned is kept: it must be better beyond chance, at no hidden cost.

    Attributes:
        start_counts: whether the centroids and codebooks at the start may turn out to be what is kept.
        decides: False keeps whatever comes; the reason says what was found.
    """

    start_counts: bool = True
    decides: bool = True

    def judge(
        self,
        before: Evaluation,
        after: Evaluation,
        config: DistillConfig,
        learns_queries: bool = False,
        judges: str = "queries",
    ) -> Verdict:
        """Compare two evaluations of the same queries, each of which weighs once.

        Args:
            before: the index as it was.
            after: the tuned index.
            config: for ``confidence``, ``seed``, ``max_scan_increase`` and ``judge_half_nprobe``.
            learns_queries: whether a query encoder was trained along.
            judges: what the queries are, if not real ones.
        """
        verdict = self._verdict(before, after, config, learns_queries, judges)
        if self.decides or verdict.kept:
            return verdict
        return verdict._replace(kept=True, reason=f"{verdict.reason}; kept as you asked")

    def _verdict(
        self, before: Evaluation, after: Evaluation, config: DistillConfig, learns_queries: bool, judges: str
    ) -> Verdict:
        own, new = before.own, after.own
        gain, interval = paired_gain(before.overlap, after.overlap, config)
        where = f"overlap@10 at nprobe {own.nprobe}" if before.nlist > 1 else "overlap@10"
        measured = f"{told(gain, interval)} on {len(before.overlap)} held-out {judges}"
        if not interval[0] > 0:
            fell = "fell" if interval[1] < 0 else "did not rise for certain"
            return Verdict(False, f"{where} {fell}: {measured}{_advice(config, learns_queries)}", gain, interval)
        if new.codes_scanned > own.codes_scanned * (1 + config.max_scan_increase):
            reason = (
                f"{where} rose by {measured}, but codes scanned rose too, from {own.codes_scanned:.0f} to "
                f"{new.codes_scanned:.0f} a query; raise max_scan_increase={config.max_scan_increase} to accept that"
            )
            return Verdict(False, reason, gain, interval)
        half = own.nprobe // 2
        if config.judge_half_nprobe and half:
            loss, bounds = paired_gain(before.overlap_at(half), after.overlap_at(half), config)
            if bounds[1] < 0:
                reason = (
                    f"{where} rose by {measured}, but at nprobe {half} it fell: {told(loss, bounds)}; "
                    f"judge_half_nprobe=False accepts that"
                )
                return Verdict(False, reason, gain, interval)
        return Verdict(True, f"{where} rose by {measured}", gain, interval)


def paired_gain(before: Float32, after: Float32, config: DistillConfig) -> tuple[float, tuple[float, float]]:
    """Mean of the differences of the same queries, and its percentile bootstrap interval at ``config.confidence``."""
    difference = after - before
    interval = percentile_interval((difference,), np.mean, config.confidence, np.random.default_rng(config.seed))
    return float(difference.mean()), interval


def told(gain: float, interval: tuple[float, float]) -> str:
    """A gain with its interval, as text."""
    return f"{gain:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"


def _advice(config: DistillConfig, learns_queries: bool) -> str:
    if learns_queries:
        return "; a query encoder should start from embeddings near those of queries"
    if config.encoding is Encoding.QUERY_AWARE:
        return "; more queries may help, unless the index was tuned before"
    return ""
