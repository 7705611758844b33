"""What a batch costs, which parameters that moves, and the options that change it."""

import json
from dataclasses import replace
from functools import partial

import faiss
import numpy as np
import pytest
import torch
from conftest import METRICS, QUICK, N, core, serialized
from scipy.special import log_softmax, softmax

from faiss_distill import DistillConfig, DistillError, DistillTrainer, InputError, distill
from faiss_distill.index.registry import open_index
from faiss_distill.learning.documents import Documents
from faiss_distill.learning.objective import Objective
from faiss_distill.learning.students import CodebookStudent
from faiss_distill.losses import LOSSES
from faiss_distill.tuning.gate import Gate
from faiss_distill.tuning.write_back import mined


@pytest.fixture
def parts(built, data):
    """A trainer's objective and student, for any options."""

    def parts(metric="ip", queries="real", relevant=None, **options):
        config = DistillConfig(**QUICK | options)
        chosen = data.queries[:300] if queries == "real" else None
        trainer = DistillTrainer(built(metric=metric), data.documents[:N], chosen, relevant=relevant, config=config)
        train = trainer.task.taught(trainer.training_queries, trainer.exact, config.depth)
        device = torch.device("cpu")
        documents = Documents(
            trainer.task.corpus, trainer.task.adapter.transforms, trainer.task.sample, train, 4, config, device
        )
        mine = partial(mined, trainer.task, documents, train, config.mixture.depth("hard"), 4)
        objective = Objective(documents, train, trainer.exact, 0.05, config, mine)
        return trainer, train, documents, objective, CodebookStudent(trainer.task.sample)

    return parts


def loss(objective, student, batch=None, seed=0, hard=None):
    batch = torch.arange(16) if batch is None else batch
    start = objective._documents.start
    return objective(student, start, objective.step(batch, hard, torch.Generator().manual_seed(seed)))


def drawn(objective, batch):
    return objective._candidates.shared(objective.step(batch, None, torch.Generator()).own)


