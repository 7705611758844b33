"""Labels in every form give the same array, and what is no label one clear error."""

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faiss_distill import InputError
from faiss_distill.data.qrels import read_qrels
from faiss_distill.data.relevance import open_relevant

LABELS = np.array([3, 5, 8, 13, 500])
DOCUMENTS = [3, 5, 8, 13, 500]


def trec(judged):
    return "".join(f"{q} 0 {d} {g}\n" for q, grades in judged for d, g in grades)


def ms_marco(judged):
    return trec(judged).replace(" ", "\t")


def beir(judged):
    return "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{g}\n" for q, grades in judged for d, g in grades)


TEXTS = {"trec": trec, "ms_marco": ms_marco, "beir": beir}


def rowwise(found):
    return np.sort(found, axis=1)


def opened(relevant, n, labels=LABELS):
    """Open, and check what holds of every answer."""
    found = open_relevant(relevant, n, labels, "relevant")
    assert found.dtype == np.int64
    assert found.shape[0] == n
    assert (found != -1).sum(axis=1).max() == found.shape[1]  # no wider than needed
    assert not ((found[:, :-1] == -1) & (found[:, 1:] != -1)).any()  # padding comes last
    for row in found:
        assert len(set(row[row != -1].tolist())) == (row != -1).sum()
    return found


@pytest.fixture
def refused():
    def refused(relevant, match, n=3):
        with pytest.raises(InputError, match=match):
            open_relevant(relevant, n, LABELS, "relevant")

    return refused


@pytest.fixture
def written(tmp_path):
    def written(text, name="qrels.tsv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return written


grades = st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(-1, 3), max_size=5)
judgements = st.lists(grades, min_size=1, max_size=6).filter(lambda rows: any(g > 0 for r in rows for g in r.values()))


