import pickle
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import torch
import zarr
from pyarrow import feather
from safetensors.torch import save_file
from writers import DTYPES, IDS, KEYED, WRITERS, table

from faiss_distill import InputError, MissingDependencyError
from faiss_distill.data.formats import BY_SUFFIX, FORMATS, open_file, parquet
from faiss_distill.data.formats.parquet import ParquetColumn
from faiss_distill.data.sliced import Sliced
from faiss_distill.data.vectors import open_vectors

X = np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32)
FILES = sorted(set(WRITERS) - set(IDS))
FOLDERS = [suffix for row in FORMATS if row.folder for suffix in row.suffixes]


def of_dtype(suffix):
    """A matrix as the format holds it."""
    return (10 * X).astype(DTYPES[suffix]) if suffix in DTYPES else X


def written(folder, suffix, name="x"):
    """The path of one in a file."""
    path = folder / f"{name}{suffix}"
    WRITERS[suffix](path, of_dtype(suffix))
    return f"{path}{KEYED.get(suffix, '')}"


def test_every_format_is_tested():
    assert set(WRITERS) == set(BY_SUFFIX)


@pytest.mark.parametrize("suffix", FILES)
class TestFiles:
    def test_round_trip(self, tmp_path, suffix):
        path, x = written(tmp_path, suffix), of_dtype(suffix).astype(np.float32)
        for source in (Path(path), path):
            vectors = open_vectors(source, "embeddings")
            assert (vectors.n, vectors.d) == X.shape
            np.testing.assert_array_equal(np.concatenate([b for _, b in vectors.blocks(6)]), x)
            for rows in ([3, 0, 19], [5, 5, 4], [], list(range(19, -1, -1))):
                np.testing.assert_array_equal(vectors.take(np.array(rows, dtype=int)), x[rows])
            np.testing.assert_array_equal(vectors.block(2, 3), x[2:3])
            assert vectors.block(0, 4).flags.c_contiguous

    @pytest.mark.parametrize("cut", [1, 30])
    def test_truncated(self, tmp_path, suffix, cut):
        if suffix in FOLDERS:
            pytest.skip("a folder")
        name = written(tmp_path, suffix)
        path = tmp_path / f"x{suffix}"
        path.write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(InputError, match=rf"queries: expected (a complete|rows of 28 bytes).*x\{suffix}'"):
            open_vectors(name, "queries").check_finite(100)

    def test_empty(self, tmp_path, suffix):
        path = tmp_path / f"x{suffix}"
        path.mkdir() if suffix in FOLDERS else path.touch()
        with pytest.raises(InputError, match=r"expected (a complete|rows of)"):
            open_vectors(f"{path}{KEYED.get(suffix, '')}", "queries")

    def test_missing(self, tmp_path, suffix):
        with pytest.raises(InputError, match=r"embeddings: expected a (file|folder) that exists"):
            open_vectors(f"{tmp_path}/x{suffix}{KEYED.get(suffix, '')}", "embeddings")

    def test_upper_case(self, tmp_path, suffix):
        written(tmp_path, suffix)
        (tmp_path / f"x{suffix}").rename(tmp_path / f"X{suffix.upper()}")
        assert open_vectors(f"{tmp_path}/X{suffix.upper()}{KEYED.get(suffix, '')}", "x").n == len(X)

    def test_parts(self, tmp_path, suffix):
        """A list, a folder and a pattern of files, in natural order."""
        (tmp_path / "parts").mkdir()
        names = [written(tmp_path / "parts", suffix, f"part{i}") for i in (2, 10, 9)]
        x = of_dtype(suffix).astype(np.float32)
        key = KEYED.get(suffix, "")
        for source in (names, f"{tmp_path}/parts{key}", f"{tmp_path}/parts/part*{suffix}{key}"):
            vectors = open_vectors(source, "x")
            assert vectors.n == 60
            np.testing.assert_array_equal(vectors.block(15, 45), np.concatenate([x, x, x])[15:45])
            np.testing.assert_array_equal(vectors.take(np.array([59, 0, 25])), x[[19, 0, 5]])


@pytest.mark.parametrize("suffix", IDS)
def test_ids_are_no_embeddings(tmp_path, suffix):
    path = written(tmp_path, suffix)
    np.testing.assert_array_equal(open_file(path, "x"), of_dtype(suffix))
    with pytest.raises(InputError, match="expected a floating dtype, or integers of 8 bits, got int32"):
        open_vectors(path, "x")


