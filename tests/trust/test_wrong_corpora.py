"""Never the wrong corpus: wrong embeddings are refused, right ones never, over families, metrics and kinds of data."""

from collections import Counter

import faiss
import numpy as np
import pytest
from conftest import METRICS, QUICK, core, sized, untrained
from faiss.contrib.datasets import SyntheticDataset

from faiss_distill import InputError, distill
from faiss_distill.data.vectors import Vectors
from faiss_distill.datasets import load_debian_packages
from faiss_distill.index.registry import open_index
from faiss_distill.tuning.gate import Gate
from faiss_distill.tuning.task import check_corpus

N = 1000
LITTLE = 0.1
"""Root mean square change, as a share of the vectors' distance from their mean, that codes hardly show: they are five
times as far from what they stand for, and gains shrink, but rankings stay."""
FAMILIES = [
    "IVF16,PQ16x4", "IVF16,PQ1x8np", "IVF16_HNSW16,PQ16x4fsr", "OPQ8,IVF16,PQ8x4np", "PQ8x4np", "PQ16x4fs",
    "RQ4x4", "LSQ4x4", "PRQ2x2x4", "PLSQ2x2x4", "IVF16,RQ4x4_Nqint8", "IVF16,LSQ4x4", "IVF16,PRQ2x2x4",
    "IVF16,PLSQ2x2x4", "IVF16,Flat", "IVF16,SQ4", "IVF16,SQfp16", "IVF16,RaBitQ", "IVF16_HNSW16,RaBitQfs", "shards",
    "replicas", "IVF16,PQ64x4", "IVF16,RQ8x4fsr", "PRQ2x4x4fs",
]  # fmt: skip
"""One of each family, 1 to 64 bytes."""
TUNED = ["IVF16,PQ16x4", "IVF16,PQ1x8np", "PQ8x4np", "IVF16,RQ4x4", "LSQ4x4"]
BYTE = ("IVF16,PQ1x8np",)
LIMITS = {
    "untuned": {"after normalising": TUNED},
    "tuned": {"after normalising": TUNED, "before normalising": BYTE, "plus a constant": BYTE, "less its mean": BYTE},
}
"""What docs/promises.rst does not promise: wrongs, each with factories."""


def debian(d):
    x = load_debian_packages().documents[:N, :d].copy()
    faiss.normalize_L2(x)
    return x


def uneven(d):
    """Of lengths that have nothing to do with their directions."""
    return debian(d) * np.random.default_rng(7).lognormal(0, 0.4, (N, 1)).astype(np.float32)


def synthetic(d):
    """Of lengths around 1, with no mean to speak of."""
    x = SyntheticDataset(d, 0, N, 0).get_database()
    return x / np.float32(np.linalg.norm(x, axis=1).mean())


def glove_like(d):
    """Anisotropic, in clusters, about a mean, of log-normal lengths."""
    rng = np.random.default_rng(5)
    axes = 1 / np.sqrt(np.arange(1, d + 1))
    x = rng.normal(size=(40, d))[rng.integers(0, 40, N)] + 0.8 * rng.normal(size=(N, d))
    x = axes * (x + 1.5 * rng.choice([-1, 1], d))
    return (x * rng.lognormal(0, 0.35, (N, 1))).astype(np.float32)


DATA = {
    "debian": (debian, 64),
    "debian 384": (debian, 384),
    "uneven 384": (uneven, 384),
    "synthetic": (synthetic, 64),
    "glove-like": (glove_like, 64),
}


def rolled(x, share):
    """The last of it off by one."""
    start = round(len(x) * (1 - share))
    return np.concatenate([x[:start], np.roll(x[start:], 1, axis=0)])


