"""Of all kinds of results: each gives sections, which its text is made of, JSON, and a picture if it can be drawn."""

import json
import sys
from dataclasses import asdict, fields, replace

import faiss
import numpy as np
import pytest

import faiss_distill
from faiss_distill import (
    DistillConfig,
    DistillReport,
    Drift,
    Evaluation,
    InputError,
    MissingDependencyError,
    OperatingPoints,
    describe,
    suggest,
)
from faiss_distill.evaluation.point import OperatingPoint
from faiss_distill.render.content import Picture
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


def test_json_holds_the_same(result, tmp_path):
    as_lists = json.loads(json.dumps(result.to_dict()))
    assert result.to_json(tmp_path / "own.json") + "\n" == (tmp_path / "own.json").read_text(encoding="utf-8")
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


MORE = {
    "labels": lambda: replace(
        evaluation(0.5),
        points=tuple(
            replace(point, mrr_at_10=0.25, label_recall_at_10=1, label_recall_at_k=1)
            for point in evaluation(0.5).points
        ),
    ),
    "kept, with an encoder": lambda: replace(
        report(), kept=True, query_encoder=faiss_distill.LinearAdapter(4), read_from="wiki.faiss",
        config=DistillConfig(learn="centroids", encoding="frozen", max_memory="4GB", temperature=0.5),
    ),
    "no documents": lambda: Drift(False, "found", 4, 90, Loss(60, 0.5, 0.4, 0.1, (0.05, 0.15)), None),
    "lists": lambda: describe(faiss.index_factory(8, "IVF4,PQ4x4fs,RFlat", faiss.METRIC_INNER_PRODUCT)),
    "one that can't be tuned": lambda: describe(faiss.IndexHNSWFlat(8, 4)),
}  # fmt: skip


@pytest.mark.parametrize("made", [*RESULTS.values(), *MORE.values()], ids=[*(k.__name__ for k in RESULTS), *MORE])
def test_what_json_gives_back(made, tmp_path):
    result = made()
    result.to_json(tmp_path / "r.json")
    for source in (result.to_json(), f"\n {result.to_json()}\n", tmp_path / "r.json", str(tmp_path / "r.json")):
        again = type(result).from_json(source)
        assert type(again) is type(result)
        assert again.to_dict() == result.to_dict()
        assert str(again) == str(result)
        assert again.to_json() == result.to_json()
        for field in fields(result):  # enums, tuples and dataclasses as well
            if field.name not in ("overlaps", "index", "held_out", "list_sizes", "parameters", "query_encoder"):
                old, new = getattr(result, field.name), getattr(again, field.name)
                assert type(new) is type(old)
                assert isinstance(old, Evaluation) or new == old


def test_what_json_does_not_hold():
    again = DistillReport.from_json(replace(report(), index=faiss.IndexFlatL2(4)).to_json())
    assert again.index is again.parameters is None
    assert again.held_out.shape == again.list_sizes[0].shape == again.after.overlap.shape == (0,)
    assert again.before.overlap_at(1).shape == (0,)
    assert repr(Evaluation.from_json(evaluation(0.5).to_json())) == "<Evaluation: overlap@10 0.540 at nprobe 4>"


def test_a_page_leaves_out_what_is_not_known(tmp_path):
    whole, again = report(), DistillReport.from_json(report().to_json())
    titles = [[part.title for part in each.page().parts] for each in (whole, again)]
    assert [title for title in titles[0] if title not in titles[1]] == ["Gain by query", "Lists"]
    page = again.to_html(tmp_path / "r.html")
    assert "intervals" not in page
    assert "Recall against cost" in page
    panels = next(part for part in again.page().parts if isinstance(part, Picture)).panels
    assert not any(series.within for panel in panels for series in panel.series)


@pytest.mark.parametrize("kind", [DistillReport, OperatingPoints], ids=lambda kind: kind.__name__)
def test_what_was_read_can_be_drawn(kind):
    assert kind.from_json(RESULTS[kind]().to_json()).picture() == RESULTS[kind]().picture()


