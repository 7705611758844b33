"""Index files read and written, and outputs: never in place of something else than was meant."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss

from faiss_distill.data.formats.files import check_file
from faiss_distill.data.parts import leads_to
from faiss_distill.errors import InputError
from faiss_distill.files import replacing, scratch, sweep, sync, withdraw

HEADER = slice(16, 32)
"""Of an index file: two constants that faiss writes after the class, the dimension and the number of vectors."""
CONSTANTS = (1 << 20).to_bytes(8, "little") * 2


def read_index(path: Path) -> Any:
    """Read a faiss index, whose inverted lists in a file of their own, if any, are then named from the root.

    Raises:
        InputError: no such file, or not a complete index.
        OSError: it can't be read.
    """
    check_file(path, "index")
    try:
        with path.open("rb") as file, _lengths_up_to(path.stat().st_size):
            index = faiss.read_index(faiss.PyCallbackIOReader(file.read))  # type: ignore[attr-defined]
    except (RuntimeError, MemoryError) as error:
        got, hint = f"{str(path)!r}: {_without_cpp(error)}", ""
        if "not recognized" in got:
            got = f"{str(path)!r}, which this faiss does not recognize"
        if path.suffix == ".npy":
            got, hint = f"an array, {str(path)!r}", "pass the file that faiss.write_index has written"
        raise InputError("index", "a complete faiss index", got, hint) from error
    lists = _lists_on_disk(index)
    if lists is not None and not Path(lists.filename).is_absolute():
        lists.filename = stored_name("index", Path(lists.filename))
    return index


def stored_name(name: str, path: Path) -> str:
    """The absolute name of a file of inverted lists, which can then be read from any folder; ``name`` is for the error.

    Raises:
        InputError: it is not in UTF-8, and faiss would not take it.
    """
    absolute = str(path.absolute())
    try:
        absolute.encode()
    except UnicodeEncodeError as error:
        raise InputError(name, "inverted lists in a file with a name in UTF-8", repr(absolute)) from error
    return absolute


def open_with_outputs(
    source: Path,
    inputs: Sequence[str | Path | None],
    outputs: Mapping[str, Path | None],
    lists: Path | None = None,
    force: bool = False,
) -> Any:
    """Read the index in ``source``, after finding out whether the outputs can be written and destroy nothing.

    Args:
        source: an index file.
        inputs: the other inputs, None for those not given.
        outputs: by option, None for those not given; ``"output"`` is an index, and may be ``source``.
        lists: another output, a new file for inverted lists.
        force: see :func:`check_output`.

    Raises:
        InputError: they can't, or ``source`` is not a complete index.
        OSError: a file can't be read.
    """
    check_outputs(source, inputs, outputs, lists, force)
    given = {name: path for name, path in outputs.items() if path is not None}
    opened = read_index(source)
    own = lists_file_of(opened)
    check_apart(outputs, own)
    sweep({Path(os.path.realpath(path)).parent for path in [*given.values(), lists, own] if path is not None})
    if "output" in given:
        check_room("output", given["output"], source.stat().st_size)
    return opened


KINDS = {"html": (".html", ".htm"), "save_config": (".toml",), "save_parameters": (".safetensors", "")}
"""The ends of names of files that an output may replace, of those that have a kind."""


def check_outputs(
    source: Path,
    inputs: Sequence[str | Path | None],
    outputs: Mapping[str, Path | None],
    lists: Path | None = None,
    force: bool = False,
) -> None:
    """The part of :func:`open_with_outputs` that reads nothing.

    Raises:
        InputError: an output can't be written, or would destroy something.
        OSError: there can be no such file.
    """
    given = {name: path for name, path in outputs.items() if path is not None}
    read = [file for path in inputs if path is not None for file in leads_to(path)]
    for name, path in given.items():
        index = name == "output"
        others = [other for other in given.values() if other is not path]
        check_output(name, path, [*read, *others, lists, None if index else source], index=index, force=force)


def check_apart(outputs: Mapping[str, Path | None], lists: Path | None) -> None:
    """Refuse outputs that are the file ``lists`` of inverted lists.

    Raises:
        InputError: one is.
    """
    for name, path in outputs.items():
        if path is not None and lists is not None and same_file(path, lists):
            raise InputError(name, "another file than that of the inverted lists", repr(str(path)))


def lists_file_of(index: Any) -> Path | None:
    """The file that the inverted lists of ``index`` are in, if they are in one of their own."""
    lists = _lists_on_disk(index)
    return None if lists is None else Path(lists.filename)


def is_index(path: Path) -> bool:
    """Whether ``path`` begins as an index file does."""
    with path.open("rb") as file:
        return file.read(HEADER.stop)[HEADER] == CONSTANTS


def check_output(
    name: str, path: Path, others: Sequence[str | Path | None], *, index: bool = False, force: bool = False
) -> None:
    """Refuse an output that can't be written, or that would destroy something, before any work is done.

    Args:
        name: the option.
        path: where it says to write.
        others: inputs and other outputs, which it must not be, under whatever name; None for those not given.
        index: whether an index is to be written, which may replace an index and nothing else.
        force: replace any regular file, also one that has other names.

    Raises:
        InputError: it would.
        OSError: there can be no such file: its name is too long, say.
    """
    if any(other is not None and same_file(path, other) for other in others):
        raise InputError(name, "another file than the inputs and other outputs", repr(str(path)))
    try:
        links = path.stat().st_nlink
    except FileNotFoundError:
        links = 0
    if links and not path.is_file():
        raise InputError(name, "a file", f"the {_kind(path)} {str(path)!r}")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise InputError(name, "a folder that exists", repr(str(folder)))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(name, "a folder that can be written to", repr(str(folder)))
    if links > 1 and not force:
        raise InputError(
            name,
            "a file with one name",
            f"{str(path)!r}, which has {links} (hard links)",
            "--force replaces it under this name, and leaves what it was under the others",
        )
    if not links or force or not path.stat().st_size:
        return
    if index and not is_index(path):
        raise InputError(name, "a new file or a faiss index", repr(str(path)), "--force replaces it")
    kinds = KINDS.get(name)
    if kinds is not None and path.suffix.lower() not in kinds:
        expected = f"a new file, or one ending in {' or '.join(filter(None, kinds))}"
        raise InputError(name, expected, repr(str(path)), "--force replaces it")


def check_room(name: str, path: Path, size: int) -> None:
    """Refuse an output of ``size`` bytes that there is no room for.

    Raises:
        InputError: there is not.
    """
    folder = Path(os.path.realpath(path)).parent
    free = shutil.disk_usage(folder).free
    if free < size:
        raise InputError(name, f"{size} bytes free in {str(folder)!r}", str(free))


def same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two names are of one file, by links or spelling; or would be, if it is not there yet."""
    try:
        return Path(one).samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


