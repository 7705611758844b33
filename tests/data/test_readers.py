import numpy as np
import pytest
import scipy.sparse
import torch
from writers import WRITERS

from faiss_distill import InputError
from faiss_distill.data.formats import FORMATS
from faiss_distill.data.vectors import open_vectors

X = np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32)


def test_every_format_is_tested():
    assert set(WRITERS) == set(FORMATS)


@pytest.mark.parametrize("suffix", WRITERS)
class TestFiles:
    def test_round_trip(self, tmp_path, suffix):
        path = tmp_path / f"x{suffix}"
        WRITERS[suffix](path, X)
        for source in (path, str(path)):
            vectors = open_vectors(source, "embeddings")
            assert (vectors.n, vectors.d) == X.shape
            np.testing.assert_array_equal(np.concatenate([b for _, b in vectors.blocks(6)]), X)
            np.testing.assert_array_equal(vectors.take(np.array([3, 0, 19])), X[[3, 0, 19]])

    @pytest.mark.parametrize("cut", [1, 30])
    def test_truncated(self, tmp_path, suffix, cut):
        path = tmp_path / f"x{suffix}"
        WRITERS[suffix](path, X)
        path.write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(InputError, match=rf"queries: expected a complete .*x\{suffix}'"):
            open_vectors(path, "queries")

    def test_empty(self, tmp_path, suffix):
        path = tmp_path / f"x{suffix}"
        path.touch()
        with pytest.raises(InputError, match="expected a complete"):
            open_vectors(path, "queries")

    def test_missing(self, tmp_path, suffix):
        with pytest.raises(InputError, match="embeddings: expected a file that exists"):
            open_vectors(tmp_path / f"x{suffix}", "embeddings")


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
    with pytest.raises(InputError, match=rf"expected a file ending in {', '.join(FORMATS)}, got '.*x\.csv'"):
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


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_check_finite_names_rows(value):
    x = X.astype(np.float64)
    x[[3, 17], 2] = value
    with pytest.raises(InputError, match=r"x: .*infinity in 2 of 20 rows \(3, 17\)"):
        open_vectors(x, "x").check_finite(8)
