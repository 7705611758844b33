"""Vectors that come later: added to a tuned index with lists and codes for the queries, all of them or none."""

from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from conftest import METRICS, QUICK, N, hasten, serialized, tunable
from factories import EXAMPLES

from faiss_distill import DistillConfig, InputError, TunedParameters, UnsupportedIndexError, distill
from faiss_distill.cli import main
from faiss_distill.index import growth
from faiss_distill.index.parts.transaction import Transaction
from faiss_distill.index.registry import open_index
from faiss_distill.tuning.gate import Gate
from faiss_distill.tuning.parameters import fits

OPTIONS = QUICK | {"batch_size": 50}
M = 400
"""Vectors that come later."""
FAMILIES = [
    "RR64,IVF16,PQ8x4np", "IDMap2,IVF16_HNSW8,PQ8x4np", "IVF16,PQ16x4fs", "IDMap,PQ16x4fs,RFlat", "PQ16x4",
    "IVF16,RQ2x4_Nqint8", "IVF16,SQ8", "IVF64(RQ2x4),PQ16x4",
]  # fmt: skip


def parameters_of(index, data, **options):
    """What an index holds, as if it had been learned from a log."""
    adapter = open_index(index)
    state, config = adapter.extract(), DistillConfig(**OPTIONS | options)
    log, held_out = data.queries[:600], data.queries[600:900]
    return TunedParameters(state.centroids, state.codebooks, log, held_out, config, fits(adapter, state))


@pytest.fixture
def tuned(data, built):
    """An index, fresh at each call, and its parameters."""
    return built, parameters_of(built(), data)


def put(index, vectors, ids):
    """Add as faiss does, with ids if it takes them."""
    if isinstance(index, faiss.IndexIDMap):
        index.add_with_ids(vectors, ids)
    else:
        index.add(vectors)


@pytest.mark.parametrize("factory", FAMILIES)
def test_they_get_what_they_would_in_an_index_of_their_own(data, factory):
    """And those that were there keep what they had."""
    old, new, mapped = data.documents[:N], data.documents[N : N + M], factory.startswith("IDMap")
    index = faiss.index_factory(64, factory, METRICS["ip"])
    hasten(index)
    index.train(old)
    ids = np.arange(7, 7 + 3 * N, 3) if mapped else None
    put(index, old, ids)
    parameters = parameters_of(index, data, nprobe=None)
    alone = faiss.deserialize_index(faiss.serialize_index(index))
    alone.reset()
    later = np.arange(10**6, 10**6 + M)[::-1].copy() if mapped else None
    put(alone, new, later)
    parameters.apply(alone, new, ids=later, keep=True, progress=False)
    before = open_index(index).extract()
    report = parameters.add(index, new, ids=later, progress=False)
    assert report.index is index
    assert report.n == M
    assert index.ntotal == N + M
    after, own = open_index(index).extract(), open_index(alone).extract()
    for name in ("assignment", "codes"):
        np.testing.assert_array_equal(getattr(after, name)[:N], getattr(before, name))
        np.testing.assert_array_equal(getattr(after, name)[N:], getattr(own, name))
    np.testing.assert_array_equal(after.ids, np.arange(N + M))
    stored = open_index(index).outer_ids(after.ids)
    np.testing.assert_array_equal(stored[N:], np.arange(N, N + M) if later is None else later)
    if isinstance(index, faiss.IndexIDMap2):
        np.testing.assert_array_equal(faiss.vector_to_array(index.id_map)[N:], later)
    put(index, new[:5], None if later is None else np.arange(5))  # and faiss goes on from there
    assert index.ntotal == N + M + 5


@pytest.mark.parametrize("factory", ["IVF16(SQfp16),PQ16x4", "IVF16,RQ2x4_Nqint8"])
def test_what_was_learned_is_what_the_index_holds(data, built, monkeypatch, factory):
    judge = Gate.judge
    monkeypatch.setattr(Gate, "judge", lambda *given: judge(*given)._replace(kept=True))
    index = built(factory)
    report = distill(index, data.documents[:N], data.queries[:300], **OPTIONS)
    report.parameters.check_held(open_index(index).extract())


@pytest.mark.parametrize("example", [e for e in tunable(EXAMPLES) if "LSQ" not in e])
def test_what_is_merged_is_what_faiss_adds(data, built, example):
    """Bit for bit, where nothing else is chosen, in every family whose codes are not drawn at random."""
    for factory in (example, f"IDMap2,{example},RFlat"):
        index, same = built(factory, n=600), built(factory, n=600)
        new, ids = data.documents[N : N + 100], np.arange(1000, 1100)[::-1].copy()
        mapped = isinstance(index, faiss.IndexIDMap)
        merging = growth.Growth(index, 100, ids if mapped else None)
        merging.fill([(0, new[:64]), (64, new[64:])])
        merging.merge()
        put(same, new, ids)
        assert serialized(index) == serialized(same)


