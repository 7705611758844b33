"""Whether embeddings are the vectors behind an index, and if not, what is wrong with them.

An index does not keep its vectors, but their codes say enough. Faiss codes a vector the same way twice, so what was
added gets its own codes again; codes that were tuned are others, but not far from these. Hence two questions, asked of
a sample of rows:

- **Which reading of the embeddings gets the stored codes again?** As they were passed, normalised, at another scale,
  less a constant. If another reading comes much nearer than the vectors as passed, they were not added as passed.
- **Which rows fit the codes of other rows better than their own?** Almost none should. If many do, rows are others than
  those that were added, or in another order; and if such rows begin or end somewhere, the row where is found.

All arrays have one row a vector: ``x (k, d_in)`` as passed, ``vectors (k, d)`` behind the index's transforms, ``codes
(k, d)`` what the stored codes stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from faiss_distill.state import Float32, Int64

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

SAMPLE = 1_000
"""Rows looked at, at once."""
SAME = 0.02
"""New codes nearer to the stored ones than this share of the mean distance between codes are taken for the same."""
CONVINCING = 0.85
"""How near another reading must come, as a share of how near the vectors come as passed."""
SIGNIFICANT = 5.0
"""Standard errors over the rows that it must be nearer by."""
LOST = 0.1
"""A row is lost if this share of other rows' codes fits it better than its own."""
MISPLACED = 0.05
"""Share of lost rows above which embeddings are refused, wherever these rows are."""
STEP = 12.0
"""Log-likelihood ratio above which lost rows are taken to begin at some row, rather than to lie anywhere."""


@dataclass(frozen=True)
class Corpus:
    """Embeddings beside the index that they are said to be behind; position ``i`` of both is one vector.

    Attributes:
        rows: the row of each in what was passed, ascending, int64 ``(n,)``.
        passed: the embeddings at positions ``(k,)``, as they were passed: float32 ``(k, d_in)``.
        transform: what the index does to vectors before it codes them.
        decode: what the codes at positions ``(k,)`` stand for: float32 ``(k, d)``.
        encode_again: what the codes of given vectors in place of those at positions ``(k,)`` would stand for.
    """

    rows: Int64
    passed: Callable[[Int64], Float32]
    transform: Callable[[Float32], Float32]
    decode: Callable[[Int64], Float32]
    encode_again: Callable[[Int64, Float32], Float32]


@dataclass(frozen=True)
class Reading:
    """Sampled embeddings, taken in one way.

    Attributes:
        fault: what is wrong if this is the way in which they were added; empty for the way they were passed.
        vectors: what it takes them for, behind the index's transforms, float32 ``(k, d)``.
        distance: how far their new codes are from the stored ones, squared, ``(k,)``.
        error: how far they are from the stored codes, squared, as a share of their variance: one number.
    """

    fault: str
    vectors: Float32
    distance: Float64
    error: float

    def convinces(self, plain: Reading) -> bool:
        """Whether this is much nearer to the truth than the vectors as passed."""
        ahead = plain.distance - self.distance
        return bool(
            self.distance.mean() < CONVINCING * plain.distance.mean()
            and self.error < 0.9 * plain.error
            and ahead.mean() > SIGNIFICANT * ahead.std() / np.sqrt(len(ahead))
        )


@dataclass(frozen=True)
class Sample:
    """Some of a corpus.

    Attributes:
        corpus: all of it.
        positions: of these, ascending, int64 ``(k,)``.
        x: the embeddings.
        codes: what their codes stand for.
    """

    corpus: Corpus
    positions: Int64
    x: Float32
    codes: Float32

    @property
    def scale(self) -> float:
        """Mean squared distance of two codes."""
        return 2 * float(squares(self.codes - self.codes.mean(axis=0)).mean())

    def again(self, vectors: Float32) -> Float32:
        """What the codes of these vectors would stand for."""
        return self.corpus.encode_again(self.positions, vectors)

    def read(self, vectors: Float32, fault: str = "") -> Reading:
        """The sample, taken as these vectors."""
        vectors = vectors.astype(np.float32, copy=False)
        error = squares(vectors - self.codes).mean() / squares(vectors - vectors.mean(axis=0)).mean()
        return Reading(fault, vectors, squares(self.again(vectors) - self.codes), float(error))


def fault(corpus: Corpus, rng: np.random.Generator) -> str | None:
    """What is wrong with the embeddings, to follow "got ones that"; None if nothing is, or codes are too short to tell."""
    sample = draw(corpus, spread(0, len(corpus.rows), SAMPLE, rng))
    if sample.scale <= 1e-6 * squares(sample.codes).mean():
        return None  # all codes are the same: there is nothing to tell apart
    plain = sample.read(corpus.transform(sample.x))
    if plain.distance.mean() > SAME * sample.scale:
        best = min(other_readings(sample, plain), key=lambda reading: float(reading.distance.mean()))
        if best.convinces(plain) and lost(sample, best).mean() <= MISPLACED:
            return best.fault
    return wrong_rows(sample, lost(sample, plain), rng)


