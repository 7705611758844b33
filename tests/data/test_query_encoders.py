"""Query encoders that learn with the index."""

import copy
import json

import faiss
import numpy as np
import pytest
import torch
from conftest import METRICS, QUICK, N, core, serialized, untrained
from torch import nn

from faiss_distill import DistillConfig, DistillTrainer, InputError, LinearAdapter, distill, evaluate
from faiss_distill.data.queries import Queries
from faiss_distill.data.query_encoders import as_inputs, embed
from faiss_distill.index.registry import open_index
from faiss_distill.learning.objective import StudentQueries
from faiss_distill.learning.students import CodebookStudent
from faiss_distill.tuning.gate import Gate


class Table(nn.Module):
    """Numbers of queries to embeddings, to be learned one by one."""

    def __init__(self, vectors):
        super().__init__()
        self.vectors = nn.Parameter(torch.tensor(vectors))

    def forward(self, numbers):
        return self.vectors[torch.as_tensor(numbers)]


def weights(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    "factory",
    [
        "IVF16,PQ16x4",
        "OPQ16_32,IVF16,PQ16x4",
        "L2norm,OPQ16,IVF16,PQ16x4",
        "PCAR32,L2norm,IVF16,PQ16x4",
        "RR32,IVF16,PQ16x4",
        "PCA32,IVF16,PQ16x4",
    ],
)
def test_the_differentiable_transform_is_faisss(built, data, factory):
    adapter = open_index(built(factory))
    queries = 3 * data.queries[:20]
    student = CodebookStudent(adapter.extract(), LinearAdapter(64))
    vectors = StudentQueries(Queries(queries, inputs=queries), adapter.transforms, torch.device("cpu"))
    np.testing.assert_allclose(vectors.all(student).numpy(), adapter.transforms(queries), atol=2e-6)
    batch = vectors(student, torch.tensor([3, 1]))
    np.testing.assert_allclose(batch.detach().numpy(), adapter.transforms(queries[[3, 1]]), atol=2e-6)
    batch.square().sum().backward()
    if "L2norm" not in factory:
        assert student.query_encoder.linear.weight.grad.abs().sum() > 0


