"""Files written whole or not at all: made in a folder beside their place, and then renamed.

Such a folder is locked while its process lives. One that is not locked is what a killed run left.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
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


@contextmanager
def replacing(
    path: str | Path, placing: Callable[[Path], AbstractContextManager[object]] = nullcontext
) -> Iterator[Path]:
    """A new file to write in the block, which takes the place of ``path`` if nothing is raised there.

    It gets the owner, group, mode and extended attributes of the one that it replaces. A link stays a link, and what is
    not a regular file, such as ``/dev/stdout``, is written to as it is.

    Args:
        path: the file.
        placing: given the new file, what it takes its place in, such as the placing of others that it refers to.

    Raises:
        OSError: it can't be written; what was at ``path`` is still there.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    try:
        with scratch(target.parent) as folder:
            new = folder / f"new{target.suffix[:9]}"
            yield new
            with placing(new):
                _put(new, target)
    except OSError as error:
        text = f"can't write {str(path)!r}: {error.strerror or error}"
        raise (OSError(error.errno, text) if error.errno else OSError(text)) from error


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


@contextmanager
def hold(lock: Path) -> Iterator[bool]:
    """Whether this process has the file ``lock``, which is made if missing, to itself until the block is left."""
    with ExitStack() as stack:
        descriptor, free = _opened(lock, stack), True
        try:
            _lock(descriptor, wait=False)
        except BlockingIOError:
            free = False
        except OSError:  # a file system without locks
            pass
        yield free


def sync(path: Path) -> None:
    """Have the disk hold what was written to ``path``, a file or a folder."""
    if not POSIX:
        return  # Windows opens no folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(new: Path, target: Path) -> None:
    """Rename ``new`` to ``target``, with everything about the file that is there but what it holds, for good."""
    if target.exists():
        _take_after(new, target)
    sync(new)
    new.replace(target)
    sync(target.parent)


def _take_after(new: Path, old: Path) -> None:
    """Give ``new`` the owner, group, mode and extended attributes of ``old``."""
    status = old.stat()
    if POSIX and not _chown(new, status.st_uid, status.st_gid):
        logger.warning("%s: its owner and group can't be kept without being root", old)
        _chown(new, -1, status.st_gid)
    shutil.copystat(old, new)
    os.utime(new)  # it is as new as it is


def _chown(file: Path, owner: int, group: int) -> bool:
    """Whether that is allowed."""
    try:
        os.chown(file, owner, group)
    except PermissionError:
        return False
    return True


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
