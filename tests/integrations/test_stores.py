"""Stores of other libraries, tuned and measured as they are; each is skipped where its library is not installed."""

import re
import shutil
import textwrap
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import faiss
import numpy as np
import pytest
from conftest import QUICK, serialized

from benchmarks.suite.stores import NPROBE, STORES, TOP, Autofaiss, Corpus, SentenceTransformers
from faiss_distill import InputError, describe, distill, evaluate, operating_points
from faiss_distill.data.vectors import open_vectors
from faiss_distill.errors import MismatchError
from faiss_distill.integrations import stores
from faiss_distill.integrations.source import Source, texts_of
from faiss_distill.integrations.stores import source_of
from faiss_distill.metrics import recall

MODULES = {
    "Hugging Face datasets": "datasets",
    "DSPy": "dspy",
    "Haystack": "haystack_integrations.document_stores.faiss",
    "LangChain": "langchain_community",
    "LlamaIndex": "llama_index.vector_stores.faiss",
    "txtai": "txtai",
    "vicinity": "vicinity",
    "sentence-transformers": "sentence_transformers",
    "autofaiss": "autofaiss",
}
PLACES = {"Hugging Face datasets": "embeddings.faiss", "autofaiss": "knn.index"}
"""The files that are loaded, where their name is not ``store``."""
OPTIONS = QUICK | {"nprobe": None}
HELD = [kind for kind in STORES if kind not in (SentenceTransformers, Autofaiss)]
"""The libraries that have a store, which is passed; the others have an index or a file."""
pytestmark = pytest.mark.filterwarnings("default")  # these libraries have warnings of their own


def installed(module):
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(scope="module")
def corpus(data):
    return Corpus(data.documents[:2500], data.queries)


def made(kind, corpus, folder):
    if not installed(MODULES[kind.name]):
        pytest.skip(f"{kind.package} is not installed")
    return kind(corpus, folder)


def by_name(kinds):
    return pytest.mark.parametrize("kind", kinds, ids=[kind.name for kind in kinds])


@pytest.fixture
def log(corpus):
    rows = np.arange(1500)
    return {"queries": corpus.queries[rows], "texts": [f"query {i}" for i in rows]}


def found(store, corpus, rows):
    truth = faiss.knn(corpus.queries[rows], corpus.documents, TOP, faiss.METRIC_INNER_PRODUCT)[1]
    return recall(store.search(rows)[:, :TOP], truth).mean()


def with_options(line):
    return line.removesuffix(")") + ", **options)"


@by_name(STORES)
def test_a_line_tunes_it_and_its_own_search_finds_more(kind, corpus, log, tmp_path):
    store, test = made(kind, corpus, tmp_path), np.arange(1500, 2000)
    before = found(store, corpus, test)
    report = store.run(with_options(kind.line), **log, options=OPTIONS)
    nprobe = source_of(store.store).nprobe if kind.name == "txtai" else kind.nprobe
    assert report.before.own_nprobe == nprobe
    after = found(store, corpus, test)
    if kind.name == "DSPy":  # 32 bytes for 64 dimensions, and reranked: nothing is lost
        assert before > 0.9
        assert after >= before - 0.002
    else:
        assert report.kept
        assert after - before > 0.02
        # What the library's own search gained is what the report says, within what 500 queries tell.
        assert after - before == pytest.approx(report.gain, abs=0.04)
    # And it survives files.
    results = store.search(test[:20])
    store.reloaded()
    np.testing.assert_array_equal(store.search(test[:20]), results)


@by_name(HELD)
def test_what_the_report_says_of_it(kind, corpus, log, tmp_path):
    store = made(kind, corpus, tmp_path)
    report = store.run(with_options(kind.line), **log, options=OPTIONS | {"epochs": 0})
    assert kind.name in report.store
    assert report.store in str(report)
    own = kind.name in ("Hugging Face datasets", "Haystack", "vicinity", "DSPy")
    assert ("its own embeddings" if own else f"its {len(corpus.documents)} texts, embedded again") in report.store
    assert ("length" in report.store) == (kind.name in ("LangChain", "vicinity", "txtai", "DSPy"))
    (store_,) = store.names.values()
    assert report.index is source_of(store_).index