def test_the_differentiable_transform_far_from_the_origin(data):
    x = data.documents[:N] + 50
    for factory in ("PCA32,IVF16,PQ16x4", "Pad80,IVF16,PQ16x4"):
        index = untrained(factory, "l2")
        index.train(x)
        index.add(x)
        adapter = open_index(index)
        student = CodebookStudent(adapter.extract(), LinearAdapter(64))
        got = (
            StudentQueries(Queries(x[:20], inputs=x[:20]), adapter.transforms, torch.device("cpu")).all(student).numpy()
        )
        np.testing.assert_allclose(got, adapter.transforms(x[:20]), atol=5e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_an_encoder_that_can_hardly_move_changes_nothing(built, data, metric):
    indexes = built("OPQ16,IVF16,PQ16x4", metric), built("OPQ16,IVF16,PQ16x4", metric)
    plain = distill(indexes[0], data.documents[:N], data.queries, **QUICK)
    options = QUICK | {"query_encoder": LinearAdapter(64), "query_encoder_rate": 1e-12}
    encoded = distill(indexes[1], data.documents[:N], data.queries, **options)
    assert encoded.after.own.overlap_at_10 == pytest.approx(plain.after.own.overlap_at_10, abs=2e-3)
    states = [open_index(i).extract() for i in indexes]
    # Rounding can turn a code, and that moves what its documents pull at.
    apart = np.abs(states[0].centroids - states[1].centroids)
    assert apart.mean() < 1e-4
    assert apart.max() < 1e-2


@pytest.mark.parametrize("bias", [False, True])
def test_it_is_trained_in_place_returned_and_exported(built, data, bias):
    encoder, index = LinearAdapter(64, bias=bias), built("OPQ16,IVF16,PQ16x4")
    core(index).nprobe = 4
    start = weights(encoder)
    held_out = data.queries[1700:]
    report = distill(
        index, data.documents[:N], data.queries[:1700], validation_queries=held_out, query_encoder=encoder,
        **QUICK | {"epochs": 3, "nprobe": None, "query_encoder_rate": 1e-3, "assignment": "fixed"},
    )  # fmt: skip
    assert report.kept
    assert report.query_encoder is encoder
    assert encoder.training
    assert not same(start, encoder.state_dict())
    assert json.loads(report.to_json())["query_encoder"] == "LinearAdapter"
    encoded = encoder(torch.from_numpy(held_out)).detach().numpy()
    np.testing.assert_allclose(encoder.to_faiss().apply(held_out), encoded, atol=1e-5)
    expected = held_out @ encoder.matrix.T + (encoder.linear.bias.detach().numpy() if bias else 0)
    np.testing.assert_allclose(encoded, expected, atol=1e-5)
    # A user who searches with its embeddings finds what the report says.
    truth = faiss.knn(held_out[75:], data.documents[:N], 10, faiss.METRIC_INNER_PRODUCT)[1]
    found = index.search(encoded[75:], 10)[1]
    overlap = np.mean([len(np.intersect1d(*pair)) for pair in zip(found, truth, strict=True)]) / 10
    assert report.after.own.overlap_at_10 == pytest.approx(overlap, abs=2e-3)
    measured = evaluate(index, data.documents[:N], held_out[75:], query_encoder=encoder, progress=False)
    assert measured.own.overlap_at_10 == pytest.approx(overlap, abs=2e-3)


def test_the_exported_transform_survives_a_file(tmp_path):
    encoder = LinearAdapter(8, bias=True)
    nn.init.normal_(encoder.linear.weight)
    nn.init.normal_(encoder.linear.bias)
    faiss.write_VectorTransform(encoder.to_faiss(), str(tmp_path / "t"))
    x = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    again = faiss.read_VectorTransform(str(tmp_path / "t"))
    np.testing.assert_allclose(again.apply(x), encoder(torch.from_numpy(x)).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("how", ["turned down", "failed"])
def test_it_is_as_it_was_if_nothing_is_kept(built, data, monkeypatch, how):
    def judge(*_):
        if how == "failed":
            raise RuntimeError("injected")
        return False, "", 0.0, (0.0, 0.0)

    monkeypatch.setattr(Gate, "judge", judge)
    index, encoder = built(), LinearAdapter(64).eval()
    before, start = serialized(index), weights(encoder)
    options = QUICK | {"query_encoder": encoder, "query_encoder_rate": 0.01}
    if how == "failed":
        with pytest.raises(RuntimeError, match="injected"):
            distill(index, data.documents[:N], data.queries, **options)
    else:
        assert distill(index, data.documents[:N], data.queries, **options).query_encoder is None
    assert same(start, encoder.state_dict())
    assert not encoder.training
    assert serialized(index) == before


def test_the_weights_of_the_best_epoch_are_the_ones_returned(built, data, monkeypatch):
    scores, seen = iter([0.2, 0.5, 0.4, 0.3]), []

    def select(self, student, placement):
        seen.append(weights(student.query_encoder))
        return np.full(50, next(scores)), 100.0

    monkeypatch.setattr("faiss_distill.learning.objective.Selection.__call__", select)
    monkeypatch.setattr(Gate, "judge", lambda *_: (True, "", 0.0, (0.0, 0.0)))
    encoder = LinearAdapter(64)
    distill(built(), data.documents[:N], data.queries, query_encoder=encoder, **QUICK | {"epochs": 3})
    assert same(seen[1], encoder.state_dict())
    assert not same(seen[2], seen[1])


def test_inputs_of_any_kind_go_with_their_queries(built, data):
    """Each query's own embedding learns; those that are not in the training set stay."""
    numbers = list(np.random.default_rng(0).permutation(1000))
    table = Table(data.queries[np.argsort(numbers)])
    queries = data.queries[:1000]
    trainer = DistillTrainer(
        built(), data.documents[:N], queries, query_encoder=table, query_inputs=[int(i) for i in numbers],
        config=DistillConfig(**QUICK, query_encoder_rate=0.01), gate=Gate(start_counts=False),
    )  # fmt: skip
    for part in (trainer.training_queries, trainer.validation_queries):
        np.testing.assert_array_equal(embed(table, part.inputs, torch.device("cpu")).numpy(), part.vectors)
    start = table.vectors.detach().clone()
    trainer.train()
    moved = (table.vectors != start).any(dim=1).numpy()
    trained = np.zeros(1000, dtype=bool)
    trained[trainer.training_queries.inputs.astype(int)] = True
    assert not (moved & ~trained).any()
    assert moved.sum() >= 0.8 * trained.sum()  # the last batch of an epoch may be left out


def test_without_queries_the_encoder_makes_them(built, data):
    linear, inputs = LinearAdapter(64), data.queries[:500]
    nn.init.orthogonal_(linear.linear.weight)
    trainer = DistillTrainer(
        built(), data.documents[:N], query_encoder=linear, query_inputs=inputs, config=DistillConfig(**QUICK)
    )
    assert trainer.query_source == "queries"
    expected = trainer.training_queries.inputs @ linear.matrix.T
    np.testing.assert_allclose(trainer.training_queries.vectors, expected, atol=1e-5)


def test_a_fitted_map_is_that_of_ridge_regression():
    rng = np.random.default_rng(0)
    new = rng.standard_normal((300, 5)) + 3
    old = new @ rng.standard_normal((5, 8)) + 2 + 0.1 * rng.standard_normal((300, 8))
    adapter = LinearAdapter.fitted(new.astype(np.float32), old.astype(np.float32))
    # As rows of data: the penalty's, which the shift has no part in.
    penalty = np.sqrt(0.01 * new.var(axis=0).mean() * 300) * np.eye(5)
    x = np.vstack([np.hstack([new, np.ones((300, 1))]), np.hstack([penalty, np.zeros((5, 1))])])
    expected = np.linalg.lstsq(x, np.vstack([old, np.zeros((5, 8))]), rcond=None)[0]
    np.testing.assert_allclose(adapter.matrix, expected[:5].T, atol=1e-4)
    np.testing.assert_allclose(adapter.linear.bias.detach(), expected[5], atol=1e-3)
    given = new[:7].astype(np.float32)
    np.testing.assert_allclose(adapter.to_faiss().apply(given), given @ expected[:5] + expected[5], atol=1e-3)


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        (np.ones(4), np.ones((4, 2)), r"new: expected embeddings, one a row, got shape \(4,\)"),
        (np.ones((4, 3)), np.ones((5, 2)), "old: expected embeddings of the 4 texts of new, got 5"),
        (np.ones((4, 3)), np.full((4, 2), np.nan), "old: expected finite embeddings, got NaN"),
        (np.ones((0, 3)), np.ones((0, 2)), "new: expected embeddings, one a row"),
        ("new.npy", np.ones((4, 2)), "new: expected an array of embeddings, one a row, got could not convert"),
        (np.ones((3, 3)), np.ones((3, 2)), "new: expected more texts than its 3 dimensions, got 3"),
    ],
)
def test_what_no_map_can_be_fitted_to_is_refused(new, old, said):
    with pytest.raises(InputError, match=said):
        LinearAdapter.fitted(new, old)


