import json
import sys
from dataclasses import replace

import faiss
import numpy as np
import pytest
from conftest import core, untrained

from faiss_distill import DistillConfig, DistillReport, InputError, MissingDependencyError, distill, evaluate
from faiss_distill.evaluation.measure import Evaluation, OperatingPoint, compared
from faiss_distill.render.table import as_text


@pytest.fixture(scope="module")
def report(data, built):
    return distill(built(), data.documents[:2000], data.queries, epochs=1, nprobe=4, progress=False)


def test_the_table_lines_up_and_stars_the_judged_nprobe(report):
    lines = as_text([compared(report.before, report.after)]).splitlines()
    assert lines.pop() == "* the index's own nprobe"
    assert len({len(line) for line in lines}) == 1
    assert [line.split()[0] for line in lines] == ["nprobe", "1", "2", "4*", "16"]
    own = report.before.own, report.after.own
    assert f"{own[0].overlap_at_10:.3f} → {own[1].overlap_at_10:.3f}" in lines[3]
    assert "MRR" not in lines[0]


def test_print_says_what_matters(report):
    text = str(report)
    assert f"Kept: {report.reason}" in text
    assert "IndexIVFPQ, inner_product, 2000 vectors, codes of 8 bytes" in text
    assert "bytes of a code 8 → 8" in text
    for phase in ("check", "teacher", "judging", "training", "lists", "codes", "commit", "total"):
        assert f"{phase} {report.seconds[phase]:.1f}" in text
        assert f"{phase} {report.seconds_tenfold[phase]:.0f}" in text
    assert "used as queries" not in text


def test_what_is_said_of_lists_and_codes_alone(report):
    said = "only lists and codes are new"
    assert said not in str(replace(report, best_epoch=1))
    assert said in str(replace(report, best_epoch=0))
    assert said not in str(replace(report, best_epoch=0, kept=False))  # the index is as it was


def test_label_columns_appear_with_labels():
    point = OperatingPoint(1, 0.5, 0.6, 0.7, 100, 0.1, mrr_at_10=0.25, label_recall_at_10=0.3, label_recall_at_k=0.4)
    text = str(Evaluation(100, 1, (point,), np.zeros((1, 1), dtype=np.float32), 1.0, 8, 4))
    assert "MRR@10 (labels)" in text
    assert "0.250" in text


def test_json_is_the_report(report, tmp_path):
    loaded = json.loads(report.to_json(tmp_path / "r.json"))
    assert loaded == json.loads((tmp_path / "r.json").read_text())
    assert loaded["gain"] == report.gain
    assert loaded["after"]["points"][2]["overlap_at_10"] == report.after.own.overlap_at_10
    assert DistillConfig(**loaded["config"]) == report.config
    again = DistillReport.from_json(tmp_path / "r.json")
    assert (again.to_dict(), str(again)) == (report.to_dict(), str(report))


def test_phases_add_up(report):
    phases = {k: v for k, v in report.seconds.items() if k != "total"}
    assert report.seconds["total"] == pytest.approx(sum(phases.values()))


def test_plot_into_no_folder(report, tmp_path):
    with pytest.raises(InputError, match="plot: expected a folder that exists"):
        report.plot(tmp_path / "no" / "p.png")


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_plot_draws_every_point(report, tmp_path, suffix):
    report.plot(tmp_path / f"p{suffix}")
    assert (tmp_path / f"p{suffix}").stat().st_size > 5000


def test_plot_data(report, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (drawn.append(self), path.touch()))
    report.plot(tmp_path / "x.png")
    before, after = drawn[0].axes[0].lines
    assert list(before.get_ydata()) == [p.overlap_at_10 for p in report.before.points]
    assert list(after.get_xdata()) == [p.codes_scanned for p in report.after.points]


def test_plot_of_another_format(report, tmp_path):
    with pytest.raises(InputError, match=r"plot: expected a file ending in \.png, \.svg, \.pdf, got '.*p\.foo'"):
        report.plot(tmp_path / "p.foo")


def test_plot_without_matplotlib(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'faiss-distill\[plot\]'"):
        report.plot(tmp_path / "p.png")


def test_evaluation_against_plain_loops(built, data):
    index = built("IVF16,PQ16x4", "l2")
    index.nprobe = 2
    x, q = data.documents[:2000], data.queries[:80]
    got = evaluate(index, x, q, nprobe=[5], top_k=20, progress=False)
    assert [p.nprobe for p in got.points] == [2, 5]
    exact = np.argsort(((q[:, None] - x[None]) ** 2).sum(2), axis=1)[:, :20]
    lists = index.quantizer.search(q, 5)[1]
    for point in got.points:
        index.nprobe = point.nprobe
        found = index.search(q, 20)[1]
        pairs = list(zip(found.tolist(), exact.tolist(), strict=True))
        assert point.overlap_at_10 == pytest.approx(np.mean([len({*f[:10]} & {*e[:10]}) / 10 for f, e in pairs]))
        assert point.nearest_in_10 == pytest.approx(np.mean([e[0] in f[:10] for f, e in pairs]))
        assert point.recall_at_k == pytest.approx(np.mean([len({*f} & {*e[:10]}) / 10 for f, e in pairs]))
        scanned = [sum(index.invlists.list_size(int(i)) for i in row[: point.nprobe]) for row in lists]
        assert point.codes_scanned == pytest.approx(np.mean(scanned))
        assert point.latency_ms > 0


def test_a_refined_index_is_measured_as_it_is_searched(built, data):
    index = built("IVF16,PQ16x4,RFlat")
    core(index).nprobe = 4
    got = evaluate(index, data.documents[:2000], data.queries[:200], progress=False)
    exact = faiss.knn(data.queries[:200], data.documents[:2000], 10, metric=faiss.METRIC_INNER_PRODUCT)[1]
    found = index.search(data.queries[:200], 10)[1]
    overlap = np.mean([len(np.intersect1d(f, e)) for f, e in zip(found, exact, strict=True)]) / 10
    assert got.own.overlap_at_10 == pytest.approx(overlap)
    assert got.own.overlap_at_10 < got.own.recall_at_k - 0.1  # a search for 100 re-ranks more


@pytest.mark.parametrize("refined", [False, True])
def test_which_vectors_are_exact_under_normalisation(built, data, refined):
    """The codes of a normalising index compare unit vectors, a refinement outside it the vectors as they came."""
    scale = np.random.default_rng(0).uniform(0.2, 5, (2000, 1)).astype(np.float32)
    x = scale * data.documents[:2000]
    index = untrained("L2norm,IVF16,PQ16x4" + ",RFlat" * refined)
    index.train(x)
    index.add(x)
    core(index).nprobe = 16
    if refined:
        index.k_factor = 200
    got = evaluate(index, x, data.queries[:100], progress=False)
    assert got.own.overlap_at_10 > (0.99 if refined else 0.4)


def test_negative_ids_count(built, data):
    ids = np.arange(2000) - 10**15
    by_hash = evaluate(built(ids=ids), data.documents[:2000], data.queries[:200], ids=ids, progress=False)
    plain = evaluate(built(), data.documents[:2000], data.queries[:200], progress=False)
    assert by_hash.own.overlap_at_10 == plain.own.overlap_at_10
    assert by_hash.own.nearest_in_10 == plain.own.nearest_in_10
