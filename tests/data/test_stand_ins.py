"""Whether documents can stand in for queries, and what follows from it."""

import numpy as np
import pytest
from conftest import QUICK, N, serialized

from faiss_distill import DistillConfig, DistillReport, DistillTrainer, InputError, distill
from faiss_distill.data.stand_ins import compared
from faiss_distill.state import Metric

METRICS = {"ip": Metric.INNER_PRODUCT, "l2": Metric.L2}


@pytest.fixture(scope="module")
def others(data):
    """Queries as of another encoder: of lower rank, turned, and moved together."""
    rng = np.random.default_rng(0)
    kept = np.linalg.qr(rng.standard_normal((64, 8)))[0]
    turned = np.linalg.qr(rng.standard_normal((64, 64)))[0]
    low = unit(data.queries @ kept @ kept.T)
    return unit(low + unit(low @ turned) + unit(rng.standard_normal((1, 64)))).astype(np.float32)


def unit(x):
    return np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def share(queries, documents):
    """Of all pairs, those of which the query has the larger value."""
    return np.mean([(a > b) + 0.5 * (a == b) for a in queries for b in documents])


def by_hand(documents, queries, metric):
    """By the definitions: half of the documents are used as queries, the other half are what lies around."""

    def standing_out(query, others):
        scores = np.array([query @ x if metric == "ip" else -((query - x) ** 2).sum() for x in others])
        return -(np.sort(scores)[-10] - scores.mean()) / scores.std()

    own = np.linspace(0, len(documents) - 1, len(documents) // 2, dtype=int)
    of_documents = [standing_out(documents[i], np.delete(documents, i, axis=0)) for i in own]
    further = share([standing_out(x, documents) for x in queries], of_documents)
    seen = unit(documents) if metric == "ip" else documents
    rest = np.delete(seen, own, axis=0)
    covariance = np.cov(rest.T, bias=True)
    covariance = 0.9 * covariance + 0.1 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    inverse = np.linalg.inv(covariance)

    def outside(x):
        return (x - rest.mean(axis=0)) @ inverse @ (x - rest.mean(axis=0))

    return share([outside(x) for x in queries], [outside(x) for x in seen[own]]), further


class TestCompared:
    @pytest.mark.parametrize("metric", METRICS)
    def test_as_by_the_definitions(self, data, others, metric):
        documents = 3 * data.documents[:60] + 1
        for queries in (data.queries[:30], others[:30]):
            found = compared(documents, queries, METRICS[metric], False)
            expected = by_hand(documents.astype(float), queries.astype(float), metric)
            assert (found.outside, found.further) == pytest.approx(expected, abs=5e-3)

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("n", [40, 400])
    def test_real_queries_are_like_documents_and_others_are_not(self, data, others, metric, n):
        assert not compared(data.documents[:N], data.queries[:n], METRICS[metric], False).unlike
        assert compared(data.documents[:N], others[:n], METRICS[metric], False).unlike

    def test_documents_are_like_documents(self, data):
        found = compared(data.documents[::2], data.documents[1::2], METRICS["ip"], False)
        assert (found.outside, found.further) == pytest.approx((0.5, 0.5), abs=0.06)

    def test_the_scale_says_nothing(self, data):
        x, q = data.documents[:N], data.queries[:100]
        expected = compared(x, q, METRICS["ip"], False)
        lengths = np.random.default_rng(0).uniform(0.1, 10, (N, 1)).astype(np.float32)
        for found in (
            compared(x, 7 * q, METRICS["ip"], False),
            compared(lengths * x, 7 * q, METRICS["ip"], True),
            compared(7 * x, 7 * q, METRICS["l2"], False),
        ):
            assert (found.outside, found.further) == pytest.approx((expected.outside, expected.further), abs=5e-3)

    def test_nothing_to_tell(self):
        same = np.ones((40, 4), dtype=np.float32)
        found = compared(same, same[:5], METRICS["l2"], False)
        assert (found.outside, found.further) == (0.5, 0.5)
        assert compared(same[:21], same[:5], METRICS["l2"], False) is None


class TestGuard:
    """With queries of another distribution."""

    FILLED = QUICK | {"fill_to": N}

    def test_documents_are_moved_to_where_they_are(self, built, data, others):
        trainer = DistillTrainer(built(), data.documents[:N], others[:600], config=DistillConfig(**self.FILLED))
        train = trainer.training_queries
        real, added = train.vectors[train.rows < 0], train.vectors[train.rows >= 0]
        assert len(added) > 1000
        np.testing.assert_allclose(added.mean(axis=0), real.mean(axis=0), atol=0.05)
        assert compared(data.documents[:N], real, METRICS["ip"], False).unlike
        assert compared(added, real, METRICS["ip"], False).outside < 0.6

    def test_the_report_says_so(self, built, data, others):
        report = distill(built(), data.documents[:N], others[:150], **self.FILLED)
        assert (report.judged_by, report.compared.unlike) == ("queries", True)
        assert f"{report.compared}: those that were added were moved to where queries are" in str(report)
        again = DistillReport.from_json(report.to_json())
        assert (again.compared, str(again)) == (report.compared, str(report))

    def test_a_hundred_of_them_lose_nothing(self, built, data, others):
        index, before = built("IVF16,PQ8np"), serialized(built("IVF16,PQ8np"))
        report = distill(index, data.documents[:N], others[:100], **self.FILLED)
        assert report.kept or serialized(index) == before
        assert report.gain > 0

    def test_they_judge_what_documents_teach(self, built, data, others, caplog):
        report = distill(built(), data.documents[:N], validation_queries=others[:100], **QUICK)
        exact = np.argsort(-others[report.held_out] @ data.documents[:N].T, axis=1)[:, :10]
        index = built()
        index.nprobe = QUICK["nprobe"]
        found = index.search(others[report.held_out], 10)[1]
        overlap = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(exact, found, strict=True)])
        assert report.before.own.overlap_at_10 == pytest.approx(overlap)
        assert (report.query_source, report.judged_by, report.n_validation) == ("documents", "queries", 75)
        assert "on 75 held-out queries" in report.reason
        assert "measured on 75 real queries" in str(report)
        assert "pass queries= to train on them" in str(report)
        assert "are unlike documents" in caplog.text


class TestDocumentsAlone:
    def test_real_queries_may_judge_them(self, built, data):
        report = distill(built(), data.documents[:N], validation_queries=data.queries[:200], **QUICK)
        assert report.kept
        assert (report.n_validation, report.n_stand_ins) == (150, report.n_train)
        assert not report.compared.unlike
        assert report.parameters.queries is None
        assert len(report.parameters.validation_queries) == 200

    def test_none_that_judges_is_trained_on(self, built, data):
        trainer = DistillTrainer(
            built(), data.documents[:N], validation_queries=data.documents[:300], config=DistillConfig(**QUICK)
        )
        assert (trainer.training_queries.rows >= 300).all()

    def test_without_any_the_report_claims_nothing(self, built, data):
        report = distill(built(), data.documents[:N], **QUICK)
        assert (report.judged_by, report.compared) == ("documents", None)
        assert f"on {report.n_validation} held-out documents used as queries" in report.reason
        assert "what real queries gain is not known" in str(report)

    def test_too_few_to_judge(self, built, data):
        with pytest.raises(
            InputError, match="validation_queries: expected at least 20 distinct ones, got 19; pass more"
        ):
            DistillTrainer(built(), data.documents[:N], validation_queries=data.queries[:19])
