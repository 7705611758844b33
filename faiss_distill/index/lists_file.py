"""Where new inverted lists go: to memory, or to a file of their own."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

from faiss_distill.errors import InputError
from faiss_distill.index.adapter import IndexAdapter
from faiss_distill.index.files import stored_name
from faiss_distill.index.parts.write_back import room_for_lists


def new_lists_file(adapter: IndexAdapter, wanted: Any, frozen: bool = False) -> Path | None:
    """Where new inverted lists go: the file that is wanted, one beside that of lists on disk, or None for memory.

    Args:
        adapter: the index.
        wanted: a path, or None.
        frozen: whether codes and lists stay as they are.

    Returns:
        An absolute path, since the index stores it and may be read from another folder.

    Raises:
        InputError: it exists, can't be made, or has too little room; or such an index can't have its lists in a file.
    """
    if frozen and not (adapter.codebooks is not None and adapter.codebooks.stores_norms):
        if wanted is None:
            return None
        raise InputError(
            "invlists_file", "None with encoding='frozen', whose lists stay where they are", repr(str(wanted))
        )
    if wanted is None:
        own = adapter.lists_file
        if own is None:
            return None
        names = (own.with_name(f"{own.name}.tuned{i or ''}") for i in itertools.count())
        wanted = next(name for name in names if not os.path.lexists(name))
    if not isinstance(wanted, str | Path):
        raise InputError("invlists_file", "a path", type(wanted).__name__)
    file = Path(stored_name("invlists_file", Path(wanted)))
    try:
        file.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError("invlists_file", "a name for a new file", f"{str(file)!r}: {error.strerror}") from error
    else:
        raise InputError("invlists_file", "a file that does not exist yet", repr(str(file)))
    if not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
        raise InputError("invlists_file", "a file in a folder that can be written to", repr(str(file)))
    if not adapter.traits.lists_in_a_file:
        raise InputError("invlists_file", f"None for an {type(adapter.core).__name__}", repr(str(file)))
    try:
        room_for_lists(file, adapter.core)
    except OSError as error:
        raise InputError("invlists_file", "room for the inverted lists", str(error)) from error
    return file