def test_the_loss_against_a_loop(parts, data):
    """ListNet on the candidates of two queries, each on its own, in numpy and from faiss's own decoding."""
    trainer, train, _, objective, student = parts(candidates="top40")
    index = core(trainer.task.adapter.index)
    x = data.documents[:N]
    decoded = trainer.task.sample.reconstruct(np.arange(N))
    coarse = index.quantizer.reconstruct_n(0, index.nlist)[trainer.task.sample.assignment]
    expected = 0.0
    for q in (0, 5):
        query, rows = train.queries.vectors[q], train.top[q]
        target = softmax(x[rows] @ query / 0.05)
        for rebuilt in (decoded, coarse):
            expected -= (target * log_softmax(rebuilt[rows] @ query / 0.05)).sum() / 2
    assert float(loss(objective, student, torch.tensor([0, 5])).detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_the_routers_loss_against_a_loop(parts, metric):
    """Cross-entropy of the lists of each query's ten nearest, a price on long ones, and nothing for the centroids."""
    trainer, train, _, objective, _ = parts(metric, learn="centroids", router=True)
    state = trainer.task.sample
    router = (state.centroids + np.random.default_rng(0).normal(0, 0.01, state.centroids.shape)).astype(np.float32)
    student, expected = CodebookStudent(replace(state, router=router)), 0.0
    for q in (0, 5):
        query, lists = train.queries.vectors[q], state.assignment[train.top[q, :10]]
        scores = router @ query if metric == "ip" else -((router - query) ** 2).sum(1)
        share = np.bincount(lists, minlength=len(router)) / 10
        expected -= (share * log_softmax(scores / 0.025)).sum() / 2
        expected += 0.3 * softmax(scores / 0.025) @ np.bincount(state.assignment, minlength=16) / (N / 16) / 2
    value = loss(objective, student, torch.tensor([0, 5]))
    assert float(value.detach()) == pytest.approx(expected, rel=1e-4)
    value.backward()
    assert student.router.grad.abs().sum() > 0
    assert student.centroids.grad is None


def test_documents_that_stand_in_are_not_their_own_candidates(parts):
    _, train, _, objective, _ = parts(queries=None, candidates="in_batch + top40")
    rows = torch.from_numpy(train.queries.rows)
    # A batch of a document and its own nearest neighbours, so that it is among the shared candidates.
    near = [int((rows == r).nonzero()[0]) for r in train.top[0][:30] if (rows == r).any()]
    batch = torch.tensor([0, *near])
    candidates, _ = drawn(objective, batch)
    assert rows[0] in candidates
    compare = objective._comparison(batch, candidates, objective._documents.exact(candidates.numpy()), None)
    scores = torch.zeros(len(batch), len(candidates), requires_grad=True)
    compare(scores).backward()
    itself = candidates == rows[0]
    assert scores.grad[0, itself] == 0
    assert (scores.grad[0, ~itself] != 0).all()


@pytest.mark.parametrize(
    ("learn", "moved"),
    [("both", {"centroids", "codebooks"}), ("centroids", {"centroids"}), ("codebooks", {"codebooks"})],
)
@pytest.mark.parametrize("objective", ["listnet", "reconstruction"])
def test_only_what_is_to_be_learned_moves(built, data, learn, moved, objective, monkeypatch):
    monkeypatch.setattr(Gate, "judge", lambda *_: (True, "", 0.0, (0.0, 0.0)))
    index = built()
    before = open_index(index).extract()
    trainer = DistillTrainer(
        index,
        data.documents[:N],
        data.queries,
        config=DistillConfig(**QUICK, learn=learn, loss=objective),
        gate=Gate(start_counts=False),
    )
    assert trainer.train().best_epoch == 1
    after = open_index(index).extract()
    assert {f for f in ("centroids", "codebooks") if not np.array_equal(getattr(before, f), getattr(after, f))} == moved


def test_ivf_and_pq_losses_add_up_to_both(parts):
    values = {}
    for learn in ("both", "centroids", "codebooks"):
        _, _, _, objective, student = parts(learn=learn)
        values[learn] = float(loss(objective, student).detach())
    assert values["both"] == pytest.approx(values["centroids"] + values["codebooks"], rel=1e-5)


def test_balanced_losses_are_of_one_size_and_pull_as_before(parts):
    values, gradients = {}, {}
    for learn, balance in (("both", True), ("both", False), ("centroids", False), ("codebooks", False)):
        _, _, _, objective, student = parts(learn=learn, balance=balance, loss="mse")
        value = loss(objective, student)
        values[learn, balance] = float(value.detach())
        value.backward()
        gradients[learn, balance] = student.codebooks.grad
    assert values["both", True] == pytest.approx(2 * values["codebooks", False], rel=1e-5)
    assert values["centroids", False] != pytest.approx(values["codebooks", False], rel=0.1)
    torch.testing.assert_close(gradients["both", True], gradients["both", False])  # only the coarse loss is scaled


def test_contrastive_prefers_the_labelled_document(parts):
    labels = np.random.default_rng(0).integers(0, N, 300)
    _, train, _, objective, _ = parts(relevant=labels, loss="contrastive", candidates="gt + in_batch")
    batch = torch.arange(8)
    candidates, _ = drawn(objective, batch)
    assert set(candidates.tolist()) == set(train.relevant[:8].ravel().tolist())
    compare = objective._comparison(batch, candidates, objective._documents.exact(candidates.numpy()), None)
    scores = torch.zeros(8, len(candidates), requires_grad=True)
    compare(scores).backward()
    positive = candidates == torch.from_numpy(train.relevant[:8])
    assert (scores.grad[positive] < 0).all()
    assert (scores.grad[~positive] > 0).all()


def test_without_labels_the_teachers_best_stands_in(parts):
    _, train, _, objective, _ = parts(loss="contrastive", candidates="top40")
    candidates, scored = drawn(objective, torch.arange(8))
    compare = objective._comparison(torch.arange(8), candidates, objective._documents.exact(candidates.numpy()), scored)
    scores = torch.zeros(8, len(candidates), requires_grad=True)
    compare(scores).backward()
    assert [candidates[row.argmin()].item() for row in scores.grad] == train.top[:8, 0].tolist()


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.of_the_best])
def test_losses_of_the_best_see_128_candidates(parts, name):
    _, train, _, objective, _ = parts(loss=name)
    batch = torch.arange(32)
    candidates, _ = drawn(objective, batch)
    exact = objective._documents.exact(candidates.numpy())
    compare = objective._comparison(batch, candidates, exact, None)
    scores = torch.randn(32, len(candidates), generator=torch.Generator().manual_seed(0), requires_grad=True)
    compare(scores).backward()
    touched = scores.grad != 0
    assert len(candidates) > 128
    assert (touched.sum(dim=1) <= 128).all()
    liked = torch.from_numpy(train.queries.vectors[:32]) @ exact.T
    hidden = liked.topk(128, dim=1).values[:, -1:] > liked
    assert not (touched & hidden).any()
    assert touched.sum() > 32 * 30


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("stand_in", [False, True])
def test_hard_candidates_are_what_the_index_finds_and_it_stays_as_it_was(parts, metric, stand_in):
    trainer, train, documents, objective, student = parts(
        metric, queries=None if stand_in else "real", candidates="in_batch + hard30:5"
    )
    index = trainer.task.adapter.index
    before = serialized(index)
    with torch.no_grad():
        student.centroids += 0.05 * torch.randn_like(student.centroids)
    mined = objective.mine(student, documents.start).numpy()
    assert serialized(index) == before
    assert mined.shape == (len(train.top), 30)
    # The same by hand: an index of these centroids, with what faiss itself stores in the same lists.
    by_hand = faiss.clone_index(index)
    state = trainer.task.sample
    quantizer, _ = trainer.task.adapter.quantizer_with(student.centroids.detach().numpy())
    codes = student.encode(torch.from_numpy(trainer.task.corpus.take(np.arange(N))), torch.from_numpy(state.assignment))
    changed = replace(state, centroids=student.centroids.detach().numpy(), codes=codes.numpy().astype(np.uint8))
    with open_index(by_hand).write(changed, quantizer) as change:
        change.commit()
    core(by_hand).nprobe = 4
    found = by_hand.search(train.queries.vectors, 31)[1]
    owns = train.queries.rows if stand_in else [None] * len(found)
    wanted = np.array([[w for w in want if w != own][:30] for want, own in zip(found, owns, strict=True)])
    # Codes come from blocks of another size here: a product that rounds differently may tip a near tie.
    assert (mined == wanted).mean() > 0.99
    if stand_in:
        assert not (mined == np.array(owns)[:, None]).any()