def test_a_new_encoder_is_compared_with_its_fitted_map(built, data):
    """Not with the old encoder's queries, which nobody has any more."""
    old, judges = data.queries[:1500], slice(1500, 1800)
    project = np.random.default_rng(0).standard_normal((64, 24)).astype(np.float32)
    new, index = data.queries @ project, built("IVF16,PQ16x4")
    index.nprobe = 4
    adapter = LinearAdapter.fitted(new[:1500], old)
    start = copy.deepcopy(adapter)
    report = distill(
        index, data.documents[:N], old, query_encoder=adapter, query_inputs=new[:1500], inplace=False,
        validation_queries=data.queries[judges], validation_query_inputs=new[judges], **QUICK | {"nprobe": None},
    )  # fmt: skip
    judged = data.queries[judges][75:], start, new[judges][75:]

    def overlap(encoder, inputs):
        options = {"query_encoder": encoder, "query_inputs": inputs, "progress": False}
        return evaluate(index, data.documents[:N], judged[0], **options).own.overlap_at_10

    assert report.before.own.overlap_at_10 == pytest.approx(overlap(start, judged[2]), abs=2e-3)
    assert report.before.own.overlap_at_10 < overlap(None, None) - 0.05
    assert report.kept
    assert report.query_encoder.linear.in_features == 24


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A real sentence-transformers model, made of a configuration: two layers of 32 dimensions, pooled to 64."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Pooling, Transformer
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    words = ["[PAD]", "[UNK]", *(f"w{i}" for i in range(1000))]
    words_of = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    words_of.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words_of, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    transformer = Transformer(str(folder))
    return SentenceTransformer(modules=[transformer, Pooling(32), Dense(32, 64)], device="cpu")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
