import dataclasses
import inspect
import json
import re

import numpy as np
import pytest
import torch

from faiss_distill import DistillConfig, InputError
from faiss_distill.config import Encoding
from faiss_distill.losses import LOSSES


def test_every_field_is_documented():
    for field in dataclasses.fields(DistillConfig):
        assert re.search(rf"^ {{4}}{field.name}: ", inspect.getdoc(DistillConfig), re.MULTILINE), field.name


def test_strings_become_enums():
    assert DistillConfig(encoding="nearest").encoding is Encoding.NEAREST


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("epochs", -1, "an integer of at least 0"),
        ("epochs", True, "an integer of at least 0"),
        ("batch_size", 0, "an integer of at least 1"),
        ("batch_size", 2.5, "an integer of at least 1"),
        ("top_k", 9, "an integer of at least 10"),
        ("nprobe", 0, "an integer of at least 1"),
        ("encoding", "best", "one of 'query_aware', 'nearest', 'frozen'"),
        ("perplexity", 100.0, "between 1 and top_k=100"),
        ("loss", "bpr", f"one of {', '.join(map(repr, LOSSES))}"),
        ("learn", "all", "one of 'both', 'centroids', 'codebooks'"),
        ("assignment", "moved", "one of 'fixed', 'refreshed', 'query_aware'"),
        ("temperature", 0.0, "a positive number"),
        ("centroid_rate", -1.0, "a positive number"),
        ("codebook_rate", float("inf"), "a positive number"),
        ("query_encoder_rate", None, "a positive number"),
        ("balance", 1, "True or False"),
        ("local_weight", -1.0, "a number of at least 0"),
        ("local_weight", float("nan"), "a number of at least 0"),
        ("learning_rate", "a", "a number between 0 and 1"),
        ("confidence", 1.0, "a number between 0 and 1"),
        ("validation_fraction", 0.0, "a number between 0 and 1"),
    ],
)
def test_bad_values_are_named(field, value, expected):
    with pytest.raises(InputError, match=rf"^{field}: expected {re.escape(expected)}.*, got {re.escape(repr(value))}"):
        DistillConfig(**{field: value})


def test_numbers_of_numpy_become_plain_ones():
    given = {
        "self_weight": np.float32(0.5),
        "epochs": np.int16(2),
        "seed": np.uint64(2**64 - 1),
        "balance": np.bool_(True),
    }
    config = DistillConfig(**given, learning_rate=np.float64(0.1), device=torch.device("cpu", 0))
    assert json.loads(json.dumps(dataclasses.asdict(config)))["seed"] == 2**64 - 1
    for name, kind in {"self_weight": float, "epochs": int, "balance": bool, "device": str}.items():
        assert type(getattr(config, name)) is kind


def test_the_largest_seed_is_one_for_all():
    seed = DistillConfig(seed=2**64 - 1).seed
    torch.Generator().manual_seed(seed)
    np.random.default_rng(seed)


@pytest.mark.parametrize(("old", "new"), [("ivf", "centroids"), ("pq", "codebooks")])
def test_what_is_learned_goes_by_its_old_name_for_a_while(old, new):
    with pytest.warns(FutureWarning, match=f"learn='{old}' is now learn='{new}'"):
        assert DistillConfig(learn=old).learn.value == new
