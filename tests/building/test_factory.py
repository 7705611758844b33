"""Factory strings: with one more token, and of indexes that are there already."""

import faiss
import numpy as np
import pytest
from conftest import METRICS, QUICK, N, core, hasten, of_metric, serialized, tunable
from factories import COARSE, CONTAINERS, ENCODED, FACTORIES, FINE, REFINED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import faiss_distill
from faiss_distill import DistillConfig, InputError, build, describe, distill, index_factory, suggest
from faiss_distill.building.factory import parse
from faiss_distill.index.factory_strings import factory_string
from faiss_distill.losses import LOSSES

MORE = tunable([
    "PQ8", "IVF16,PQ8", "IVF16,Flat", "IVF16_HNSW8,SQ4", "IVF16,SQfp16", "IVF16,RaBitQ4", "IVF16,RaBitQfs",
    "IVF16,RaBitQfs4", "RQ2x6_1x4", "IMI2x3,PQ8np", "PCAW32,PQ8np", "PCAWR32,PQ8np", "IVF16,PQ8np,Refine(SQ8)",
    "IVF16,RQ8x4fsr_64", "PLSQ2x2x4fs", "IVF16,PQ16x4fs_64", "HNSW16", "Flat", "SQ8",
    "OPQ8,IVF16,PQ8np,Refine(OPQ4_32,PQ4x4np)",
])  # fmt: skip


def structure(index):
    """What ``index_factory`` decides."""
    index = faiss.downcast_index(index)
    name = "IndexFlat" if isinstance(index, faiss.IndexFlat) else type(index).__name__  # as a file has it
    facts = [name, index.d, index.metric_type]
    for name in ("code_size", "nlist", "by_residual", "bbs"):
        if hasattr(index, name):
            facts.append(getattr(index, name))
    for name in ("pq", "rq", "lsq", "prq", "plsq"):
        if hasattr(index, name):
            q = getattr(index, name)
            facts.append((q.M, q.nbits if name == "pq" else faiss.vector_to_array(q.nbits).tolist(), q.code_size))
    if isinstance(index, faiss.IndexPreTransform):
        for i in range(index.chain.size()):
            t = faiss.downcast_VectorTransform(index.chain.at(i))
            kind = "LinearTransform" if isinstance(t, faiss.OPQMatrix) else type(t).__name__  # as a file has it
            facts.append((kind, t.d_in, t.d_out))
    for name in ("index", "base_index", "refine_index", "quantizer", "storage"):
        if hasattr(index, name):
            facts.append((name, structure(getattr(index, name))))
    return facts


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factory", FACTORIES + MORE)
def test_the_string_of_an_index_builds_the_like(data, factory, metric):
    if "IMI" in factory and metric == "ip":
        pytest.skip("faiss has none")
    factory = of_metric(factory, metric)
    index = faiss.index_factory(64, factory, METRICS[metric])
    if "RQ" in factory or "LSQ" in factory:  # which faiss can't read untrained
        index.train(data.documents[:500])
    for each in (index, faiss.deserialize_index(faiss.serialize_index(index))):
        again = faiss.index_factory(64, describe(each).factory, METRICS[metric])
        assert structure(again) == structure(each)
    assert factory_string(index) == factory


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    outer=st.sampled_from(["", "IDMap,", "IDMap2,"]),
    transforms=st.lists(st.sampled_from([c for c in CONTAINERS if c]), max_size=2),
    coarse=st.sampled_from(COARSE),
    fine=st.sampled_from(FINE),
    refined=st.sampled_from(REFINED),
    metric=st.sampled_from(list(METRICS)),
)
def test_any_string_survives(outer, transforms, coarse, fine, refined, metric):
    fine = "PQ8x4np" if not coarse and fine in ENCODED else fine
    factory = f"{outer}{''.join(transforms)}{coarse}{',' if coarse else ''}{fine}{refined}"
    index = faiss.index_factory(64, of_metric(factory, metric), METRICS[metric])
    additive = "RQ" in fine or "LSQ" in fine  # which faiss can't read untrained
    for each in (index, index if additive else faiss.deserialize_index(faiss.serialize_index(index))):
        assert structure(faiss.index_factory(64, factory_string(each), METRICS[metric])) == structure(each)


def test_what_no_string_builds():
    inner = faiss.IndexIDMap(faiss.IndexFlatL2(32))
    assert factory_string(faiss.IndexPreTransform(faiss.PCAMatrix(64, 32), inner)) is None
    assert factory_string(faiss.IndexPreTransform(faiss.CenteringTransform(64), faiss.IndexFlatL2(64))) is None