class TestSentenceTransformers:
    @pytest.fixture
    def encoder(self, tiny_model):
        from faiss_distill.integrations.sentence_transformers import SentenceTransformerQueryEncoder

        return SentenceTransformerQueryEncoder(copy.deepcopy(tiny_model), normalize=True)

    def test_it_encodes_as_the_model_does(self, encoder):
        texts = ["w1 w2", "w3", "w4 w5 w6 w7"]
        expected = encoder.model.encode(texts, normalize_embeddings=True)
        got = embed(encoder, np.array(texts, dtype=object), torch.device("cpu"))
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
        assert len(np.unique(expected.round(4), axis=0)) == 3

    @pytest.mark.parametrize("prompt", [None, "w7 w8 "])
    def test_prompts_and_truncation_are_the_models(self, encoder, prompt):
        model = encoder.model
        model.prompts["query"], model.default_prompt_name, model.truncate_dim = "w9 ", "query", 48
        wrapped = type(encoder)(model, normalize=True, prompt=prompt)
        texts = ["w1 w2", "w3"]
        expected = model.encode(texts, normalize_embeddings=True, prompt=prompt)
        assert expected.shape == (2, 48)
        np.testing.assert_allclose(wrapped(texts).detach().numpy(), expected, atol=1e-5)
        bare = model.encode(texts, normalize_embeddings=True, prompt="")
        assert np.abs(bare - expected).max() > 1e-3

    def test_it_learns(self, built, data, encoder):
        """Texts name the query, so a model that learns them by heart does better than the index alone."""
        texts = [f"w{i}" for i in range(600)]
        start, index = weights(encoder), built()
        options = QUICK | {"epochs": 4, "query_encoder_rate": 2e-3, "batch_size": 64}
        report = distill(index, data.documents[:N], query_encoder=encoder, query_inputs=texts, **options)
        assert report.history[-1]["loss"] < report.history[1]["loss"]
        assert report.query_source == "queries"
        assert same(start, encoder.state_dict()) == (not report.kept)
        assert report.kept, report.reason
        first = encoder.model.encode(texts[:5], normalize_embeddings=True)
        assert index.search(first, 3)[1].shape == (5, 3)


def test_a_log_is_sampled_before_it_is_encoded(built, data):
    seen = []

    class Counting(LinearAdapter):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    config = DistillConfig(**QUICK, max_queries=100)
    labels = np.arange(2000)
    trainer = DistillTrainer(
        built(), data.documents[:N], query_encoder=Counting(64), query_inputs=data.queries, relevant=labels,
        config=config,
    )  # fmt: skip
    assert sum(seen) == 102
    for part in (trainer.training_queries, trainer.validation_queries):
        np.testing.assert_array_equal(part.inputs, data.queries[part.relevant.ravel()])


