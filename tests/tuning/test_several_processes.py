"""Several processes tune as one does: the same result up to rounding, and an untouched index if one of them fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
from conftest import QUICK, N

from faiss_distill.cli import main
from faiss_distill.index.registry import open_index

SCRIPT = Path(__file__).with_name("one_of_several.py")
OPTIONS = QUICK | {"batch_size": 100}
CASES = {
    **{f"loss {name}": ("IVF16,PQ16x4", "ip", {"loss": name}) for name in ("ranknet", "contrastive", "reconstruction")},
    "balance": ("IVF16,PQ16x4", "ip", {"balance": True}),
    "two epochs, l2": ("OPQ8,IVF16,PQ8x4np", "l2", {"epochs": 2, "fill_to": 20_000}),
    "hard": ("IVF16,PQ16x4", "l2", {"candidates": "in_batch + top40:5 + hard40:5"}),
    "own candidates": ("IVF16,PQ16x4", "ip", {"candidates": "top40:20 + random20"}),
    "nearest codes": ("IVF16,PQ16x4fs", "l2", {"encoding": "nearest", "assignment": "refreshed"}),
    "frozen": ("IVF16,PQ16x4", "ip", {"encoding": "frozen"}),
    "additive": ("IVF16,RQ4x4_Nqint8", "l2", {}),
    "codes of faiss": ("IVF16,SQ8", "l2", {}),
    "no lists": ("PQ16x4", "ip", {"nprobe": 1}),
    "encoder": ("IVF16,PQ16x4", "ip", {}),
    "mapped": ("IVF16,PQ16x4", "ip", {}),
}


def run(sizes):
    """Have as many processes at work in each folder as it says, and wait for all: exit statuses, and what was said."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "GLOO_SOCKET_IFNAME": "lo"}
    arguments = [str(each) for folder_and_size in sizes.items() for each in folder_and_size]
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return dict(zip(sizes, json.loads(ran.stdout.splitlines()[-1]), strict=True)), ran.stderr


def prepare(folder, data, cases, built):
    """The files that the processes read."""
    folder.mkdir()
    for name in ("documents", "queries"):
        np.save(folder / f"{name}.npy", data.documents[:N] if name == "documents" else data.queries[:1000])
    for case in cases:
        for key in ("index", "other"):
            if key in case:
                factory, metric = case[key]
                case[key] = f"{case['name']}-{key}.faiss"
                faiss.write_index(built(factory, metric), str(folder / case[key]))
    (folder / "cases.json").write_text(json.dumps(cases))


def told(folder, name, rank=0):
    return json.loads((folder / f"{name}-{rank}.json").read_text())


@pytest.mark.parametrize("part", range(2))
def test_the_result_is_that_of_one_process(tmp_path, data, built, part):
    """Whatever is learned, by two processes and by three; the first one alone changes its index."""
    folders, names, told_of = {size: tmp_path / str(size) for size in (1, 2, 3)}, list(CASES)[part::2], {}
    for size, folder in folders.items():
        told_of[size] = names if size < 3 else names[:3]
        cases = [
            {
                "name": name,
                "index": CASES[name][:2],
                "options": OPTIONS | CASES[name][2],
                "encoder": name == "encoder",
                "mapped": name == "mapped" and size > 1,
            }
            for name in told_of[size]
        ]
        prepare(folder, data, cases, built)
    statuses, said = run({folder: size for size, folder in folders.items()})
    for size, folder in folders.items():
        assert statuses[folder] == [0] * size, said
        for name in told_of[size]:
            check_same_result(folders[1], folder, name)
            check_the_first_alone_has_it(folder, name, size)


def check_same_result(alone, together, name):
    one, other = told(alone, name), told(together, name)
    assert (one["kept"], one["best"], one["teacher"]) == (other["kept"], other["best"], other["teacher"]), name
    assert other["temperature"] == pytest.approx(one["temperature"], rel=1e-4)
    assert other["gain"] == pytest.approx(one["gain"], abs=0.004)
    for before, after in zip(one["history"], other["history"], strict=True):
        for key, value in before.items():
            assert after[key] == (value if value is None else pytest.approx(value, rel=2e-3, abs=2e-3)), (name, key)
    if "matrix" in one:
        np.testing.assert_allclose(other["matrix"], one["matrix"], atol=1e-4)
    one, other = (open_index(faiss.read_index(str(f / f"{name}-0.faiss"))).extract() for f in (alone, together))
    np.testing.assert_allclose(other.centroids, one.centroids, atol=2e-3 * (one.centroids.std() + 1e-9), err_msg=name)
    if one.codebooks is not None:
        np.testing.assert_allclose(other.codebooks, one.codebooks, atol=5e-3 * one.codebooks.std(), err_msg=name)
        assert (one.codes == other.codes).mean() > 0.99, name
    assert (one.assignment == other.assignment).mean() > 0.995, name


