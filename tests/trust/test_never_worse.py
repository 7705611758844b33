"""Never worse: tunings drawn at random, judged once more on fresh queries that no part of the tuning has seen."""

from dataclasses import dataclass

import faiss
import numpy as np
from conftest import METRICS, of_metric, serialized, sized
from faiss.contrib.datasets import SyntheticDataset
from scipy.stats import norm

from faiss_distill import InputError, distill
from faiss_distill.datasets import load_debian_packages

FRESH = 1500
"""Fresh queries that each tuning is judged on once more."""
CHANCE = 0.05
"""Of calling one of all tunings worse that is not, by their fresh queries (Bonferroni)."""
FAMILIES = (
    "IVF16,PQ8x4np", "IVF16,PQ16x4np", "IVF8,PQ4np", "OPQ8,IVF16,PQ8x4np", "IVF16_HNSW8,PQ8x4np", "IVF16,PQ16x4fs",
    "L2norm,IVF16,PQ8x4np", "IDMap2,IVF16,PQ8x4np", "IVF16,PQ8x4np,RFlat", "PQ8x4np", "PQ16x4fs", "IVF16,RQ4x4",
    "RQ4x4", "IVF16,PRQ2x2x4", "IVF32,Flat", "IVF16,SQ4", "IVF16,RaBitQ", "IVF16,RQ8x4fsr",
    "PRQ2x4x4fs",
)  # fmt: skip


class World:
    """Documents, and a source of queries that never runs dry.

    Args:
        kind: of distribution.
        d: dimensions.
        n: documents.
        rng: source of randomness.
    """

    def __init__(self, kind, d, n, rng):
        self.kind, self.d, self.rng = kind, d, rng
        self.centres = rng.standard_normal((40, d))
        self.widths = rng.uniform(0.3, 0.9, 40)[:, None] if kind != "low rank" else np.full((40, 1), 0.5)
        self.basis = np.linalg.qr(rng.standard_normal((d, d)))[0] * np.geomspace(1, 0.1, d)
        self.weights = rng.dirichlet(np.full(40, 0.5))
        self.moved = 0.4 * rng.standard_normal(d)
        self.documents = self._points(n, np.full(40, 1 / 40)).astype(np.float32)

    def _points(self, n, weights):
        which = self.rng.choice(40, n, p=weights)
        x = self.centres[which] + self.widths[which] * self.rng.standard_normal((n, self.d))
        if self.kind == "low rank":
            x = x @ self.basis
        if self.kind == "lengths":
            x *= self.rng.lognormal(0, 0.4, (n, 1))
        if self.kind == "unit":
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x

    def queries(self, n):
        """Independent ones: other proportions than the documents, and moved a little, as another encoder would."""
        return (self._points(n, self.weights) + (self.kind == "moved") * self.moved).astype(np.float32)


class Real:
    """Packages and what people call them, on random axes."""

    def __init__(self, d, n, rng):
        full = load_debian_packages()
        axes = np.linalg.qr(rng.standard_normal((full.documents.shape[1], d)))[0].astype(np.float32)
        self.rng, self.documents = rng, full.documents[rng.permutation(len(full.documents))[:n]] @ axes
        self._left = full.queries[rng.permutation(len(full.queries))] @ axes

    def queries(self, n):
        """Others than all before."""
        taken, self._left = np.split(self._left, [n])
        assert len(taken) == n
        return taken


class Synthetic:
    """faiss's own synthetic data."""

    def __init__(self, d, n, rng):
        made = SyntheticDataset(d, 0, n, 6000, seed=int(rng.integers(1, 2**16)))
        self.rng, self.documents, self._left = rng, made.get_database(), made.get_queries()

    queries = Real.queries


def world(kind, d, n, rng):
    if kind in ("real", "synthetic"):
        return {"real": Real, "synthetic": Synthetic}[kind](d, n, rng)
    return World(kind, d, n, rng)


KINDS = ("mixture", "lengths", "unit", "low rank", "moved", "real", "synthetic")


def independent(of, rng):
    return {"queries": of.queries(int(rng.integers(150, 900)))}