class TestKeys:
    """Which of several arrays in a file is meant."""

    @pytest.fixture(params=[".npz", ".hdf5", ".safetensors", ".pt", ".zarr", ".parquet", ".arrow"])
    def several(self, tmp_path, request):
        path, arrays = tmp_path / f"several{request.param}", {"train": X, "test": X[:5] + 1}
        rows = {"train": X, "test": X + 1}
        match request.param:
            case ".npz":
                np.savez(path, **arrays)
            case ".hdf5":
                with h5py.File(path, "w") as file:
                    file.update(arrays)
            case ".safetensors":
                save_file({key: torch.from_numpy(x) for key, x in arrays.items()}, path)
            case ".pt":
                torch.save({key: torch.from_numpy(x) for key, x in arrays.items()}, path)
            case ".zarr":
                zarr.save_group(str(path), **arrays)
            case ".parquet":
                pq.write_table(pa.table({key: pa.array(x.tolist()) for key, x in rows.items()}), path)
            case ".arrow":
                columns = pa.table({key: pa.array(x.tolist()) for key, x in rows.items()})
                with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, columns.schema) as writer:
                    writer.write_table(columns)
        return path

    def test_one_is_taken(self, several):
        np.testing.assert_array_equal(open_vectors(f"{several}:test", "x").block(0, 5), X[:5] + 1)
        np.testing.assert_array_equal(open_vectors(f"{several}:train", "x").take(np.array([7, 2])), X[[7, 2]])

    def test_parts_of_several(self, several, tmp_path):
        """The key stands after the folder or the pattern."""
        (tmp_path / "parts").mkdir()
        for i in (1, 2):
            copy = shutil.copytree if several.is_dir() else shutil.copy
            copy(several, tmp_path / "parts" / f"{i}{several.suffix}")
        for source in (f"{tmp_path}/parts:train", f"{tmp_path}/parts/*{several.suffix}:train"):
            np.testing.assert_array_equal(open_vectors(source, "x").block(18, 23), np.concatenate([X, X])[18:23])

    def test_none_is_refused(self, several):
        with pytest.raises(InputError, match=r"expected a file with one .*(train, test|test, train); put the one that"):
            open_vectors(several, "x")

    def test_another_is_refused(self, several):
        with pytest.raises(InputError, match=r"expected one of the .*'tran'; did you mean train\?"):
            open_vectors(f"{several}:tran", "x")


def test_a_key_where_there_is_one_array(tmp_path):
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(InputError, match=r"a path without a key, as \.npy holds one array, got '.*x\.npy:train'"):
        open_vectors(f"{tmp_path}/x.npy:train", "x")
    (tmp_path / "x.npy").rename(tmp_path / "odd.npy:name.npy")
    assert open_vectors(tmp_path / "odd.npy:name.npy", "x").n == len(X)


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "x.npy", X)
    assert open_vectors("~/x.npy", "x").n == len(X)
    assert open_vectors("~/*.npy", "x").n == len(X)


@pytest.mark.parametrize(
    ("suffix", "hint"),
    [(".csv", r"convert it first: np\.save"), (".hdf", r"did you mean \.hdf5\?"), (".xyz", r"got '.*x\.xyz'$")],
)
def test_what_to_do_with_others(tmp_path, suffix, hint):
    with pytest.raises(InputError, match=hint):
        open_vectors(tmp_path / f"x{suffix}", "x")


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".joblib"])
def test_pickles_are_refused(tmp_path, suffix):
    (tmp_path / f"x{suffix}").write_bytes(pickle.dumps(X))
    with pytest.raises(InputError, match=r"a pickle can run any code: load it yourself, if you trust it, and np\.save"):
        open_vectors(tmp_path / f"x{suffix}", "x")


def test_what_torch_would_have_to_run_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save(Evil(), tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"expected a complete \.pt file"):
        open_vectors(tmp_path / "x.pt", "x")
    assert not (tmp_path / "ran").exists()


def test_the_first_rows_of_a_large_file(tmp_path):
    """Under the header of the whole, as big-ann-benchmarks has them."""
    path = tmp_path / "base.1B.fbin.crop_nb_20"
    path.write_bytes(np.array([1000, 7], dtype="<u4").tobytes() + X.tobytes())
    np.testing.assert_array_equal(open_vectors(path, "x").block(0, 20), X)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"expected a complete base\.1B\.fbin\.crop_nb_20 file"):
        open_vectors(path, "x")


@pytest.mark.parametrize("key", ["", ":float32", ":float32,x", ":object,7", ":float32,0", ":float32,7,7"])
def test_what_raw_numbers_need(tmp_path, key):
    (tmp_path / "x.raw").write_bytes(X.tobytes())
    with pytest.raises(InputError, match=r"expected dtype and dimension after the path, as in x\.raw:float32,768"):
        open_vectors(f"{tmp_path}/x.raw{key}", "x")


