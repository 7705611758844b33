import dataclasses
import inspect
import json
import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faiss_distill import DistillConfig, InputError
from faiss_distill.config import (
    EFFORTS,
    ENUMS,
    INTEGERS,
    MAX_SEED,
    NUMBERS,
    Effort,
    Encoding,
    Learn,
    as_config,
    field_notes,
)
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


class TestEffort:
    @pytest.mark.parametrize("effort", Effort)
    def test_sets_what_is_not_given(self, effort):
        config, sweeps = DistillConfig(effort=effort.value, sweeps=7), EFFORTS[effort] | {"sweeps": 7}
        assert {name: getattr(config, name) for name in sweeps} == sweeps
        assert DistillConfig(effort=effort) == DistillConfig(effort=effort, **EFFORTS[effort])

    @pytest.mark.parametrize("effort", Effort)
    def test_takes_the_place_of_another_but_of_nothing_given(self, effort):
        for other in Effort:
            config = dataclasses.replace(DistillConfig(effort=other, sweeps=7), effort=effort.value)
            assert config == DistillConfig(effort=effort, sweeps=7)
            copy = pickle.loads(pickle.dumps(config))
            assert dataclasses.replace(copy, effort=other).epochs == EFFORTS[other]["epochs"]
        assert dataclasses.replace(DistillConfig(epochs=3), effort=effort).epochs == 3

    def test_the_default_is_the_default(self):
        assert DistillConfig() == DistillConfig(effort="default")

    def test_more_effort_is_more_of_everything(self):
        quick, default, thorough = EFFORTS.values()
        assert all(quick[name] < default[name] < thorough[name] for name in default)

    def test_is_documented_with_its_figures(self):
        figures = [figure for values in EFFORTS.values() for figure in values.values()]
        assert [int(word) for word in re.findall(r"\d+", field_notes()["effort"])] == figures

    def test_a_file_keeps_the_effort_open(self, tmp_path):
        DistillConfig(effort="quick", epochs=2).to_toml(tmp_path / "o.toml")
        config = DistillConfig.from_toml(tmp_path / "o.toml", effort="thorough")
        assert config == DistillConfig(effort="thorough", epochs=2)


FLAGS = [field.name for field in dataclasses.fields(DistillConfig) if field.type == "bool"]
MAY_BE_NONE = [field.name for field in dataclasses.fields(DistillConfig) if field.default is None]


@st.composite
def configs(draw):
    """Any valid one, from the tables that say what is valid."""
    values = {name: st.integers(least, MAX_SEED if name == "seed" else None) for name, least in INTEGERS.items()}
    for name, (_, low, high, ends) in NUMBERS.items():
        values[name] = st.floats(low, high, exclude_min=not ends, exclude_max=not ends)
    values |= {name: st.sampled_from(kind) for name, kind in ENUMS.items()}
    values |= {name: st.booleans() for name in FLAGS}
    values |= {
        "loss": st.sampled_from(list(LOSSES)), "candidates": st.sampled_from(["in_batch+top9", " hard20:3\t+ random5"]),
        "max_memory": st.integers(1, 2**62) | st.sampled_from(["4GB", "1.5 MiB"]), "device": st.text(),
    }  # fmt: skip
    given = draw(
        st.fixed_dictionaries({}, optional={n: v | st.none() if n in MAY_BE_NONE else v for n, v in values.items()})
    )
    if given.get("encoding") is Encoding.FROZEN:
        given.pop("assignment", None)
    if given.get("learn") is Learn.CODEBOOKS or LOSSES[given.get("loss", "listnet")].compares == "vectors":
        given.pop("router", None)
    top_k = float(min(given.get("top_k", 100), 2**53))
    return DistillConfig(**given, perplexity=draw(st.floats(1, top_k, exclude_min=True, exclude_max=True)))