@pytest.mark.parametrize(
    "factory", ["OPQ8,IVF16,PQ8np", "IDMap2,IVF16,PQ16x4,RFlat", "PRQ2x2x4", "IVF16,SQ8", "IVF16_HNSW16,RQ4x4"]
)
def test_bytes_by_part_are_those_of_the_file(built, factory):
    index = built(factory)
    found = describe(index)
    rest = len(serialized(index)) - found.total_bytes
    assert 0 < rest < 1500  # names, sizes, ranges
    assert found.bytes_per_vector["codes"] == core(index).code_size if "IVF" in factory else True
    assert found.can_be_tuned
    assert found.why_not is None


def test_describe_says_why_not():
    flat = faiss.IndexFlatIP(8)
    flat.add(np.eye(8, dtype=np.float32))
    found = describe(flat)
    assert (found.factory, found.bytes_per_vector, found.can_be_tuned) == ("Flat", {"codes": 32}, False)
    assert "it is exact already" in found.why_not
    assert "why not" in str(found)
    assert found.to_dict()["total_bytes"] == 8 * 32
    untrained = describe(faiss.index_factory(64, "IVF16,PQ8")).why_not
    assert untrained == "it is an untrained one; tuning needs a trained index; call index.train and index.add"
    shards = faiss.IndexShards(8)
    shards.add_shard(flat)
    assert describe(shards).why_not == "in part 0 of the IndexShards an IndexFlatIP: it is exact already"
    assert "index:" not in str(describe(shards))
    with pytest.raises(InputError, match="expected a faiss"):
        describe(3)
    with pytest.raises(InputError, match="index: expected a file that exists"):
        describe("wiki.faiss")


class TestConcerns:
    """What is known to go wrong, which an index shows by itself."""

    @staticmethod
    def of(factory, x, metric="ip"):
        index = faiss.index_factory(64, factory, METRICS[metric])
        hasten(index)
        index.train(x)
        index.add(x)
        return describe(index)

    @pytest.fixture
    def unit(self, data):
        x = data.documents[:N]
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    @pytest.mark.parametrize("factory", ["IVF16,PQ16x4np", "PQ4x4np", "L2norm,IVF16,PQ8np", "OPQ16,IVF16,PQ16x4fsr"])
    def test_none(self, unit, factory):
        found = self.of(factory, unit)
        assert found.concerns == ()
        assert "go wrong" not in str(found)

    def test_a_mean_off_inner_products(self, unit):
        (found,) = self.of("PCA32,IVF16,PQ8x4np", unit).concerns
        assert "take a mean off documents and queries alike" in found
        assert self.of("PCA32,IVF16,PQ8x4np", unit, "l2").concerns == ()
        assert self.of("RR32,IVF16,PQ8x4np", unit).concerns == ()

    @pytest.mark.parametrize("factory", ["IVF16,PQ16x4np", "PQ16np", "IVF16,SQ8"])
    def test_lengths_that_differ(self, unit, factory):
        x = unit * np.random.default_rng(0).lognormal(0, 0.6, (N, 1)).astype(np.float32)
        (found,) = self.of(factory, x).concerns
        assert "not normalised: their lengths are from 0." in found
        assert self.of(factory, x, "l2").concerns == self.of(f"L2norm,{factory}", x).concerns == ()

    def test_few_vectors(self, unit):
        described = self.of("IVF4,PQ16x4np", unit[:400])
        (found,) = described.concerns
        assert "400 vectors are few: an IndexFlat of them takes 0.1 MB" in found
        assert "What may go wrong:\n- 400 vectors are few" in str(described)
        assert described.to_dict()["concerns"] == (found,)
        (found,) = self.of("IVF64,PQ16x4np", unit).concerns
        assert found.endswith("build it with 51 lists at most")