def check_the_first_alone_has_it(folder, name, size):
    first, *others = [told(folder, name, rank) for rank in range(size)]
    assert first["untouched"] is not first["kept"]
    assert first["epochs"] == [epoch["epoch"] for epoch in first["history"]]
    for other in others:
        assert other["untouched"]
        assert other["mine"]
        assert other["epochs"] == []  # the first process is told alone
        assert {k: other[k] for k in ("kept", "gain", "history")} == {k: first[k] for k in ("kept", "gain", "history")}


DIFFERENT = {
    "other embeddings": "embeddings: expected the same in all processes, got another than process 0 in process 1",
    "other options": "options: expected the same in all processes",
    "other index": "index: expected the same in all processes",
    "other queries": "queries: expected the same in all processes",
    "other shape": "process 1: expected to get as far as the others, got embeddings: expected",
}


def test_processes_that_were_given_different_things(tmp_path, data, built):
    folder, given = tmp_path / "run", {"index": ("IVF16,PQ16x4", "ip"), "options": OPTIONS, "rank": 1}
    cases = [{"name": fault, "fault": fault, "other": ("IVF16,PQ16x4", "l2"), **given} for fault in DIFFERENT]
    prepare(folder, data, cases, built)
    statuses, said = run({folder: 2})
    assert statuses[folder] == [0, 0], said
    for fault, text in DIFFERENT.items():
        first, second = (told(folder, fault, rank) for rank in range(2))
        assert first["text"].startswith(text), first
        assert second["text"].startswith("embeddings: " if fault == "other shape" else text), second
        assert first["untouched"]
        assert second["untouched"]


def test_an_error_of_on_epoch_ends_all(tmp_path, data, built):
    folder = tmp_path / "run"
    case = {"name": "a", "index": ("IVF16,PQ16x4", "ip"), "options": OPTIONS, "rank": 0, "fault": "on_epoch"}
    prepare(folder, data, [case], built)
    statuses, said = run({folder: 2})
    assert statuses[folder] == [0, 0], said
    first, second = (told(folder, "a", rank) for rank in range(2))
    assert first == {"error": "RuntimeError", "text": "enough", "epochs": [0], "untouched": True}
    assert second["text"] == "process 0: expected to get as far as the others, got enough"
    assert second["untouched"]


def test_one_that_fails_ends_all_with_a_sentence_and_an_untouched_index(tmp_path, data, built):
    folders = {fault: tmp_path / fault for fault in ("dies", "disk")}
    for fault, folder in folders.items():
        case = {"name": "a", "index": ("IVF16,PQ16x4", "ip"), "options": OPTIONS, "rank": 1, "fault": fault}
        prepare(folder, data, [case], built)
    statuses, said = run(dict.fromkeys(folders.values(), 2))
    for fault, folder in folders.items():
        assert statuses[folder] == [0, 9 if fault == "dies" else 0], said
        assert told(folder, "a")["text"].startswith("process 0 of 2: expected all others to be there"), fault
        assert told(folder, "a")["untouched"]
    no_space = {"error": "OSError", "text": "[Errno 28] No space left on device", "epochs": [], "untouched": True}
    assert told(folders["disk"], "a", 1) == no_space


def test_torchrun_and_the_command_line(tmp_path, data, built, monkeypatch, capsys):
    np.save(tmp_path / "x.npy", data.documents[:N])
    np.save(tmp_path / "q.npy", data.queries[:1000])
    faiss.write_index(built("IVF16,PQ16x4", "l2"), str(tmp_path / "a.faiss"))

    def command(output, queries):
        options = ["--epochs", "1", "--top-k", "40", "--perplexity", "25", "--fill-to", "0", "--nprobe", "4"]
        candidates = ["--candidates", "in_batch + top40:10"]
        return ["tune", "a.faiss", "x.npy", "--queries", queries, *options, *candidates, "-o", output]

    def launched(*arguments):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [*launcher, "-m", "faiss_distill", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    together = launched(*command("two.faiss", "q.npy"))
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("wrote two.faiss") == 1
    monkeypatch.chdir(tmp_path)
    assert main(command("one.faiss", "q.npy")) == 0
    assert capsys.readouterr().out.splitlines()[:3] == together.stdout.splitlines()[:3]
    one, two = (open_index(faiss.read_index(str(tmp_path / f"{n}.faiss"))).extract() for n in ("one", "two"))
    assert (one.codes == two.codes).mean() > 0.99
    failed = launched(*command("three.faiss", "none.npy"))
    assert failed.returncode == 1
    assert failed.stderr.count("faiss-distill: error: --queries: ") == 1
    assert not (tmp_path / "three.faiss").exists()