@pytest.mark.parametrize("step", ["apply", "prepare"])
@pytest.mark.parametrize("factory", ["IVF16,PQ16x4", "IDMap2,RR64,IVF16,PQ8x4np,RFlat", "IDMap,PQ16x4fs", "PQ16x4"])
def test_what_fails_leaves_the_index_as_it_was(data, built, monkeypatch, factory, step):
    index = built(factory)
    before, found = serialized(index), index.search(data.queries[:50], 10)
    merging = growth.Growth(index, 100, None)
    merging.fill([(0, data.documents[N : N + 100])])
    write = type(merging.index).write

    def failing(*args, **options):
        transaction = write(*args, **options)
        (change,) = transaction.changes
        real = getattr(change, step)

        def fail():
            real()
            raise RuntimeError("injected")

        monkeypatch.setattr(change, step, fail)
        return transaction

    monkeypatch.setattr(type(merging.index), "write", failing)
    with pytest.raises(RuntimeError, match="injected"):
        merging.merge()
    assert serialized(index) == before
    np.testing.assert_array_equal(index.search(data.queries[:50], 10)[1], found[1])
    if isinstance(index, faiss.IndexIDMap2):
        with pytest.raises(RuntimeError, match="not found"):
            index.reconstruct(N)


def test_an_error_before_the_merge_too(data, tuned, monkeypatch):
    fresh, parameters = tuned
    index = fresh()
    before = serialized(index)
    monkeypatch.setattr(Transaction, "commit", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        parameters.add(index, data.documents[N : N + M], progress=False)
    assert serialized(index) == before


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"ids": np.arange(M) + N - 1}, r"^ids: expected ids that are not in the index, got 1 that are \(1999\)"),
        ({"ids": np.zeros(M, dtype=int)}, "^ids: expected distinct ids, got 399 repeated"),
        ({"ids": np.arange(M) - 1}, "^ids: expected others than -1"),
        ({"ids": np.arange(3)}, "^ids: expected 400 integers, one a row"),
        ({"ids": np.arange(M) / 2}, "^ids: expected integers"),
        ({"rows": 100}, r"^embeddings: expected more than 100 new vectors, got 100; collect more of them"),
        ({"columns": 32}, "^embeddings: expected dimension 64"),
        ({"bad": np.nan}, "^embeddings: expected finite"),
        ({"nprobe": 99}, "^nprobe: expected"),
    ],
)
def test_bad_input(data, tuned, given, text):
    fresh, parameters = tuned
    index, new = fresh(), data.documents[N : N + M].copy()
    new = new[: given.pop("rows", None), : given.pop("columns", None)]
    new[-1, -1] = given.pop("bad", new[-1, -1])
    before = serialized(index)
    with pytest.raises(InputError, match=text):
        parameters.add(index, new, progress=False, **given)
    assert serialized(index) == before


def test_an_index_that_holds_other_parameters(data, tuned, built):
    fresh, parameters = tuned
    new = data.documents[N : N + M]
    with pytest.raises(InputError, match=r"^index: expected one that holds these parameters, centroids and all"):
        replace(parameters, centroids=parameters.centroids + 1).add(fresh(), new)
    with pytest.raises(InputError, match=r"^index: expected .*, got other codebooks; apply them to it first"):
        replace(parameters, codebooks=parameters.codebooks + 1).add(fresh(), new)
    with pytest.raises(
        InputError, match=r"^parameters: expected those of an index with the by_residual True, got by_residual False"
    ):
        parameters.add(built("IVF16,PQ16x4fs"), new)
    empty = fresh()
    empty.reset()
    with pytest.raises(InputError, match=r"^index: expected a filled index"):
        parameters.add(empty, new)


def test_indexes_that_number_their_vectors(built):
    """Flat codes, refinements without a map outside, and direct maps of the array kind."""
    mapped = built()
    mapped.set_direct_map_type(faiss.DirectMap.Array)
    for index in (built("PQ16x4"), built("IVF16,PQ16x4,RFlat"), mapped):
        with pytest.raises(InputError, match=r"^ids: expected None for an Index\w+ that numbers its vectors itself"):
            growth.Growth(index, 3, np.array([5000, 5001, 5002]))
        growth.Growth(index, 3, np.arange(N, N + 3))


@pytest.mark.parametrize("kind", [faiss.DirectMap.Array, faiss.DirectMap.Hashtable])
def test_direct_maps_know_the_new_ones(data, built, kind):
    index = built()
    index.set_direct_map_type(kind)
    merging = growth.Growth(index, 100, None)
    merging.fill([(0, data.documents[N : N + 100])])
    merging.merge()
    assert index.direct_map.type == kind
    assert index.reconstruct(N + 99) @ data.documents[N + 99] > 0.5


def test_indexes_that_have_parts(data, tuned):
    fresh, parameters = tuned
    shards = faiss.IndexShards(64)
    parts = [fresh(), fresh()]
    for part in parts:
        shards.add_shard(part)
    with pytest.raises(UnsupportedIndexError, match=r"an IndexShards; call index\.add, and then apply"):
        parameters.add(shards, data.documents[N : N + M])
    graph = faiss.index_factory(64, "HNSW8,Flat", METRICS["ip"])
    graph.add(data.documents[:N])
    refined = faiss.IndexRefine(fresh(), graph)
    with pytest.raises(UnsupportedIndexError, match="refined by an IndexHNSWFlat"):
        parameters.add(refined, data.documents[N : N + M])


