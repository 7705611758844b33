"""What writes a matrix ``x (n, d)``, of :data:`DTYPES` or float32, in each of the file formats."""

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import zarr
from faiss.contrib.vecs_io import fvecs_write
from pyarrow import feather
from safetensors.torch import save_file


def prefixed(path, x):
    """As faiss's writer does it, for other dtypes."""
    lengths = np.full((len(x), 1), x.shape[1], dtype="<i4").view(np.uint8)
    path.write_bytes(np.hstack([lengths, np.ascontiguousarray(x).view(np.uint8)]).tobytes())


def counted(path, x):
    path.write_bytes(np.array(x.shape, dtype="<u4").tobytes() + x.tobytes())


def table(x, kind=pa.list_, extra=True):
    """A table with a column of vectors, in several chunks, and one of ids."""
    values = pa.array(x.ravel())
    column = pa.FixedSizeListArray.from_arrays(values, x.shape[1])
    column = column if kind is None else column.cast(kind(values.type))
    columns = {"id": pa.array(np.arange(len(x))), "vector": column} if extra else {"vector": column}
    whole = pa.table(columns)
    cut = len(x) // 3
    return pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])


def write_hdf5(path, x):
    with h5py.File(path, "w") as file:
        file["train"] = x


def write_arrow(path, x):
    rows = table(x)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)


def write_zarr(path, x):
    array = zarr.open_array(str(path), mode="w", shape=x.shape, chunks=(6, x.shape[1]), dtype=x.dtype)
    array[:] = x


WRITERS = {
    ".npy": np.save,
    ".npz": lambda path, x: np.savez(path, x=x),
    ".fvecs": lambda path, x: fvecs_write(str(path), x),
    ".bvecs": prefixed,
    ".fbin": counted,
    ".u8bin": counted,
    ".i8bin": counted,
    ".hdf5": write_hdf5,
    ".h5": write_hdf5,
    ".parquet": lambda path, x: pq.write_table(table(x), path, row_group_size=7),
    ".arrow": write_arrow,
    ".feather": lambda path, x: feather.write_feather(table(x, kind=None), str(path)),
    ".safetensors": lambda path, x: save_file({"x": torch.from_numpy(x)}, path),
    ".pt": lambda path, x: torch.save(torch.from_numpy(x), path),
    ".pth": lambda path, x: torch.save({"x": torch.from_numpy(x), "epoch": 3}, path),
    ".zarr": write_zarr,
    **dict.fromkeys((".raw", ".bin", ".dat", ".mmap"), lambda path, x: path.write_bytes(x.tobytes())),
    ".ivecs": prefixed,
    ".ibin": counted,
}
DTYPES = {".bvecs": np.uint8, ".u8bin": np.uint8, ".i8bin": np.int8, ".ivecs": np.int32, ".ibin": np.int32}
"""Of formats that hold no floats."""
IDS = (".ivecs", ".ibin")
"""Formats of ids."""
KEYED = dict.fromkeys((".raw", ".bin", ".dat", ".mmap"), ":float32,7")
"""What follows the path of a matrix of 7 columns, where something must."""