def test_a_failure_while_mining_leaves_the_index_bitwise(built, data, monkeypatch):
    index = built()
    before = serialized(index)
    monkeypatch.setattr(
        "faiss_distill.tuning.write_back.search", lambda *_: (_ for _ in ()).throw(MemoryError("injected"))
    )
    with pytest.raises(DistillError, match="enough memory, got injected"):
        distill(index, data.documents[:N], data.queries, **QUICK | {"candidates": "in_batch + hard40:5"})
    assert serialized(index) == before


@pytest.mark.parametrize("metric", METRICS)
def test_refreshed_lists_are_those_that_faiss_would_choose(built, data, metric):
    index = built(metric=metric)
    before = open_index(index).extract()
    config = DistillConfig(**QUICK, assignment="refreshed")
    trainer = DistillTrainer(index, data.documents[:N], data.queries, config=config, gate=Gate(start_counts=False))
    assert trainer.train().kept
    after = open_index(index).extract()
    moved = before.assignment != after.assignment
    assert 0 < moved.mean() < 0.5
    own = index.quantizer.search(data.documents[:N], 1)[1].ravel()
    assert (own == after.assignment).mean() > 0.999
    np.testing.assert_array_equal(before.ids, after.ids)


class TestRefusals:
    def refused(self, built, data, match, **arguments):
        index = built()
        before = serialized(index)
        with pytest.raises(InputError, match=match):
            distill(index, data.documents[:N], data.queries, **QUICK | arguments)
        assert serialized(index) == before

    def test_labels_that_are_needed(self, built, data):
        self.refused(
            built,
            data,
            r"candidates: expected sources that need no labels, got 'gt' .* pass relevant=",
            candidates="gt + in_batch",
        )

    def test_a_batch_of_more_queries_than_there_are(self, built, data):
        self.refused(
            built, data, r"batch_size: expected at most the 1[78]\d\d training queries, got 1801", batch_size=1801
        )

    def test_a_batch_of_more_labelled_queries_than_there_are(self, built, data):
        labels = {i: [i] for i in range(0, 2000, 20)}
        match = r"batch_size: expected at most the \d\d training queries, got 200"
        self.refused(built, data, match, candidates="gt + in_batch", relevant=labels, batch_size=200)

    def test_labels_of_none_that_train(self, built, data):
        match = "relevant: expected some that are among the embeddings and belong to training queries, got none"
        given = {"ids": np.arange(900), "encoding": "frozen", "relevant": np.full(2000, 1500)}
        index = built()
        with pytest.raises(InputError, match=match):
            distill(index, data.documents[:900], data.queries, **QUICK | given | {"candidates": "gt + in_batch"})

    def test_candidates_deeper_than_the_corpus(self, built, data):
        for text in ("top2000:2", "hard2000:2"):
            self.refused(
                built, data, "candidates: expected less than the 2000 vectors stored, got 2000", candidates=text
            )


def test_a_batch_for_which_nothing_is_found_costs_nothing(parts):
    _, train, _, objective, student = parts(candidates="in_batch + hard10")
    value = loss(objective, student, hard=torch.full((len(train.top), 10), -1))
    value.backward()
    assert float(value.detach()) == 0
    assert not student.codebooks.grad.any()