def draw(corpus: Corpus, positions: Int64) -> Sample:
    """Read these positions."""
    return Sample(corpus, positions, corpus.passed(positions), corpus.decode(positions))


def spread(start: int, stop: int, k: int, rng: np.random.Generator) -> Int64:
    """Up to ``k`` positions in ``start..stop``, ascending: one at random of each of ``k`` equal stretches, int64."""
    if stop - start <= k:
        return np.arange(start, stop)
    edges = start + np.arange(k + 1) * (stop - start) // k
    return np.asarray(rng.integers(edges[:-1], edges[1:]), dtype=np.int64)


def other_readings(sample: Sample, plain: Reading) -> Iterator[Reading]:
    """Other ways to take the embeddings than as passed, by what often goes wrong."""
    lengths = np.linalg.norm(sample.x, axis=1, keepdims=True)
    uneven = lengths.std() > 1e-3 * lengths.mean()
    if uneven and lengths.all():
        yield sample.read(
            sample.corpus.transform(sample.x / lengths),
            "are not normalised, while the index holds them at unit length; pass them normalised, as they were added",
        )
    if not uneven and abs(lengths.mean() - 1) < 1e-2:
        yield from _unnormalised(sample, plain)
    yield from _rescaled(sample, plain)
    offset = plain.vectors.mean(axis=0) - sample.codes.mean(axis=0)
    offset += (sample.again(plain.vectors - offset) - sample.codes).mean(axis=0)  # where codes are off by themselves
    yield sample.read(
        plain.vectors - offset,
        "differ from these by a constant, such as a mean; pass them as they were added, before or after it is taken off",
    )


def _unnormalised(sample: Sample, plain: Reading) -> Iterator[Reading]:
    """With the lengths that the codes say, if these differ much more than new codes of the vectors would."""
    units = plain.vectors / np.maximum(np.linalg.norm(plain.vectors, axis=1, keepdims=True), 1e-30)
    stored, new = (np.einsum("kd,kd->k", units, codes) for codes in (sample.codes, sample.again(plain.vectors)))
    if stored.mean() > 0 and stored.var() > 2 * new.var() + 1e-3 * np.square(stored).mean():
        shortened = np.square(stored).sum() / squares(sample.codes).sum()
        yield sample.read(
            units * (stored / shortened)[:, None],
            "are normalised, while the index holds vectors of different lengths; pass them as they were added",
        )


def _rescaled(sample: Sample, plain: Reading) -> Iterator[Reading]:
    """Divided by their common factor."""
    factor = _slope(plain.vectors, sample.codes)
    if abs(factor) < 0.02:
        return
    factor /= _slope(plain.vectors / factor, sample.again(plain.vectors / np.float32(factor)))
    if factor < 0:
        found = "point the other way; pass them as they were added"
    else:
        how = f"{max(factor, 1 / factor):.1f} times too {'long' if factor > 1 else 'short'}"
        found = f"are about {how}; pass them at the scale at which they were added"
    yield sample.read(plain.vectors / np.float32(factor), found)


def lost(sample: Sample, reading: Reading, others: Sample | None = None) -> Bool:
    """Which vectors fit the codes of many other rows better than their own, ``(k,)``.

    Rows near the vector itself are no others: near copies may well have each other's codes.

    Args:
        sample: with the codes that are their own.
        reading: the vectors.
        others: rows to compare with, taken as they were passed; those of the sample if None.
    """
    vectors, codes = reading.vectors, sample.codes
    theirs = reading.vectors if others is None else others.corpus.transform(others.x)
    compared = codes if others is None else others.codes
    center = compared.mean(axis=0)
    v, t, own, c = (a.astype(np.float64) - center for a in (vectors, theirs, codes, compared))
    # Codes tuned for inner products may be longer than what they stand for, and the longest would fit worst.
    shorter = min(1.0, float(np.sqrt(squares(v).mean() / squares(c).mean())))
    apart = _distances(v, t)
    others_of = apart > 0.1 * np.quantile(apart, 0.75, axis=1, keepdims=True)
    better = _distances(v, shorter * c) < (squares(v - shorter * own) - 1e-6 * squares(v).mean())[:, None]
    rank = (better & others_of).sum(axis=1) / np.maximum(others_of.sum(axis=1), 10)
    return np.asarray((rank > LOST) & (reading.distance > SAME * sample.scale))


