"""Whether a result is kept: evaluations in, a verdict out."""

import numpy as np
import pytest

from faiss_distill import DistillConfig, InputError
from faiss_distill.evaluation.measure import Evaluation, OperatingPoint
from faiss_distill.tuning.gate import Gate, paired_gain


def evaluation(overlaps, own=4, scanned=100.0, nlist=16):
    """An index that finds ``{nprobe: overlap@10 of each query}``."""
    points = tuple(OperatingPoint(p, float(np.mean(o)), 0, 0, scanned, 0) for p, o in overlaps.items())
    return Evaluation(10, own, points, np.array(list(overlaps.values()), dtype=np.float32), 1.0, 8, nlist)


@pytest.fixture
def change():
    """Before and after of 200 queries, given the mean gains at nprobe 2 and 4."""

    def change(half, own, **after):
        rng = np.random.default_rng(0)
        before = {p: np.full(200, 0.5) for p in (2, 4)}
        noise = rng.standard_normal(200)
        noise = 0.1 * (noise - noise.mean())
        return evaluation(before), evaluation({2: before[2] + half + noise, 4: before[4] + own + noise}, **after)

    return change


@pytest.mark.parametrize(
    ("half", "own", "kept", "reason"),
    [
        (0.05, 0.05, True, "overlap@10 at nprobe 4 rose by +0.050 [+0.0"),
        (0.0, 0.0, False, "overlap@10 at nprobe 4 did not rise for certain: +0.000 [-0.0"),
        (0.05, -0.05, False, "overlap@10 at nprobe 4 fell: -0.050 [-0.0"),
        (-0.008, 0.05, True, "rose by +0.050"),  # may be chance
        (-0.05, 0.05, False, "but at nprobe 2 it fell: -0.050 [-0.06"),
    ],
)
def test_kept_or_not_and_why(change, half, own, kept, reason):
    verdict = Gate().judge(*change(half, own), DistillConfig())
    assert verdict.kept == kept
    assert reason in verdict.reason
    assert "on 200 held-out queries" in verdict.reason
    assert verdict.gain == pytest.approx(own, abs=1e-6)
    assert verdict.interval[0] < verdict.gain < verdict.interval[1]


def test_half_the_nprobe_may_be_given_up(change):
    verdict = Gate().judge(*change(-0.05, 0.05), DistillConfig(judge_half_nprobe=False))
    assert verdict.kept
    with pytest.raises(InputError, match="judge_half_nprobe: expected True or False, got 1"):
        DistillConfig(judge_half_nprobe=1)


def test_more_codes_scanned_come_before_a_loss_elsewhere(change):
    verdict = Gate().judge(*change(-0.05, 0.05, scanned=102.0), DistillConfig())
    assert not verdict.kept
    assert "codes scanned rose too, from 100 to 102 a query; raise max_scan_increase=0.01" in verdict.reason
    assert Gate().judge(*change(0.05, 0.05, scanned=100.9), DistillConfig()).kept


def test_at_nprobe_1_there_is_no_half():
    before, after = ({1: np.linspace(0, 0.5, 50) + gain} for gain in (0, 0.1))
    assert Gate().judge(evaluation(before, own=1), evaluation(after, own=1), DistillConfig()).kept
    verdict = Gate().judge(evaluation(before, own=1, nlist=1), evaluation(after, own=1, nlist=1), DistillConfig())
    assert verdict.reason.startswith("overlap@10 rose by")  # no lists, no nprobe


def test_advice_is_for_what_was_done(change):
    unchanged = change(0, 0)
    assert "more queries may help, unless the index was tuned" in Gate().judge(*unchanged, DistillConfig()).reason
    assert Gate().judge(*unchanged, DistillConfig(encoding="nearest")).reason.endswith("held-out queries")
    assert "near those of queries" in Gate().judge(*unchanged, DistillConfig(), learns_queries=True).reason


@pytest.mark.parametrize("n", [15, 150])
def test_equal_indexes_are_rarely_told_apart(n):
    """Nominally in 1 of 40; with few queries the bootstrap is a little too sure."""
    rng, config = np.random.default_rng(n), DistillConfig()
    before = np.full(n, 0.5, dtype=np.float32)
    gains = rng.choice([-0.2, -0.1, 0, 0, 0.1, 0.2], (150, n)).astype(np.float32)
    kept = sum(paired_gain(before, before + gain, config)[1][0] > 0 for gain in gains)
    assert kept <= 0.08 * len(gains)