@by_name(HELD)
def test_measured_and_described_as_its_index_is(kind, corpus, tmp_path):
    store = made(kind, corpus, tmp_path)
    (held,) = store.names.values()
    index, asked = source_of(held).index, corpus.queries[1500:1700]
    state = serialized(index)
    embeds = source_of(held).embed_queries is not None
    ids = np.arange(len(corpus.documents))

    def at(measured):
        (point,) = {p.overlap_at_10 for p in measured.points if p.nprobe == NPROBE}
        return point

    plain = evaluate(index, corpus.documents, asked, ids=ids, progress=False, nprobe=NPROBE)
    assert str(describe(held)) == str(describe(index))
    measured = evaluate(held, queries=asked, progress=False, nprobe=NPROBE)
    assert measured.own_nprobe == (source_of(held).nprobe or kind.nprobe)
    assert at(measured) == pytest.approx(at(plain), abs=1e-3)
    points = operating_points(held, queries=asked, parameters={"nprobe": [NPROBE]}, progress=False)
    assert points.points[0].overlap_at_10 == pytest.approx(at(measured), abs=1e-3)
    if embeds:
        texts = [f"query {i}" for i in range(1500, 1700)]
        again = evaluate(held, queries=texts, progress=False, nprobe=NPROBE)
        assert at(again) == pytest.approx(at(measured), abs=1e-3)
    else:
        with pytest.raises(InputError, match="queries: expected vectors, as this store embeds no texts, got texts"):
            evaluate(held, queries=["a text", "another"], progress=False)
    assert serialized(index) == state


@by_name(STORES)
def test_what_the_documentation_says(kind, corpus, log, tmp_path, monkeypatch):
    """Its page has a section for each, whose code is run on a store that was saved by its library."""
    page = (Path(__file__).parents[2] / "docs" / "stores.rst").read_text(encoding="utf-8")
    section = page.split(f"\n{kind.name}\n{'-' * len(kind.name)}\n", 1)[1]
    code = textwrap.dedent(re.search(r"code-block:: python\n\n((?:   .*\n|\n)+)", section)[1])
    assert kind.line.removeprefix("distill(").removesuffix(")") in code
    store, test = made(kind, corpus, tmp_path), np.arange(1500, 2000)
    before = found(store, corpus, test)
    store.reloaded()
    monkeypatch.chdir(tmp_path)
    model = getattr(store, "model", None)
    names = {**log, **store.names, "distill": partial(distill, **OPTIONS), "model": model, "embedder": corpus.embed}
    exec(code, names | {"d": 64, "faiss": faiss}, names)
    assert names["report"].kept or kind.name == "DSPy"
    for tuned in tmp_path.glob("tuned*"):  # in the place of what is loaded
        old = tmp_path / PLACES.get(kind.name, f"store{tuned.suffix}")
        shutil.rmtree(old) if old.is_dir() else old.unlink()
        tuned.rename(old)
    if kind is not SentenceTransformers:
        store.load()
    assert found(store, corpus, test) > before - (0.002 if kind.name == "DSPy" else 0)


@by_name([kind for kind in STORES if kind.add is not STORES[0].add])
def test_documents_are_added_after_it(kind, corpus, log, tmp_path):
    store = made(kind, corpus, tmp_path)
    store.run(with_options(kind.line), **log, options=OPTIONS)
    near = int(store.search(np.array([1600]), 1)[0, 0])
    n = len(corpus.documents)
    store.add(near)
    assert {near, n} <= set(store.search(np.array([1600]), 10)[0].tolist())


@by_name([kind for kind in STORES if kind.deletes])
def test_documents_are_deleted_before_and_after_it(kind, corpus, log, tmp_path):
    """Where a library deletes right: txtai's ids are the index's own. The others say what went wrong."""
    store = made(kind, corpus, tmp_path)
    row = int(store.search(np.array([1600]), 1)[0, 0])
    store.delete(row)
    if kind.name != "txtai":
        state = serialized(source_of(*store.names.values()).index)
        with pytest.raises(InputError, match=r"wrong (documents|nodes|ids)"):
            store.run(with_options(kind.line), **log, options=OPTIONS)
        assert serialized(source_of(*store.names.values()).index) == state
        return
    assert store.run(with_options(kind.line), **log, options=OPTIONS).kept
    first = store.search(np.array([1600]), 10)[0]
    assert row not in first
    store.delete(int(first[0]))
    assert store.search(np.array([1600]), 9)[0].tolist() == first[1:].tolist()


