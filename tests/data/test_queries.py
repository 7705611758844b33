"""Queries told apart: near-copies are one query, and kin of those that judge is not trained on."""

import faiss
import numpy as np
import pytest
import torch
from conftest import QUICK, N, serialized

from faiss_distill import DistillConfig, DistillTrainer, InputError, distill
from faiss_distill.data.likeness import Likeness, spread_of
from faiss_distill.data.queries import Queries


def noisy(x, noise, rng):
    return (x + noise * rng.standard_normal(x.shape) / np.sqrt(x.shape[1])).astype(np.float32)


def net(x, radius):
    """The first of each, by the definition."""
    kept = []
    for i, row in enumerate(x):
        if not kept or np.linalg.norm(x[kept] - row, axis=1).min() > radius:
            kept.append(i)
    return kept


@pytest.fixture
def split(built, data):
    """The training and validation queries of a trainer."""

    def split(queries, metric="ip", documents=None, **given):
        trainer = DistillTrainer(
            built(metric=metric), data.documents[:N], queries, **given, config=DistillConfig(**QUICK)
        )
        return trainer.training_queries, trainer.validation_queries

    return split


class TestFirst:
    @pytest.mark.parametrize("d", [1, 2, 3, 16, 64])
    def test_as_by_the_definition(self, d):
        rng = np.random.default_rng(d)
        x = rng.standard_normal((400, d)).astype(np.float32)
        x = np.concatenate([x, noisy(x[:200], 0.008 * np.sqrt(d), rng)])
        first = Likeness(False, np.sqrt(d)).first(x)
        assert np.unique(first).tolist() == net(x - x.mean(axis=0), 0.01 * np.sqrt(d))
        assert (np.linalg.norm(x - x[first], axis=1) <= 0.0101 * np.sqrt(d)).all()

    def test_far_from_the_origin(self):
        x = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32) + 500
        assert len(np.unique(Likeness(False, 4.0).first(np.repeat(x, 3, axis=0)))) == 300

    def test_a_dense_log_is_thinned_and_not_chained(self):
        x = np.linspace(0, 1, 2000, dtype=np.float32)[:, None]
        first = Likeness(False, 1.0).first(x)
        assert 50 <= len(np.unique(first)) <= 100
        assert np.abs(x - x[first]).max() <= 0.0101

    def test_what_is_known_comes_first_even_if_it_repeats(self):
        x = np.array([[0, 0], [0.008, 0], [0.016, 0], [1, 1]], dtype=np.float32)
        assert Likeness(False, 1.0).first(x, n_known=2).tolist() == [0, 1, 1, 3]

    def test_length_counts_only_where_it_ranks(self):
        x = np.array([[1, 0], [3, 0], [0, 1], [0, 0], [0, 0], [-1, 0]], dtype=np.float32)
        assert Likeness(True, 1.0).first(x).tolist() == [0, 0, 2, 3, 3, 5]
        assert Likeness(False, 1.0).first(x).tolist() == [0, 1, 2, 3, 3, 5]

    def test_equal_ones_are_copies_though_all_documents_are_the_same(self):
        x = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
        assert len(np.unique(Likeness(True, 0.0).first(np.repeat(x, 3, axis=0)))) == 300

    def test_the_same_input_is_the_same_query(self):
        x = np.eye(4, dtype=np.float32)
        assert Likeness(True, 1.0).first(x, inputs=["a", "b", "a", "c"]).tolist() == [0, 1, 0, 3]

    @pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
    def test_what_another_precision_stores_is_a_copy(self, data, precision):
        rounded = torch.from_numpy(data.queries).to(precision).float().numpy()
        likeness = Likeness.among(data.documents[:1000], True)
        together = likeness.first(np.concatenate([data.queries, rounded]))
        assert len(np.unique(together)) == len(np.unique(likeness.first(data.queries)))
        assert len(np.unique(together)) > 0.98 * len(data.queries)  # nearly all are different queries

    def test_labels_of_copies_are_joined(self):
        x = np.repeat(np.eye(3, dtype=np.float32), [2, 1, 3], axis=0)
        labels = np.array([[5, -1], [4, 5], [-1, -1], [7, -1], [8, -1], [7, 9]])
        kept = Queries(x, relevant=labels).distinct(Likeness(True, 1.0))
        assert kept.relevant.tolist() == [[4, 5, -1], [-1, -1, -1], [7, 8, 9]]


