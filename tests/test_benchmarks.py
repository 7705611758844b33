"""The parts of the benchmarks that a figure could go wrong in."""

import json
import sys

import numpy as np
import pytest

from benchmarks import debian, make_full_data, make_sample

TRANSLATION = """\
Package: one
Description-md5: 0
Description-en: a tool for  things
 This is the long description of a tool
 for things, in two paragraphs.
 .
 The second paragraph.

Package: two
Description-en: a tool for things
 Another long description that is long enough to count.

Package: three
Description-en: a library
 Too short.

Package: four
Description-en: a fourth thing
 Another long description that is long enough to count.
"""


def test_descriptions_become_documents_queries_and_labels(tmp_path):
    (tmp_path / "Translation-en").write_text(TRANSLATION)
    documents, queries, relevant = make_full_data.pairs(make_full_data.descriptions(tmp_path / "Translation-en"))
    assert documents == [
        "This is the long description of a tool for things, in two paragraphs. The second paragraph.",
        "Another long description that is long enough to count.",
    ]
    assert queries == ["a tool for things", "a fourth thing"]
    assert relevant == [0, 1]


def test_quantized_rows_are_close():
    x = np.random.default_rng(0).standard_normal((50, 384)).astype(np.float32)
    codes, scale = make_sample.quantize(x)
    error = np.linalg.norm(codes * scale[:, None] - x, axis=1) / np.linalg.norm(x, axis=1)
    assert error.max() < 0.015


@pytest.mark.slow
def test_the_benchmark_runs_on_the_sample(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        debian, "cases", lambda nlist: [debian.Case("IVF64,PQ32x4", "l2"), debian.Case("IVF64,PQ32x4", "ip", False)]
    )
    monkeypatch.setattr(sys, "argv", ["debian", "--seeds", "2", "--output", str(tmp_path / "r.json")])
    debian.main()
    out = capsys.readouterr().out
    assert "±" in out
    results = json.loads((tmp_path / "r.json").read_text())
    assert len(results) == 2
    for result in results:
        assert len(result["after"]) == 2
        old = next(p for p in result["before"]["points"] if p["nprobe"] == 16)
        new = next(p for p in result["after"][0]["points"] if p["nprobe"] == 16)
        assert new["overlap_at_10"] > old["overlap_at_10"]
        assert f"{old['overlap_at_10']:.3f} → " in out
