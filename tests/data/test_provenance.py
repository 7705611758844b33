"""Embeddings that are not the ones behind the index are refused, with what is wrong with them."""

import re

import faiss
import numpy as np
import pytest
from conftest import METRICS, QUICK, core, serialized

from faiss_distill import DistillTrainer, InputError, UnsupportedIndexError, distill, evaluate, operating_points
from faiss_distill.cli import main
from faiss_distill.data import provenance
from faiss_distill.datasets import load_debian_packages
from faiss_distill.index.registry import open_index
from faiss_distill.tuning.gate import Gate

N = 3000


@pytest.fixture(scope="module")
def packages():
    """Unit vectors as they are added, the same before normalising, and queries."""
    data, rng = load_debian_packages(), np.random.default_rng(0)
    unit, queries = data.documents[:N, :64].copy(), data.queries[:600, :64].copy()
    faiss.normalize_L2(unit)
    faiss.normalize_L2(queries)
    return unit, (unit * rng.lognormal(0, 0.4, (N, 1))).astype(np.float32), queries


@pytest.fixture(scope="module")
def filled():
    cache = {}

    def filled(x, factory="IVF16,PQ16np", metric="ip", train=None):
        train = x if train is None else train
        key = factory, metric, train.tobytes()
        if key not in cache:
            index = faiss.index_factory(train.shape[1], factory, METRICS[metric])
            index.train(train)
            cache[key] = faiss.serialize_index(index)
        index = faiss.deserialize_index(cache[key])
        index.add(x)
        if "IVF" in factory:
            core(index).nprobe = 4
        return index

    return filled


@pytest.fixture(scope="module")
def tuned(filled):
    """Indexes with codes chosen for scores, kept whether better or not."""

    def tuned(x, queries, *arguments, **options):
        index = filled(x, *arguments)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Gate, "judge", lambda *_: (True, "", 0.0, (0.0, 0.0)))
            distill(index, x, queries, **QUICK | {"nprobe": None} | options)
        return index

    return tuned


def shifted(x, start):
    """Off by one from a row on."""
    bad = x.copy()
    bad[start:] = np.roll(x[start:], 1, axis=0)
    return bad


def assert_refused(index, embeddings, queries, match, **options):
    before = serialized(index)
    match = f"embeddings: expected the vectors behind the index, got ones that {match}"
    with pytest.raises(InputError, match=match):
        distill(index, embeddings, queries, epochs=1, fill_to=0, progress=False, **options)
    with pytest.raises(InputError, match=match):
        evaluate(index, embeddings, queries, progress=False, **options)
    with pytest.raises(InputError, match=match):
        operating_points(index, embeddings, queries, progress=False, **options)
    assert serialized(index) == before


NORMALISED = "are not normalised, while the index holds them at unit length; pass them normalised"
UNNORMALISED = "are normalised, while the index holds vectors of different lengths; pass them as they were added"
CONSTANT = "differ from these by a constant, such as a mean"