class TestToken:
    def test_its_options(self):
        assert parse("IVF16,PQ8") == ("IVF16,PQ8", None)
        assert parse("OPQ8,IVF16(SQ8,RFlat),PQ8,Distill") == ("OPQ8,IVF16(SQ8,RFlat),PQ8", DistillConfig())
        text = "IVF16,PQ8,Distill(kl, in_batch + top200:20, epochs=5, learning_rate=0.01, nprobe=None, balance=True)"
        plain, config = parse(text)
        assert plain == "IVF16,PQ8"
        assert config == DistillConfig(
            loss="kl", candidates="in_batch + top200:20", epochs=5, learning_rate=0.01, nprobe=None, balance=True
        )

    @given(st.sampled_from(list(LOSSES)), st.integers(1, 9), st.integers(1, 500))
    @settings(max_examples=25)
    def test_any_options(self, loss, epochs, depth):
        config = parse(f"PQ8,Distill({loss},in_batch+top{depth},epochs={epochs},seed=3)")[1]
        assert (config.loss, config.epochs, config.candidates) == (loss, epochs, f"in_batch+top{depth}")

    @pytest.mark.parametrize(
        ("factory", "wrong", "says"),
        [
            ("IVF16,PQ16,Distill(lisnet,in_batch)", "lisnet", "a loss .* did you mean listnet"),
            ("IVF16,PQ16,Distill(epoch=3)", "epoch", "did you mean epochs"),
            ("IVF16,PQ16,Distill(zzz=3)", "zzz", "an option of DistillConfig, .* it has effort, epochs, batch_size"),
            ("IVF16,PQ16,Distill(epochs=-3)", "epochs", "epochs to be an integer of at least 0, got -3"),
            ("IVF16,PQ16,Distill(kl,kl)", "kl", "loss once"),
            ("IVF16,PQ16,Distill(kl,)", ")", "a loss"),
            ("IVF16,PQ16,Distill(top200+foo)", "top200+foo", "candidates"),
            ("Distill", "Distill", "a factory string of faiss before it"),
            ("IVF16,Distill,PQ8", "Distill,PQ8", "as the last token"),
            ("IVF16,PQ9,Distill", "PQ9", "'IVF16,PQ9': 9 does not divide 64; try PQ8 or PQ16\n"),
            ("PCA50,PQ16x4fs", "PQ16x4fs", "16 does not divide 50; try PQ10x4fs or PQ25x4fs\n"),
            ("PQ99np", "PQ99np", "99 does not divide 64; try PQ64np"),
            ("PRQ3x2x4", "PRQ3x2x4", "3 does not divide 64; try PRQ2x2x4 or PRQ4x2x4\n"),
            ("PQ0", "PQ0", "M must be > 0; it knows, in this order"),
            ("IVFx,PQ8,Distill", "IVFx", "could not parse .* did you mean IVF4096?"),
            ("IVF16,PQ8,RFlt", "RFlt", "could not parse .* did you mean RFlat?"),
            ("OPQ16,IVF16(SQ8,RFlt),PQ16", "IVF16(SQ8,RFlt)", "could not parse"),
            ("L2nrm,IVF16,PQ16", "L2nrm", "could not parse .* did you mean L2norm?"),
            ("IVF16,Pq8x4fs", "Pq8x4fs", "could not parse .* did you mean PQ8x4fs"),
            ("IVF16,zzz", "zzz", "could not parse .* it knows, in this order, IDMap2; "),
        ],
    )
    def test_errors_point_at_the_token(self, factory, wrong, says):
        with pytest.raises(InputError, match=f"(?s)factory: .*{says}") as caught:
            index_factory(64, factory)
        *_, line, pointer = str(caught.value).splitlines()
        assert line == factory
        begin = pointer.index("^")
        assert factory[begin : begin + len(pointer.strip())] == wrong or wrong == ")"

    def test_it_stays_with_the_index(self, data):
        """One line for the options, and one to tune."""
        metric = faiss.METRIC_INNER_PRODUCT
        index = index_factory(
            64, "IVF16,PQ16x4,Distill(kl, epochs=1, top_k=40, perplexity=25, seed=3, fill_to=0)", metric
        )
        hasten(index)
        index.train(data.documents[:N])
        index.add(data.documents[:N])
        index.nprobe = 4
        report = distill(index, data.documents[:N], data.queries[:600], progress=False)
        assert (report.config.loss, report.config.epochs, report.config.seed) == ("kl", 1, 3)
        assert distill(index, data.documents[:N], data.queries[:600], **QUICK).config.loss == "kl"
        config = DistillConfig(epochs=1, fill_to=0, progress=False)
        assert distill(index, data.documents[:N], data.queries[:600], config=config).config.loss == "listnet"