def test_the_same_input_is_the_same_query_even_if_its_vectors_differ(built, data):
    """As where a text is encoded in two batches, padded differently."""
    inputs = [f"text {i % 300}" for i in range(900)]
    queries = data.queries[:900]  # all different

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(64))

        def forward(self, texts):
            return torch.from_numpy(queries[[int(t.split()[1]) for t in texts]]) + self.shift

    trainer = DistillTrainer(
        built(), data.documents[:N], queries, query_encoder=Words(), query_inputs=inputs, config=DistillConfig(**QUICK)
    )
    both = [*trainer.training_queries.inputs, *trainer.validation_queries.inputs]
    assert 290 < len(both) == len(set(both)) <= 300  # without kin of those that judge


def test_dropout_is_seeded_and_modes_are_kept(built, data):
    reports = []
    for _ in range(2):
        encoder = nn.Sequential(nn.Dropout(0.2), LinearAdapter(64), nn.Dropout(0.5).eval())
        torch.rand(len(reports) + 1)  # whatever a caller drew before
        index = built()
        options = QUICK | {"query_encoder_rate": 1e-3, "encoding": "nearest"}
        reports.append(distill(index, data.documents[:N], data.queries, query_encoder=encoder, **options))
        assert [m.training for m in encoder] == [True, True, False]
    assert reports[0].history == reports[1].history


def test_modes_are_kept_even_if_encoding_fails():
    class Failing(nn.Dropout):
        def forward(self, x):
            raise RuntimeError("injected")

    encoder = nn.Sequential(nn.Dropout(0.2).eval(), Failing())
    with pytest.raises(RuntimeError, match="injected"):
        embed(encoder, np.zeros((3, 4), dtype=np.float32), torch.device("cpu"))
    assert [m.training for m in encoder.modules()] == [True, False, True]