class TestForms:
    @settings(max_examples=60, deadline=None)
    @given(judged=judgements, rng=st.randoms(use_true_random=False))
    def test_all_open_to_the_same(self, judged, rng, tmp_path_factory):
        n = len(judged)
        folder = tmp_path_factory.mktemp("forms")
        rows = [[d for d, g in graded.items() if g > 0] for graded in judged]
        width = max(map(len, rows))
        expected = rowwise(np.array([row + [-1] * (width - len(row)) for row in rows]))

        array = np.full((n, 9), -1)  # each id once or twice, anywhere
        for i, row in enumerate(rows):
            again = row + row[: rng.randint(0, 4)]
            array[i, rng.sample(range(9), len(again))] = again
        dense = np.zeros((n, 501), dtype=np.int16)
        for i, graded in enumerate(judged):
            dense[i, list(graded)] = list(graded.values())
        i, j = dense.nonzero()
        np.save(folder / "x.npy", array)
        forms = {
            "array": array,
            "fortran": np.asfortranarray(array.astype(np.int32)),
            "torch": torch.from_numpy(array),
            "list": array.tolist(),
            "ragged": rows,
            "ragged of arrays": tuple(np.array(row, dtype=np.int32) for row in rows),
            "ragged of tensors": [torch.tensor(row, dtype=torch.int64) for row in rows],
            "array of lists": np.array([*rows, None], dtype=object)[:-1],
            "list of dicts": judged,
            "dict of lists": {q: row + row for q, row in enumerate(rows) if row},
            "dict of sets": {np.int64(q): set(row) for q, row in enumerate(rows)},
            "dict of dicts": dict(enumerate(judged)),
            "dict of float grades": {q: {d: g / 2 for d, g in graded.items()} for q, graded in enumerate(judged)},
            "csr": scipy.sparse.csr_array(dense.astype(np.float32)),
            "coo": scipy.sparse.coo_array((dense[i, j], (i, j)), shape=dense.shape),
            "csc matrix": scipy.sparse.csc_matrix(dense > 0),
            "npy": folder / "x.npy",
        }
        for name, write in TEXTS.items():
            (folder / name).write_text(write([(q, graded.items()) for q, graded in enumerate(judged)]))
            forms[name] = str(folder / name)
        for form, relevant in forms.items():
            np.testing.assert_array_equal(rowwise(opened(relevant, n)), expected, err_msg=form)

    @pytest.mark.parametrize("dtype", [np.int8, np.int64])
    def test_one_id_a_query(self, dtype):
        ids = np.array([3, -1, 13], dtype=dtype)
        for form in (ids, ids[:, None], ids.tolist(), torch.from_numpy(ids), {0: 3, 1: -1, 2: np.int8(13)}):
            np.testing.assert_array_equal(opened(form, 3), [[3], [-1], [13]])

    def test_order_is_kept(self):
        array = np.array([[500, -1, 3, 500, 8], [13, 3, 13, 5, -1]])
        before = array.copy()
        for form in (array, array.tolist(), {1: [13, 3, 13, 5], 0: (500, 3, 500, 8)}):
            np.testing.assert_array_equal(opened(form, 2), [[500, 3, 8], [13, 3, 5]])
        np.testing.assert_array_equal(array, before)

    def test_an_array_is_copied(self):
        array = np.array([[3], [5]])
        opened(array, 2)[0, 0] = 99
        assert array[0, 0] == 3

    def test_unsigned(self):
        np.testing.assert_array_equal(opened(np.array([3, 5], dtype=np.uint64), 2), [[3], [5]])

    @pytest.mark.parametrize(
        "made",
        [
            lambda entries: scipy.sparse.csr_array((entries, [3, 3, 5, 5], [0, 2, 4]), shape=(2, 501)),
            lambda entries: scipy.sparse.coo_array((entries, ([0, 0, 1, 1], [3, 3, 5, 5])), shape=(2, 501)),
        ],
        ids=["csr", "coo"],
    )
    def test_sparse_entries_of_one_place_are_summed_and_the_matrix_stays_as_it_was(self, made):
        matrix = made(np.array([2, -3, 1, 1]))
        np.testing.assert_array_equal(opened(matrix, 2), [[-1], [5]])
        assert matrix.nnz == 4

    def test_sparse_may_be_narrower_than_the_corpus(self):
        np.testing.assert_array_equal(opened(scipy.sparse.coo_array(([1], ([0], [3])), shape=(1, 4)), 1), [[3]])

    def test_many_queries(self):
        ids = np.random.default_rng(0).integers(0, 1000, (100_000, 8))
        found = open_relevant(ids, len(ids), np.arange(1000), "relevant")
        expected = np.unique(ids[123])
        np.testing.assert_array_equal(np.sort(found[123])[-len(expected) :], expected)
        lists = open_relevant(ids.tolist(), len(ids), np.arange(1000), "relevant")
        np.testing.assert_array_equal(found, lists)

    def test_negative_ids_of_the_index(self):
        np.testing.assert_array_equal(opened([[-7, -1], [-9]], 2, labels=np.array([-9, -7])), [[-7], [-9]])