def wrongs(x):
    """What can go wrong between adding and tuning, by name; None if it changes vectors by less than LITTLE."""
    rng = np.random.default_rng(1)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    noise = rng.lognormal(0, 0.4, (len(x), 1)).astype(np.float32)
    constant = rng.normal(size=x.shape[1])
    constant *= 0.6 * np.sqrt(np.square(lengths).mean()) / np.linalg.norm(constant)
    other = x @ np.linalg.qr(rng.normal(size=(x.shape[1],) * 2))[0].astype(np.float32)
    half = rng.random((len(x), 1)) < 0.5
    unit = lengths.std() < 1e-3
    changed = {
        "before normalising": x * noise if unit else x,
        "after normalising": x / lengths,
        "three times too long": 3 * x,
        "3.5 times too short": x / np.float32(3.5),
        "the other way": -x,
        "plus a constant": x + constant.astype(np.float32),
        "less its mean": x - x.mean(axis=0),
        "another order": x[rng.permutation(len(x))],
        "reversed": x[::-1],
        "off by one": np.roll(x, 1, axis=0),
        "last half off by one": rolled(x, 0.5),
        "last 20 % off by one": rolled(x, 0.2),
        "last 5 % off by one": rolled(x, 0.05),
        "last 2 % off by one": rolled(x, 0.02),
        "another model": other,
        "half by another model": np.where(half, x, other),
        "last 20 % by another model": np.concatenate([x[: -len(x) // 5], other[-len(x) // 5 :]]),
    }
    spread = np.linalg.norm(x - x.mean(axis=0))
    return {name: bad if np.linalg.norm(bad - x) > LITTLE * spread else None for name, bad in changed.items()}


def made(factory, x, metric, train=None):
    """An index over ``x``."""
    if factory in ("shards", "replicas"):
        whole = faiss.IndexReplicas(x.shape[1]) if factory == "replicas" else faiss.IndexShards(x.shape[1], False, True)
        for part in (x, x) if factory == "replicas" else np.array_split(x, [len(x) // 3]):
            index = made("IVF16,PQ16x4", part, metric, x)
            (whole.addIndex if factory == "replicas" else whole.add_shard)(index)
        return whole
    index = untrained(factory, metric, x.shape[1])
    index.train(x if train is None else train)
    index.add(x)
    return index


def refused(index, x):
    """Whether the check refuses ``x``."""
    adapter = open_index(index)
    state = adapter.extract()
    try:
        check_corpus(adapter, state, Vectors(x, "embeddings"), np.random.default_rng(0))
    except InputError:
        return True
    return False


def tuned(factory, x, metric):
    """An index over ``x`` with codes chosen for scores, whether these are better or not."""
    index = made(factory, x, metric)
    if "IVF" in factory:
        core(index).nprobe = 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gate, "judge", lambda *_: (True, "", 0.0, (0.0, 0.0)))
        distill(index, x, **QUICK | {"nprobe": None})
    return index


@pytest.mark.parametrize("data", sized(["debian", "glove-like"], list(DATA)))
@pytest.mark.parametrize("state", ["untuned", "tuned"])
def test_wrong_ones_are_refused_and_right_ones_are_not(figure, data, state):
    make, d = DATA[data]
    x = make(d)
    factories = TUNED if state == "tuned" or d > 64 else FAMILIES
    pairs = [(factory, metric) for factory in factories for metric in METRICS]
    offset = sorted(DATA).index(data)
    tried, missed, falsely, beyond = Counter(), [], [], 0
    for factory, metric in pairs if sized(False, True) else pairs[offset :: 9 if state == "untuned" else 5]:
        index = made(factory, x, metric) if state == "untuned" else tuned(factory, x, metric)
        if refused(index, x):
            falsely.append((factory, metric))
        for wrong, bad in wrongs(x).items():
            if bad is not None:
                tried[wrong] += 1
                if not refused(index, np.ascontiguousarray(bad)):
                    missed.append(f"{wrong}, {factory} {metric}")
                    beyond += factory not in LIMITS[state].get(wrong, ())
    indexes = max(tried.values())
    name = f"{data}, {state}: {len(tried)} wrongs x {indexes} indexes"
    which = f" ({'; '.join(missed)})" if missed else ""
    figure("never the wrong corpus", name, f"missed {len(missed)} of {tried.total()}{which}")
    figure("never the wrong corpus", f"{data}, {state}: right ones", f"falsely refused {len(falsely)} of {indexes}")
    assert falsely == []
    assert beyond <= 0.03 * tried.total()