def changed(**values):
    """The JSON of a report with some values in place of its own, by path with two underscores; None removes one."""
    content = json.loads(report().to_json())
    for path, value in values.items():
        *above, name = path.split("__")
        inner = content
        for step in above:
            inner = inner[int(step) if step.isdigit() else step]
        inner[name] = value
        if value is None:
            del inner[name]
    return json.dumps(content)


@pytest.mark.parametrize(
    ("source", "got"),
    [
        ("{", "no JSON: Expecting property name"),
        ("{" * 9, "no JSON"),
        ('{"a": ' * 200_000, "no JSON: .*recursion"),
        ("{}", "no kept"),
        ("", "'', Is a directory"),
        ("no.json", "'no.json', No such file or directory"),
        ("[1]", r"'\[1\]', No such file or directory"),
        ("x" * 5000, "File name too long"),
        ("a\0b", "no JSON: embedded null"),
        (None, "NoneType"),
        ({"kept": True}, "dict"),
        (json.dumps(evaluation(0.5).to_dict()), "an unknown k"),
        (changed(more=1), "an unknown more"),
        (changed(reason=None), "no reason"),
        (changed(before__points__0__nprobe=None), r"no before.points\[0\].nprobe"),
        (changed(before__points__0__nprobe="1"), r"before.points\[0\].nprobe '1'"),
        (changed(before__points__0__nprobe=True), r"before.points\[0\].nprobe True"),
        (changed(gain="much"), "gain 'much'"),
        (changed(interval=[1]), r"interval \[1\]"),
        (changed(history=[3]), r"history\[0\] 3"),
        (changed(seconds__total="1"), "seconds.total '1'"),
        (changed(teacher_lists=1.5), "teacher_lists 1.5"),
        (changed(config__learn="all"), "config.learn 'all'"),
        (changed(config__epochs=-1), "config: epochs: expected"),
        (changed(config__faster=True), "an unknown config.faster"),
        (changed(after__own_nprobe=3), "that can't be shown"),
        (changed(after__points=[]), "that can't be shown"),
        (changed(seconds_tenfold__total=None), "that can't be shown"),
    ],
    ids=range(28),
)
def test_what_is_no_json_of_a_report(source, got, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=got) as refused:
        DistillReport.from_json(source)
    assert refused.value.argument == "source"
    assert refused.value.expected == "the JSON that DistillReport.to_json writes, or the path of a file of it"
    assert len(str(refused.value)) < 400


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "r.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match=r"r\.json', no JSON: .*utf-8"):
        Evaluation.from_json(tmp_path / "r.json")
    (tmp_path / "r.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"r\.json', content \[1, 2\]"):
        OperatingPoints.from_json(tmp_path / "r.json")


@pytest.mark.parametrize("read", [False, True])
def test_tables_of_pandas(read):
    pytest.importorskip("pandas")
    own, points, tuned = (
        kind.from_json(RESULTS[kind]().to_json()) if read else RESULTS[kind]()
        for kind in (Evaluation, OperatingPoints, DistillReport)
    )
    for frame, expected in (
        (own.to_pandas(), [{"own": p.nprobe == 4, **asdict(p)} for p in own.points]),
        (points.to_pandas(), [{"front": p.nprobe != 2, **asdict(p)} for p in points.points]),
        (
            tuned.to_pandas(),
            [{"when": w, **asdict(p)} for w in ("before", "after") for p in getattr(tuned, w).points],
        ),
    ):
        known = [name for name in expected[0] if any(row[name] not in (None, "") for row in expected)]
        assert frame.to_dict("records") == [{name: row[name] for name in known} for row in expected]
        assert "mrr_at_10" not in frame
    assert tuned.to_pandas().pivot(index="nprobe", columns="when", values="overlap_at_10").loc[4, "after"] == 0.64
    labelled = MORE["labels"]().to_pandas()
    assert labelled["mrr_at_10"].tolist() == [0.25, 0.25]


def test_tables_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"to_pandas: expected pandas, .*'faiss-distill\[pandas\]'"):
        evaluation(0.5).to_pandas()