@by_name(HELD)
def test_embeddings_that_are_passed_take_the_place_of_its_own(kind, corpus, log, tmp_path):
    store = made(kind, corpus, tmp_path)
    (held,) = store.names.values()
    state = serialized(source_of(held).index)
    own = distill(held, queries=log["queries"], inplace=False, **OPTIONS)
    given = distill(held, corpus.documents, log["queries"], inplace=False, **OPTIONS)
    assert "embeddings as passed" in given.store
    assert given.kept or kind.name == "DSPy"  # which finds over .9 before: an epoch may gain nothing for certain
    assert ("put report.index there" in given.store) == given.kept
    assert own.gain == pytest.approx(given.gain, abs=5e-3)
    assert serialized(source_of(held).index) == state
    with pytest.raises(InputError, match="ids: expected none, as the store knows them"):
        distill(held, queries=log["queries"], ids=np.arange(len(corpus.documents)), **OPTIONS)


def test_parts_in_the_order_of_their_names(corpus, log, tmp_path):
    """autofaiss reads part 10 after part 1; a folder is read in the order of the numbers, and the error says so."""
    store = made(Autofaiss, corpus, tmp_path)
    with pytest.raises(MismatchError, match=r"in the order of their numbers, .* pass sorted\(glob\('FOLDER/\*'\)\)"):
        store.run('distill("knn.index", "embeddings", queries, **options)', **log, options=OPTIONS)


def test_a_dataset_with_several_indexes_or_none(corpus, tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict(
        {"a": list(corpus.documents[:500]), "b": list(corpus.documents[500:1000]), "c": list(range(500))}
    )
    with pytest.raises(InputError, match="index: expected a dataset with one faiss index, got none; add one"):
        describe(made)
    for name in "ab":
        made.add_faiss_index(name, string_factory="IVF4,PQ8x4np", train_size=500)
    with pytest.raises(InputError, match="got several, 'a', 'b'; name its column with column="):
        evaluate(made, queries=corpus.queries[:100], progress=False)
    with pytest.raises(InputError, match="column: expected one of"):
        evaluate(made, queries=corpus.queries[:100], column="d", progress=False)
    evaluate(made, queries=corpus.queries[:100], column="b", progress=False)
    # An index under a name of its own: the column that it is of has to be named, and is checked.
    made.drop_index("a")
    made.drop_index("b")
    made.add_faiss_index("b", index_name="mine", string_factory="IVF4,PQ8x4np", train_size=500)
    with pytest.raises(InputError, match="name the column that has the vectors of the index 'mine' with column="):
        evaluate(made, queries=corpus.queries[:100], progress=False)
    evaluate(made, queries=corpus.queries[:100], column="b", progress=False)
    with pytest.raises(InputError, match="embeddings: expected the vectors behind the index"):
        evaluate(made, queries=corpus.queries[:100], column="a", progress=False)


def test_a_dataset_in_another_order_or_on_disk_is_read_as_it_is(corpus, tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"x": list(corpus.documents[:1000])}).shuffle(seed=0)
    made.save_to_disk(tmp_path / "saved")
    for dataset in (made, datasets.load_from_disk(tmp_path / "saved"), made.select(range(1000))):
        read = open_vectors(dataset["x"], "embeddings")
        assert (read.n, read.d) == (1000, 64)
        all_of_it = read.block(0, 1000)
        np.testing.assert_array_equal(np.sort(all_of_it, axis=0), np.sort(corpus.documents[:1000], axis=0))
        rows = np.array([5, 999, 0, 5])
        np.testing.assert_array_equal(read.take(rows), all_of_it[rows])
    ragged = datasets.Dataset.from_dict({"x": [[1.0, 2.0], [1.0, 2.0], [3.0]], "t": ["a", "b", "c"]})
    with pytest.raises(InputError, match="queries: expected vectors of 2 numbers, got others in 'x'; drop such rows"):
        open_vectors(ragged["x"], "queries").block(0, 3)
    assert texts_of(ragged["t"], "queries") == ["a", "b", "c"]
    assert texts_of(ragged["x"], "queries") is None


