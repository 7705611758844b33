"""Corrupt files given to the command line: refused on one line, or no harm. faiss may crash, which is counted."""

import json
import os
import subprocess
import sys
from collections import Counter

import faiss
import numpy as np
import pytest
from conftest import sized, untrained
from writers import DTYPES, KEYED, WRITERS

N, D = 300, 16
FLOATS = [suffix for suffix in WRITERS if suffix not in {*DTYPES, ".zarr"}]
"""Formats of single files that hold the vectors."""
FACTORIES = ["IVF4,PQ4x4", "OPQ4,IVF4,PQ4x4fs", "IDMap2,IVF4_HNSW4,PQ4x4,RFlat", "IVF4,SQ8", "PQ4x4", "IVF4,RQ2x4"]
HEAD = 400
"""Bytes at the start of an index file that hold most of its sizes and constants: half of the flips are there."""
SECONDS = 20
"""After which a command counts as hung: they take a tenth of one."""
RUNNER = f"""
import json, os, signal, sys
import torch._dynamo  # which the first optimizer of a process would import, for seconds
from faiss_distill import cli
from faiss_distill.commands import inspecting, measuring, tuning
print(flush=True)
for line in sys.stdin:
    commands = json.loads(line)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.alarm({SECONDS})
        try:
            os._exit(next(filter(None, map(cli.main, commands)), 0))
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as pipe:
        errors = pipe.read()
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), errors]), flush=True)
"""
"""Runs command lines, all of a line in a process of their own that can crash, without importing torch each time."""


@pytest.fixture(scope="module")
def run():
    """The outcome of commands on a corrupt file."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", RUNNER], text=True, bufsize=1, env=environment, **pipes) as process:
        process.stdout.readline()

        def run(*commands):
            process.stdin.write(json.dumps([[str(word) for word in command] for command in commands]) + "\n")
            status, errors = json.loads(process.stdout.readline())
            assert status != 1, errors  # a traceback
            if status == 2:  # numpy may have warned before
                before, error, message = errors.rpartition("faiss-distill: error: ")
                assert error, errors
                assert error not in before, errors
                assert message.count("\n") == 1, errors
            return {0: "harmless", 2: "refused", -14: "hung"}.get(status, "crashed")

        yield run
        process.stdin.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("files")
    x = np.ascontiguousarray(data.documents[:N, :D])
    for suffix in FLOATS:
        WRITERS[suffix](tmp_path / f"x{suffix}", x)
    np.save(tmp_path / "q.npy", np.ascontiguousarray(data.queries[:100, :D]))
    for number, factory in enumerate(FACTORIES):
        index = untrained(factory, "l2", D)
        index.train(x)
        index.add_with_ids(x, np.arange(N)) if factory.startswith("IDMap") else index.add(x)
        faiss.write_index(index, str(tmp_path / f"{number}.faiss"))
    return tmp_path


def commands(files, index, embeddings, tune):
    """What reads them: the last one learns."""
    inputs = [files / index, files / embeddings, "--queries", files / "q.npy"]
    options = ["--epochs", 1, "--top-k", 40, "--candidates", "in_batch + top40:10", "--perplexity", 25, "--no-progress"]
    return [
        ["inspect", files / index],
        ["eval", *inputs, "--nprobe", 4],
        *([["tune", *inputs, *options, "--fill-to", 0, "-o", files / "out.faiss"]] if tune else []),
    ]


def attack(run, files, name, content, *arguments):
    """The outcome of commands while file ``name`` has this content, and no file changes."""
    whole = (files / name).read_bytes()
    (files / name).write_bytes(content)
    before = {path.name: path.stat().st_mtime_ns for path in files.glob("[!.]*")}
    outcome = run(*commands(files, *arguments))
    assert (files / name).read_bytes() == content
    (files / "out.faiss").unlink(missing_ok=True)
    assert {path.name: path.stat().st_mtime_ns for path in files.glob("[!.]*")} == before
    (files / name).write_bytes(whole)
    return outcome


def flipped(content, at, bit):
    out = bytearray(content)
    out[at] ^= 1 << bit
    return bytes(out)


def test_truncated_index_files(run, files, figure):
    rng, outcomes = np.random.default_rng(0), Counter()
    for number in range(len(FACTORIES)):
        whole = (files / f"{number}.faiss").read_bytes()
        ends = [0, 1, 4, 33, len(whole) - 1]
        ends += rng.integers(len(whole), size=sized(3, 60)).tolist()
        for end in ends:
            outcomes[attack(run, files, f"{number}.faiss", whole[:end], f"{number}.faiss", "x.npy", False)] += 1
    assert set(outcomes) == {"refused"}
    figure("corrupt files", f"{outcomes.total()} truncated indexes", told(outcomes))


def test_flipped_bits_in_index_files(run, files, figure):
    rng, outcomes = np.random.default_rng(1), Counter()
    for number in range(len(FACTORIES)):
        whole = (files / f"{number}.faiss").read_bytes()
        for flip in range(sized(8, 200)):
            at = int(rng.integers(min(HEAD, len(whole)) if flip % 2 else len(whole)))
            content = flipped(whole, at, int(rng.integers(8)))
            arguments = f"{number}.faiss", "x.npy", flip % sized(8, 25) == 0
            outcomes[attack(run, files, f"{number}.faiss", content, *arguments)] += 1
    assert outcomes["crashed"] + outcomes["hung"] <= 0.03 * outcomes.total()
    assert outcomes["refused"] > 0
    figure("corrupt files", f"{outcomes.total()} indexes with a flipped bit", told(outcomes))


@pytest.mark.parametrize("suffix", FLOATS)
def test_corrupt_vector_files(run, files, figure, suffix):
    rng, name = np.random.default_rng(2), f"x{suffix}"
    path = name + (f":float32,{D}" if suffix in KEYED else "")
    whole = (files / name).read_bytes()
    cut, flips = Counter(), Counter()
    for end in [0, 1, 8, len(whole) - 1, *rng.integers(len(whole), size=sized(3, 40)).tolist()]:
        cut[attack(run, files, name, whole[:end], "0.faiss", path, False)] += 1
    row = len(whole) // N
    head = len(whole) % N or row  # or each row has its own
    for flip in range(sized(8, 120)):
        at = int(rng.integers(head if flip % 2 else len(whole)))
        flips[attack(run, files, name, flipped(whole, at, int(rng.integers(8))), "0.faiss", path, False)] += 1
    assert set(cut) <= {"refused"} or head == row  # cut between two vectors it is a whole file, of fewer
    assert set(cut) | set(flips) <= {"refused", "harmless"}
    figure("corrupt files", f"{cut.total()} truncated {suffix}", told(cut))
    figure("corrupt files", f"{flips.total()} {suffix} with a flipped bit", told(flips))


def told(outcomes):
    """In words, of which there are four."""
    kinds = {
        "refused": "refused",
        "harmless": "harmless",
        "crashed": "crashed inside faiss",
        "hung": "hung inside faiss",
    }
    return ", ".join(f"{outcomes[kind]} {words}" for kind, words in kinds.items() if outcomes[kind])
