"""Of all kinds of results: each gives sections, which its text is made of, JSON, and a picture if it can be drawn."""

import json

import faiss
import numpy as np
import pytest

import faiss_distill
from faiss_distill import DistillConfig, DistillReport, Drift, Evaluation, OperatingPoints, describe, suggest
from faiss_distill.evaluation.measure import OperatingPoint
from faiss_distill.render.result import Result, as_json
from faiss_distill.render.table import as_text
from faiss_distill.tuning.drift import Loss


def evaluation(found):
    points = [OperatingPoint(n, found + n / 100, 0.6, 0.7, 100.0 * n, 0.1, distances=110.0 * n) for n in (1, 4)]
    each = np.full((2, 3), found, dtype=np.float32) + np.array([-0.1, 0, 0.1], dtype=np.float32) * (found > 0.5)
    return Evaluation(100, 4, tuple(points), each, 1.25, 8, 16)


def report():
    return DistillReport(
        kept=False, reason="too little", index=None, description="IndexIVFPQ", metric="l2", n=2000, n_embeddings=2000,
        query_source="queries", n_train=50, n_stand_ins=20, n_selection=10, n_validation=10, before=evaluation(0.5),
        after=evaluation(0.6), gain=0.1, interval=(0.0, 0.2), temperature=0.1,
        teacher="lists", teacher_lists=37, teacher_cost=0.23, teacher_agreement=0.9812,
        history=(
            {"epoch": 0, "loss": None, "overlap_at_10": 0.5, "codes_scanned": 10.0},
            {"epoch": 1, "loss": 1.0, "overlap_at_10": 0.6, "codes_scanned": 9.0},
        ),
        best_epoch=1,
        query_encoder=None, compiled=True, seconds={"codes": 1.0, "total": 1.26},
        seconds_tenfold={"codes": 9.0, "total": 9.7},
        config=DistillConfig(epochs=1), versions={"Python": "3.11.2", "faiss": "1.15.1"}, held_out=np.array([7, 3, 90]),
        list_sizes=(np.arange(16), np.arange(16)[::-1]),
    )  # fmt: skip


def operating_points():
    points = tuple(OperatingPoint(n, n / 10, 0, 0, n, n / 9, distances=n, parameters=f"nprobe={n}") for n in (1, 2, 4))
    return OperatingPoints("IndexIVFPQ", 100, "overlap_at_10", "distances", points, points[::2])


RESULTS = {
    Evaluation: lambda: evaluation(0.5),
    DistillReport: report,
    OperatingPoints: operating_points,
    Drift: lambda: Drift(
        True, "found less", 4, 90, Loss(60, 0.5, 0.4, 0.1, (0.05, 0.15)), Loss(9, 0.5, 0.5, 0.0, (-0.01, 0.01))
    ),
    faiss_distill.Suggestion: lambda: suggest(60_506, 384, 16),
    faiss_distill.Description: lambda: describe(faiss.IndexFlatL2(4)),
}
TEXTS = {
    Evaluation: """\
nprobe  overlap@10  nearest in 10  recall@100  codes scanned  ms/query
    1        0.510          0.600       0.700            100     0.100
    4*       0.540          0.600       0.700            400     0.100
* the index's own nprobe""",
    DistillReport: """\
IndexIVFPQ, l2, 2000 vectors, codes of 8 bytes
NOT kept, the index is as it was: too little
(in brackets: the 95% interval of the gain)
(in the table: before → what the tuned index would have found)
trained on 30 queries and 20 documents used as queries; epoch 1 of 1, chosen by 10 others; measured on 10 more
taught by what 37 lists hold (about 23% of the cost of exact search): 98.1% of the exact neighbours

nprobe     overlap@10  nearest in 10     recall@100  codes scanned
    1   0.510 → 0.610  0.600 → 0.600  0.700 → 0.700      100 → 100
    4*  0.540 → 0.640  0.600 → 0.600  0.700 → 0.700      400 → 400
* judged here, nprobe 4; small changes elsewhere may be chance

list imbalance 1.25 → 1.25 (1 is even), bytes of a code 8 → 8
seconds: codes 1.0 (with numba), total 1.3
seconds with ten times the vectors, about: codes 9, total 10""",
    OperatingPoints: """\
IndexIVFPQ: overlap@10 against distances, the 2 of 3 operating points that no other beats

parameters  overlap@10  nearest in 10  recall@100  codes scanned  distances  ms/query
nprobe=1         0.100          0.000       0.000              1          1     0.111
nprobe=4         0.400          0.000       0.000              4          4     0.444""",
}


@pytest.fixture(params=RESULTS, ids=lambda kind: kind.__name__)
def result(request):
    return RESULTS[request.param]()


def test_every_result_is_here():
    assert {*Result.__subclasses__()} == {*RESULTS}


def test_the_text_is_made_of_sections(result):
    assert result.sections()
    assert str(result) == as_text(result.sections())
    for section in result.sections():
        parts = [section.title, *(column.name for column in section.columns), *section.notes]
        assert all(part in str(result) for part in parts)
        assert all(len(row) == len(section.columns) for row in section.rows)


@pytest.mark.parametrize("kind", TEXTS, ids=lambda kind: kind.__name__)
def test_the_text_itself(kind):
    assert str(RESULTS[kind]()) == TEXTS[kind]


def test_json_round_trips(result, tmp_path):
    as_lists = json.loads(json.dumps(result.to_dict()))
    assert json.loads(result.to_json()) == as_lists
    assert as_json(result.to_dict(), tmp_path / "r.json") == result.to_json()
    assert (tmp_path / "r.json").read_text(encoding="utf-8") == result.to_json() + "\n"


@pytest.mark.parametrize("kind", [DistillReport, OperatingPoints], ids=lambda kind: kind.__name__)
def test_what_has_a_picture_can_be_drawn(kind, tmp_path):
    result = RESULTS[kind]()
    result.plot(tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000
    for panel in result.picture().panels:
        assert panel.x
        assert panel.y
        for series in panel.series:
            assert len(series.x) == len(series.y) > 0
            assert len(series.labels) in (0, len(series.x))
