"""What a path leads to, told before it is opened: a named pipe would block."""

from __future__ import annotations

import stat
from pathlib import Path

from faiss_distill.errors import InputError

KINDS = {
    stat.S_IFDIR: "the folder",
    stat.S_IFIFO: "the named pipe",
    stat.S_IFSOCK: "the socket",
    stat.S_IFCHR: "the device",
    stat.S_IFBLK: "the device",
}


def check_file(path: Path, name: str) -> None:
    """Refuse what is not a regular file, or a link to one.

    Raises:
        InputError: it is not there, can't be reached, or is something else.
    """
    mode = check_there(path, name)
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        hint = "save what comes through it in a file first" if stat.S_ISFIFO(mode) else ""
        raise InputError(name, "a file", f"{kind} {str(path)!r}", hint)


def check_there(path: Path, name: str) -> int:
    """Refuse what is not there; returns its mode.

    Raises:
        InputError: it is not there, or can't be reached.
    """
    try:
        return path.stat().st_mode
    except FileNotFoundError as error:
        raise InputError(name, "a file that exists", repr(str(path))) from error
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a name that is too long or holds a zero
        reason = getattr(error, "strerror", None) or error
        raise InputError(name, "a file that can be read", f"{str(path)!r}: {reason}") from error
