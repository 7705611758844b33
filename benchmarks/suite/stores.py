"""Stores of other libraries, filled, searched, changed, saved and loaded by these libraries' own calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import faiss
import numpy as np

import faiss_distill
from faiss_distill.state import Float32, Int64

FACTORY, NPROBE = "IVF64,PQ16x8np", 8
TOP = 10


@dataclass(frozen=True)
class Corpus:
    """What the stores are filled with: document ``i`` has the text ``"document i"``, and so have queries.

    Attributes:
        documents: float32 ``(n, d)``, unit norm.
        queries: float32 ``(nq, d)``, unit norm.
    """

    documents: Float32
    queries: Float32

    def embed(self, texts: Sequence[str]) -> Float32:
        """Vectors of texts, looked up."""
        kinds = {"document": self.documents, "query": self.queries}
        return np.stack([kinds[kind][int(row)] for kind, row in map(str.split, texts)])

    @property
    def texts(self) -> list[str]:
        """Of the documents."""
        return [f"document {i}" for i in range(len(self.documents))]

    def index(self, metric: int = faiss.METRIC_INNER_PRODUCT) -> Any:
        """A trained index, with nothing in it."""
        index: Any = faiss.index_factory(self.documents.shape[1], FACTORY, metric)
        index.train(self.documents)
        index.nprobe = NPROBE
        return index


class Store:
    """A store of one library. A class for each is below; ``STORES`` has them all."""

    name: str
    """As in the documentation."""
    package: str
    """Whose version counts."""
    line: str
    """What a user writes, of the store by the name that it has there, and ``queries`` or ``texts``."""
    deletes: bool = False
    """Whether documents can be deleted from it."""
    nprobe: int = NPROBE
    """What it searches with."""

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        """Fill it; ``folder`` is for its files."""
        self.corpus, self.folder = corpus, folder
        self.fill()

    def fill(self) -> None:
        """With all documents."""
        raise NotImplementedError

    @property
    def names(self) -> dict[str, Any]:
        """What ``line`` names."""
        raise NotImplementedError

    def search(self, queries: Int64, k: int = TOP) -> Int64:
        """The numbers of the documents that its own search returns for queries of the corpus, ``(nq, k)``."""
        raise NotImplementedError

    def add(self, row: int) -> None:
        """One more document, with the text of document ``row``, whose number is then that of the newest."""
        raise NotImplementedError

    def delete(self, row: int) -> None:
        """Document ``row``."""
        raise NotImplementedError

    def save(self) -> None:
        """Into ``folder``."""
        raise NotImplementedError

    def load(self) -> None:
        """Go on with what is in ``folder``."""
        raise NotImplementedError

    def reloaded(self) -> None:
        """Save it, and go on with what is loaded from there."""
        self.save()
        self.load()

    def run(self, line: str, **names: Any) -> Any:
        """The value of ``line``."""
        return eval(line, {**vars(faiss_distill), "distill": faiss_distill.distill, **self.names, **names})


class Datasets(Store):
    name, package = "Hugging Face datasets", "datasets"
    line = 'distill(dataset, column="embeddings", queries=queries)'

    def fill(self) -> None:
        import datasets

        datasets.disable_progress_bars()
        made = datasets.Dataset.from_dict({"text": self.corpus.texts, "embeddings": list(self.corpus.documents)})
        made.save_to_disk(self.folder / "dataset")
        self.dataset = datasets.load_from_disk(self.folder / "dataset")
        self.dataset.add_faiss_index("embeddings", custom_index=self.corpus.index())

    @property
    def names(self) -> dict[str, Any]:
        return {"dataset": self.dataset}

    def search(self, queries: Int64, k: int = TOP) -> Int64:
        _, found = self.dataset.get_nearest_examples_batch("embeddings", self.corpus.queries[queries], k)
        return numbers([batch["text"] for batch in found])

    def save(self) -> None:
        self.dataset.save_faiss_index("embeddings", self.folder / "embeddings.faiss")

    def load(self) -> None:
        import datasets

        self.dataset = datasets.load_from_disk(self.folder / "dataset")
        self.dataset.load_faiss_index("embeddings", self.folder / "embeddings.faiss")


class Haystack(Store):
    name, package, deletes = "Haystack", "faiss-haystack", True
    line = "distill(document_store, queries=queries)"

    def fill(self) -> None:
        from haystack import Document
        from haystack_integrations.document_stores.faiss import FAISSDocumentStore

        self.store = FAISSDocumentStore(embedding_dim=self.corpus.documents.shape[1], index_string=FACTORY)
        self.store.index.train(self.corpus.documents)
        faiss.extract_index_ivf(self.store.index).nprobe = NPROBE
        vectors = zip(self.corpus.texts, self.corpus.documents.tolist(), strict=True)
        self.store.write_documents([Document(id=text, content=text, embedding=x) for text, x in vectors])

    @property
    def names(self) -> dict[str, Any]:
        return {"document_store": self.store}

    def search(self, queries: Int64, k: int = TOP) -> Int64:
        found = [self.store.search(self.corpus.queries[i].tolist(), top_k=k) for i in queries]
        return numbers([[document.content for document in some] for some in found])

    def add(self, row: int) -> None:
        from haystack import Document

        text = f"document {len(self.store.id_map)}"
        self.store.write_documents([Document(id=text, content=text, embedding=self.corpus.documents[row].tolist())])

    def delete(self, row: int) -> None:
        self.store.delete_documents([f"document {row}"])

    def save(self) -> None:
        self.store.save(self.folder / "store")

    def load(self) -> None:
        self.store = type(self.store)(
            str(self.folder / "store"), embedding_dim=self.corpus.documents.shape[1], index_string=FACTORY
        )


class LangChain(Store):
    name, package, deletes = "LangChain", "langchain-community", True
    line = "distill(vector_store, queries=texts)"

    def fill(self) -> None:
        from langchain_community.docstore.in_memory import InMemoryDocstore
        from langchain_community.vectorstores import FAISS
        from langchain_core.embeddings import Embeddings

        class LookedUp(Embeddings):
            def embed_documents(_, texts: list[str]) -> list[list[float]]:  # noqa: N805
                return self.corpus.embed(texts).tolist()

            def embed_query(_, text: str) -> list[float]:  # noqa: N805
                return self.corpus.embed([text])[0].tolist()

        self.model = LookedUp()
        self.store = FAISS(self.model, self.corpus.index(faiss.METRIC_L2), InMemoryDocstore(), {}, normalize_L2=True)
        self.store.add_texts(self.corpus.texts, ids=self.corpus.texts)

    @property
    def names(self) -> dict[str, Any]:
        return {"vector_store": self.store}

    def search(self, queries: Int64, k: int = TOP) -> Int64:
        found = [self.store.similarity_search(f"query {i}", k) for i in queries]
        return numbers([[document.page_content for document in some] for some in found])

    def add(self, row: int) -> None:
        text = f"document {len(self.store.index_to_docstore_id)}"
        self.store.add_embeddings([(text, self.corpus.documents[row].tolist())], ids=[text])

    def delete(self, row: int) -> None:
        self.store.delete([f"document {row}"])

    def save(self) -> None:
        self.store.save_local(str(self.folder / "store"))

    def load(self) -> None:
        self.store = type(self.store).load_local(
            str(self.folder / "store"), self.model, allow_dangerous_deserialization=True, normalize_L2=True
        )


class LlamaIndex(Store):
    name, package, deletes = "LlamaIndex", "llama-index-vector-stores-faiss", True
    line = "distill(index, queries=texts)"

    def fill(self) -> None:
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.core.embeddings import BaseEmbedding
        from llama_index.core.schema import TextNode
        from llama_index.vector_stores.faiss import FaissMapVectorStore

        corpus = self.corpus

        class LookedUp(BaseEmbedding):
            def _get_text_embedding(self, text: str) -> list[float]:
                return corpus.embed([text])[0].tolist()

            _get_query_embedding = _get_text_embedding

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return self._get_text_embedding(query)

        self.model = LookedUp()
        context = StorageContext.from_defaults(vector_store=FaissMapVectorStore(faiss.IndexIDMap2(corpus.index())))
        nodes = [TextNode(id_=text, text=text) for text in corpus.texts]
        self.index = VectorStoreIndex(nodes, storage_context=context, embed_model=self.model)

    @property
    def names(self) -> dict[str, Any]:
        return {"index": self.index}

    def search(self, queries: Int64, k: int = TOP) -> Int64:
        retriever = self.index.as_retriever(similarity_top_k=k)
        return numbers([[node.text for node in retriever.retrieve(f"query {i}")] for i in queries])

    def add(self, row: int) -> None:
        from llama_index.core.schema import TextNode

        text = f"document {len(self.index.docstore.docs)}"
        node = TextNode(id_=text, text=text, embedding=self.corpus.documents[row].tolist())
        self.index.insert_nodes([node])

    def delete(self, row: int) -> None:
        self.index.delete_nodes([f"document {row}"], delete_from_docstore=True)

    def save(self) -> None:
        self.index.storage_context.persist(str(self.folder / "store"))

    def load(self) -> None:
        from llama_index.core import StorageContext, load_index_from_storage

        folder = str(self.folder / "store")
        vectors = type(self.index.vector_store).from_persist_dir(folder)
        context = StorageContext.from_defaults(vector_store=vectors, persist_dir=folder)
        self.index = load_index_from_storage(context, embed_model=self.model)


class Txtai(Store):
    name, package, deletes = "txtai", "txtai", True
    line = "distill(embeddings, queries=texts)"

    def fill(self) -> None:
        from txtai import Embeddings

        def looked_up(texts: Sequence[str]) -> Float32:
            return self.corpus.embed(texts)

        self.options = {"method": "external", "transform": looked_up, "content": True, "backend": "faiss"}
        self.store = Embeddings(**self.options, faiss={"components": FACTORY})
        self.store.index((text, text, None) for text in self.corpus.texts)

    @property
    def names(self) -> dict[str, Any]:
        return {"embeddings": self.store}

    def search(self, queries: Int64, k: int = TOP) -> Int64:
        found = self.store.batchsearch([f"query {i}" for i in queries], k)
        return numbers([[row["text"] for row in some] for some in found])

    def add(self, row: int) -> None:
        text = f"document {self.store.config['offset']}"
        self.corpus = Corpus(np.concatenate([self.corpus.documents, self.corpus.documents[[row]]]), self.corpus.queries)
        self.store.upsert([(text, text, None)])

    def delete(self, row: int) -> None:
        self.store.delete([f"document {row}"])

    def save(self) -> None:
        self.store.save(str(self.folder / "store"))

    def load(self) -> None:
        from txtai import Embeddings

        self.store = Embeddings()
        self.store.load(str(self.folder / "store"), config=self.options)


class Vicinity(Store):
    name, package = "vicinity", "vicinity"
    line = "distill(vicinity, queries=queries)"

    def fill(self) -> None:
        from vicinity import Vicinity

        self.store = Vicinity.from_vectors_and_items(
            3 * self.corpus.documents,
            self.corpus.texts,
            "faiss",
            store_vectors=True,
            index_type="ivfpq",
            nlist=64,
            m=16,
        )
        self.store.backend.index.nprobe = NPROBE

    @property
    def names(self) -> dict[str, Any]:
        return {"vicinity": self.store}

    def search(self, queries: Int64, k: int = TOP) -> Int64:
        return numbers([[text for text, _ in some] for some in self.store.query(self.corpus.queries[queries], k)])

    def add(self, row: int) -> None:
        self.store.insert([f"document {len(self.store)}"], 2 * self.corpus.documents[[row]])

    def save(self) -> None:
        self.store.save(self.folder / "store")

    def load(self) -> None:
        self.store = type(self.store).load(self.folder / "store")
        self.store.backend.index.nprobe = NPROBE


class DSPy(Store):
    name, package, nprobe = "DSPy", "dspy", 16  # its own; and codes of 32 bytes
    line = "distill(retriever, queries=texts)"

    def fill(self) -> None:
        from dspy.retrievers import Embeddings

        self.store = Embeddings(self.corpus.texts, self.corpus.embed, brute_force_threshold=0)

    @property
    def names(self) -> dict[str, Any]:
        return {"retriever": self.store}

    def search(self, queries: Int64, k: int = TOP) -> Int64:
        self.store.k = k
        return np.array([self.store(f"query {i}").indices for i in queries], dtype=np.int64)

    def save(self) -> None:
        self.store.save(str(self.folder / "store"))

    def load(self) -> None:
        self.store = type(self.store).from_saved(str(self.folder / "store"), self.corpus.embed)


class SentenceTransformers(Store):
    name, package = "sentence-transformers", "sentence-transformers"
    line = "distill(corpus_index, corpus_embeddings, queries)"

    def fill(self) -> None:
        self.index = self.corpus.index()
        self.index.add(self.corpus.documents)

    @property
    def names(self) -> dict[str, Any]:
        return {"corpus_index": self.index, "corpus_embeddings": self.corpus.documents}

    def search(self, queries: Int64, k: int = TOP) -> Int64:
        from sentence_transformers.util.quantization import semantic_search_faiss

        found = semantic_search_faiss(
            self.corpus.queries[queries], corpus_index=self.index, corpus_precision="float32", top_k=k, rescore=False
        )[0]
        return np.array([[hit["corpus_id"] for hit in some] for some in found])

    def add(self, row: int) -> None:
        self.index.add(self.corpus.documents[[row]])

    def save(self) -> None:
        faiss.write_index(self.index, str(self.folder / "index.faiss"))

    def load(self) -> None:
        self.index = read(self.folder / "index.faiss")


class Autofaiss(Store):
    name, package = "autofaiss", "autofaiss"
    line = 'distill("knn.index", sorted(glob("embeddings/*.npy")), queries)'

    def fill(self) -> None:
        from autofaiss import build_index

        parts = self.folder / "embeddings"
        parts.mkdir()
        rows = np.array_split(np.arange(len(self.corpus.documents)), 12)
        for i, part in enumerate(rows):
            np.save(parts / f"part_{i}.npy", self.corpus.documents[part])
        self.rows = np.concatenate([rows[i] for i in sorted(range(12), key=str)])  # part 10 comes after part 1
        build_index(
            str(parts), str(self.folder / "knn.index"), str(self.folder / "knn.json"), index_key=FACTORY,
            metric_type="l2", index_param=f"nprobe={NPROBE}", verbose=50,
        )  # fmt: skip
        self.index = read(self.folder / "knn.index")
        self.index.nprobe = NPROBE  # which autofaiss leaves out of the file
        faiss.write_index(self.index, str(self.folder / "knn.index"))

    @property
    def names(self) -> dict[str, Any]:
        return {"glob": glob}

    def search(self, queries: Int64, k: int = TOP) -> Int64:
        return self.rows[self.index.search(self.corpus.queries[queries], k)[1]]

    def run(self, line: str, **names: Any) -> Any:
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            report = super().run(line, **names)
        finally:
            os.chdir(before)
        if isinstance(report, faiss_distill.DistillReport):  # the file is as it was
            self.index = report.index
        return report

    def add(self, row: int) -> None:
        self.index.add(self.corpus.documents[[row]])
        self.rows = np.append(self.rows, len(self.rows))

    def save(self) -> None:
        faiss.write_index(self.index, str(self.folder / "knn.index"))

    def load(self) -> None:
        self.index = read(self.folder / "knn.index")


STORES: tuple[type[Store], ...] = (
    Datasets, LangChain, LlamaIndex, Haystack, Txtai, Vicinity, DSPy, SentenceTransformers, Autofaiss,
)  # fmt: skip


def read(path: Path) -> Any:
    """The index in a file."""
    return faiss.read_index(str(path))


def numbers(texts: Sequence[Sequence[str]]) -> Int64:
    """Of ``"document i"``, padded with -1."""
    found = [[int(text.split()[-1]) for text in some] for some in texts]
    width = max(map(len, found))
    return np.array([some + [-1] * (width - len(some)) for some in found], dtype=np.int64)