@pytest.mark.parametrize("metric", METRICS)
class TestWhatIsWrong:
    def test_before_normalising(self, packages, filled, metric):
        unit, raw, queries = packages
        assert_refused(filled(unit, metric=metric), raw, queries, NORMALISED)

    def test_after_normalising(self, packages, filled, metric):
        unit, raw, queries = packages
        assert_refused(filled(raw, metric=metric), unit, queries, UNNORMALISED)

    def test_before_a_constant_is_taken_off(self, packages, filled, metric):
        unit, _, queries = packages
        mean = unit.mean(axis=0) + np.float32(0.05)
        assert_refused(filled(unit - mean, metric=metric), unit, queries, CONSTANT)
        assert_refused(filled(unit, metric=metric), unit - mean, queries, CONSTANT)

    @pytest.mark.parametrize("start", [0, 1500, 2400, 2850])
    def test_off_by_one_from_a_row_on(self, packages, filled, metric, start):
        unit, _, queries = packages
        where = rf"from row {start} on" if start else r"in (9\d|100)% of 1000 rows looked at"
        match = f"match the codes of other rows better than their own {where}: row i fits the code of row i - 1"
        assert_refused(filled(unit, metric=metric), shifted(unit, start), queries, match)

    def test_a_row_is_that_of_what_was_passed(self, packages, metric):
        unit, _, queries = packages
        index = faiss.index_factory(64, "IVF16,PQ16np", METRICS[metric])
        index.train(unit)
        ids = 10 * np.random.default_rng(1).permutation(N)
        index.add_with_ids(unit, ids)
        assert_refused(index, shifted(unit, 1500), queries, "match .* from row 1500 on: row i fits", ids=ids)

    def test_half_of_the_rows_by_another_model(self, packages, filled, metric):
        unit, _, queries = packages
        rng = np.random.default_rng(2)
        other = unit @ np.linalg.qr(rng.standard_normal((64, 64)))[0].astype(np.float32)
        match = r"match the codes of other rows better than their own in 4\d% of 1000 rows looked at; check the file"
        assert_refused(filled(unit, metric=metric), np.where(rng.random((N, 1)) < 0.5, unit, other), queries, match)
        other[1234:] = unit[1234:]
        assert_refused(filled(unit, metric=metric), other, queries, "match .* before row 12")

    @pytest.mark.parametrize(
        ("factor", "match"),
        [
            (4.7, "are about 4.[5-9] times too long; normalise them, as they were when they were added"),
            (0.2, "are about 5.[0-4] times too short; normalise them"),
            (-1, "point the other"),
        ],
    )
    def test_another_scale(self, packages, filled, metric, factor, match):
        unit, _, queries = packages
        assert_refused(filled(unit, metric=metric), np.float32(factor) * unit, queries, match)

    def test_another_scale_of_vectors_that_were_never_normalised(self, packages, filled, metric):
        _, raw, queries = packages
        match = "are about [34].. times too long; pass them at the scale at which they were added"
        assert_refused(filled(raw, metric=metric), np.float32(4) * raw, queries, match)

    def test_that_hardly_changes_codes(self, packages, filled, metric):
        """Most codes of one byte are the same for other vectors; only the right ones get all of them again."""
        unit, raw, queries = packages
        index = filled(unit[:1000], "IVF16,PQ1x8np", metric)
        assert_refused(index, raw[:1000], queries, "are not normalised")

    def test_another_order(self, packages, filled, metric):
        unit, _, queries = packages
        rng = np.random.default_rng(3)
        match = r"match the codes of other rows better than their own in \d\d% of 1000 rows looked at; check the"
        assert_refused(filled(unit, metric=metric), unit[rng.permutation(N)], queries, match)
        assert_refused(filled(unit, metric=metric), unit[::-1], queries, "match .*: rows are in reverse order")

    def test_all_of_it_after_tuning(self, packages, tuned, metric):
        unit, raw, queries = packages
        index = tuned(unit, queries, "IVF16,PQ16x4", metric)
        assert_refused(index, raw, queries, NORMALISED)
        assert_refused(index, shifted(unit, 2850), queries, r"match .* from row 28\d\d on: row i fits the code")
        assert_refused(index, 2 * unit, queries, "are about [12].. times too long")
        assert_refused(index, unit + np.float32(0.1), queries, CONSTANT)


def test_through_the_command_line(packages, filled, tmp_path, capsys):
    unit, raw, queries = packages
    faiss.write_index(filled(unit), str(tmp_path / "in.faiss"))
    np.save(tmp_path / "raw.npy", raw)
    np.save(tmp_path / "q.npy", queries)
    paths = [str(tmp_path / name) for name in ("in.faiss", "raw.npy", "q.npy", "out.faiss")]
    assert main(["tune", *paths[:2], "--queries", paths[2], "-o", paths[3], "--no-progress"]) == 2
    assert NORMALISED in capsys.readouterr().err
    assert not (tmp_path / "out.faiss").exists()


