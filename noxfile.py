"""The tests with the oldest and the newest releases of what the package needs, and with each Python.

    nox                       # all; downloads gigabytes, since torch comes with CUDA
    nox -s "tests(oldest)"    # one
    nox -s integrations       # with vector stores of other libraries
    make wheel                # builds the wheel, and has it tune with each Python that is here

Each session has an environment of its own, which is deleted afterwards, and writes its row of ``results/versions.txt``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nox

nox.options.sessions = ["tests"]
PACKAGES = ("faiss-cpu", "numpy", "scipy", "torch", "tqdm")
ROWS = {
    "oldest": ("3.11", "constraints-oldest.txt"),
    "oldest torch": ("3.10", "constraints-oldest.txt"),
    "newest": ("3.11", None),
    "3.10": ("3.10", "constraints.txt"),
    "3.12": ("3.12", "constraints.txt"),
    "3.13": ("3.13", "constraints.txt"),
}
"""Python and constraints of each session."""
TESTS = [str(file) for name in (
    "adding", "additive", "encoded", "exports", "frozen", "losses", "metrics", "quantizers", "query_encoders",
    "readers", "relevance", "report", "shards", "storage", "students", "teacher", "given_teacher", "trainer",
    "several_processes", "workdir",
) for file in Path("tests").rglob(f"test_{name}.py")]  # fmt: skip
"""Where the package meets faiss, numpy, scipy and torch."""
VERSIONS = f"""
import platform
from importlib.metadata import version
print(platform.python_version(), *map(version, {PACKAGES}))
"""


def interpreter(version: str) -> str | None:
    """A Python of this version, on the path, one of pyenv's or the one that runs this; None if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    own = sys.executable if sys.version.startswith(f"{version}.") else None
    for found in (shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python")), own):
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:  # not a stub of pyenv's
            return str(found)
    return None


PYTHONS = os.environ.get("PYTHONS", "3.10 3.11 3.12 3.13").split()
"""Those to try the wheel with."""
FOUND = {version: found for version in PYTHONS if (found := interpreter(version))}
"""Of these, the ones that are here."""


@nox.session
@nox.parametrize("python,constraints", list(ROWS.values()), ids=list(ROWS))
def tests(session: nox.Session, constraints: str | None) -> None:
    """Install, test, and note versions and outcome."""
    try:
        session.install(*(["-c", constraints] if constraints else []), "-e", ".[test]")
        versions = session.run("python", "-c", VERSIONS, silent=True)
        outcome = Path(session.create_tmp()) / "outcome.xml"
        command = ("python", "-m", "pytest", "-n", "auto", "-m", "not slow", f"--junitxml={outcome.resolve()}")
        session.run(*command, *(session.posargs or TESTS), success_codes=[0, 1])
        suite = ElementTree.parse(outcome).getroot()[0]
    finally:
        shutil.rmtree(session.virtualenv.location)
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    passed = int(suite.get("tests")) - int(suite.get("skipped")) - failed
    write_row(session.name[len("tests(") : -1], [*versions.split(), str(passed), str(failed)])
    if failed:
        session.error(f"{failed} of {passed + failed} tests failed")


@nox.session(python="3.11")
def integrations(session: nox.Session) -> None:
    """Stores of other libraries, whose pins collide with those of the other tests."""
    try:
        session.install("--no-compile", "-c", "constraints-integrations.txt", "-e", ".[test-integrations]")
        session.run("python", "-m", "pytest", "-n", "auto", *(session.posargs or ["tests/integrations"]))
    finally:
        shutil.rmtree(session.virtualenv.location)


@nox.session
@nox.parametrize("python", [nox.param(found, id=version) for version, found in FOUND.items()])
def wheel(session: nox.Session) -> None:
    """Install the wheel in ``build/dist`` where there is nothing else, first without a faiss, and tune with it."""
    (built,) = Path("build/dist").resolve().glob("*.whl")
    smoke, constraints = (str(Path(name).resolve()) for name in ("tests/smoke.py", "constraints.txt"))
    try:
        session.chdir(session.create_tmp())
        session.install("-c", constraints, str(built))
        said = session.run("python", "-c", "import faiss_distill", silent=True, success_codes=[1])
        if "pip install faiss-cpu" not in said:
            session.error(f"without faiss the import says {said!r}")
        session.install("-c", constraints, f"{built}[cpu]")
        session.run("python", "-m", "pip", "check")
        session.run("python", smoke)
    finally:
        shutil.rmtree(session.virtualenv.location)


def write_row(name: str, row: list[str]) -> None:
    """Put a row into ``results/versions.txt``, in place of the one that is there from before."""
    file = Path("results/versions.txt")
    file.parent.mkdir(exist_ok=True)
    head = ["", "Python", *PACKAGES, "passed", "failed"]
    old = [line.split("  ") for line in file.read_text().splitlines()[1:]] if file.exists() else []
    rows = {cells[0]: [cell.strip() for cell in cells if cell] for cells in old} | {name: [name, *row]}
    table = [head, *(rows[known] for known in ROWS if known in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
    file.write_text("\n".join(lines) + "\n")