def test_labels_of_which_none_is_held_out(built, data, caplog):
    """They train, but nothing can be said of them."""
    labels = np.full(1500, -1)
    labels[:1000] = np.arange(1000)
    report = distill(
        built(), data.documents[:N], data.queries[:1500], relevant=labels, validation_queries=data.queries[1500:],
        validation_relevant=np.r_[np.arange(100), np.full(400, -1)], **QUICK | {"candidates": "gt + in_batch"},
    )  # fmt: skip
    assert report.n_train == 1000
    assert "500 training queries with too few labelled documents are left out" in caplog.text
    assert report.before.own.mrr_at_10 is None
    assert "MRR" not in str(report)
    json.loads(report.to_json(), parse_constant=pytest.fail)


def test_one_label_alone_ranks_nothing(built, data):
    labels = [[i, i + 1] if i % 2 else [i] for i in range(1500)]
    trainer = DistillTrainer(
        built(), data.documents[:N], data.queries[:1500], relevant=labels, validation_queries=data.queries[1500:],
        config=DistillConfig(**QUICK | {"candidates": "gt"}),
    )  # fmt: skip
    assert len(trainer.training_queries.vectors) == 750


def test_reasons_say_what_to_do(built, data):
    kept = distill(built(), data.documents[:N], data.queries, **QUICK | {"epochs": 0})
    assert kept.kept
    assert kept.reason.endswith("; nothing was trained, as epochs=0 asks: only the lists and codes are new")
    fixed = distill(built(), data.documents[:N], data.queries, assignment="fixed", **QUICK | {"epochs": 0})
    assert fixed.reason.endswith("; nothing was trained, as epochs=0 asks: only the codes are new")
    harmful = distill(built(), data.documents[:N], data.queries, learning_rate=0.9, **QUICK)
    assert harmful.reason.endswith("; training did not help: only the lists and codes are new")
    encoder = torch.nn.Linear(64, 64)
    report = distill(built(), data.documents[:N], data.queries, query_encoder=encoder, **QUICK)
    assert "fell: -" in report.reason
    assert "a query encoder should start from embeddings near those of queries" in report.reason


def test_labels_of_a_few_queries_are_enough(built, data):
    labels = {i: [i, i + 1] for i in range(0, 2000, 4)}
    arguments = QUICK | {"candidates": "gt + in_batch", "loss": "contrastive"}
    report = distill(built(), data.documents[:N], data.queries, relevant=labels, **arguments)
    assert 400 <= report.n_train <= 500
    arguments["candidates"] = "gt + in_batch + top40:2"
    report = distill(built(), data.documents[:N], data.queries, relevant=labels, **arguments)
    assert 1780 < report.n_train <= 1800  # without kin of those that judge


def test_mined_candidates_may_be_few_where_documents_stand_in(built, data):
    """Short results, padded with -1, of queries that exclude nothing."""
    options = QUICK | {"candidates": "in_batch + hard40:5", "nprobe": 1, "fill_to": 20_000}
    report = distill(built("IVF64,PQ16x4"), data.documents[:N], data.queries[:150], **options)
    assert report.n_stand_ins > 0
    assert report.history[1]["loss"] is not None


def test_an_index_that_finds_nothing_teaches_nothing(built, data):
    options = QUICK | {"candidates": "hard10", "batch_size": 1, "nprobe": 1}
    options |= {"encoding": "nearest", "assignment": "fixed"}
    index = built("IVF64,PQ16x4", n=200)
    report = distill(index, data.documents[:200], data.queries[:300], **options)
    assert len(report.history) == 2


@pytest.mark.parametrize("assignment", ["fixed", "query_aware"])
def test_epoch_0_is_what_would_be_stored_for_it(built, data, assignment):
    """Its score is that of the lists and codes that are chosen for the parameters at the start."""
    options = QUICK | {"assignment": assignment, "sweeps": 20}
    arguments = (data.documents[:N], data.queries[:1500])
    codes_alone = distill(built(), *arguments, **options | {"epochs": 0})
    trained = distill(built(), *arguments, **options)
    assert trained.history[0] == codes_alone.history[0]
    nearest = distill(built(), *arguments, **options | {"epochs": 0, "encoding": "nearest", "assignment": "fixed"})
    assert codes_alone.history[0]["overlap_at_10"] > nearest.history[0]["overlap_at_10"] + 0.01


def test_lists_that_move_while_training_do_not_disqualify_an_epoch(built, data):
    """They may scan 2 % more than the final ones will."""
    report = distill(built(), data.documents[:N], data.queries, learn="codebooks", **QUICK | {"epochs": 2, "nprobe": 2})
    assert report.best_epoch > 0
    assert report.kept