class TestRightOnes:
    """A refusal would be one of a user who did nothing wrong."""

    @pytest.mark.parametrize("metric", METRICS)
    def test_added_long_after_training(self, packages, filled, metric):
        unit, _, queries = packages
        rng = np.random.default_rng(4)
        later = unit[:1000] @ np.linalg.qr(rng.standard_normal((64, 64)))[0].astype(np.float32) + np.float32(0.3)
        both = np.concatenate([unit[:1000], later])
        assert DistillTrainer(filled(both, metric=metric, train=unit[:1000]), both, queries)

    @pytest.mark.parametrize(("noise", "found"), [(0.0, r"are about 1\.8 times too short"), (0.45, None)])
    def test_codes_longer_than_what_they_stand_for(self, packages, noise, found):
        """As tuning by inner product makes them; the very codes of longer vectors, though, nothing has tuned."""
        unit = packages[0]
        longer = 1.8 * unit
        pq = faiss.ProductQuantizer(64, 8, 4)
        pq.train(longer)
        moved = np.random.default_rng(5).standard_normal(unit.shape).astype(np.float32)
        stored = pq.decode(pq.compute_codes(longer + noise * longer.std() * moved))
        corpus = provenance.Corpus(
            rows=np.arange(N),
            passed=lambda at: unit[at],
            transform=lambda x: x,
            decode=lambda at: stored[at],
            encode_again=lambda at, vectors: pq.decode(pq.compute_codes(np.ascontiguousarray(vectors))),
        )
        sentence = provenance.fault(corpus, np.random.default_rng(0))
        assert sentence is None if found is None else re.match(found, sentence)

    def test_copies_and_near_copies(self, packages, filled):
        unit, _, queries = packages
        noise = np.random.default_rng(5).standard_normal((1000, 64)).astype(np.float32)
        for copies in (np.repeat(unit[:50], 20, axis=0), unit[:1].repeat(1000, 0) + np.float32(1e-4) * noise):
            x = np.concatenate([unit[:500], copies])
            for factory in ("IVF16,PQ16np", "LSQ4x4"):
                assert DistillTrainer(filled(x, factory, "l2", train=unit), x, queries)

    def test_few(self, packages, filled):
        unit, _, queries = packages
        index = filled(unit[:60], "IVF16,PQ8x4np", train=unit)
        assert evaluate(index, unit[:60], queries, top_k=10, progress=False)

    def test_tuned_again(self, packages, tuned):
        unit, raw, queries = packages
        for x in (unit, raw):
            for given in (queries, None):  # documents used as queries pull codes furthest from their vectors
                assert evaluate(tuned(x, given, "IVF16,PQ2np"), x, queries, progress=False)

    @pytest.mark.parametrize(
        ("factory", "metric"), [("IVF16,PQ1x8np", "ip"), ("IVF16,PQ1x4np", "l2"), ("PQ1x8np", "ip")]
    )
    def test_short_codes_tuned_for_vectors_of_uneven_lengths(self, packages, filled, factory, metric):
        """Those of short vectors may get so long that any short code is nearer; their direction is still right."""
        x = packages[1][:1000]
        index = filled(x, factory, metric)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Gate, "judge", lambda *_: (True, "", 0.0, (0.0, 0.0)))
            distill(index, x, **QUICK | ({} if "IVF" in factory else {"nprobe": None}))
        assert evaluate(index, x, packages[2], progress=False)

    def test_codes_that_tuning_gave_up_far_in_alone(self, packages, filled):
        """Of vectors at some distances from the mean many fit other codes better, of those furthest out hardly any."""
        x = packages[0][:1000] * np.random.default_rng(7).lognormal(0, 0.8, (1000, 1)).astype(np.float32)
        index = filled(x, "IVF16,PQ4x4", "l2")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Gate, "judge", lambda *_: (True, "", 0.0, (0.0, 0.0)))
            distill(index, x, **QUICK)
        assert evaluate(index, x, packages[2], progress=False)

    def test_stored_in_half_precision(self, packages, filled):
        unit, _, queries = packages
        for factory in ("IVF16,Flat", "IVF16,PQ16np", "IVF16,RaBitQ"):
            assert evaluate(filled(unit, factory), unit.astype(np.float16), queries, progress=False)

    @pytest.mark.parametrize("factory", ["Flat", "HNSW16", "HNSW16_SQ8", "SQ8", "LSH"])
    def test_of_an_index_that_is_only_measured(self, packages, filled, factory):
        unit, raw, queries = packages
        index = filled(unit, factory, "l2")
        assert evaluate(index, unit, queries, progress=False)
        if factory != "LSH":  # whose signs say nothing of lengths
            with pytest.raises(InputError, match="are not normalised"):
                evaluate(index, raw, queries, progress=False)