@dataclass(frozen=True)
class NewLists:
    """Inverted lists in a file of their own, which gets its name along with the index that refers to it.

    Attributes:
        made: where they are made.
        placed: where they are to be, a file that does not exist yet.
    """

    made: Path
    placed: Path

    @contextmanager
    def in_place(self, index_file: Path) -> Iterator[None]:
        """Put them in their place, for good if ``index_file`` is moved to its own in the block.

        Raises:
            InputError: another program has made a file there meanwhile.
        """
        try:
            self._place(index_file)
            sync(self.placed)
            sync(self.placed.parent)
            yield
        except FileExistsError as error:
            raise InputError(
                "invlists_file", "a file that does not exist yet", f"{str(self.placed)!r}, made meanwhile"
            ) from error
        finally:
            withdraw(self.made.parent)

    def _place(self, index_file: Path) -> None:
        try:
            # For sweep, should this process be killed before the index is in its place.
            self.made.with_name("placed").symlink_to(self.placed)
            self.made.with_name("index").symlink_to(index_file)
            os.link(self.made, self.placed)  # which, unlike a rename, replaces nothing
        except PermissionError:  # a file system without links
            self.placed.open("xb").close()
            self.made.replace(self.placed)


@contextmanager
def new_lists(placed: Path | None) -> Iterator[NewLists | None]:
    """Where to make inverted lists that are to be in ``placed``; None for lists that stay where they are."""
    if placed is None:
        yield None
        return
    with scratch(placed.parent) as folder:
        yield NewLists(folder / "lists", placed)


def write_index(index: Any, path: Path, lists: NewLists | None = None) -> None:
    """Write a faiss index, and put its new inverted lists in their place, both or neither.

    Args:
        index: the index; it refers to its lists by the file that they are made in.
        path: where to; see :func:`~faiss_distill.files.replacing`.
        lists: its lists, if some were made.

    Raises:
        OSError: it can't be written; what was at ``path`` is still there.
    """
    if lists is not None and not lists.made.exists():
        lists = None
    if lists is not None:
        _lists_on_disk(index).filename = stored_name("invlists_file", lists.placed)
    with replacing(path, nullcontext if lists is None else lists.in_place) as new, new.open("wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]


@contextmanager
def _lengths_up_to(size: int) -> Iterator[None]:
    """Have faiss, where it can, refuse a length in a corrupt file that is larger than the file, not allocate it."""
    if not hasattr(faiss, "set_deserialization_vector_byte_limit"):
        yield
        return
    before = faiss.get_deserialization_vector_byte_limit()
    # Tables made on reading count too, though they are not in the file.
    tables: int = faiss.cvar.precomputed_table_max_bytes  # type: ignore[attr-defined]
    faiss.set_deserialization_vector_byte_limit(size + tables)
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before)


def _lists_on_disk(index: Any) -> Any:
    """The inverted lists of ``index`` if they are in a file of their own, else None."""
    ivf: Any = faiss.try_extract_index_ivf(index)
    lists: Any = None if ivf is None else faiss.downcast_InvertedLists(ivf.invlists)
    return lists if isinstance(lists, faiss.OnDiskInvertedLists) and not lists.read_only else None


def _kind(path: Path) -> str:
    return "folder" if path.is_dir() else "device or pipe"


def _without_cpp(error: Exception) -> str:
    """What faiss says, without where in its source."""
    text = str(error).strip() or "it is larger than the memory"
    return "it ends early" if "read error" in text else re.sub(r"^Error in .*? at \S+:\d+: ", "", text.splitlines()[-1])