class Asked:
    """Embeds, and counts what it is asked for."""

    def __init__(self, corpus):
        self.corpus, self.texts = corpus, 0

    def __call__(self, texts):
        self.texts += len(texts)
        return self.corpus.embed(texts)


def test_what_was_learned_goes_into_a_store_and_is_watched_there(corpus, data, built, monkeypatch):
    """``apply`` and ``drift`` take embeddings from it, as ``distill`` does, and say what may be wrong with it."""
    kept = 3 * corpus.documents[:2000]
    pretended = Source("Mine", "mine.index", built(), embeddings=kept, normalizes=True, trap="what went wrong")
    monkeypatch.setattr(stores, "source_of", lambda store, column=None: pretended)
    report = distill(object(), queries=corpus.queries[:1500], inplace=False, **QUICK)
    assert report.kept
    applied = report.parameters.apply(object(), nprobe=4)
    assert applied.kept
    assert applied.index is pretended.index
    assert "Mine, mine.index; its own embeddings, divided by their length" in str(applied)
    fresh = report.parameters.drift(object(), queries=5 * corpus.queries[1500:], progress=False)
    same = report.parameters.drift(pretended.index, corpus.documents[:2000], corpus.queries[1500:], progress=False)
    assert fresh.queries.found == pytest.approx(same.queries.found, abs=1e-3)
    pretended = Source("Mine", "mine.index", built(), embeddings=kept[::-1], normalizes=True, trap="what went wrong")
    for call in (
        lambda: report.parameters.apply(object()),
        lambda: report.parameters.drift(object(), queries=corpus.queries[1500:], progress=False),
        lambda: evaluate(object(), queries=corpus.queries[:100], progress=False),
        lambda: operating_points(object(), queries=corpus.queries[:100], progress=False),
    ):
        with pytest.raises(MismatchError, match=r"; what went wrong$"):
            call()


def test_documents_are_embedded_once_and_not_before_all_else_is_checked(corpus, built, data, monkeypatch):
    """A model may cost money: what can be told without its embeddings is told first."""
    embed, texts = Asked(corpus), corpus.texts[:2000]
    pretended = Source("Mine", "mine.index", built(), texts=texts, embed_documents=embed, embed_queries=corpus.embed)
    monkeypatch.setattr(stores, "source_of", lambda store, column=None: pretended)
    few, log = [f"query {i}" for i in range(30)], [f"query {i}" for i in range(500)]
    for wrong, named in (
        ({"queries": few}, "queries: expected at least 60 distinct ones"),
        ({"queries": log, "relevant": np.arange(3)}, "relevant"),
        ({"queries": "how do I mount a disk?"}, "queries: expected a list of texts, such as open"),
        ({"queries": [*log, None]}, "queries: expected texts alone, got NoneType in row 500"),
        ({"embeddings": log}, "embeddings: expected vectors, or none to take the store's, got texts; pass queries as"),
        ({"queries": log, "loss": "no"}, "loss"),
    ):
        embed.texts = 0
        with pytest.raises(InputError, match=named):
            distill(object(), **wrong, **QUICK | {k: wrong[k] for k in wrong if k in QUICK})
        if "relevant" not in wrong:
            assert embed.texts == 0, wrong
    pretended = Source("Mine", "mine.index", built(), texts=texts[1:], embed_documents=embed, trap="what went wrong")
    with pytest.raises(MismatchError, match="got 1999; what went wrong"):
        distill(object(), queries=corpus.queries[:500], **QUICK)
    assert embed.texts == 0
    pretended = Source("Mine", "mine.index", built(), texts=texts, embed_documents=embed, embed_queries=corpus.embed)
    frame = pytest.importorskip("pandas").Series(log)
    for asked in (log, tuple(log), np.array(log), frame, corpus.queries[:500]):
        embed.texts = 0
        assert distill(object(), queries=asked, **QUICK | {"epochs": 0}).n == 2000
        assert embed.texts == 2000


def test_a_column_is_a_dataset_s_alone(built, data):
    with pytest.raises(InputError, match=r"column: expected none, but for a dataset .*, got 'x'; a column of a file"):
        distill(built(), data.documents[:2000], data.queries, column="x", **QUICK)