@pytest.mark.parametrize("metric", ["cosine", "Cosine_Similarity", "cos", "angular"])
@pytest.mark.parametrize(
    "call",
    [
        lambda m: index_factory(8, "PQ4", m),
        lambda m: build("PQ4", np.ones((9, 8), "f"), metric=m),
        lambda m: suggest(900, 8, 4, m),
    ],
)
def test_cosine_is_answered_with_what_to_do(call, metric):
    with pytest.raises(InputError, match=r"metric: expected 'ip' or 'l2', .*; .* normalise .* use 'ip'"):
        call(metric)


def test_metrics_by_name():
    for metric in ("ip", "inner_product", faiss.METRIC_INNER_PRODUCT, np.int64(faiss.METRIC_INNER_PRODUCT)):
        assert index_factory(64, "PQ8np", metric).metric_type == faiss.METRIC_INNER_PRODUCT
    for metric in ("l2", "L2", faiss.METRIC_L2):
        assert index_factory(64, "PQ8np", metric).metric_type == faiss.METRIC_L2


def test_segments_that_do_not_divide():
    with pytest.raises(InputError, match="16 does not divide 100; try PQ10, PQ20 or PQ25\n"):
        index_factory(100, "IVF16,PQ16")
    with pytest.raises(InputError, match="16 does not divide 101; put Pad112 before it\n"):
        index_factory(101, "IVF16,PQ16")


class TestBuild:
    @pytest.mark.parametrize("factory", ["PCA48,IVF16,PQ8x4np", "IDMap2,IVF16,PRQ2x2x4", "PQ16x4fs,RFlat"])
    def test_it_is_building_and_tuning_by_hand(self, data, factory):
        options = {k: v for k, v in QUICK.items() if k != "nprobe"}
        ids = np.arange(N)[::-1] * 3 if "IDMap" in factory else None
        nprobe = 4 if "IVF" in factory else None
        token = ",".join(f"{k}={v}" for k, v in options.items() if k != "candidates")
        built = build(
            f"{factory},Distill({options['candidates']},{token})", data.documents[:N], data.queries,
            metric="ip", ids=ids, nprobe=nprobe,
        )  # fmt: skip
        hand = faiss.index_factory(64, factory, faiss.METRIC_INNER_PRODUCT)
        hand.train(data.documents[:N])
        hand.add(data.documents[:N]) if ids is None else hand.add_with_ids(data.documents[:N], ids)
        if nprobe:
            core(hand).nprobe = nprobe
        distill(hand, data.documents[:N], data.queries, ids=ids, **options)
        assert serialized(built.index) == serialized(hand)
        assert built.report.n == N

    def test_without_the_token_it_is_faiss_alone(self, data, tmp_path):
        np.save(tmp_path / "x.npy", data.documents[:N])
        index, report = build("IVF16,SQ8", tmp_path / "x.npy")
        hand = faiss.index_factory(64, "IVF16,SQ8")
        hand.train(data.documents[:N])
        hand.add(data.documents[:N])
        assert report is None
        assert serialized(index) == serialized(hand)

    def test_a_large_corpus_is_sampled_to_train_on(self, data, monkeypatch):
        monkeypatch.setattr(faiss_distill.building.estimates, "TRAINING_ROWS", 500)
        seen = []
        real = faiss_distill.building.build._training_rows
        monkeypatch.setattr(
            faiss_distill.building.build, "_training_rows", lambda *a: seen.append(real(*a)) or seen[-1]
        )
        for lists, rows in ((1, 500), (16, 1024)):
            build(f"IVF{lists},Flat", data.documents[:N])
            assert len(seen[-1]) == rows

    def test_wrong_arguments(self, data):
        for options, match in (
            ({"factory": "PQ16x4np", "nprobe": 4}, "nprobe: expected None for 'PQ16x4np', which has no lists"),
            (
                {"factory": "IVF16,Flat", "config": DistillConfig()},
                "config: expected it with a factory string that ends",
            ),
            (
                {"factory": "IVF16,Flat", "queries": data.queries},
                "queries: expected it with a factory string that ends in Distill, got .*; to tune, IVF16,Flat,Distill",
            ),
            ({"factory": "IVF16,Flat", "relevant": [1]}, "relevant: expected it with a factory string that ends"),
            ({"factory": "IVF16,Flat", "ids": np.arange(3)}, "ids: expected 2000 integers"),
            ({"factory": "IVF16,Flat", "embeddings": np.full((100, 8), np.nan, "f")}, "embeddings: expected finite"),
        ):
            with pytest.raises(InputError, match=match):
                build(**{"embeddings": data.documents[:N]} | options)
