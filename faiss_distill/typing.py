"""Types of what the public functions take, for editors and for annotations of your own.

They check nothing at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import sparray, spmatrix
from torch import Tensor

__all__ = [
    "FaissIndex",
    "IdsLike",
    "IndexLike",
    "LabelsLike",
    "PathLike",
    "QueryInputsLike",
    "TeacherLike",
    "VectorsLike",
]

_Floats: TypeAlias = NDArray[np.floating[Any]]
_Integers: TypeAlias = NDArray[np.integer[Any]]

FaissIndex: TypeAlias = faiss.Index
"""An index of float vectors, as ``faiss.index_factory`` and ``faiss.read_index`` return it.

:doc:`/guide` has a table of the classes that can be tuned.
"""

PathLike: TypeAlias = str | Path
"""The path of a file or folder, as a string or a :class:`pathlib.Path`."""

IndexLike: TypeAlias = FaissIndex | PathLike | Any
"""A faiss index, the path of a file of one, or a vector store that searches one (:doc:`/stores`)."""

VectorsLike: TypeAlias = (
    _Floats
    | NDArray[np.int8]
    | NDArray[np.uint8]
    | Tensor
    | Sequence[Sequence[float]]
    | FaissIndex
    | PathLike
    | Sequence[PathLike]
)
"""A matrix of vectors, one a row, of shape ``(n, d)``. It is one of:

- a numpy array or memory map, with any strides;
- a torch tensor, dense, on any device;
- a list of lists of floats;
- a dataset of h5py's, an array of zarr's or pyarrow's, or a column of a dataset of Hugging Face's;
- a flat index, or one of a scalar quantizer of 8 bits or more, which holds them;
- the path of a file or folder of one of the formats in :doc:`/files`, or a list of such paths.

The dtype is any float, or an integer of 8 bits, signed or not. Rows are converted to float32 block by block; they are
not rescaled. Wider integers are refused, since they are nearly always ids.
"""

_Ids: TypeAlias = _Integers | Tensor | Sequence[int | np.integer[Any]]

IdsLike: TypeAlias = _Ids | PathLike
"""A numpy array, a torch tensor or a list of ids, integers of any dtype, of shape ``(n,)``, or the path of a file.

faiss keeps ids as int64. Unsigned ids of 64 bits are taken bit for bit. No vector can have the id -1, which faiss
returns where it found nothing.
"""

_OfOneQuery: TypeAlias = int | np.integer[Any] | _Ids | Mapping[int, float]

LabelsLike: TypeAlias = (
    _Integers | Tensor | Sequence[_OfOneQuery] | Mapping[int, _OfOneQuery] | sparray | spmatrix | PathLike
)
"""Ids of the documents that are relevant to each of ``nq`` queries. It is one of:

- integers of shape ``(nq,)`` or ``(nq, r)`` in a numpy array or a torch tensor, -1 as padding;
- a list with an entry for each query: an id, a list of ids, or a dict from ids to grades;
- a dict from query rows to such entries; rows that it lacks have no label;
- a scipy sparse matrix with a row for each query and a column for each id;
- the path of integers in one of the formats in :doc:`/files`, or of qrels (TREC or BEIR) that have query rows and ids
  of the index.
  :func:`faiss_distill.read_qrels` reads qrels with other names.

Grades and entries of a sparse matrix that are above 0 are relevant.
"""

QueryInputsLike: TypeAlias = NDArray[Any] | Tensor | list[Any] | tuple[Any, ...]
"""A numpy array, a torch tensor or a list (of texts, say) with an entry for each query.

Numbers reach the encoder as a tensor with a row for each query, a list as a list.
"""

TeacherLike: TypeAlias = (
    tuple[_Integers | Tensor | Sequence[Sequence[int]], _Floats | Tensor | Sequence[Sequence[float]]]
    | _Integers
    | Tensor
    | FaissIndex
    | PathLike
)
"""The nearest documents of the training queries, or what finds them. It is one of:

- a pair ``(ids, scores)`` of shape ``(nq, K)`` each, best first, ids -1 where there are no more; scores as faiss
  returns them: inner products, or squared L2 distances;
- an array of such ids alone, whose scores are then computed;
- the path of a ``.npz`` file with arrays of the names ``ids`` and ``scores``, or of ids in one of the formats in
  :doc:`/files`, such as the ``.ivecs`` or ``.ibin`` ground truth of a benchmark;
- a faiss index of the same vectors and ids, or the path of one.
"""
