"""Runs of the command line that are killed: OUT is whole, and the next run removes what is left."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import faiss
import numpy as np
import pytest
from conftest import QUICK, sized

N = 1000
SERVER = """
import json, os, sys
import torch._dynamo  # which the first optimizer of a process would import, for seconds
from faiss_distill import cli
from faiss_distill.commands import inspecting, measuring, tuning
print(flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(cli.main(json.loads(line)))
    print(child, flush=True)
    sys.stdin.readline()
    print(os.waitpid(child, 0)[1], flush=True)
"""
"""Runs command lines, each in a process of its own, without importing torch and faiss each time. It prints the process
id, waits for a line (the id is not given to another process before), and prints how the process ended."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    errors = tmp_path_factory.mktemp("server") / "stderr"
    with errors.open("w") as file:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": file}
        with subprocess.Popen(
            [sys.executable, "-c", SERVER], text=True, bufsize=1, env=environment, **pipes
        ) as process:
            process.stdout.readline()
            process.errors = errors
            yield process
            process.stdin.close()


def run(server, command, kill=lambda pid: None):
    """Run it, and kill it meanwhile; whether it ended by itself."""
    server.stdin.write(json.dumps(command) + "\n")
    pid = int(server.stdout.readline())
    killed = kill(pid)
    server.stdin.write("\n")
    status = int(server.stdout.readline())
    assert status in ((0, signal.SIGKILL) if killed else (0,)), server.errors.read_text()
    return status == 0


def kill_after(seconds, pid):
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return True


def kill_while_writing(folder, limit, seconds, pid):
    """So many seconds after it began to write."""
    end = time.perf_counter() + limit
    while not made(folder) and time.perf_counter() < end:
        time.sleep(0.001)
    return kill_after(seconds, pid)


def made(folder):
    """Files that are being written."""
    return [*folder.glob(".faiss-distill-*/lists"), *folder.glob(".faiss-distill-*/new*")]


@pytest.mark.parametrize("storage", ["in place", "lists in a file"])
def test_kills(server, built, data, tmp_path, figure, storage):
    faiss.write_index(built(n=N), str(tmp_path / "i.faiss"))
    np.save(tmp_path / "x.npy", data.documents[:N])
    np.save(tmp_path / "q.npy", data.queries[:900])
    out = tmp_path / ("i.faiss" if storage == "in place" else "o.faiss")
    command = ["tune", *(str(tmp_path / name) for name in ("i.faiss", "x.npy")), "--queries", str(tmp_path / "q.npy")]
    command += ["--no-progress", "--epochs", "1", "--nprobe", "4", "--top-k", "40", "--perplexity", "25"]
    command += ["--fill-to", "0"]
    command += ["--candidates", QUICK["candidates"], "--local-queries", "8", "-o", str(out)]
    command += [] if storage == "in place" else ["--invlists-file", str(tmp_path / "l")]
    before = contents(tmp_path)
    start = time.perf_counter()
    assert run(server, command)
    duration = time.perf_counter() - start
    after = contents(tmp_path)
    assert after != before, "not kept: kills would show nothing"

    rng, runs, kills, written, left = np.random.default_rng(0), 0, 0, 0, 0
    while kills < sized(3, 52):
        runs += 1
        assert runs < sized(30, 200), "they end before they are killed"
        restore(tmp_path, before)
        kill = partial(kill_after, rng.uniform(0, 1.05 * duration))
        if runs % 2:  # some of them at once
            kill = partial(kill_while_writing, tmp_path, 2 * duration, 0.02 * rng.random() ** 3)
        killed = not run(server, command, kill)
        kills += killed
        found = contents(tmp_path)
        assert found.get(out.name) in (before.get(out.name), after[out.name])
        if found.get(out.name) == after[out.name]:
            assert {name: found[name] for name in after} == after  # its lists too
            written += killed
        else:
            assert {name: found[name] for name in before} == before
        left += len([*tmp_path.glob(".faiss-distill-*")])
    restore(tmp_path, before)
    assert run(server, command)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(after)
    assert contents(tmp_path) == after
    outcome = f"OUT whole after all {kills} ({written} of them new); {left} folders left, all removed by the next run"
    figure("killed, nothing is half-written", f"{kills} kills of tune, {storage}", outcome)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def restore(folder, before):
    """Undo a run that got to its end, and nothing of one that did not: that is for the next run to do."""
    found = contents(folder)
    if before.items() <= found.items() and "o.faiss" not in found:
        return
    for name in found.keys() - before.keys():
        (folder / name).unlink()
    for name, content in before.items():
        (folder / name).write_bytes(content)