def copies(of, rng):
    """Texts embedded more than once."""
    q = of.queries(int(rng.integers(70, 200)))
    log = np.repeat(q, rng.integers(2, 17), axis=0)
    noise = 10 ** rng.uniform(-7, -3) * np.linalg.norm(log, axis=1, keepdims=True) / np.sqrt(log.shape[1])
    return {"queries": rng.permutation((log + noise * rng.standard_normal(log.shape)).astype(np.float32))}


def half_precision(of, rng):
    """The same log from two systems, one of which stores float16, one after the other."""
    q = of.queries(int(rng.integers(60, 400)))
    return {"queries": np.concatenate([q, q.astype(np.float16).astype(np.float32)])}


def heavy(of, rng):
    """A few queries asked over and over, and a long tail."""
    q = of.queries(500)
    return {"queries": q[np.minimum(rng.zipf(1.3, 2000) - 1, 499)]}


def scaled(of, rng):
    """The same queries at other lengths."""
    q = np.repeat(of.queries(150), 4, axis=0)
    return {"queries": (q * rng.lognormal(0, 0.5, (len(q), 1))).astype(np.float32)}


def sessions(of, rng):
    """Questions that are asked again in other words, one after the other."""
    q = np.repeat(of.queries(int(rng.integers(80, 200))), int(rng.integers(2, 9)), axis=0)
    scale = rng.uniform(0.03, 0.2) * np.sqrt(of.documents.var(axis=0).mean())
    return {"queries": (q + scale * rng.standard_normal(q.shape)).astype(np.float32)}


def documents(of, rng):
    """Documents as queries, before others are asked."""
    return {"queries": of.documents[rng.permutation(len(of.documents))[:300]] + 0, "asked": "documents"}


def nothing(of, rng):
    return {"queries": None, "asked": "documents"}


def validated(of, rng):
    """A validation set of which half are training queries once more."""
    q, v = of.queries(300), of.queries(60)
    noise = (1e-5 * rng.standard_normal(q.shape)).astype(np.float32)
    return {"queries": q, "validation_queries": rng.permutation(np.concatenate([v, (q + noise)[:60]]))}


def sorted_by_time(of, rng):
    """What is asked for drifts, and the log is in order."""
    q = of.queries(500)
    return {"queries": q[np.argsort(q @ q[0])]}


LOGS = (independent, copies, sessions, half_precision, heavy, scaled, documents, nothing, validated, sorted_by_time)


@dataclass
class Outcome:
    drawn: dict
    kept: bool
    gain: float
    z: float
    half: float

    @property
    def where(self):
        return ", ".join(f"{k}={v}" for k, v in self.drawn.items())

    @property
    def found(self):
        return f"{self.gain:+.4f} on fresh queries (z {self.z:+.1f}), {self.half:+.4f} at half the nprobe"


def overlaps(index, queries, truth, exclude):
    found = index.search(queries, 11)[1]
    rows = (row[row != own][:10] for row, own in zip(found, exclude, strict=True))
    return np.array([len(np.intersect1d(a, b)) for a, b in zip(rows, truth, strict=True)]) / 10


def fresh_queries(of, asked, index, metric):
    """Queries, their exact Top-10, and the row that each must not find."""
    rng = of.rng
    if asked == "documents":
        rows = rng.permutation(len(of.documents))[:FRESH]
        queries = of.documents[rows]
    else:
        queries, rows = of.queries(FRESH), np.full(FRESH, -1)
    seen = [queries, of.documents]
    if isinstance(index, faiss.IndexPreTransform):
        first = faiss.downcast_VectorTransform(index.chain.at(0))
        if isinstance(first, faiss.NormalizationTransform):
            seen = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in seen]
    found = faiss.knn(*seen, 11, METRICS[metric])[1]
    truth = np.array([row[row != own][:10] for row, own in zip(found, rows, strict=True)])
    return queries, truth, rows


def nprobe_set(index, nprobe):
    try:
        faiss.extract_index_ivf(index).nprobe = nprobe
    except RuntimeError:  # it has no lists
        return False
    return True