class TestRefused:
    @pytest.mark.parametrize(
        ("relevant", "got"),
        [
            (np.zeros(2, dtype=int), r"int64 of shape \(2,\)"),
            (np.zeros((3, 1, 1), dtype=int), r"int64 of shape \(3, 1, 1\)"),
            (np.zeros(3), r"float64 of shape \(3,\)"),
            (np.ones((3, 2), dtype=bool), r"bool of shape \(3, 2\)"),
            (torch.zeros(3, requires_grad=True), "float32"),
            (7, r"int64 of shape \(\)"),
            ({3, 5, 8}, r"object of shape \(\)"),
            (np.array(["3", "5", "8"]), r"<U1 of shape \(3,\); turn them into .* read_qrels\(path, document_ids="),
            ([[3], [5]], "a list of 2"),
            (([3],), "a tuple of 1"),
            ([3.0, 5.0, 8.0], "ids of type float"),
            ([[3], [5.5, 8], []], "ids of type float"),
            ([3, True, False], "ids of type bool"),
            ([[3], np.array([True]), []], "ids of type bool"),
            ([["MED-1"], [5], []], r"ids of type str; turn them into .* read_qrels\(path, document_ids="),
            ([[[3]], [], []], "ids of type list"),
            ([None, 3, 5], "ids of type NoneType"),
            ({0: "MED-1"}, "ids of type str; turn"),
            ({0: [1.5]}, "ids of type float"),
            ({0: {"MED-1": 1}}, "ids of type str; turn"),
            ({0: True}, "ids of type bool"),
            ({0: b"\x03"}, "ids of type bytes; turn"),
        ],
        ids=repr,
    )
    def test_shape_and_dtype(self, refused, relevant, got):
        refused(relevant, rf"^relevant: expected integers \(3,\) or \(3, r\), one row a query, got {got}")

    @pytest.mark.parametrize(
        "relevant",
        [torch.zeros(3).bfloat16(), torch.eye(3).to_sparse(), torch.zeros(3, dtype=torch.complex64).conj()],
        ids=["bfloat16", "sparse", "conjugate"],
    )
    def test_tensors_that_numpy_does_not_take(self, refused, relevant):
        refused(relevant, "relevant: expected an array of integers, got Tensor: ")

    @pytest.mark.parametrize(
        "relevant",
        [
            np.array([[3, 777], [-7, -1], [5, 778]]),
            [[3, 777], [-7], [5, 778]],
            {0: [3, 777], 1: -7, 2: {778: 1, 5: 1, 900: 0}},
        ],
        ids=["array", "list", "dict"],
    )
    def test_ids_that_the_index_does_not_hold(self, refused, relevant):
        match = (
            r"^relevant: expected ids that the index holds, got 3 others \(-7, 777, 778\); leave them out, or put -1$"
        )
        refused(relevant, match)

    def test_columns_that_the_index_does_not_hold(self, refused):
        refused(scipy.sparse.coo_array(([1], ([0], [4])), shape=(3, 9)), r"that the index holds, got 1 others \(4\)")

    def test_only_five_are_shown(self, refused):
        refused(np.arange(20, 32).reshape(3, 4), r"got 12 others \(20, 21, 22, 23, 24, \.\.\.\)")

    @pytest.mark.parametrize("relevant", [np.array([2**64 - 1, 3, 5], dtype=np.uint64), [2**64 - 1, 3, 5]])
    def test_ids_beyond_int64_do_not_wrap_into_padding(self, refused, relevant):
        refused(relevant, "relevant: expected ids below 18446744073709551615, got that, which faiss, as -1, returns")

    def test_a_judged_document_is_no_padding(self, refused, written):
        refused({0: {-1: 1, 3: 1}}, r"that the index holds, got 1 others \(-1\)")
        refused(written("0 0 -1 1\n0 0 3 1\n"), r"that the index holds, got 1 others \(-1\)")
        np.testing.assert_array_equal(opened({0: {-1: 0, 3: 1}}, 1), [[3]])

    @pytest.mark.parametrize("grade", ["1", None, [1]])
    def test_grades(self, refused, grade):
        refused({0: {3: grade}}, "relevant: expected numbers as grades of ids, got {3: ")

    @pytest.mark.parametrize("key", [3, -1, "PLAIN-1", 0.0, True, None])
    def test_query_rows(self, refused, key):
        match = rf"expected query rows 0\.\.2, got 1 others \({key!r}\); .* read_qrels\(path, query_ids="
        refused({key: 3, 1: 5}, match)

    def test_query_rows_of_a_file(self, refused, written):
        refused(
            written("1 0 3 1\n7 0 3 1\n"), r"relevant: expected query rows 0\.\.2, got 1 others \(7\); .* query_ids="
        )

    @pytest.mark.parametrize(
        "relevant",
        [
            np.full((3, 2), -1),
            np.zeros((3, 0), dtype=int),
            [[], [], []],
            [-1, -1, -1],
            {},
            {0: [], 1: {3: 0}},
            scipy.sparse.csr_array((3, 501)),
        ],
        ids=["array", "no columns", "lists", "ids", "nothing", "dict", "sparse"],
    )
    def test_none_at_all(self, refused, relevant):
        refused(
            relevant, "relevant: expected at least one relevant id, got none for any of the 3 queries; leave it out"
        )

    @pytest.mark.parametrize(
        "relevant",
        [
            scipy.sparse.csr_array(np.ones((2, 9))),
            scipy.sparse.coo_array(np.ones(3)),
            scipy.sparse.csr_array(np.ones((3, 9), dtype=complex)),
        ],
        ids=["rows", "vector", "complex"],
    )
    def test_sparse(self, refused, relevant):
        refused(relevant, "relevant: expected a sparse matrix of 3 rows, one a query, got .* of shape")

    def test_files(self, refused, written, tmp_path):
        refused(str(tmp_path / "x.npy"), "relevant: expected a file that exists, got '.*x.npy'")
        refused(tmp_path / "x.tsv", "relevant: expected a file that exists, got '.*x.tsv'")
        refused(tmp_path, "relevant: expected a file, got the folder")
        refused(written(b"", "x.npy"), r"relevant: expected a complete \.npy file, got '.*x.npy'")
        np.save(tmp_path / "x.npy", np.zeros(3))
        refused(tmp_path / "x.npy", r"relevant: expected integers .* got float64 of shape \(3,\)")
        refused(
            written("PLAIN-1 0 3 1\n"), r"relevant: .* 'PLAIN-1' in line 1 of '.*qrels.tsv'; pass query_ids= to read_"
        )
        refused(written("0 0 MED-1 1\n"), r"relevant: .* 'MED-1' in line 1 of .*; pass document_ids= to read_qrels")