@pytest.mark.parametrize("given", [list(range(3)), [1.0, 2.0]])
def test_a_column_that_holds_no_vectors(tmp_path, given):
    pq.write_table(pa.table({"a": given}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"expected a (column of numbers or of lists|matrix)"):
        open_vectors(f"{tmp_path}/x.parquet:a", "x")
    with pytest.raises(InputError, match=r"expected a file with one column of vectors, got .* with none"):
        open_vectors(tmp_path / "x.parquet", "x")


@pytest.mark.parametrize("bad", [[1.0, 2.0], None, [1.0, None, 3.0]])
def test_rows_that_are_no_vectors(tmp_path, bad):
    rows = pa.table({"v": pa.array([[1.0, 2.0, 3.0]] * 9 + [bad])})
    pq.write_table(rows, tmp_path / "x.parquet")
    feather.write_feather(rows, str(tmp_path / "x.feather"))
    for suffix in (".parquet", ".feather"):
        with pytest.raises(InputError, match=r"x: expected (vectors of 3 numbers|numbers, got none in 1 places)"):
            open_vectors(tmp_path / f"x{suffix}", "x").check_finite(4)


def test_a_column_that_somebody_has():
    column = table(X)["vector"]
    for source in (column, column.combine_chunks()):
        np.testing.assert_array_equal(open_vectors(source, "x").take(np.array([19, 3])), X[[19, 3]])
    with pytest.raises(InputError, match="x: expected an array of lists of numbers, got int64"):
        open_vectors(table(X)["id"], "x")


def test_arrays_that_can_only_be_sliced(tmp_path):
    """Which those of h5py and zarr are."""
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        chunked = file.create_dataset("x", data=X, chunks=(3, 7), compression="gzip")
        for source in (chunked, zarr.array(X, chunks=(4, 7))):
            vectors = open_vectors(source, "x").select(np.arange(19, -1, -1))
            np.testing.assert_array_equal(vectors.block(0, 20), X[::-1])


def test_rows_are_read_in_runs():
    class Slices:
        shape, dtype = (100_000, 2), np.dtype("f4")

        def __init__(self):
            self.asked = []

        def __getitem__(self, rows):
            self.asked.append((rows.start, rows.stop))
            return np.repeat(np.arange(rows.start, rows.stop, dtype="f4")[:, None], 2, axis=1)

    rows, source = np.array([70_000, 3, 5, 5, 40, 30_000]), Slices()
    assert Sliced(source)[rows][:, 0].tolist() == rows.tolist()
    assert source.asked == [(3, 6), (40, 41), (30_000, 30_001), (70_000, 70_001)]
    source.asked.clear()
    assert Sliced(source, chunk=64)[rows][:, 0].tolist() == rows.tolist()
    assert source.asked == [(3, 41), (30_000, 30_001), (70_000, 70_001)]


def test_a_table_is_decoded_once_forwards(tmp_path, monkeypatch):
    """Whether it is read in blocks or row by row."""
    pq.write_table(table(X), tmp_path / "x.parquet", row_group_size=7)
    monkeypatch.setattr(parquet, "BATCH", 3)
    vectors = open_vectors(tmp_path / "x.parquet", "x")
    begun = []
    own = ParquetColumn._restart
    monkeypatch.setattr(ParquetColumn, "_restart", lambda self, group: (begun.append(group), own(self, group)))
    for start in range(20):
        vectors.block(start, start + 1)
    assert begun == []
    vectors.take(np.array([19, 9, 11]))
    assert begun == [1]  # the row group of 9


@pytest.mark.parametrize(("files", "got"), [([], "none"), (["a.txt"], "none"), (["a.npy", "b.fbin"], r"\.fbin, \.npy")])
def test_a_folder_of_something_else(tmp_path, files, got):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"x: expected files of one format in .*, got {got}$"):
        open_vectors(tmp_path, "x")


def test_texts_are_no_vectors():
    with pytest.raises(InputError, match=r"queries: expected vectors, or paths .*, got texts, 'how .* first; embed"):
        open_vectors(["how to install", "how to remove"], "queries")


def test_parts_of_unequal_dimensions(tmp_path):
    np.save(tmp_path / "1.npy", X)
    np.save(tmp_path / "2.npy", X[:, :5])
    with pytest.raises(InputError, match=r"expected dimension 7, as .*1\.npy has, got shape \(20, 5\) in '.*2\.npy'"):
        open_vectors(tmp_path, "x")
    with pytest.raises(InputError, match="expected a matrix"):
        open_vectors([], "x")


@pytest.mark.parametrize("module", ["h5py", "zarr", "pyarrow"])
def test_a_library_that_is_not_installed(tmp_path, monkeypatch, module):
    suffix, extra = {"h5py": (".hdf5", "hdf5"), "zarr": (".zarr", "zarr"), "pyarrow": (".parquet", "arrow")}[module]
    path = written(tmp_path, suffix)
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    needed = rf"embeddings: expected {module}, got none; pip install 'faiss-distill\[{extra}\]'"
    with pytest.raises(MissingDependencyError, match=needed):
        open_vectors(path, "embeddings")