class TestHoldOut:
    def test_no_kin_across_and_none_among_those_held_out(self, data):
        likeness, x = Likeness.among(data.documents[:1000], True), data.queries
        order = np.random.default_rng(0).permutation(len(x))
        held, others = likeness.hold_out(x, order, 200)
        radius = likeness.kin * min(likeness.spread, spread_of(x - x.mean(axis=0)))
        distances = np.linalg.norm(x[held][:, None] - x[None], axis=2)
        lost = np.setdiff1d(np.arange(len(x)), np.concatenate([held, others]))
        assert len(held) == 200
        assert (distances[:, others] > 0.999 * radius).all()
        assert (distances[:, lost].min(axis=0) <= 1.001 * radius).all()
        assert (np.sort(distances[:, held], axis=1)[:, 1] > 0.999 * radius).all()
        assert len(others) > 0.8 * len(x)

    def test_at_most_a_third_is_lost(self):
        rng = np.random.default_rng(0)
        x = noisy(np.repeat(rng.standard_normal((90, 32)), 10, axis=0), 0.3, rng)
        held, others = Likeness(False, np.sqrt(32)).hold_out(x, rng.permutation(900), 200)
        assert len(np.unique(held // 10)) == len(held) == 30
        assert sorted(others.tolist()) == [i for i in range(900) if i // 10 not in held // 10]

    def test_a_crowd_is_trained_on_and_does_not_judge(self):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((400, 32)).astype(np.float32)
        x[:200] = noisy(np.repeat(x[:1], 200, axis=0), 0.3, rng)
        held, others = Likeness(False, np.sqrt(32)).hold_out(x, rng.permutation(400), 100)
        assert (held >= 200).all()
        assert set(range(200)) <= set(others.tolist())

    @pytest.mark.parametrize("d", [1, 2, 4, 8])
    def test_where_documents_are_dense_neighbours_are_no_kin(self, d):
        x = np.random.default_rng(0).standard_normal((5000, d)).astype(np.float32)
        likeness = Likeness.among(x[:1000], False)
        assert likeness.kin < 0.3
        x = x[np.unique(likeness.first(x))]
        held, others = likeness.hold_out(x, np.arange(len(x)), len(x) // 10)
        assert len(held) > 20
        assert len(others) > len(x) / 2

    def test_documents_that_are_all_the_same(self):
        likeness = Likeness.among(np.ones((10, 4), dtype=np.float32), False)
        assert (likeness.spread, likeness.kin) == (0, 0)
        held, others = likeness.hold_out(np.eye(4, dtype=np.float32), np.arange(4), 1)
        assert (held.tolist(), others.tolist()) == ([0], [1, 2, 3])


class TestNearCopies:
    """Copies in a log once made a worse index look better: what was trained on judged."""

    @pytest.mark.parametrize(("distinct", "copies"), [(200, 2), (80, 16)])
    @pytest.mark.parametrize("metric", ["ip", "l2"])
    def test_one_part_has_no_copy_of_the_other(self, split, data, distinct, copies, metric):
        rng = np.random.default_rng(0)
        log = rng.permutation(noisy(np.repeat(data.queries[:distinct], copies, axis=0), 1e-6, rng))
        train, held_out = (part.vectors for part in split(log, metric))
        assert len(train) + len(held_out) <= distinct
        assert len(train) + len(held_out) > 0.9 * distinct
        assert np.linalg.norm(train[:, None] - held_out, axis=2).min() > 0.1

    def test_too_few_are_too_few_however_often_they_occur(self, built, data):
        rng = np.random.default_rng(0)
        log = noisy(np.repeat(data.queries[:30], 16, axis=0), 1e-6, rng)
        with pytest.raises(InputError, match=r"queries: expected at least 60 distinct ones .* got 30"):
            DistillTrainer(built(), data.documents[:N], log)

    def test_lengths_make_no_other_queries_for_inner_product(self, split, data):
        rng = np.random.default_rng(0)
        log = np.repeat(data.queries[:150], 4, axis=0) * rng.uniform(0.5, 2, (600, 1)).astype(np.float32)
        train, held_out = split(log)
        assert 130 < len(train.vectors) + len(held_out.vectors) <= 150

    def test_copies_of_training_queries_do_not_validate(self, split, data):
        rng = np.random.default_rng(0)
        again = noisy(data.queries[:100], 1e-4, rng)
        _, held_out = split(data.queries[:300], validation_queries=np.concatenate([again, data.queries[300:400]]))
        np.testing.assert_array_equal(held_out.vectors, data.queries[300:400])

    def test_documents_that_fill_up_are_no_copies_of_those_that_judge(self, built, data):
        rng = np.random.default_rng(0)
        trainer = DistillTrainer(
            built(), data.documents[:N], data.queries[:100], validation_queries=noisy(data.documents[:1500], 1e-4, rng),
            config=DistillConfig(**QUICK | {"fill_to": 1000}),
        )  # fmt: skip
        rows = trainer.training_queries.rows
        assert (rows >= 0).any()
        assert not ((rows >= 0) & (rows < 1500)).any()

    @pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.1, 0.2])
    def test_copies_and_other_words_do_not_have_a_worse_index_kept(self, built, data, noise):
        """Judged by their like, the tuned index seems to gain .1 or more; fresh queries lose."""
        rng = np.random.default_rng(0)
        log = noisy(np.repeat(data.queries[:80], 8, axis=0), noise, rng)
        index = built()
        index.nprobe = 4
        before = serialized(index)
        report = distill(index, data.documents[:N], log, **QUICK | {"local_queries": 32, "epochs": 2})
        fresh = data.queries[80:]
        truth = faiss.knn(fresh, data.documents[:N], 10, metric=faiss.METRIC_INNER_PRODUCT)[1]

        def overlap(tried):
            found = tried.search(fresh, 10)[1]
            return np.array([len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True)]) / 10

        difference = overlap(index) - overlap(faiss.deserialize_index(np.frombuffer(before, dtype=np.uint8)))
        assert difference.mean() >= -3 * difference.std() / np.sqrt(len(difference))
        assert report.n_validation < 30  # of at most 26 that are no kin of one another


def test_what_is_asked_is_what_real_queries_ask():
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert Queries(vectors).asked is vectors
    np.testing.assert_array_equal(Queries(vectors, np.array([-1, -1, 5, 6])).asked, vectors[:2])
    np.testing.assert_array_equal(Queries(vectors, np.array([1, 2, 3, 4])).asked, vectors)
