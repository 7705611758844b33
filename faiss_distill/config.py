"""The options of a tuning run."""

from __future__ import annotations

import enum
import json
import math
import re
import sys
import warnings
from dataclasses import asdict, dataclass, fields, replace
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faiss_distill.checks import LARGEST, did_you_mean, flag, integer, number, size
from faiss_distill.errors import InputError
from faiss_distill.files import replacing
from faiss_distill.mixture import Mixture

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from faiss_distill.typing import PathLike


class Learn(str, enum.Enum):
    """Which parameters are learned, by which of the two losses."""

    BOTH = "both"
    CENTROIDS = "centroids"
    CODEBOOKS = "codebooks"

    @classmethod
    def _missing_(cls, value: object) -> Learn | None:
        """The names of before, for one more release."""
        new = {"ivf": cls.CENTROIDS, "pq": cls.CODEBOOKS}.get(value) if isinstance(value, str) else None
        if new is not None:
            warnings.warn(f"learn={value!r} is now learn={new.value!r}", FutureWarning, stacklevel=2)
        return new


class Assignment(str, enum.Enum):
    """The lists that vectors are in."""

    FIXED = "fixed"
    REFRESHED = "refreshed"
    QUERY_AWARE = "query_aware"


class Encoding(str, enum.Enum):
    """How codes are chosen once the codebooks are learned."""

    QUERY_AWARE = "query_aware"
    NEAREST = "nearest"
    FROZEN = "frozen"


class Effort(str, enum.Enum):
    """How much time a tuning may take: what the options are that it mostly depends on."""

    QUICK = "quick"
    DEFAULT = "default"
    THOROUGH = "thorough"


EFFORTS: dict[Effort, dict[str, int]] = {
    Effort.QUICK: {"epochs": 1, "local_queries": 16, "sweeps": 2},
    Effort.DEFAULT: {"epochs": 3, "local_queries": 32, "sweeps": 3},
    Effort.THOROUGH: {"epochs": 8, "local_queries": 100, "sweeps": 6},
}
"""The options that each sets, unless they are given."""


class Usual(int):
    """What ``effort`` has set an option to, so that ``dataclasses.replace(config, effort=...)`` sets it anew."""


INTEGERS = {
    "epochs": 0,
    "batch_size": 1,
    "top_k": 10,
    "patience": 1,
    "sweeps": 1,
    "local_queries": 0,
    "max_queries": 100,
    "block_rows": 256,
    "nprobe": 1,
    "seed": 0,
    "fill_to": 0,
}
"""The least that each option may be."""
MAX_SEED = 2**64 - 1
"""The largest that torch takes."""
WEIGHT = (f"a number of at least 0 and at most {LARGEST:g}", 0.0, LARGEST, True)
SHARE = ("a number between 0 and 1", 0.0, 1.0, False)
POSITIVE = (f"a positive number from {1 / LARGEST:g} to {LARGEST:g}", 1 / LARGEST, LARGEST, True)
NUMBERS: dict[str, tuple[str, float, float, bool]] = {
    **dict.fromkeys(("local_weight", "self_weight", "global_weight", "max_scan_increase"), WEIGHT),
    **dict.fromkeys(("validation_fraction", "confidence", "learning_rate"), SHARE),
    **dict.fromkeys(("temperature", "centroid_rate", "codebook_rate", "query_encoder_rate"), POSITIVE),
}
"""The range of each option: in words, its ends, and whether these belong to it."""
ENUMS: dict[str, type[enum.Enum]] = {
    "effort": Effort,
    "learn": Learn,
    "assignment": Assignment,
    "encoding": Encoding,
}


