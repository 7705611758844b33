"""Codebooks inside of faiss's quantizers: read them, make a quantizer with others, and overwrite one in place."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import faiss
import numpy as np
from faiss.contrib.inspect_tools import get_pq_centroids

from faiss_distill.errors import UnsupportedIndexError
from faiss_distill.index.parts import norms as rounding
from faiss_distill.index.parts.packing import pack, unpack
from faiss_distill.index.parts.sizes import check_size
from faiss_distill.state import Codes, Float32, IndexState, Packed, decode

ROWS = 65_536
"""Codes handled at a time where their vectors are needed."""
PRODUCT = {faiss.ProductResidualQuantizer, faiss.ProductLocalSearchQuantizer}


class Codebooks(ABC):
    """The codebooks of a quantizer that is part of an index.

    Args:
        live: the quantizer, which is changed by :meth:`overwrite` alone.

    Attributes:
        shape: of the codewords, as in :class:`faiss_distill.state.IndexState`.
        n_codes: codeword numbers of a vector.
        ksub: codewords that one of them chooses from.
        stores_norms: whether what is stored of a vector follows from the codewords, too.
    """

    shape: tuple[int, int, int, int]
    n_codes: int
    ksub: int
    stores_norms = False

    def __init__(self, live: Any) -> None:
        """Read the shapes."""
        self._live = live

    @abstractmethod
    def read(self) -> Float32:
        """A copy of the codewords."""

    @abstractmethod
    def holding(self, state: IndexState, norms: Float32 | None = None) -> Any:
        """A quantizer like the live one with the codewords of ``state``, for its vectors.

        Args:
            state: codewords and codes.
            norms: how to round norms, as :meth:`norms` has it; None to learn that from the vectors.
        """

    @abstractmethod
    def copy(self) -> Any:
        """A quantizer like the live one, for :meth:`overwrite`."""

    def norms(self, quantizer: Any) -> Float32 | None:
        """What a quantizer from :meth:`holding` has learned of norms, float32; None where none are stored."""
        return None

    @abstractmethod
    def pack(self, quantizer: Any, state: IndexState) -> Packed:
        """What an index with ``quantizer``, from :meth:`holding`, stores of ``state``: uint8 ``(n, code_size)``."""

    @abstractmethod
    def unpack(self, packed: Packed) -> Codes:
        """Codeword numbers ``(n, n_codes)``."""

    def encode(self, vectors: Float32) -> Codes:
        """Codeword numbers ``(n, n_codes)`` that faiss finds for ``vectors (n, d)``."""
        return self.unpack(self._live.compute_codes(np.ascontiguousarray(vectors)))

    @abstractmethod
    def overwrite(self, source: Any) -> None:
        """Give the live quantizer the contents of ``source``, keeping the object, with all that derives from them."""

    @property
    def trained(self) -> tuple[Any, ...]:
        """What else of it faiss has trained."""
        return ()

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What ``faiss-distill inspect`` shows."""


class ProductCodebooks(Codebooks):
    """A ``ProductQuantizer``'s: ``(M, 1, ksub, dsub)``."""

    def __init__(self, live: Any) -> None:
        """Read the shapes."""
        super().__init__(live)
        self.shape, self.n_codes, self.ksub = (live.M, 1, live.ksub, live.dsub), live.M, live.ksub
        check_size("numbers in its codebooks", live.centroids.size(), live.d * live.ksub)

    def read(self) -> Float32:
        """A copy of the codewords."""
        return np.array(get_pq_centroids(self._live)).reshape(self.shape)

    def holding(self, state: IndexState, norms: Float32 | None = None) -> Any:
        """A quantizer with other codewords."""
        assert state.codebooks is not None
        return self._like(state.codebooks)

    def _like(self, codewords: Float32) -> Any:
        pq = faiss.ProductQuantizer(self._live.d, self._live.M, self._live.nbits)
        faiss.copy_array_to_vector(np.ascontiguousarray(codewords).ravel(), pq.centroids)
        return pq

    def copy(self) -> Any:
        """A quantizer with the same codewords."""
        return self._like(self.read())

    def pack(self, quantizer: Any, state: IndexState) -> Packed:
        """Bit-packed codes."""
        packed: Packed = pack(state.codes, self._live.nbits)
        return packed

    def unpack(self, packed: Packed) -> Codes:
        """Codeword numbers ``(n, M)``."""
        return unpack(packed, self.n_codes, self._live.nbits)

    def overwrite(self, source: Any) -> None:
        """The codewords, and the tables that faiss may have made of them."""
        pq = self._live
        faiss.copy_array_to_vector(faiss.vector_to_array(source.centroids), pq.centroids)
        if pq.transposed_centroids.size():
            pq.sync_transposed_centroids()
        if pq.sdc_table.size():
            pq.compute_sdc_table()

    def facts(self) -> dict[str, Any]:
        """Sub-quantizers, bits of each and its dimensions."""
        return {"PQ": f"M={self._live.M} nbits={self._live.nbits} dsub={self._live.dsub}"}