def test_fvecs_of_unequal_dimensions(tmp_path):
    rows = [np.array([3], "<i4").tobytes() + bytes(12), np.array([9], "<i4").tobytes() + bytes(12)]
    (tmp_path / "x.fvecs").write_bytes(b"".join(rows))
    with pytest.raises(InputError, match="expected vectors of one dimension"):
        open_vectors(tmp_path / "x.fvecs", "queries")


def test_npz_named_npy(tmp_path):
    np.savez(tmp_path / "x.npz", x=X)
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(InputError, match=r"expected a complete \.npy file"):
        open_vectors(tmp_path / "x.npy", "queries")


def test_sparse():
    with pytest.raises(InputError, match=r"x: expected a dense matrix of floats, got csr_array; use its \.toarray"):
        open_vectors(scipy.sparse.csr_array(X), "x")


def test_unknown_suffix(tmp_path):
    with pytest.raises(InputError, match=rf"expected a file ending in {', '.join(BY_SUFFIX)}, got '.*x\.csv'"):
        open_vectors(tmp_path / "x.csv", "queries")


@pytest.mark.parametrize(
    "source",
    [
        X.astype(np.float64),
        np.asfortranarray(X),
        np.repeat(X, 2, axis=0)[::2],
        torch.from_numpy(X),
        torch.from_numpy(X).double().requires_grad_(),
        X.tolist(),
    ],
    ids=["float64", "fortran", "strided", "torch", "torch64", "list"],
)
def test_every_form_gives_the_same_block(source):
    block = open_vectors(source, "x").block(2, 9)
    np.testing.assert_array_equal(block, X[2:9])
    assert block.dtype == np.float32
    assert block.flags.c_contiguous


@pytest.mark.parametrize("half", [X.astype(np.float16), torch.from_numpy(X).half(), torch.from_numpy(X).bfloat16()])
def test_half_precision_is_widened(half):
    np.testing.assert_allclose(open_vectors(half, "x").take(np.array([1, 5])), X[[1, 5]], atol=0.02)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_integers_of_8_bits_are_widened(tmp_path, dtype):
    x = np.random.default_rng(0).integers(0, 128, (50, 8)).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    for source in (x, torch.from_numpy(x), str(tmp_path / "x.npy")):
        block = open_vectors(source, "x").block(0, 50)
        assert block.dtype == np.float32
        np.testing.assert_array_equal(block, x)


@pytest.mark.parametrize("bad", [X.astype(np.int16), torch.arange(6).reshape(2, 3), X.astype(bool), X.astype(complex)])
def test_other_dtypes_are_refused(bad):
    with pytest.raises(InputError, match=r"x: expected a floating dtype, or integers of 8 bits, got .*convert"):
        open_vectors(bad, "x")


@pytest.mark.parametrize("bad", [X[0], X[None], torch.zeros(3)])
def test_other_dimensions_are_refused(bad):
    with pytest.raises(InputError, match=r"x: expected a matrix \(n, d\), got shape"):
        open_vectors(bad, "x")


@pytest.mark.parametrize("bad", [[[1.0], [1.0, 2.0]], b"abc", None])
def test_what_is_no_matrix_is_refused(bad):
    with pytest.raises(InputError, match="x: expected a matrix"):
        open_vectors(bad, "x")


def test_select_composes():
    vectors = open_vectors(X, "x").select(np.array([4, 2, 9, 11])).select(np.array([3, 0]))
    assert vectors.n == 2
    np.testing.assert_array_equal(vectors.block(0, 2), X[[11, 4]])
    np.testing.assert_array_equal(vectors.take(np.array([1])), X[[4]])


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, 2e19])
def test_check_finite_names_rows(value, normalized):
    x = X.astype(np.float64)
    x[[3, 17], 2] = value
    vectors = open_vectors(x, "x").normalized() if normalized else open_vectors(x, "x")
    with pytest.raises(InputError, match=r"x: .* got NaN, infinity or too large a value in 2 of 20 rows \(3, 17\)"):
        vectors.check_finite(8)


def test_check_finite_refuses_what_has_no_distances():
    x = np.array([[9e18, 0.0], [-9e18, 0.0]], dtype=np.float32)
    assert np.isfinite(((x[0] - x[1]) ** 2).sum())
    open_vectors(x, "x").check_finite(8)
    with pytest.raises(InputError, match=r"and squared distances that are finite in float32, got .* in 2 of 2 rows"):
        open_vectors(x * np.float32(1.1), "x").check_finite(8)
    open_vectors(x * np.float32(1.1), "x").check_finite(8, distances=False)
    open_vectors(x * np.float32(1.1), "x").normalized().check_finite(8)
