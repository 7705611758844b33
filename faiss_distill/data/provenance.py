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
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from faiss_distill.data.change_point import Bool, Cut, Float64, step
from faiss_distill.state import Float32, Int64

SAMPLE = 1_000
"""Rows looked at, at once."""
ROUNDED = 1e-3
"""New codes as near to the stored ones as this share of the mean distance of two codes may differ by rounding alone."""
SAME = 0.02
"""New codes nearer to the stored ones than this share of the mean distance between codes are taken for the same."""
CONVINCING = (0.85, 0.9)
"""What shares of the distance from the stored codes, and of the error, of the vectors as passed a reading may have."""
NORMALISED = (0.92, 1.0)
"""The same for normalised vectors: these hardly ever come nearer to codes tuned for vectors of different lengths."""
PLAIN = 0.5
"""How near it must come where its error is not, as of codes that are no means of what they stand for."""
SIGNIFICANT = 5.0
"""Standard errors over the rows that it must be nearer by."""
LOST = 0.1
"""A row is lost if this share of other rows' codes fits it better than its own."""
MISPLACED = 0.05
"""Share of lost rows above which embeddings are refused, if they are everywhere."""
EVERYWHERE = 0.2
"""Share of the rows with other codes than the stored ones, in each quarter of the rows by distance from their mean."""
TUNED = (0.3, 1.2)
"""Factors from codes to vectors that tuning may make: codes get longer than what they stand for."""
AGAIN = 0.1
"""How near a reading comes, as a share of how near the vectors come as passed, if it gets the stored codes again."""
OFFSETS = (-1, 1, -2, 2)
"""Neighbouring rows whose codes are tried."""
WRONG, CHECK = "match the codes of other rows better than their own", "check the file, its order and the ids"


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
        convincing: what shares of ``distance`` and ``error`` of the vectors as passed it must stay below.
    """

    fault: str
    vectors: Float32
    distance: Float64
    error: float
    convincing: tuple[float, float] = CONVINCING

    def is_again(self, plain: Reading) -> bool:
        """Whether this gets the stored codes again, which the vectors as passed do not."""
        return bool(self.distance.mean() < AGAIN * plain.distance.mean())

    def convinces(self, plain: Reading) -> bool:
        """Whether this is much nearer to the truth than the vectors as passed."""
        ahead = plain.distance - self.distance
        nearness = self.distance.mean() / plain.distance.mean()
        near, less = self.convincing
        return bool(
            (nearness < PLAIN or (nearness < near and self.error < less * plain.error))
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

    @cached_property
    def plain(self) -> Reading:
        """As the vectors were passed."""
        return self.read(self.corpus.transform(self.x))

    @cached_property
    def moved(self) -> Int64:
        """The offset of the neighbouring row whose code each vector fits best, 0 for its own: ``(k,)``."""
        offsets, n = (0, *OFFSETS), len(self.corpus.rows)
        neighbours = [self.corpus.decode((self.positions + k) % n) for k in OFFSETS]
        errors = np.stack([squares(self.plain.vectors - codes) for codes in (self.codes, *neighbours)])
        return np.where(self.changed, np.array(offsets)[errors.argmin(axis=0)], 0)

    @cached_property
    def scale(self) -> float:
        """Mean squared distance of two codes."""
        return 2 * float(squares(self.codes - self.codes.mean(axis=0)).mean())

    def again(self, vectors: Float32) -> Float32:
        """What the codes of these vectors would stand for."""
        return self.corpus.encode_again(self.positions, vectors)

    @cached_property
    def changed(self) -> Bool:
        """Which vectors, as they were passed, do not get their stored codes again, ``(k,)``."""
        return np.asarray(self.plain.distance > SAME * self.scale)

    def read(self, vectors: Float32, fault: str = "", convincing: tuple[float, float] = CONVINCING) -> Reading:
        """The sample, taken as these vectors."""
        vectors = vectors.astype(np.float32, copy=False)
        error = squares(vectors - self.codes).mean() / squares(vectors - vectors.mean(axis=0)).mean()
        return Reading(fault, vectors, squares(self.again(vectors) - self.codes), float(error), convincing)


def fault(corpus: Corpus, rng: np.random.Generator) -> str | None:
    """What is wrong with the embeddings, as a relative clause; None if nothing is, or codes are too short to tell."""
    sample = draw(corpus, spread(0, len(corpus.rows), SAMPLE, rng))
    if sample.scale <= 1e-6 * squares(sample.codes).mean():
        return None  # all codes are the same: there is nothing to tell apart
    plain = sample.plain
    if plain.distance.mean() > ROUNDED * sample.scale:
        best = min(other_readings(sample), key=lambda reading: float(reading.distance.mean()))
        visible = plain.distance.mean() > SAME * sample.scale or best.is_again(plain)
        if visible and best.convinces(plain) and lost(sample, best).mean() <= MISPLACED:
            return best.fault
    return wrong_rows(sample, rng)


def draw(corpus: Corpus, positions: Int64) -> Sample:
    """Read these positions."""
    return Sample(corpus, positions, corpus.passed(positions), corpus.decode(positions))


def spread(start: int, stop: int, k: int, rng: np.random.Generator) -> Int64:
    """Up to ``k`` positions in ``start..stop``, ascending: one at random of each of ``k`` equal stretches, int64."""
    if stop - start <= k:
        return np.arange(start, stop)
    edges = start + np.arange(k + 1) * (stop - start) // k
    return np.asarray(rng.integers(edges[:-1], edges[1:]), dtype=np.int64)


def other_readings(sample: Sample) -> Iterator[Reading]:
    """Other ways to take the embeddings than as passed, by what often goes wrong."""
    plain = sample.plain
    lengths = np.linalg.norm(sample.x, axis=1, keepdims=True)
    uneven = lengths.std() > 1e-3 * lengths.mean()
    if uneven and lengths.all():
        yield sample.read(
            sample.corpus.transform(sample.x / lengths),
            "are not normalised, while the index holds them at unit length; pass them normalised, as they were added",
            NORMALISED,
        )
    if not uneven and abs(lengths.mean() - 1) < 1e-2:
        yield from _unnormalised(sample, plain)
    yield from _rescaled(sample, plain)
    offset = plain.vectors.mean(axis=0) - sample.codes.mean(axis=0)
    offset += (sample.again(plain.vectors - offset) - sample.codes).mean(axis=0)  # where codes are off by themselves
    yield sample.read(
        plain.vectors - offset,
        "differ from these by a constant, such as a mean; pass them as they were added, with it or without",
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
    """Divided by their common factor; by one that tuning may have made only if that gives the stored codes again."""
    factor = _slope(plain.vectors, sample.codes)
    if abs(factor) < 0.02:
        return
    factor /= _slope(plain.vectors / factor, sample.again(plain.vectors / np.float32(factor)))
    if factor < 0:
        found = "point the other way; pass them as they were added"
    else:
        how = f"{max(factor, 1 / factor):.1f} times too {'long' if factor > 1 else 'short'}"
        lengths = np.linalg.norm(sample.x, axis=1)
        unit = lengths.std() < 1e-3 * lengths.mean() and abs(lengths.mean() / factor - 1) < 0.1
        as_added = "normalise them, as they were when they were added"
        found = f"are about {how}; {as_added if unit else 'pass them at the scale at which they were added'}"
    reading = sample.read(plain.vectors / np.float32(factor), found)
    if not TUNED[0] < factor < TUNED[1] or reading.is_again(plain):
        yield reading


def lost(sample: Sample, reading: Reading, others: Sample | None = None) -> Bool:
    """Which vectors fit the codes of many other rows better than their own, by distance and by direction, ``(k,)``.

    Rows near the vector itself are no others: near copies may well have each other's codes. By distance alone, vectors
    whose codes tuning made longer would fit any short code better.

    Args:
        sample: with the codes that are their own.
        reading: the vectors.
        others: rows to compare with, taken as they were passed; those of the sample if None.
    """
    vectors, codes = reading.vectors, sample.codes
    theirs = vectors if others is None else others.plain.vectors
    compared = codes if others is None else others.codes
    center = compared.mean(axis=0)
    v, t, own, c = (a.astype(np.float64) - center for a in (vectors, theirs, codes, compared))
    # Codes tuned for inner products may be longer than what they stand for, and the longest would fit worst.
    shorter = min(1.0, float(np.sqrt(squares(v).mean() / squares(c).mean())))
    apart = _distances(v, t)
    others_of = apart > 0.1 * np.quantile(apart, 0.75, axis=1, keepdims=True)
    nearer = _distances(v, shorter * c) < (squares(v - shorter * own) - 1e-6 * squares(v).mean())[:, None]
    own, c = (a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-30) for a in (own, c))
    along = np.einsum("kd,kd->k", v, own) + 1e-6 * np.linalg.norm(v, axis=1)
    n_others = np.maximum(others_of.sum(axis=1), 10)
    ranks = [(better & others_of).sum(axis=1) / n_others for better in (nearer, v @ c.T > along[:, None])]
    return np.asarray((np.minimum(*ranks) > LOST) & (reading.distance > SAME * sample.scale))


def wrong_rows(sample: Sample, rng: np.random.Generator) -> str | None:
    """Which rows are others than those that were added, in words; None if none are."""
    for offset in OFFSETS:
        found = _where(sample, partial(_moved_by, offset), 0.5, rng)
        if found is not None:
            return f"{found}: row i fits the code of row i {'-' if offset < 0 else '+'} {abs(offset)}; {CHECK}"
    found = _where(sample, lambda s: lost(s, s.plain, sample), MISPLACED, rng)
    if found is None:
        return None
    return f"{found}{': rows are in reverse order' if _reversed(sample) else ''}; {CHECK}"


def _moved_by(offset: int, sample: Sample) -> Bool:
    return np.asarray(sample.moved == offset)


def _where(sample: Sample, flag: Callable[[Sample], Bool], least: float, rng: np.random.Generator) -> str | None:
    """Where flags are set for more than a share ``least`` of rows, in words; None if nowhere."""
    flags = flag(sample)
    cut = step(flags, max(least, 0.2))
    if cut is not None:
        row = sample.corpus.rows[_edge(sample, flag, cut, rng)]
        return f"{WRONG} before row {row}" if cut.backwards else f"{WRONG} from row {row} on"
    if flags.mean() > least and _everywhere(sample, flags):
        return f"{WRONG} in {flags.mean():.0%} of {len(flags)} rows looked at"
    return None


def _everywhere(sample: Sample, flags: Bool) -> bool:
    """Whether flags are set at any distance from the mean.

    Tuning for distances may give up vectors that no query is near to, those far out or those far in, but not all.
    """
    vectors = sample.plain.vectors
    order = np.argsort(squares(vectors - vectors.mean(axis=0)))
    quarters = np.array_split(order, 4 if len(order) >= 40 else 1)
    return all(flags[quarter].sum() > EVERYWHERE * sample.changed[quarter].sum() for quarter in quarters)


def _reversed(sample: Sample) -> bool:
    """Whether vectors fit the codes of the rows as far from the other end."""
    corpus = sample.corpus
    at = len(corpus.rows) - 1 - sample.positions
    other = Sample(corpus, at, sample.x, corpus.decode(at))
    return bool(lost(other, other.plain).mean() < MISPLACED)


def _edge(sample: Sample, flag: Callable[[Sample], Bool], cut: Cut, rng: np.random.Generator) -> int:
    """The first wrong position, or the first right one behind wrong ones, whose rough place a sample tells."""
    closer, at = sample, cut.at
    while True:
        # Of twenty wrong rows one is flagged all but certainly.
        start, stop = (int(closer.positions[min(max(i, 0), len(closer.positions) - 1)]) for i in (at - 20, at + 20))
        closer = draw(sample.corpus, spread(start, stop + 1, SAMPLE, rng))
        flags = flag(closer)
        if stop - start < SAMPLE:
            renewed = closer.plain.distance > 1e-4 * sample.scale
            if renewed[~flags].mean() < 0.1:  # never tuned: right rows get their own codes again, and no others do
                flags = renewed
        flags = ~flags if cut.backwards else flags
        # The likeliest: as few flags before it, and as many after it, as can be.
        at = int(np.concatenate([[0], np.cumsum(np.where(flags, -1, 1))]).argmax())
        at = min(at, len(flags) - 1)
        if stop - start < SAMPLE:
            return int(closer.positions[at])


def _distances(a: Float64, b: Float64) -> Float64:
    """Squared, of each row to each: ``(len(a), len(b))``."""
    return np.asarray(squares(a)[:, None] + squares(b)[None, :] - 2 * a @ b.T)


def _slope(vectors: Float32, codes: Float32) -> float:
    """Least-squares factor from codes to vectors."""
    return float((vectors * codes).sum(dtype=np.float64) / (codes * codes).sum(dtype=np.float64))


def squares(x: NDArray[np.floating]) -> Float64:
    """Squared norm of each row."""
    return np.asarray(np.einsum("kd,kd->k", x, x, dtype=np.float64))
