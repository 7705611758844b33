"""Errors are data: what is wrong, what was expected, what came and what to do."""

import copy
import pickle
from dataclasses import replace

import faiss
import numpy as np
import pytest

from faiss_distill import (
    DistillConfig,
    DistillError,
    InputError,
    MissingDependencyError,
    UnsupportedIndexError,
    distill,
    evaluate,
    index_factory,
)
from faiss_distill.data.formats import BY_SUFFIX

EXACT = "an IndexFlatL2: it is exact already"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("k", "an integer"), "k: expected an integer"),
        (("k", "an integer", "'x'"), "k: expected an integer, got 'x'"),
        (("k", "an integer", "", "leave it out"), "k: expected an integer; leave it out"),
        (("k", "an integer", "'x'", "leave it out"), "k: expected an integer, got 'x'; leave it out"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "base"),
    [(InputError, ValueError), (UnsupportedIndexError, TypeError), (MissingDependencyError, ImportError)],
)
class TestForm:
    def test_text(self, kind, base, fields, text):
        error = kind(*fields)
        assert isinstance(error, DistillError)
        assert isinstance(error, base)
        assert str(error) == text
        assert (error.argument, error.expected, error.got, error.hint) == (*fields, "", "")[:4]

    @pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, replace, lambda e: pickle.loads(pickle.dumps(e))])
    def test_round_trip(self, kind, base, fields, text, again):
        error = kind(**dict(zip(("argument", "expected", "got", "hint"), fields, strict=False)))
        found = again(error)
        assert type(found) is kind
        assert str(found) == text
        assert vars(found) == vars(error)


def test_another_argument():
    inner = InputError("qrels", "numbers", "'x'", "look")
    assert str(replace(inner, argument="relevant")) == "relevant: expected numbers, got 'x'; look"
    assert inner.argument == "qrels"


@pytest.fixture(scope="module")
def made():
    x = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    index = faiss.index_factory(16, "IVF4,PQ4x4np")
    index.train(x)
    index.add(x)
    return index, x


@pytest.mark.parametrize(
    ("call", "argument", "expected", "got"),
    [
        (lambda i, x: evaluate(i, x, x[:9], nprobe=5), "nprobe", "integers from 1 to nlist=4", "5"),
        (lambda i, x: distill(i, x, ids=np.arange(3)), "ids", "400 integers, one a row", "shape (3,)"),
        (lambda i, x: distill(i, "x.txt"), "embeddings", f"a file ending in {', '.join(BY_SUFFIX)}", "'x.txt'"),
        (lambda i, x: DistillConfig(epochs=-1), "epochs", "an integer of at least 0", "-1"),
        (
            lambda i, x: index_factory(16, "IVF4,PQ4x4,Distill(epochs=-1)"),
            "factory",
            "epochs to be an integer of at least 0",
            "-1",
        ),
        (lambda i, x: distill(faiss.IndexFlatL2(16), x), "index", "one that can be tuned", EXACT),
        (lambda i, x: distill(sharded(x), x), "index", "in part 0 of the IndexShards one that can be tuned", EXACT),
    ],
    ids=["nprobe", "ids", "file", "option", "factory", "index", "part"],
)
def test_what_is_raised(made, call, argument, expected, got):
    with pytest.raises(DistillError) as caught:
        call(*made)
    assert (caught.value.argument, caught.value.expected, caught.value.got) == (argument, expected, got)


def test_qrels_behind_relevant(made, tmp_path):
    index, x = made
    path = tmp_path / "q.tsv"
    path.write_text("0 0 3 yes\n")
    with pytest.raises(InputError) as caught:
        evaluate(index, x, x[:9], relevant=path)
    assert caught.value.argument == "relevant"
    assert caught.value.got == f"'yes' in line 1 of {str(path)!r}"


def sharded(x):
    part = faiss.IndexFlatL2(x.shape[1])
    part.add(x)
    index = faiss.IndexShards(part.d)
    index.add_shard(part)
    return index