class TestFiles:
    @given(configs())
    def test_a_file_holds_all_of_it(self, tmp_path_factory, config):
        path = tmp_path_factory.getbasetemp() / "config.toml"
        text = config.to_toml(path)
        assert path.read_bytes() == text.encode()
        assert DistillConfig.from_toml(str(path)) == config
        usual = EFFORTS[config.effort].items()
        assert text.count("\n") == sum(pair[1] is not None and pair not in usual for pair in vars(config).items())

    def test_characters_that_toml_wants_escaped(self, tmp_path):
        config = DistillConfig(device="".join(map(chr, [*range(160), 0x2028, 0xFFFF, 0x1F600])))
        config.to_toml(tmp_path / "o.toml")
        assert DistillConfig.from_toml(tmp_path / "o.toml") == config

    def test_what_the_text_looks_like(self):
        lines = DistillConfig(loss="kl", balance=True, learning_rate=1e-7, max_memory="4GB").to_toml().splitlines()
        assert lines[0] == 'effort = "default"'
        assert {'loss = "kl"', "balance = true", "learning_rate = 1e-07", "max_memory = 4000000000"} < {*lines}
        assert not [line for line in lines if line.startswith(("batch_size", "nprobe"))]

    def test_a_file_by_hand(self, tmp_path):
        (tmp_path / "o.toml").write_bytes(b"# mine\r\nepochs = 1_0\r\nself_weight = 2 # a whole number\r\nloss = 'kl'")
        config = DistillConfig.from_toml(tmp_path / "o.toml", loss="mse", seed=3)
        assert config == DistillConfig(epochs=10, self_weight=2.0, loss="mse", seed=3)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("epoch = 3", "config: expected options of DistillConfig, got 'epoch' in {}; did you mean epochs?"),
            ("[tune]\nepochs = 3", "config: expected options of DistillConfig, got 'tune' in {}; see DistillConfig"),
            ("epochs = '3'", "epochs: expected an integer of at least 0, got '3' in {}"),
            ("epochs = true", "epochs: expected an integer of at least 0, got True in {}"),
            ("balance = 1", "balance: expected True or False, got 1 in {}"),
            ("loss = ['kl']", "loss: expected one of 'listnet'"),
            ("candidates = 100", "candidates: expected "),
            ("learning_rate = inf", "learning_rate: expected a number between 0 and 1, got inf in {}"),
            ("device = 2020-01-01", "device: expected a torch device or its name, got datetime.date(2020, 1, 1) in {}"),
            ("top_k = 50", "perplexity: expected between 1 and top_k=50, got 60.0 with {}; set it with top_k"),
            ("epochs = ", "config: expected a TOML file of options, got {}: "),
            ("epochs = 3\nepochs = 3", "config: expected a TOML file of options, got {}: "),
            ("seed = " + "9" * 5000, "config: expected a TOML file of options, got {}: "),
            ("seed = " + "[" * 5000, "config: expected a TOML file of options, got {}: "),
            ("loss = '\udcff'", "config: expected a TOML file of options, got {}: 'utf-8' codec can't decode"),
        ],
    )
    def test_files_that_hold_something_else(self, tmp_path, text, says):
        path = tmp_path / "o.toml"
        path.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(InputError) as refused:
            DistillConfig.from_toml(path)
        assert str(refused.value).startswith(says.format(repr(str(path))))

    def test_what_is_said_beside_the_file_is_not_blamed_on_it(self, tmp_path):
        (tmp_path / "o.toml").write_text("epochs = -1")
        with pytest.raises(InputError, match=r"^seed: expected an integer from 0 to \d+, got -1$"):
            DistillConfig.from_toml(tmp_path / "o.toml", epochs=1, seed=-1)

    @pytest.mark.parametrize("name", ["none.toml", ".", "a\0b"])
    def test_no_file(self, tmp_path, name):
        with pytest.raises(InputError, match=r"^config: expected a TOML file of options, got '.*': .*"):
            DistillConfig.from_toml(tmp_path / name)

    def test_wherever_a_config_is_taken(self, tmp_path):
        DistillConfig(epochs=7).to_toml(tmp_path / "o.toml")
        assert as_config(str(tmp_path / "o.toml")) == as_config(tmp_path / "o.toml") == DistillConfig(epochs=7)
