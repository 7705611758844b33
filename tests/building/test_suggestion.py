import json
import re

import faiss
import numpy as np
import pytest
from conftest import METRICS, hasten

from faiss_distill import InputError, describe, index_factory, suggest
from faiss_distill.building.estimates import GRAPH, Shape, shape_of, train_flops
from faiss_distill.building.factory import parse


def shape(n, d, size, metric=faiss.METRIC_L2):
    return suggest(n, d, size, metric).factory


@pytest.mark.parametrize(
    ("n", "d", "size", "factory"),
    [
        (60_506, 384, 16, "OPQ16,IVF1024,PQ16np,Distill"),
        (60_506, 100, 16, "OPQ16_96,IVF1024,PQ16np,Distill"),  # 16 does not divide 100
        (60_506, 384, 26, "OPQ24,IVF1024,PQ24np,Distill"),  # 26 does not divide 384
        (60_506, 384, 1, "IVF1024,PQ1np,Distill"),  # nothing to spread over one segment
        (9_990, 384, 1, "PQ1np,Distill"),
        (5_000, 384, 16, "OPQ32,PQ32x4np,Distill"),  # too few for 256 codewords, and for lists
        (500, 384, 16, "Flat"),
        (2_000_000, 768, 32, "OPQ32,IVF32768_HNSW32,PQ32np,Distill"),  # 39 vectors a list
        (5_000_000, 96, 12, "OPQ12,IVF65536_HNSW32,PQ12np,Distill"),
        (50_000_000, 96, 12, "OPQ12,IVF262144_HNSW32,PQ12np,Distill"),
        (500_000_000, 96, 12, "OPQ12,IVF1048576_HNSW32,PQ12np,Distill"),
        (60_506, 64, 64, "IVF1024,SQ8,Distill"),
        (60_506, 64, 128, "IVF1024,SQfp16,Distill"),
        (60_506, 64, 256, "IVF1024,Flat,Distill"),
        (60_506, 64, 40, "OPQ32,IVF1024,PQ32np,Distill"),  # no segment of one dimension
        (5_000, 64, 64, "SQ8"),
    ],
)
def test_strings(n, d, size, factory):
    got = suggest(n, d, size)
    assert got.factory == factory
    assert (got.nprobe is None) == ("IVF" not in factory)
    tokens = [t for t in factory.split(",") if t != "Distill"]
    assert all(any(re.match(rf"{t.split('_')[0]}\b", reason) for reason in got.reasons) for t in tokens)
    assert (got.tune_seconds > 0) == ("Distill" in factory)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [100, 3_000, 12_000, 400_000, 3_000_000, 20_000_000])
@pytest.mark.parametrize("d", [2, 17, 64, 768])
@pytest.mark.parametrize("size", [1, 7, 16, 64, 1000, 10_000])
def test_faiss_builds_all_of_them_within_the_budget(n, d, size, metric):
    got = suggest(n, d, size, METRICS[metric])
    index = index_factory(d, got.factory, METRICS[metric])
    assert index.metric_type == METRICS[metric]
    assert got.bytes_per_vector["codes"] <= max(size, 4 * d if n < 39 * 16 else 0)
    parse(got.factory)
    nlist = faiss.extract_index_ivf(index).nlist if got.nprobe else 0
    assert nlist * 39 <= n
    assert got.nprobe is None or 1 <= got.nprobe <= nlist


@pytest.mark.parametrize(("n", "size"), [(500, 16), (4500, 8), (4500, 32), (4500, 64), (4500, 256)])
def test_memory_is_that_of_the_file(data, n, size):
    check_memory(data.documents[:n], size)


def test_memory_with_lists_and_a_graph(data, monkeypatch):
    monkeypatch.setattr("faiss_distill.building.suggest.LISTS_FROM", 1000)
    check_memory(data.documents, 16)
    monkeypatch.setattr("faiss_distill.building.suggest.GRAPH_FROM", 64)
    assert "_HNSW32" in check_memory(data.documents, 16)


