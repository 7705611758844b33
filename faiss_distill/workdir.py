"""A folder that keeps what each stage of a run has found, so that a run that was killed goes on where it was.

A stage is one file of safetensors: its arrays, and in the header some JSON. It is written beside its place and renamed,
so it is whole or not there. ``run.json`` says what run it is, by digests of the inputs and the options, and has a
digest of each stage. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from faiss_distill.errors import InputError
from faiss_distill.files import hold, replacing, sweep
from faiss_distill.world import ALONE, World

RUN = "run.json"
FORMAT = 3
"""Of the folder; another one is refused."""
STAGE = ".safetensors"
UNNAMED = ".nfs"
"""How a file without a name looks on NFS while it is open."""
LOCK = ".faiss-distill-lock"
"""The file that says, while it is locked, that a run is at work in the folder."""


class Stored(NamedTuple):
    """What a stage has found.

    Attributes:
        arrays: by name, on the CPU.
        facts: what JSON can hold.
    """

    arrays: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Workdir:
    """The stages of one run, by name; see :func:`open_workdir`.

    The first process alone reads and writes; the others are told.

    Args:
        folder: None to keep nothing.
        world: the processes of the run.
    """

    def __init__(self, folder: Path | None, world: World = ALONE) -> None:
        """Look at nothing yet."""
        self._folder, self._world = folder if world.main else None, world
        self._run: dict[str, Any] = {}

    def begin(self, facts: Mapping[str, Any], resume: bool) -> None:
        """Say what run this is.

        Args:
            facts: by the name of an argument, what tells it from another, as JSON has it.
            resume: whether to go on with the stages that the folder has.

        Raises:
            InputError: the folder has those of another run, or has some and is not to.
        """
        if self._folder is None:
            return
        self._run = {"format": FORMAT, "given": json.loads(json.dumps(facts)), "stages": {}}
        if not (self._folder / RUN).exists():
            others = sorted(
                path.name for path in self._folder.iterdir() if path.name != LOCK and not path.name.startswith(UNNAMED)
            )
            if others:
                raise InputError("workdir", "an empty folder, or one of a run", f"one with {others[0]!r}")
            self._write_run()
            return
        found = self._read_run()
        for name, value in sorted(self._run["given"].items(), key=lambda item: item[0] != "options"):
            if found["given"].get(name) != value:
                changed = f"the folder of a run with {'other' if name.endswith('s') else 'another'} {name}"
                if name == "options":
                    changed += f" ({_differences(found['given'].get(name), value)})"
                raise InputError("workdir", "the folder of this run", changed, "pass another folder, or remove it")
        if found["stages"] and not resume:
            raise InputError("workdir", "an empty folder", "one of a run that has begun", "resume=True goes on with it")
        self._run = found

    def stage(self, name: str, make: Callable[[], Stored]) -> Stored:
        """What the stage ``name`` has found, in this run or in one that was killed."""
        found = self.found(name)
        if found is None:
            found = make()
            self.keep(name, found)
        return found

    def found(self, name: str) -> Stored | None:
        """What was kept under ``name``, in all processes; None if nothing was.

        Raises:
            InputError: its file is not what was written.
        """
        return self._world.agreed(None if self._folder is None else self._read(self._folder, name))

    def keep(self, name: str, stored: Stored) -> None:
        """Keep it under ``name``, in place of what may be there.

        Raises:
            OSError: it can't be written.
        """
        if self._folder is None:
            return
        old, new = (self._folder / file for file in self._files(name))
        arrays = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in stored.arrays.items()}  # tied ones
        write_arrays(new, arrays, {"facts": json.dumps(stored.facts)})
        self._run["stages"][name] = {"file": new.name, "sha256": _digest(new)}
        self._write_run()
        old.unlink(missing_ok=True)  # until here the run has that one

    def forget(self, name: str) -> None:
        """Remove what was kept under ``name``, if anything was."""
        if self._folder is not None and name in self._run["stages"]:
            for file in self._files(name):
                (self._folder / file).unlink(missing_ok=True)
            del self._run["stages"][name]
            self._write_run()

    def clear(self) -> None:
        """Remove all that was kept, and the folder if nothing else is in it."""
        if self._folder is None:
            return
        self._run = self._read_run()
        stages = [file for name in self._run["stages"] for file in self._files(name)]
        for name in (*stages, RUN, LOCK):
            (self._folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            self._folder.rmdir()

    def has(self, name: str) -> bool:
        """Whether something is kept under ``name`` by this process."""
        kept = self._run.get("stages", {}).get(name)
        return self._folder is not None and kept is not None and (self._folder / kept["file"]).exists()

    @property
    def keeps(self) -> bool:
        """Whether this process keeps anything."""
        return self._folder is not None

    def _files(self, name: str) -> tuple[str, str]:
        """The file that a stage is in, and the one that the next version of it goes to."""
        both = f"{name}.1{STAGE}", f"{name}{STAGE}"
        return both if self._run["stages"].get(name, {}).get("file") != both[1] else (both[1], both[0])

    def _read(self, folder: Path, name: str) -> Stored | None:
        kept = self._run["stages"].get(name)
        if kept is None or not (folder / kept["file"]).exists():
            return None
        path = folder / kept["file"]
        try:
            if _digest(path) != kept["sha256"]:
                raise InputError("workdir", "its files as they were written", f"another {path.name!r}", "remove it")
            with safe_open(path, framework="pt") as file:
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return Stored(arrays, json.loads(file.metadata()["facts"]))
        except (OSError, SafetensorError) as error:
            raise InputError("workdir", f"to read its {path.name!r}", str(error), "remove the folder") from error

    def _read_run(self) -> dict[str, Any]:
        assert self._folder is not None
        try:
            found: dict[str, Any] = json.loads((self._folder / RUN).read_text())
            known = found["format"] == FORMAT and {"given", "stages"} <= found.keys()
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise InputError("workdir", "a folder of this version's runs", f"an unknown {RUN!r}", "pass another folder")
        return found

    def _write_run(self) -> None:
        assert self._folder is not None
        with replacing(self._folder / RUN) as new:
            new.write_text(json.dumps(self._run, indent=1) + "\n")


NOWHERE = Workdir(None)
"""Keeps nothing."""


@contextmanager
def open_workdir(folder: str | Path | None, world: World = ALONE) -> Iterator[Workdir]:
    """A folder to keep stages in, which is made if need be; no other run may use it until the block is left.

    Args:
        folder: where; None to keep nothing.
        world: the processes of the run, of which the first one keeps.

    Raises:
        InputError: it is no folder that can be written to, or another run is at work there.
    """
    if folder is None or not world.main:
        yield Workdir(None, world)
        return
    path = made(folder)
    with hold(path / LOCK) as held:
        if not held:
            raise InputError("workdir", "a folder that no other run is at work in", repr(str(path)))
        sweep([path])
        try:
            yield Workdir(path, world)
        finally:
            if not (path / RUN).exists():  # nothing was kept
                (path / LOCK).unlink(missing_ok=True)


def made(folder: str | Path) -> Path:
    """The folder, which is made if need be.

    Raises:
        InputError: it is no folder that can be written to.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("workdir", "a folder", f"{str(path)!r}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError("workdir", "a folder that can be written to", repr(str(path)))
    return path


def write_arrays(path: Path, arrays: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Write a file of safetensors, whole or not at all.

    Raises:
        OSError: it can't be written; what was at ``path`` is still there.
    """
    content = save(dict(arrays), header)  # its save_file renames, and would put a file in place of a device
    with replacing(path) as new:
        new.write_bytes(content)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        if hasattr(hashlib, "file_digest"):
            return hashlib.file_digest(file, "sha256").hexdigest()
        found = hashlib.sha256()
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def _differences(before: Any, now: Mapping[str, Any]) -> str:
    """The options that differ."""
    before = before if isinstance(before, dict) else {}
    return "; ".join(f"{k}={before.get(k)!r}, now {v!r}" for k, v in now.items() if before.get(k) != v)
