import pytest

from faiss_distill.stages import TENFOLD, Stages, covered_tenfold


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("faiss_distill.stages.time.perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_time_counts_for_the_innermost_stage(clock):
    stages = Stages()
    with stages("training"):
        clock(1)
        with stages("codes", TENFOLD):
            clock(2)
        clock(4)
        with stages("codes"):
            clock(8)
    clock(100)
    with stages("commit", 2.0):
        clock(16)
    assert stages.seconds == {"training": 5, "codes": 10, "commit": 16}
    assert stages.tenfold == {"training": 5, "codes": 28, "commit": 32}


def test_a_stage_that_fails_is_counted(clock):
    stages = Stages()
    with pytest.raises(KeyError), stages("teacher"):
        clock(3)
        raise KeyError
    clock(5)
    with stages("check"):
        clock(7)
    assert stages.seconds == {"teacher": 3, "check": 7}


@pytest.mark.parametrize("draws", [10, 3_000, 100_000])
def test_documents_looked_at_grow_as_random_draws_cover_them(draws):
    import numpy as np

    rng = np.random.default_rng(0)
    small, large = (len(np.unique(rng.integers(0, n, draws))) for n in (2_000, 20_000))
    assert small * covered_tenfold(small, 2_000) == pytest.approx(large, rel=0.02) or small == 2_000