text_ids = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=5)


class TestQrels:
    @pytest.mark.parametrize("kind", TEXTS)
    @settings(max_examples=30, deadline=None)
    @given(judged=judgements, names=st.lists(text_ids, min_size=11, max_size=11, unique=True), data=st.data())
    def test_round_trip_of_ids_that_are_text(self, tmp_path_factory, kind, judged, names, data):
        queries, documents = names[: len(judged)], dict(zip(names[6:], DOCUMENTS, strict=True))
        of_id = {i: name for name, i in documents.items()}
        lines = [(queries[q], [(of_id[d], g)]) for q, graded in enumerate(judged) for d, g in graded.items()]
        path = tmp_path_factory.mktemp("qrels") / "x"
        path.write_text(TEXTS[kind](data.draw(st.permutations(lines))), encoding="utf-8")
        found = read_qrels(path, queries, documents)
        assert found == {q: graded for q, graded in enumerate(judged) if graded}
        np.testing.assert_array_equal(
            rowwise(opened(found, len(judged))), rowwise(opened(dict(enumerate(judged)), len(judged)))
        )

    @pytest.mark.parametrize("ids", [["a", "b", "c"], np.array(["a", "b", "c"]), {"a": 0, "c": 2, "b": np.int32(1)}])
    def test_documents_by_position_or_mapping(self, written, ids):
        path = written("q2 Q0 c 1\nq1 Q0 a 0\nq2 Q0 b 2\n")
        assert read_qrels(path, ["q1", "q2"], ids) == {0: {0: 0}, 1: {2: 1, 1: 2}}

    @pytest.mark.parametrize("ids", [[300, 17], np.array([300, 17]), torch.tensor([300, 17]), ("300", "17")], ids=str)
    def test_integer_ids_are_compared_as_text(self, written, ids):
        assert read_qrels(written("17\t0\t17\t1\n300\t0\t300\t1\n"), ids, ids) == {1: {1: 1}, 0: {0: 1}}

    def test_ids_in_the_file_are_numbers_unless_told(self, written):
        assert read_qrels(str(written("4 0 -7 1\n4 0 9223372036854775807 -2\n"))) == {4: {-7: 1, 2**63 - 1: -2}}

    def test_other_splits_are_skipped(self, written):
        assert read_qrels(written(beir([("q1", [("5", 1)]), ("q2", [("MED-1", 1)])])), ["q1"]) == {0: {5: 1}}

    def test_the_last_line_of_a_pair_counts(self, written):
        assert read_qrels(written("0 0 3 1\n0 0 3 0\n")) == {0: {3: 0}}

    @pytest.mark.parametrize(
        "text",
        [
            "\ufeff0 0 3 1\n1 0 5 2\n",
            "0 0 3 1\r\n1 0 5 2\r\n",
            "\n0  0   3\t1 \n\n1 0 5 2",
            "0\t0\t3\t1\n1\t\t5\t2\n",
            "0 3 1\n1 5 2\n",
            "Query-ID\tcorpus-ID\tScore\n0\t3\t1\n1\t5\t2\n",
        ],
        ids=["bom", "crlf", "blanks", "empty iteration", "no header", "capitals"],
    )
    def test_variants(self, written, text):
        assert read_qrels(written(text)) == {0: {3: 1}, 1: {5: 2}}

    def test_ids_between_tabs_may_hold_spaces(self, written):
        assert read_qrels(written("my query\ta document\t1\n"), ["my query"], ["a document"]) == {0: {0: 1}}