@dataclass(frozen=True)
class DistillConfig:
    """Options of :func:`faiss_distill.distill`.

    Temperature, learning rate and the codes' weights are relative to the scale of the embeddings.

    Attributes:
        effort: ``"quick"``, ``"default"`` or ``"thorough"``: sets ``epochs``, ``local_queries`` and ``sweeps`` where
            they are not given, to 1, 16 and 2; to 3, 32 and 3; or to 8, 100 and 6.
        epochs: passes over the training queries. With 0, centroids and codebooks stay as they are and only lists and
            codes are chosen. By default as ``effort`` has it.
        batch_size: queries per step; by default 256, or all of them if there are fewer.
        top_k: exact neighbours that the teacher finds for each query, which set the temperature and give each document
            its local queries; also the depth of ``recall@top_k``.
        loss: how the student's scores are compared with the teacher's: ``"listnet"``, ``"kl"``, ``"ranknet"``,
            ``"mse"``, ``"margin_mse"``, ``"listmle"`` or ``"lambdarank"``. Or an objective without a teacher:
            ``"contrastive"``, the labelled documents (without ``gt`` the best candidate) against the others, and
            ``"reconstruction"``, the documents' squared error. RankNet, LambdaRank and ListMLE only use the 128
            candidates that the teacher scores highest.
        candidates: documents that a query is scored on: ``topK``, the teacher's Top-K; ``hardK``, what the index being
            tuned finds, searched again for each epoch; ``gt``, those labelled relevant; ``randomN``; joined by ``+``.
            ``:S`` draws S of them at each step; ``in_batch`` shares them within the batch. For example
            ``"gt + in_batch + top200:1"``.
        learn: ``"both"``; only the ``"centroids"``, by the loss of the coarse scores; or only the ``"codebooks"``, by
            that of the full scores.
        balance: scale the loss of the coarse scores to the size of that of the full scores, as the Distill-VQ
            paper does.
        assignment: before each epoch and after the last, ``"query_aware"`` moves each vector to the list in which the
            queries that need it look for it, with a penalty for scanning more codes; ``"refreshed"`` moves it to the
            list that faiss would now choose. ``"fixed"`` keeps each vector in its list. By default ``"query_aware"``,
            or ``"fixed"`` with frozen codes.
        encoding: before each epoch and after the last, ``"query_aware"`` chooses the codes that minimise the score
            error over the queries that matter for a document, and the epoch trains with these. ``"nearest"`` is faiss's
            own choice, the nearest codeword in each segment, at every step. ``"frozen"`` keeps the stored codes: the
            embeddings may then be a sample, passed with their ``ids``.
        temperature: what scores are divided by; by default ``perplexity`` sets it.
        perplexity: the temperature is set so that the teacher's softmax over a query's ``top_k`` has this perplexity
            on average. Must be below ``top_k``.
        learning_rate: Adam's step, relative to the spread of the parameters it moves and of the documents.
        centroid_rate: Adam's step for the centroids in their own units, in place of ``learning_rate``.
        codebook_rate: the same for the codebooks.
        query_encoder_rate: Adam's step for the parameters of a query encoder.
        patience: training stops after this many epochs in a row whose overlap@10 on the selection queries is
            significantly below that of the best epoch before them, or that scan too many codes.
        sweeps: passes of coordinate descent over a document's sub-codes. By default as ``effort`` has it.
        local_queries: how many of the training queries nearest to a document shape its code. By default as ``effort``
            has it.
        local_weight: weight of the nearest of these in the error that the document's code minimises; further ones weigh
            less, the 25th half as much.
        self_weight: weight of the document itself, taken as a query; several times as much for one that lacks local
            queries where documents differ in norm. More serves label metrics such as MRR, and documents that few
            queries look for, at the cost of some overlap.
        global_weight: weight of the covariance of all training queries.
        validation_fraction: share of ``queries`` that is held out, with all queries near these, if there are no
            ``validation_queries``.
        max_queries: a longer query log is sampled down to this many.
        fill_to: if there are fewer training queries than half of this, and than half of the corpus, documents used as
            queries are added up to this many, moved to where the real ones are, unless ``candidates`` or ``loss`` need
            labels or a query encoder learns. 0 adds none.
        confidence: level of the paired bootstrap interval whose lower end must be above 0 for the result to be kept.
        max_scan_increase: the tuned index may scan at most this share more codes per query than before.
        judge_half_nprobe: a result that loses overlap@10 at half the judged nprobe, beyond chance, is not kept either.
        block_rows: corpus rows held in memory at a time.
        max_memory: bytes, or a text such as ``"4GB"``, that a run may take, not counting the index and what the process
            already holds. Codes and lists that don't fit are mapped from files in the work folder, which must be given.
        router: give the index a router, vectors of their own to find lists by, so that centroids serve scores alone:
            for few lists probed. It takes as many bytes as the centroids, and a coarse quantizer of another class.
        nprobe: judge the result at this many lists probed, instead of the index's own, which stays.
        seed: seeds the split, the sampling and the bootstrap; below 2**64.
        device: torch device of the training and the encoding, such as ``"cpu"`` or ``"cuda"``.
        progress: show progress bars on a terminal and in a notebook; elsewhere, log a line for each at level INFO.

    Raises:
        InputError: a field is out of its range.
    """

    effort: Effort = Effort.DEFAULT
    epochs: int = None  # type: ignore[assignment]  # as effort has it, like the other two
    batch_size: int | None = None
    top_k: int = 100
    loss: str = "listnet"
    candidates: str = "in_batch + top100:10"
    learn: Learn = Learn.BOTH
    balance: bool = False
    assignment: Assignment | None = None
    encoding: Encoding = Encoding.QUERY_AWARE
    temperature: float | None = None
    perplexity: float = 60.0
    learning_rate: float = 0.02
    centroid_rate: float | None = None
    codebook_rate: float | None = None
    query_encoder_rate: float = 1e-4
    patience: int = 2
    sweeps: int = None  # type: ignore[assignment]
    local_queries: int = None  # type: ignore[assignment]
    local_weight: float = 4.0
    self_weight: float = 4.0
    global_weight: float = 0.5
    validation_fraction: float = 0.1
    max_queries: int = 65_536
    fill_to: int = 40_000
    confidence: float = 0.95
    max_scan_increase: float = 0.01
    judge_half_nprobe: bool = True
    block_rows: int = 16_384
    max_memory: int | str | None = None
    router: bool = False
    nprobe: int | None = None
    seed: int = 0
    device: str = "cpu"
    progress: bool = True

    def __post_init__(self) -> None:
        """Check every field."""
        import torch  # which takes seconds, and is not needed to list the options

        from faiss_distill.losses import LOSSES

        if not isinstance(self.loss, str) or self.loss not in LOSSES:
            near = did_you_mean(self.loss, LOSSES)
            raise InputError("loss", f"one of {', '.join(map(repr, LOSSES))}", repr(self.loss), near)
        for name, kind in ENUMS.items():
            if name == "assignment" and self.assignment is None:
                continue
            try:
                self._set(name, kind(getattr(self, name)))
            except ValueError:
                value, names = getattr(self, name), [e.value for e in kind]
                expected = f"one of {', '.join(map(repr, names))}"
                raise InputError(name, expected, repr(value), did_you_mean(value, names)) from None
        for name, value in EFFORTS[self.effort].items():
            if getattr(self, name) is None or isinstance(getattr(self, name), Usual):
                self._set(name, Usual(value))
        for name, least in INTEGERS.items():
            if isinstance(getattr(self, name), Usual):
                continue
            if getattr(self, name) is not None or name not in ("batch_size", "nprobe"):
                self._set(name, integer(name, getattr(self, name), least, MAX_SEED if name == "seed" else None))
        for name, (expected, low, high, ends) in NUMBERS.items():
            if getattr(self, name) is not None or name not in ("temperature", "centroid_rate", "codebook_rate"):
                self._set(name, number(name, getattr(self, name), expected, low, high, ends))
        if self.max_memory is not None:
            self._set("max_memory", size("max_memory", self.max_memory))
        expected, hint = f"between 1 and top_k={self.top_k}", "set it with top_k"
        self._set("perplexity", number("perplexity", self.perplexity, expected, 1, self.top_k, False, hint))
        for name in ("balance", "judge_half_nprobe", "router", "progress"):
            self._set(name, flag(name, getattr(self, name)))
        if not isinstance(self.device, str | torch.device):
            raise InputError("device", "a torch device or its name", repr(self.device))
        self._set("device", str(self.device))
        if self.encoding is Encoding.FROZEN and self.lists is not Assignment.FIXED:
            raise InputError(
                "assignment", "'fixed' with encoding='frozen'", repr(self.lists.value), "a code belongs to its list"
            )
        if self.router and (self.learn is Learn.CODEBOOKS or LOSSES[self.loss].compares == "vectors"):
            value = "learn='codebooks'" if self.learn is Learn.CODEBOOKS else f"loss={self.loss!r}"
            raise InputError("router", f"False with {value}", "True", "nothing would teach it which lists to find")
        if self.mixture.single and LOSSES[self.loss].compares != "vectors":
            raise InputError("candidates", "others to rank a document against", repr(self.candidates), "add in_batch")

    def _set(self, name: str, value: Any) -> None:
        """Make a field what it was checked to be."""
        object.__setattr__(self, name, value)

    @classmethod
    def from_toml(cls, path: PathLike, **options: Any) -> DistillConfig:
        """Read options from a TOML file with a key for each: ``epochs = 5``, ``loss = "kl"``, ``balance = true``.

        Fields that the file leaves out have their defaults.

        Args:
            path: the file.
            **options: single options over those of the file.

        Raises:
            InputError: it is no TOML file, has a key that is no field, or a field is out of its range.
        """
        found = read_options(path)
        try:
            return cls(**found | options)
        except InputError as error:
            if error.argument in options:
                raise
            place = "in" if error.argument in found else "with"
            raise replace(error, got=f"{error.got} {place} {str(path)!r}") from error

    def to_toml(self, path: PathLike | None = None) -> str:
        """All options as TOML text, of which :meth:`from_toml` makes the same.

        Those that are None, or as ``effort`` has them, are left out.

        Args:
            path: also write it to this file.

        Raises:
            OSError: it can't be written; what was at ``path`` is still there.
        """
        usual = EFFORTS[self.effort]
        known = {name: getattr(value, "value", value) for name, value in asdict(self).items()}
        known = {name: value for name, value in known.items() if value != usual.get(name)}
        # JSON writes all of them as TOML does, but for a character that TOML wants escaped.
        shown = {name: json.dumps(value, ensure_ascii=False) for name, value in known.items() if value is not None}
        text = "".join(f"{name} = {value}\n" for name, value in shown.items()).replace("\x7f", r"\u007f")
        if path is not None:
            with replacing(path) as new:
                new.write_bytes(text.encode())
        return text

    @property
    def lists(self) -> Assignment:
        """:attr:`assignment`, or what it is if not given."""
        usual = Assignment.FIXED if self.encoding is Encoding.FROZEN else Assignment.QUERY_AWARE
        return self.assignment or usual

    @property
    def memory(self) -> float:
        """:attr:`max_memory` in bytes; infinite if not given."""
        return math.inf if self.max_memory is None else float(self.max_memory)

    @property
    def mixture(self) -> Mixture:
        """:attr:`candidates`, parsed."""
        return Mixture.parse(self.candidates)

    @property
    def depth(self) -> int:
        """How many exact neighbours the training queries need: ``top_k``, or more if ``candidates`` go deeper."""
        return max(self.top_k, self.mixture.depth("top"))