@pytest.mark.parametrize(
    ("n", "size", "metric", "faster"),
    [
        (60_506, 16, "ip", "RQ32x4fsr in place of OPQ16 and PQ16np"),
        (60_506, 4, "ip", "RQ8x4fsr in place of OPQ4 and PQ4np"),
        (60_506, 24, "ip", "PQ48x4fsr in place of PQ24np"),
        (60_506, 16, "l2", "PQ32x4fsr in place of PQ16np"),  # norms would take some of the bytes
        (60_506, 3, "ip", None),
        (9_990, 16, "ip", "PQ32x4fsr in place of PQ16np"),  # no lists
        (900, 16, "ip", None),
    ],
)
def test_what_is_faster(n, size, metric, faster):
    said = [reason for reason in suggest(n, 384, size, metric).reasons if "faster" in reason]
    assert len(said) == (faster is not None)
    if faster is not None:
        assert faster in said[0]
        index = index_factory(384, f"IVF1024,{faster.split()[0]}", metric)
        assert describe(index).bytes_per_vector["codes"] == size


def check_memory(x, size):
    got = suggest(len(x), 64, size)
    index = index_factory(64, got.factory)
    hasten(index)
    index.train(x[:1000])  # sizes are the same
    index.add(x)
    assert describe(index).bytes_per_vector == pytest.approx(got.bytes_per_vector, rel=0.02)
    assert faiss.serialize_index(index).nbytes == pytest.approx(got.total_bytes, rel=0.03, abs=2000)
    return got.factory


def test_more_of_anything_takes_longer():
    base = suggest(100_000, 256, 16)
    for more in (suggest(1_000_000, 256, 16), suggest(100_000, 1024, 16), suggest(100_000, 256, 128)):
        assert more.build_seconds > base.build_seconds
    assert suggest(1_000_000, 256, 16).tune_seconds > 2 * base.tune_seconds


def test_the_shape_of_an_index():
    index = index_factory(64, "IDMap2,OPQ16_32,IVF64_HNSW32,PQ16x4np,RFlat")
    assert shape_of(index) == Shape(64, 64, GRAPH, 16, 16, rotated=True, polysemous=False)
    assert shape_of(index_factory(64, "IVF64,PQ8")) == Shape(64, 64, 64, 8, 256, rotated=False, polysemous=True)
    assert shape_of(index_factory(64, "SQ8")) == Shape(64, 0, 0, 0, 0, rotated=False, polysemous=False)


def test_polysemous_training_is_most_of_it():
    with_it, without = (train_flops(shape_of(index_factory(384, f"IVF128,PQ16{np}")), 16_000) for np in ("", "np"))
    assert with_it > 5 * without


def test_print_and_json():
    got = suggest(60_506, 384, 16, faiss.METRIC_INNER_PRODUCT)
    text = str(got)
    for part in (
        got.factory,
        "inner_product",
        "24: codes 16, ids 8",
        "nprobe             32 to begin with",
        "- IVF1024: ",
    ):
        assert part in text
    assert json.loads(got.to_json())["reasons"] == list(got.reasons)
    assert "while it is built" not in str(suggest(100, 8, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8, 4), "n: expected an integer from 1 to .*, got 0"),
        ((True, 8, 4), "n: expected an integer from 1 to .*, got True"),
        ((100, 8.5, 4), "d: expected an integer from 1 to .*, got 8.5"),
        ((100, 8, 0.5), "bytes_per_vector: expected a number of at least 1, got 0.5"),
        ((100, 8, float("nan")), "bytes_per_vector: expected a number of at least 1, got nan"),
        ((100, 8, 4, 23), "metric: expected 'ip' or 'l2', or faiss.METRIC_INNER_PRODUCT or faiss.METRIC_L2, got 23"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        suggest(*arguments)


def test_reasons_for_segments():
    assert any(
        "24 segments of 8 bits; 24 divides 384, which 26 does not" in r for r in suggest(60_506, 384, 26).reasons
    )
    assert any(r.endswith("1 segment of 8 bits") for r in suggest(60_506, 384, 1).reasons)


def test_numbers_of_numpy_will_do(data):
    n, d = np.array(data.documents.shape)
    assert suggest(n, d, np.float64(8)).factory == suggest(int(n), int(d), 8).factory


@pytest.mark.parametrize("name", ["ip", "IP", "inner_product"])
def test_metrics_by_name(name):
    assert suggest(60_000, 384, 16, name).metric == "inner_product"
    assert suggest(60_000, 384, 16, "l2").metric == suggest(60_000, 384, 16).metric == "l2"
