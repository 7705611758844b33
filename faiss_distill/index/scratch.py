"""Folders for files on their way: beside the place of a file, which is made there and then renamed.

Such a folder is locked while its process lives. One that is not locked is what a killed run left.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

POSIX = os.name == "posix"
if POSIX:
    import fcntl

logger = logging.getLogger(__name__)

PREFIX = ".faiss-distill-"
"""Of their names; short, since the name of the file to come may be as long as names can be."""


@contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """A folder in the folder ``beside``, for files that will be renamed into it; locked meanwhile, and gone after."""
    with ExitStack() as locks, ExitStack() as folders:  # a folder is removed before it is unlocked
        while True:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=beside))
            folders.callback(shutil.rmtree, folder, ignore_errors=True)
            lock = folder / "lock"
            with suppress(FileNotFoundError):  # another process swept it away before it was locked
                descriptor = _opened(lock, locks)
                with suppress(OSError):  # where there are no locks, nothing is swept away either
                    _lock(descriptor)
                if lock.exists():
                    break
        yield folder


def sweep(folders: Iterable[Path]) -> None:
    """Remove what killed runs left beside files in ``folders``: what no live process has locked."""
    found = {path for folder in folders for path in folder.glob(f"{PREFIX}*")}
    with ExitStack() as stack:
        left = [path for path in sorted(found) if _abandoned(path, stack)]
        for path in left:  # all of them before one is removed, since they refer to each other
            withdraw(path)
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
            logger.warning("%s %s, which a killed run left", "can't remove" if path.exists() else "removed", path)


def withdraw(folder: Path) -> None:
    """Remove lists from their place if the index that refers to them did not get to its own."""
    made, placed, index = (folder / name for name in ("lists", "placed", "index"))
    if index.exists() and placed.exists() and made.exists() and made.samefile(placed):
        placed.readlink().unlink()


def _abandoned(folder: Path, stack: ExitStack) -> bool:
    """Whether ``folder`` is one of this user that no process has locked; if so, lock it until ``stack`` is left."""
    try:
        status = folder.lstat()
        if not POSIX or not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            return False  # it might have been made to have another file removed
        _lock(_opened(folder / "lock", stack), wait=False)
    except OSError:
        return False
    return True


def _opened(lock: Path, stack: ExitStack) -> int:
    """A descriptor of the file ``lock``, made if missing, until ``stack`` is left."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    stack.callback(os.close, descriptor)
    return descriptor


def _lock(descriptor: int, wait: bool = True) -> None:
    if POSIX:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