class TestAMean:
    """A PCA takes it off documents and queries alike."""

    @pytest.mark.parametrize("factory", ["PCA32,IVF16,PQ8x4np", "PCA32,PQ8x4np"])
    def test_that_changes_the_ranking_by_inner_product(self, packages, filled, factory, caplog):
        unit, _, queries = packages
        x, q = unit + np.float32(0.3), queries + np.float32(0.3)
        index = filled(x, factory)
        before = serialized(index)
        with pytest.raises(
            UnsupportedIndexError, match=r"index: .* take a mean off .* finds \d+%, and \d+% .* METRIC_L2, or"
        ):
            distill(index, x, q, epochs=1, progress=False)
        assert serialized(index) == before
        assert evaluate(index, x, q, progress=False).own.overlap_at_10 < 0.1
        assert "take a mean off documents and queries alike" in caplog.text

    def test_that_changes_little(self, packages, filled, caplog):
        unit, _, queries = packages
        assert DistillTrainer(filled(unit, "PCA32,IVF16,PQ8x4np"), unit, queries)
        assert "take a mean off" in caplog.text  # a word, but no more

    @pytest.mark.parametrize(("factory", "metric"), [("PCA32,IVF16,PQ8x4np", "l2"), ("RR32,IVF16,PQ8x4np", "ip")])
    def test_that_changes_nothing(self, packages, filled, factory, metric, caplog):
        unit, _, queries = packages
        x = unit + np.float32(0.3)
        assert DistillTrainer(filled(x, factory, metric), x, queries + np.float32(0.3))
        assert "take a mean off" not in caplog.text


@pytest.mark.parametrize("start", [0, 3, 61_234, 99_990])
def test_the_row_is_found_in_a_large_corpus_from_few_rows(start):
    rng, read = np.random.default_rng(6), []
    x = rng.standard_normal((100_000, 16)).astype(np.float32)
    bad = x.copy()
    bad[start:] = rng.standard_normal((100_000 - start, 16))

    def passed(rows):
        read.append(len(rows))
        return bad[rows]

    corpus = provenance.Corpus(np.arange(len(x)), passed, lambda v: v, lambda rows: x[rows], lambda rows, v: v)
    found = provenance.fault(corpus, rng)
    if start == 99_990:  # one of ten thousand rows
        assert found is None
    else:
        where = f"from row {start} on" if start > 3 else r"in [89]\d% of 1000 rows"
        assert re.search(where, found)
    assert sum(read) <= 3000


def test_codes_made_again_are_those_that_were_added(packages, filled):
    """What everything above stands on, for every kind of code that is not found by chance."""
    unit, _, _ = packages
    rows = np.arange(0, N, 7)
    for factory in ("IVF16,PQ16x4", "PQ4x10np", "PQ16x4fs", "IVF16_HNSW16,PQ16x4fsr", "RQ4x4", "IVF16,RQ4x4_Nqint8",
                    "IVF16,PRQ2x2x4", "IVF16,SQ6", "IVF16,RaBitQ4", "IVF16,RaBitQfs"):  # fmt: skip
        adapter = open_index(filled(unit, factory))
        state = adapter.extract()
        again = adapter.encode_again(state, rows, unit[rows])
        np.testing.assert_allclose(again, adapter.decode(state, rows), atol=1e-5, err_msg=factory)