def read_options(path: PathLike) -> dict[str, Any]:
    """What a TOML file has of the fields of :class:`DistillConfig`, whatever their values: that takes no torch.

    Raises:
        InputError: it is no TOML file that can be read, or has a key that is no field.
    """
    try:
        with Path(path).open("rb") as file:
            found = tomllib.load(file)
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, not TOML, or brackets within brackets
        reason = getattr(error, "strerror", None) or error
        raise InputError("config", "a TOML file of options", f"{str(path)!r}: {reason}") from error
    known = [field.name for field in fields(DistillConfig)]
    for name in found:
        if name not in known:
            near = did_you_mean(name, known) or "see DistillConfig for the options"
            raise InputError("config", "options of DistillConfig", f"{name!r} in {str(path)!r}", near)
    return found


def as_config(config: Any) -> DistillConfig:
    """``config``, read from a file if it is the path of one, or the defaults for None.

    Raises:
        InputError: it is none of these, or something about the file is wrong.
    """
    if config is None:
        return DistillConfig()
    if isinstance(config, str | Path):
        return DistillConfig.from_toml(config)
    if not isinstance(config, DistillConfig):
        expected = "a DistillConfig, or the path of a TOML file"
        raise InputError("config", expected, type(config).__name__, "or pass **options")
    return config


def field_notes() -> dict[str, str]:
    """What the docstring of :class:`DistillConfig` says of each field, for the command line and the documentation."""
    documented = getdoc(DistillConfig) or ""  # without the indentation, which Python 3.13 drops by itself
    notes = re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w+: |\n\s*\n)", documented, re.M | re.S)
    return {name: " ".join(note.split()) for name, note in notes}
