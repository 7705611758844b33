"""What other libraries make of an exported index is what faiss makes of the index."""

import faiss
import nanopq
import numpy as np
import pytest
from conftest import METRICS, QUICK, N, core, untrained
from safetensors.numpy import load_file, save_file

from faiss_distill import InputError, MissingDependencyError, UnsupportedIndexError, distill
from faiss_distill.data.formats import extras
from faiss_distill.exports.cuvs import to_cuvs
from faiss_distill.exports.nanopq import to_nanopq
from faiss_distill.index.registry import open_index


def filled(data, factory, metric, by_residual=True):
    """An index that looks into all of its lists; with ids of their own in an ``IDMap2``."""
    index = untrained(factory, metric)
    if "IVF" in factory:
        core(index).by_residual = by_residual
        core(index).nprobe = 16
    index.train(data.documents[:N])
    if "IDMap2" in factory:
        index.add_with_ids(data.documents[:N], np.arange(N)[::-1] * 7)
    else:
        index.add(data.documents[:N])
    if "IVF" in factory and "fs" not in factory:
        core(index).make_direct_map()  # to reconstruct
    return index


class TestNanopq:
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize(
        "factory",
        ["PQ16x4np", "OPQ16,PQ16x6np", "RR64,OPQ8,PQ8x6np", "PQ8x10np", "IVF16,PQ16x4np", "IDMap2,OPQ16,IVF16,PQ16x4"],
    )
    def test_it_searches_as_faiss_does(self, data, factory, metric):
        index = filled(data, factory, metric, by_residual=False)
        quantizer, codes, ids = to_nanopq(index)
        assert type(quantizer) is (nanopq.OPQ if "OPQ" in factory else nanopq.PQ)
        assert codes.dtype == quantizer.code_dtype
        scores, found = index.search(data.queries[:50], N)
        for query, expected, order in zip(data.queries[:50], scores, found, strict=True):
            got = dict(zip(ids.tolist(), quantizer.dtable(query).adist(codes).tolist(), strict=True))
            np.testing.assert_allclose([got[i] for i in order.tolist()], expected, atol=2e-5)
        own = [index.reconstruct(int(i)) for i in ids[::100]]
        np.testing.assert_allclose(quantizer.decode(codes[::100]), own, atol=1e-5)

    def test_it_encodes_as_faiss_does(self, built, data):
        index = built("OPQ16,PQ16x6np")
        quantizer, codes, _ = to_nanopq(index)
        assert (quantizer.encode(data.documents[:N]) == codes).mean() > 0.999  # but for ties

    def test_codes_that_tuning_has_chosen(self, built, data, tmp_path):
        report = distill(built("OPQ16,PQ16x4np"), data.documents[:N], data.queries, **QUICK | {"nprobe": 1})
        assert report.kept
        faiss.write_index(report.index, str(tmp_path / "i.faiss"))
        quantizer, codes, ids = to_nanopq(tmp_path / "i.faiss")
        np.testing.assert_array_equal(quantizer.codewords, report.parameters.codebooks[:, 0])
        assert (quantizer.encode(data.documents[:N]) != codes).mean() > 0.05  # not the nearest
        found = [ids[np.argsort(-quantizer.dtable(q).adist(codes))[:10]] for q in data.queries[:100]]
        assert (np.array(found) == report.index.search(data.queries[:100], 10)[1]).mean() > 0.99

    @pytest.mark.parametrize("factory", ["PQ16x4fs", "IVF16,PQ16x4fs"])
    def test_fast_scan(self, built, data, factory):
        index = built(factory, "l2")
        quantizer, codes, ids = to_nanopq(index)
        if "IVF" in factory:
            core(index).nprobe = 16
        found = index.search(data.queries[:100], 10)[1]
        got = [ids[np.argsort(quantizer.dtable(q).adist(codes))[:10]] for q in data.queries[:100]]
        assert np.mean([len(np.intersect1d(f, g)) for f, g in zip(found, got, strict=True)]) > 8  # faiss rounds

    @pytest.mark.parametrize(
        ("factory", "says"),
        [
            (
                "IVF16,PQ16x4",
                "codes of the vectors themselves, got those of residuals in IndexIVFPQ; nanopq has no lists",
            ),
            ("RQ4x4", "one with product codes, got IndexResidualQuantizer"),
            ("IVF16,SQ8", "one with product codes, got IndexIVFScalarQuantizer"),
            ("OPQ8_32,PQ8x4np", r"no transforms but rotations, .*, got IndexPreTransform\(\w+\) > IndexPQ"),
            ("PCA64,PQ8x4np", r"no transforms but rotations, .*, got IndexPreTransform\(PCAMatrix\) > IndexPQ"),
            ("PCAW64,PQ8x4np", "no transforms but rotations"),
            ("L2norm,PQ8x4np", "no transforms but rotations"),
            ("Flat", "one that can be tuned, got an IndexFlatIP"),
        ],
    )
    def test_what_is_refused(self, built, factory, says):
        with pytest.raises(UnsupportedIndexError, match=rf"^index: expected {says}"):
            to_nanopq(built(factory))

    def test_what_is_no_index(self):
        with pytest.raises(InputError, match=r"^index: expected a faiss\.Index, got list"):
            to_nanopq([])

    def test_without_nanopq(self, built, monkeypatch):
        monkeypatch.setattr(extras.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
        with pytest.raises(MissingDependencyError, match=r"^to_nanopq: .* pip install 'faiss-distill\[nanopq\]'"):
            to_nanopq(built("PQ16x4np"))


def decoded(arrays, lists, codes):
    """What cuVS decodes (``reconstruct_list_data``): codeword plus rotated center, turned back."""
    pq_centers, centers_rot, rotation = (arrays[name] for name in ("pq_centers", "centers_rot", "rotation_matrix"))
    rows = []
    for number, code in zip(lists, codes, strict=True):
        parts = [pq_centers[part, :, word] for part, word in enumerate(code)]
        rows.append(np.concatenate(parts) + centers_rot[number])
    return np.array(rows) @ rotation


def distances(arrays, queries, metric):
    """How far cuVS takes queries to be from centers (``select_clusters``), of which it looks into the nearest."""
    d, centers = queries.shape[1], arrays["centers"]
    extended = np.zeros((len(queries), centers.shape[1]), np.float32)
    extended[:, :d] = queries
    extended[:, d] = -0.5 if metric == "l2" else 0
    return (-2 if metric == "l2" else -1) * extended @ centers.T


class TestCuvs:
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize(
        ("factory", "splits"),
        [
            ("IVF16,PQ16x4np", 16),
            ("OPQ16,IVF16,PQ16np", 16),
            ("IVF16,PQ16x4fsr", 16),
            ("IDMap2,RR64,OPQ8,IVF16,PQ8x6", 8),
        ],
    )
    def test_the_layout_is_that_of_cuvs(self, data, factory, splits, metric):
        index, queries = filled(data, factory, metric), data.queries[:100]
        arrays, opened = to_cuvs(index), open_index(index)
        assert {name: array.shape for name, array in arrays.items()} == {
            "pq_centers": (splits, 64 // splits, core(index).pq.ksub), "centers": (16, 72), "centers_rot": (16, 64),
            "rotation_matrix": (64, 64),
        }  # fmt: skip
        assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in arrays.values())
        state, some = opened.extract(), np.arange(0, N, 50)
        if "fs" in factory:
            own = state.reconstruct(some)
        else:
            own = [index.reconstruct(int(i)) for i in opened.outer_ids(state.ids)[some]]
        np.testing.assert_allclose(decoded(arrays, state.assignment[some], state.codes[some]), own, atol=1e-5)
        rotated = opened.transforms(queries)
        np.testing.assert_allclose(queries @ arrays["rotation_matrix"].T, rotated, atol=1e-5)
        own, order = core(index).quantizer.search(rotated, 16)
        got = np.take_along_axis(distances(arrays, queries, metric), order, axis=1)
        got = got + (queries**2).sum(1, keepdims=True) if metric == "l2" else -got
        np.testing.assert_allclose(got, own, atol=1e-4)
        assert not arrays["centers"][:, 65:].any()

    def test_it_can_be_kept(self, built, tmp_path):
        arrays = to_cuvs(built("OPQ16,IVF16,PQ16x4"))
        np.savez(tmp_path / "a.npz", **arrays)
        save_file(arrays, tmp_path / "a.safetensors")
        for read in (np.load(tmp_path / "a.npz"), load_file(tmp_path / "a.safetensors")):
            for name, array in arrays.items():
                np.testing.assert_array_equal(read[name], array)

    def test_what_tuning_has_learned(self, built, data):
        report = distill(built("OPQ16,IVF16,PQ16x4"), data.documents[:N], data.queries, **QUICK)
        arrays = to_cuvs(report.index)
        assert report.kept
        np.testing.assert_array_equal(arrays["centers_rot"], report.parameters.centroids)
        np.testing.assert_array_equal(arrays["pq_centers"], report.parameters.codebooks[:, 0].transpose(0, 2, 1))

    @pytest.mark.parametrize(
        ("factory", "got"),
        [
            ("PQ16x4np", "IndexPQ, whose codes are not of residuals"),
            ("IVF16,PQ16x4fs", "IndexIVFPQFastScan, whose codes are not of residuals"),
            ("IVF16,PQ16x10", "16 codes of 10 bits"),
            ("IVF16,PQ16x3", "16 codes of 3 bits"),
            ("IVF16,PQ2x6", "2 codes of 6 bits"),
        ],
    )
    def test_what_is_refused(self, built, factory, got):
        with pytest.raises(UnsupportedIndexError, match=rf"^index: expected lists of residuals .*, got {got}; IVF4096"):
            to_cuvs(built(factory))

    def test_lists_by_another_metric(self, data):
        quantizer = faiss.IndexFlatIP(64)
        index = faiss.IndexIVFPQ(quantizer, 64, 16, 16, 4, faiss.METRIC_L2)
        index.train(data.documents[:N])
        index.add(data.documents[:N])
        with pytest.raises(UnsupportedIndexError, match="got lists by inner_product and l2 within them"):
            to_cuvs(index)

    def test_transforms_that_are_no_rotations(self, built):
        with pytest.raises(UnsupportedIndexError, match=r"^index: expected no transforms but rotations"):
            to_cuvs(built("PCAR32,IVF16,PQ16x4"))