class AdditiveCodebooks(Codebooks):
    """An ``AdditiveQuantizer``'s: ``(nsplits, steps, ksub, dsub)``, with one split but for the product forms.

    Args:
        live: the quantizer.
        metric_type: of the index.
        with_centroids: whether norms, if any are stored, are those of centroid and codewords together.

    Raises:
        UnsupportedIndexError: codebooks of several sizes, or a search that this package does not know.
    """

    def __init__(self, live: Any, metric_type: int, with_centroids: bool = False) -> None:
        """Read the shapes."""
        super().__init__(live)
        self._with_centroids = with_centroids
        bits = faiss.vector_to_array(live.nbits)
        if (bits != bits[0]).any():
            raise UnsupportedIndexError(
                "index", "additive codebooks of one size", f"{bits.tolist()} bits", "rebuild it with one"
            )
        kinds = type(live)
        decompresses = live.search_type == kinds.ST_decompress
        without_norms = live.search_type == kinds.ST_LUT_nonorm
        others = (kinds.ST_norm_float, kinds.ST_norm_qint8, kinds.ST_norm_qint4)
        self.stores_norms = live.search_type in others or rounding.levels(live) > 1
        if not (decompresses or without_norms or self.stores_norms):
            raise UnsupportedIndexError(
                "index",
                "an additive quantizer that stores no norms or numbers for them",
                f"search_type {live.search_type}",
                "rebuild it with e.g. _Nqint8 in its factory string",
            )
        if without_norms and metric_type == faiss.METRIC_L2:
            raise UnsupportedIndexError(
                "index",
                "an L2 search that knows norms",
                "search_type ST_LUT_nonorm, which ranks by inner product",
                "build the index for that, or without _Nnone in its factory string",
            )
        splits = live.nsplits if type(live) in PRODUCT else 1
        self._bits, self.n_codes, self.ksub = int(bits[0]), live.M, 2 ** int(bits[0])
        self.shape = splits, live.M // splits, self.ksub, live.d // splits
        check_size("numbers in its codebooks", live.codebooks.size(), math.prod(self.shape))

    def read(self) -> Float32:
        """A copy of the codewords."""
        return faiss.vector_to_array(self._live.codebooks).reshape(self.shape)

    def _like(self, codewords: Float32) -> Any:
        live, (splits, steps, _, _) = self._live, self.shape
        split = (splits,) if type(live) in PRODUCT else ()
        quantizer = type(live)(live.d, *split, steps, self._bits, live.search_type)
        faiss.copy_array_to_vector(np.ascontiguousarray(codewords).ravel(), quantizer.codebooks)
        return quantizer

    def holding(self, state: IndexState, norms: Float32 | None = None) -> Any:
        """A quantizer with other codewords, which stores norms as it is told, or those of these vectors as it can."""
        assert state.codebooks is not None
        quantizer = self._like(state.codebooks)
        rounding.put(quantizer, rounding.read(self._live) if norms is None else norms)
        if self.stores_norms and norms is None:
            rounding.fit(quantizer, self._norms(state))
        quantizer.is_trained = True
        return quantizer

    def norms(self, quantizer: Any) -> Float32 | None:
        """Ends, values and terms of them."""
        return rounding.read(quantizer) if self.stores_norms else None

    def copy(self) -> Any:
        """A quantizer with the same codewords and norms."""
        quantizer = self._like(self.read())
        rounding.put(quantizer, rounding.read(self._live))
        return quantizer

    def pack(self, quantizer: Any, state: IndexState) -> Packed:
        """Bit-packed codes, with norms if they are stored."""
        packed, squares = np.empty((state.n, quantizer.code_size), dtype=np.uint8), self._norms(state)
        for start in range(0, state.n, ROWS):
            part = np.ascontiguousarray(state.codes[start : start + ROWS], dtype=np.int32)
            pointers = [faiss.swig_ptr(a[start : start + ROWS]) for a in (packed, squares)]
            quantizer.pack_codes(len(part), faiss.swig_ptr(part), pointers[0], -1, pointers[1])
        return packed

    def _norms(self, state: IndexState) -> Float32:
        """Squared norms, as they are stored of the vectors of ``state``: float32 ``(n,)``."""
        assert state.codebooks is not None
        out = np.empty(state.n, dtype=np.float32)
        for start in range(0, state.n, ROWS):
            rows = slice(start, start + ROWS)
            decoded = decode(state.codes[rows], state.codebooks)
            if self._with_centroids:
                decoded += state.centroids[state.assignment[rows]]
            out[rows] = np.einsum("nd,nd->n", decoded, decoded)
        return out

    def unpack(self, packed: Packed) -> Codes:
        """Codeword numbers ``(n, nsplits * steps)``."""
        return unpack(packed, self.n_codes, self._bits)

    def overwrite(self, source: Any) -> None:
        """The codewords, twice in the product forms, with tables and norms."""
        live, words = self._live, faiss.vector_to_array(source.codebooks)
        faiss.copy_array_to_vector(words, live.codebooks)
        parts = [live]
        if type(live) in PRODUCT:  # these decode by the codebooks above, and encode by those below
            cast: Any = faiss.downcast_AdditiveQuantizer  # type: ignore[attr-defined]
            parts = [cast(live.subquantizer(i)) for i in range(live.nsplits)]
            for part, own in zip(parts, words.reshape(len(parts), -1), strict=True):
                faiss.copy_array_to_vector(np.ascontiguousarray(own), part.codebooks)
        for part in parts:
            if part.codebook_cross_products.size():
                part.compute_codebook_tables()
        rounding.put(live, rounding.read(source))

    @property
    def trained(self) -> tuple[Any, ...]:
        """How norms are stored."""
        live = self._live
        values = faiss.vector_to_array(live.qnorm.codes).tobytes() if live.qnorm.ntotal else b""
        return live.search_type, live.norm_min, live.norm_max, values

    def facts(self) -> dict[str, Any]:
        """Codebooks, and bits of each."""
        splits, steps, _, _ = self.shape
        of = f"{splits} x {steps}" if splits > 1 else str(steps)
        return {type(self._live).__name__: f"{of} codebooks of {self._bits} bits"}