def test_an_encoder_that_learned_before_is_its_own_baseline(built, data):
    index, encoder = built(), LinearAdapter(64)
    options = QUICK | {"query_encoder": encoder, "query_encoder_rate": 1e-3, "epochs": 2}
    trainer = DistillTrainer(
        index, data.documents[:N], data.queries, query_encoder=encoder,
        config=DistillConfig(**{k: v for k, v in options.items() if k != "query_encoder"}),
    )  # fmt: skip
    first, second = trainer.train(), trainer.train()
    assert first.kept
    assert second.before.own.overlap_at_10 == pytest.approx(first.after.own.overlap_at_10, abs=1e-6)
    assert all(p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_other_precisions(built, data, kind):
    class Other(LinearAdapter):
        def forward(self, x):
            return super().forward(x).to(kind)

    inputs = torch.from_numpy(data.queries).to(kind)
    options = QUICK | {"query_encoder": Other(64), "query_inputs": inputs}
    with torch.no_grad():  # as a caller may have it
        report = distill(built(), data.documents[:N], data.queries, **options)
    assert report.history[1]["loss"] > 0


class TestRefusals:
    def refused(self, built, data, match, encoder, **arguments):
        index = built()
        before = serialized(index)
        queries = arguments.pop("queries", data.queries)
        with pytest.raises(InputError, match=match):
            distill(index, data.documents[:N], queries, query_encoder=encoder, **QUICK | arguments)
        assert serialized(index) == before

    def test_no_module(self, built, data):
        self.refused(built, data, "query_encoder: expected a torch.nn.Module, got function", lambda x: x)

    @pytest.mark.parametrize("out", [32, 65])
    def test_the_wrong_shape(self, built, data, out):
        self.refused(built, data, rf"query_encoder: .* shape \(2, 64\), got \(2, {out}\)", nn.Linear(64, out))

    def test_no_tensor(self, built, data):
        class Lists(nn.Linear):
            def forward(self, x):
                return super().forward(x).tolist()

        self.refused(built, data, r"query_encoder: .* shape \(2, 64\), got list", Lists(64, 64))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_finite(self, built, data, value):
        encoder = LinearAdapter(64)
        nn.init.constant_(encoder.linear.weight, value)
        self.refused(built, data, "query_encoder: expected finite embeddings, got NaN or infinity", encoder)

    def test_no_gradient(self, built, data):
        class Detached(LinearAdapter):
            def forward(self, x):
                return super().forward(x).detach()

        match = "query_encoder: expected embeddings with a gradient to its parameters, got none"
        for encoder in (Detached(64), nn.Identity(), LinearAdapter(64).requires_grad_(False)):
            self.refused(built, data, match, encoder)

    def test_one_that_fails(self, built, data):
        self.refused(
            built, data, "expected it to encode the first 2 query inputs, got mat1 and mat2", nn.Linear(32, 64)
        )

    def test_inputs_that_do_not_go_with_the_queries(self, built, data):
        match = "query_inputs: expected one for each of 2000 queries, got 3"
        self.refused(built, data, match, LinearAdapter(64), query_inputs=data.queries[:3])
        match = "query_inputs: expected an array or a list with one entry a query, got str"
        self.refused(built, data, match, LinearAdapter(64), query_inputs="w1")
        match = "query_inputs: expected one for each query, got none"
        self.refused(built, data, match, LinearAdapter(64), query_inputs=[])

    def test_inputs_that_are_not_finite(self, built, data):
        bad = data.queries.copy()
        bad[[7, 1900], 3] = np.nan, np.inf
        match = r"^query_inputs: expected finite.* got NaN, infinity or too large a value in 2 of 2000 rows \(7, 1900\)"
        for queries in (data.queries, None):
            self.refused(built, data, match, LinearAdapter(64), queries=queries, query_inputs=bad)
        given = {"query_inputs": data.queries[:1500], "validation_query_inputs": bad[1500:]}
        self.refused(
            built, data, "^validation_query_inputs: .* in 1 of 500 rows", LinearAdapter(64), queries=None, **given
        )
        with pytest.raises(InputError, match=match):
            evaluate(built(), data.documents[:N], data.queries, query_inputs=bad, query_encoder=LinearAdapter(64))

    def test_inputs_may_hold_the_largest_numbers(self):
        mask = np.full((3, 4), np.finfo(np.float32).min, dtype=np.float32)
        np.testing.assert_array_equal(as_inputs(mask, "query_inputs"), mask)

    def test_some_of_what_it_makes_is_not_finite(self, built, data):
        vectors = data.queries.copy()
        vectors[[7, 1900], 3] = np.nan, np.inf
        match = r"query_encoder: .*got NaN, infinity or too large a value in 2 of 2000 rows \(7, 1900\)"
        numbers = list(range(2000))
        self.refused(built, data, match, Table(vectors), queries=None, query_inputs=numbers)
        self.refused(built, data, r"query_encoder: .*NaN, infinity or", Table(vectors), query_inputs=numbers)

    def test_dimensions_of_an_adapter(self):
        for wrong in ("a", 2.5, 0):
            with pytest.raises(InputError, match=r"^d: expected an integer"):
                LinearAdapter(wrong)

    def test_parts_that_miss_what_they_belong_to(self, built, data):
        match = "query_encoder: expected together with the queries it belongs to"
        self.refused(built, data, match, LinearAdapter(64), queries=None)
        match = "query_inputs: expected together with query_encoder=, got it without one"
        self.refused(built, data, match, None, query_inputs=data.queries)

    def test_inputs_for_one_of_two_sets(self, built, data):
        match = "validation_query_inputs: expected inputs for queries and validation_queries alike, got none"
        given = {"query_inputs": data.queries[:1500], "validation_queries": data.queries[1500:]}
        self.refused(built, data, match, LinearAdapter(64), queries=data.queries[:1500], **given)

    def test_evaluate(self, built, data):
        with pytest.raises(InputError, match="query_inputs: expected together with query_encoder"):
            evaluate(built(), data.documents[:N], data.queries, query_inputs=[1, 2], progress=False)
        with pytest.raises(InputError, match="query_encoder: expected a torch"):
            evaluate(built(), data.documents[:N], data.queries, query_encoder=3, progress=False)
        with pytest.raises(InputError, match="query_inputs: expected one for each of 2000 queries, got 2"):
            evaluate(built(), data.documents[:N], data.queries, query_encoder=LinearAdapter(64), query_inputs=[1, 2])