def wrong_rows(sample: Sample, flags: Bool, rng: np.random.Generator) -> str | None:
    """Which rows are others than those that were added, in words, by the ``flags`` of a sample; None if none are."""
    at, ratio, backwards = step(flags)
    if ratio <= STEP and flags.mean() <= MISPLACED:
        return None
    if ratio > STEP:
        wrong = sample.positions[:at] if backwards else sample.positions[at:]
        edge = _edge(sample, at, backwards, rng)
        where = f"{'before' if backwards else 'from'} row {sample.corpus.rows[edge]}{'' if backwards else ' on'}"
    else:
        wrong, where = sample.positions, f"in {flags.mean():.0%} of {len(flags)} rows looked at"
    order = _order(sample.corpus, draw(sample.corpus, wrong))
    return f"fit other codes better than their own {where}{order}; check the file, its order and ids="


def _order(corpus: Corpus, wrong: Sample) -> str:
    """How the wrong rows follow from the right ones, in words; empty if they don't in a way that is known."""
    n = len(corpus.rows)
    vectors = corpus.transform(wrong.x)
    usual = lost(wrong, wrong.read(vectors)).mean()
    for other, words in (
        (wrong.positions - 1, "row i fits the code of row i - 1"),
        (wrong.positions + 1, "row i fits the code of row i + 1"),
        (n - 1 - wrong.positions, "rows are in reverse order"),
    ):
        shifted = Sample(corpus, other % n, wrong.x, corpus.decode(other % n))
        if lost(shifted, shifted.read(vectors)).mean() < usual / 3:
            return f": {words}"
    return ""


def step(flags: Bool) -> tuple[int, float, bool]:
    """Where flags begin, or end, to be set much more often than elsewhere.

    Returns:
        The first flag after the best cut, the log-likelihood ratio of two rates against one, and whether the more
        frequent ones come before it.
    """
    n, total = len(flags), int(flags.sum())
    cuts = np.arange(1, n)
    before = np.cumsum(flags)[:-1]
    fit = _log_likelihood(before, cuts) + _log_likelihood(total - before, n - cuts)
    rates = before / cuts, (total - before) / (n - cuts)
    # At least five of them, and a fifth of all: else a handful of odd ones in a row would do.
    sharp = (np.maximum(*rates) > 0.2) & (np.maximum(*rates) > 5 * np.minimum(*rates))
    sharp &= np.where(rates[0] > rates[1], before, total - before) >= 5
    ratio = np.where(sharp, fit - _log_likelihood(np.array(total), np.array(n)), 0.0)
    best = int(ratio.argmax()) if len(ratio) else 0
    return best + 1, float(ratio[best]) if len(ratio) else 0.0, bool(len(ratio) and rates[0][best] > rates[1][best])


def _edge(sample: Sample, at: int, backwards: bool, rng: np.random.Generator) -> int:
    """The first wrong position, or the first right one after the wrong ones, of which a sample tells the rough place."""
    corpus, positions = sample.corpus, sample.positions
    slack = 20  # flags of wrong rows, one of which is set all but certainly
    start, stop = int(positions[max(at - slack, 0)]), int(positions[min(at + slack, len(positions) - 1)]) + 1
    while True:
        closer = draw(corpus, spread(start, stop, SAMPLE, rng))
        reading = closer.read(corpus.transform(closer.x))
        flags = lost(closer, reading, sample)
        if stop - start <= SAMPLE:
            renewed = reading.distance > 1e-4 * sample.scale
            if renewed[~flags].mean() < 0.05:  # never tuned: right rows get their own codes again, and no others do
                flags = renewed
            return int(closer.positions[step(flags)[0]])
        found = step(flags)[0]
        start, stop = int(closer.positions[max(found - slack, 0)]), int(closer.positions[min(found + slack, SAMPLE - 1)]) + 1


def _log_likelihood(k: Int64, n: Int64) -> Float64:
    """Of ``k`` of ``n`` flags, at their own rate."""
    return np.asarray(xlogy(k, k / n) + xlogy(n - k, 1 - k / n))


def _distances(a: Float64, b: Float64) -> Float64:
    """Squared, of each row to each: ``(len(a), len(b))``."""
    return np.asarray(squares(a)[:, None] + squares(b)[None, :] - 2 * a @ b.T)


def _slope(vectors: Float32, codes: Float32) -> float:
    """Least-squares factor from codes to vectors."""
    return float((vectors * codes).sum(dtype=np.float64) / (codes * codes).sum(dtype=np.float64))


def squares(x: NDArray[np.floating]) -> Float64:
    """Squared norm of each row."""
    return np.einsum("kd,kd->k", x, x, dtype=np.float64)