def attempt(seed):
    """Draw a configuration, tune, and judge once more; None if there are too few queries to tune by."""
    rng = np.random.default_rng(seed)
    kind, family = KINDS[seed % len(KINDS)], FAMILIES[seed % len(FAMILIES)]
    log, metric = LOGS[seed // 3 % len(LOGS)], ("ip", "l2")[seed // 2 % 2]
    d, n = int(rng.choice([16, 32, 48])), int(rng.integers(1000, 2500))
    of = world(kind, d, n, rng)
    index = faiss.index_factory(d, of_metric(family, metric), METRICS[metric])
    index.train(of.documents)
    ids = rng.permutation(n) if "IDMap" in family else None
    if ids is None:
        index.add(of.documents)
    else:
        index.add_with_ids(of.documents, ids)
    nprobe = int(rng.choice([1, 2, 4, 8]))
    listed = nprobe_set(index, nprobe)
    options = {
        "epochs": int(rng.integers(0, 3)),
        "encoding": str(rng.choice(["query_aware", "nearest", "frozen"], p=[0.6, 0.3, 0.1])),
        "fill_to": int(rng.choice([0, 600, 20_000])),
        "top_k": 30,
        "perplexity": 15.0,
        "candidates": "in_batch + top30:8",
        "local_queries": int(rng.choice([0, 8, 32])),
        "learning_rate": float(rng.choice([0.005, 0.02, 0.1])),
        "seed": seed,
        "progress": False,
    }
    if options["encoding"] != "frozen":
        options["assignment"] = str(rng.choice(["query_aware", "refreshed", "fixed"])) if listed else "fixed"
    for name in ("Flat", "SQ4", "RaBitQ"):
        if family.endswith(f",{name}"):
            options |= {"encoding": "nearest", "assignment": str(rng.choice(["query_aware", "refreshed"]))}
    passed = log(of, rng)
    asked = passed.pop("asked", "queries")
    queries, truth, own = fresh_queries(of, asked, index, metric)
    if ids is not None:
        truth, own = ids[truth], np.where(own >= 0, ids[own], -1)
    at_half = [nprobe, max(1, nprobe // 2)] if listed else [1]

    def measured():
        out = []
        for p in at_half:
            nprobe_set(index, p)
            out.append(overlaps(index, queries, truth, own))
        nprobe_set(index, nprobe)
        return out

    before, start = measured(), serialized(index)
    try:
        report = distill(index, of.documents, ids=ids, **passed, **options)
    except InputError as error:  # too few that differ
        if error.argument != "queries" or not error.expected.startswith("at least"):
            raise
        return None
    assert report.kept or serialized(index) == start
    drawn = {"seed": seed, "family": family, "metric": metric, "data": kind, "log": log.__name__, "d": d, "n": n,
             "nprobe": nprobe, "judges": report.n_validation} | {
        k: options[k] for k in ("epochs", "encoding", "fill_to")
    }  # fmt: skip
    difference = [a - b for a, b in zip(measured(), before, strict=True)]
    error = difference[0].std() / np.sqrt(len(difference[0]))
    gain = float(difference[0].mean())
    return Outcome(drawn, report.kept, gain, gain / error if error else 0.0, float(difference[-1].mean()))


def test_no_index_that_is_kept_is_worse_on_fresh_queries(figure):
    outcomes = [attempt(seed) for seed in range(sized(12, 224))]
    kept = sorted((o for o in outcomes if o is not None and o.kept), key=lambda o: o.z)
    limit = norm.ppf(CHANCE / len(kept))
    worse = [o for o in kept if o.z < limit]
    for place, outcome in enumerate(kept[: sized(1, 5)], 1):
        figure(f"never worse: worst {place}", outcome.where, outcome.found)
    figure(
        "never worse: families, metrics, data, logs and options at random",
        f"{len(outcomes)} tunings, {FRESH} fresh queries each",
        f"{len(kept)} kept, {outcomes.count(None)} refused, {len(worse)} worse beyond chance (z < {limit:.1f}); "
        f"worst z {kept[0].z:+.1f}, gain {kept[0].gain:+.3f} to {max(o.gain for o in kept):+.3f}, "
        f"mean {np.mean([o.gain for o in kept]):+.3f}",
    )
    assert not worse, [(o.where, o.found) for o in worse]
    assert len(kept) >= len(outcomes) / 8  # a gate that keeps nothing promises nothing