class TestQrelsRefused:
    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", "qrels: expected judgements, got an empty file '.*qrels.tsv'"),
            ("\n \n", "expected judgements, got an empty file"),
            ("query-id\tcorpus-id\tscore\n", "expected judgements, got an empty file"),
            ("0 3\n", "expected 4 columns .TREC: .* or 3 .BEIR: .* got 2 in line 1 of "),
            ("0 0 3 1 9.5 run\n", "expected 4 columns .* got 6 in line 1 of "),
            ("0 0 3 1\n\n0 0 3\n", "expected 4 columns as in the first line, got 3 in line 3 of "),
            ("0\t3\t1\n0\t0\t3\t1\n", "expected 3 columns as in the first line, got 4 in line 2 of "),
            ("0 0 3 1\n0 0 5 0.5\n", "expected an integer grade in the last column, got '0.5' in line 2 of "),
            ("0\t3\t1\n0\t3\tscore\n", "expected an integer grade in the last column, got 'score' in line 2 of "),
            ("0 0 3 yes\n", "expected an integer grade in the last column, got 'yes' in line 1 of "),
            (
                "0 0 3 1\nq1 0 3 1\n",
                "expected query ids that are row numbers, got 'q1' in line 2 of .*; pass query_ids= to read_",
            ),
            ("0 0 12_3 1\n", "expected document ids .* got '12_3' in line 1 of .*; pass document_ids= to read_qrels"),
            ("0\t0\t\t1\n", "expected document ids .* got '' in line 1 of "),
            (f"0 0 {'9' * 5000} 1\n", "expected document ids that are the integers in the index, got .* in line 1 of "),
            (b"\x93NUMPY\xff\xfe", "expected text in UTF-8, got something else"),
        ],
    )
    def test_text(self, written, text, match):
        with pytest.raises(InputError, match=match):
            read_qrels(written(text))

    def test_missing(self, tmp_path):
        for path, match in (
            (tmp_path / "x.tsv", "expected a file that"),
            (tmp_path, "expected a file, got the folder"),
        ):
            with pytest.raises(InputError, match=f"qrels: {match}"):
                read_qrels(path)

    def test_documents_that_are_not_there(self, written):
        path = written(beir([("q", [("a", 1), ("x", 1), ("y", 0), ("x", 1)]), ("other", [("z", 1)])]))
        with pytest.raises(InputError, match=r"expected documents that are in document_ids, got 2 others \(x, y\)"):
            read_qrels(path, ["q"], ["a"])
        with pytest.raises(InputError, match=r"got 1 others \(a\)"):
            read_qrels(written("q 0 a 1\n"), ["q"], ["b"])

    def test_no_line_of_these_queries(self, written):
        with pytest.raises(InputError, match=r"lines of some of the 6 query_ids \(a, b, c, d, e, \.\.\.\), got none"):
            read_qrels(written(trec([("q", [("a", 1)])])), list("abcdef"), ["a"])

    @pytest.mark.parametrize("name", ["query_ids", "document_ids"])
    def test_ids(self, written, name):
        path = written("0 0 0 1\n")
        for ids, match in (
            ([1, 0, "1", 0, 2], r"expected distinct ids, got 2 repeated \(1, 0\)"),
            ({0: 3, "0": 4}, r"expected distinct ids, got 1 repeated \(0\)"),
            ({"0": "MED-1"}, r"expected integers as values of the mapping, got \['MED-1'\]"),
            ("abc", "expected a sequence of ids, got 'abc'"),
            (7, "expected a sequence of ids, got 7"),
        ):
            with pytest.raises(InputError, match=f"^{name}: {match}"):
                read_qrels(path, **{name: ids})