def test_where_documents_stood_in_the_new_ones_do(data, tuned):
    fresh, parameters = tuned
    alone, index = replace(parameters, queries=None, validation_queries=None), fresh()
    report = alone.add(index, data.documents[N : N + M], progress=False)
    assert report.query_source == "documents"
    assert index.ntotal == N + M


def test_lists_on_disk_go_to_a_new_file(tmp_path, data, tuned):
    fresh, parameters = tuned
    index = fresh()
    lists = faiss.OnDiskInvertedLists(16, index.code_size, str(tmp_path / "lists"))
    lists.merge_from_1(index.invlists)
    index.replace_invlists(lists, True)
    lists.this.disown()
    before = Path(lists.filename).read_bytes()
    parameters.add(index, data.documents[N : N + M], progress=False)
    assert (tmp_path / "lists").read_bytes() == before
    assert faiss.downcast_InvertedLists(index.invlists).filename == str(tmp_path / "lists.tuned")
    in_memory = fresh()
    parameters.add(in_memory, data.documents[N : N + M], progress=False)
    np.testing.assert_array_equal(*(x.search(data.queries[:200], 10)[1] for x in (index, in_memory)))


def test_the_command_line(tmp_path, data, tuned, capsys):
    fresh, parameters = tuned
    parameters.save(tmp_path / "p.safetensors")
    faiss.write_index(fresh(), str(tmp_path / "a.faiss"))
    np.save(tmp_path / "new.npy", data.documents[N : N + M])
    np.save(tmp_path / "ids.npy", np.arange(M) + 7000)

    def run(ids, out):
        given = [str(tmp_path / name) for name in ("p.safetensors", "a.faiss", "new.npy")]
        return main(["add", *given, "--ids", str(tmp_path / ids), "-o", str(tmp_path / out), "--no-progress"])

    assert run("ids.npy", "b.faiss") == 0
    assert f"wrote {tmp_path / 'b.faiss'}" in capsys.readouterr().out
    index = fresh()
    TunedParameters.load(tmp_path / "p.safetensors").add(
        index, data.documents[N : N + M], ids=np.arange(M) + 7000, progress=False
    )
    assert serialized(faiss.read_index(str(tmp_path / "b.faiss"))) == serialized(index)
    assert run("new.npy", "c.faiss") == 2
    assert "--ids: expected" in capsys.readouterr().err
    assert not (tmp_path / "c.faiss").exists()
    assert run("ids.npy", "p.safetensors") == 2
    assert "--output: expected" in capsys.readouterr().err.replace("error: output", "error: --output")


def test_the_command_line_has_lists_on_disk_in_a_new_file(tmp_path, data, tuned):
    fresh, parameters = tuned
    parameters.save(tmp_path / "p")
    faiss.write_index(fresh(), str(tmp_path / "a.faiss"))
    np.save(tmp_path / "new.npy", data.documents[N : N + M])
    given = [str(tmp_path / name) for name in ("p", "a.faiss", "new.npy")]
    lists = ["--invlists-file", str(tmp_path / "lists")]
    assert main(["add", *given, *lists, "-o", str(tmp_path / "b.faiss"), "--no-progress"]) == 0
    index = fresh()
    parameters.add(index, data.documents[N : N + M], progress=False)
    written = faiss.read_index(str(tmp_path / "b.faiss"))
    assert faiss.downcast_InvertedLists(written.invlists).filename == str(tmp_path / "lists")
    np.testing.assert_array_equal(*(x.search(data.queries[:200], 10)[1] for x in (index, written)))


def test_a_refinement_that_holds_more_than_the_index_inside(data):
    """As after removing from the index inside: faiss would give new vectors the ids of old ones."""
    index = faiss.index_factory(64, "IVF16,PQ16x4,RFlat", METRICS["ip"])
    hasten(index)
    index.train(data.documents[:N])
    index.add(data.documents[:N])
    parameters = parameters_of(index, data)
    index.base_index.remove_ids(np.arange(10))
    before = faiss.serialize_index(index).tobytes()
    with pytest.raises(InputError, match="as many vectors as the index inside"):
        parameters.add(index, data.documents[N : N + M], progress=False)
    assert faiss.serialize_index(index).tobytes() == before


def test_a_bound_on_memory_belongs_to_the_tuning_alone(data, tuned):
    built, _ = tuned
    parameters = parameters_of(built(), data, max_memory="1MB")
    assert parameters.options().max_memory is None
    assert parameters.options().local_queries == parameters.config.local_queries


def test_an_effort_sets_what_the_tuning_was_not_given(data, built, tmp_path):
    given = parameters_of(built(), data).config.local_queries
    for options, local_queries in (({}, given), ({"local_queries": None}, 100)):
        parameters = parameters_of(built(), data, **options)
        parameters.save(tmp_path / "learned")
        for known in (parameters, TunedParameters.load(tmp_path / "learned")):
            thorough = known.options(effort="thorough")
            assert (thorough.epochs, thorough.local_queries, thorough.sweeps) == (0, local_queries, 6)