def test_embeddings_of_another_shape_are_told(data, built):
    def source(embed, **more):
        return Source("Mine", "mine.index", built(), texts=["a"] * 300, embed_documents=embed, progress=False, **more)

    for embed, got in ((lambda texts: [[1.0]] * 3, r"\(3, 1\)"), (lambda texts: [1.0] * len(texts), r"\(256,\)")):
        with pytest.raises(InputError, match=f"embeddings: expected an embedding of each text, .*, got shape {got}"):
            source(embed).vectors[:3]
    with pytest.raises(InputError, match="embeddings of dimension 64, as the index has, got 2; is this the model"):
        source(lambda texts: np.ones((len(texts), 2))).vectors[np.array([1])]
    with pytest.raises(InputError, match="queries: expected dimension 64 as the index has, got 3"):
        source(None).queries(np.ones((5, 3), np.float32), "queries")
    with pytest.raises(InputError, match=r"embeddings: expected a store that keeps vectors, or texts"):
        Source("Mine", "mine.index", built()).vectors  # noqa: B018


def test_llama_index_with_ids_of_faiss_s_own(corpus, log, tmp_path):
    kind = next(kind for kind in STORES if kind.name == "LlamaIndex")
    store = made(kind, Corpus(corpus.documents[:1500], corpus.queries), tmp_path)
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.schema import TextNode
    from llama_index.vector_stores.faiss import FaissVectorStore

    context = StorageContext.from_defaults(vector_store=FaissVectorStore(store.corpus.index()))
    nodes = [TextNode(text=text) for text in store.corpus.texts]
    store.index = VectorStoreIndex(nodes, storage_context=context, embed_model=store.model)
    test = np.arange(1500, 2000)
    before = found(store, store.corpus, test)
    report = distill(store.index, queries=log["texts"], **OPTIONS)
    assert report.kept
    assert found(store, store.corpus, test) > before
    with pytest.raises(InputError, match=r"embeddings: expected a store that keeps .*; pass the VectorStoreIndex"):
        distill(store.index.vector_store, queries=log["queries"], **OPTIONS)
    assert distill(store.index.vector_store, store.corpus.documents, log["queries"], **OPTIONS).n == 1500


def test_txtai_behind_a_transform_and_without_content(corpus, tmp_path):
    txtai = pytest.importorskip("txtai")

    def looked_up(texts):
        return corpus.embed(texts)

    options = {"method": "external", "transform": looked_up, "backend": "faiss"}
    database = txtai.Embeddings(**options, content=True, faiss={"components": "PCA32,IVF16,PQ8np"})
    database.index((text, text, None) for text in corpus.texts)
    assert source_of(database).nprobe is None
    database.search("query 3")
    assert faiss.extract_index_ivf(database.ann.backend).nprobe == 1
    assert evaluate(database, queries=corpus.queries[:100], progress=False).own_nprobe == 1
    database = txtai.Embeddings(**options, content=False, faiss={"components": "IVF16,PQ8np"})
    database.index((text, text, None) for text in corpus.texts)
    with pytest.raises(InputError, match=r"embeddings: expected a store that keeps .*; build it with content=True"):
        evaluate(database, queries=corpus.queries[:100], progress=False)
    measured = evaluate(database, corpus.documents, corpus.queries[:100], progress=False)
    assert measured.own_nprobe == database.ann.nprobe() > 1


def test_langchain_without_normalization_and_with_a_function(corpus, log, tmp_path):
    kind = next(kind for kind in STORES if kind.name == "LangChain")
    store = made(kind, corpus, tmp_path)
    plain = type(store.store)(
        lambda text: corpus.embed([text])[0].tolist(), corpus.index(faiss.METRIC_L2), type(store.store.docstore)(), {}
    )
    plain.add_texts(corpus.texts)
    source = source_of(plain)
    assert not source.normalizes
    assert distill(plain, queries=log["texts"], **OPTIONS).kept
    np.testing.assert_array_equal(source.vectors[:], corpus.documents)
    del plain.docstore._dict[plain.index_to_docstore_id[3]]
    with pytest.raises(InputError, match="index: expected a store with all its documents, got ID"):
        distill(plain, queries=log["texts"], **OPTIONS)
