"""A folder that a killed run goes on from: the same index bit for bit, and nothing of another run."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from conftest import QUICK, N

from faiss_distill import DistillConfig, DistillTrainer, InputError, LinearAdapter, distill
from faiss_distill.cli import main
from faiss_distill.learning import documents, optimise
from faiss_distill.tuning.gate import Gate
from faiss_distill.workdir import Stored, Workdir, open_workdir


class Killed(BaseException):
    """What is raised where a process might have ended."""


def stored(*values):
    return Stored({"a": torch.tensor(values)}, {"b": list(values)})


@pytest.fixture
def quick(monkeypatch):
    """A checkpoint at every step, and small laps."""
    monkeypatch.setattr(optimise, "INTERVAL", -1.0)
    monkeypatch.setattr(optimise, "COST", math.inf)
    monkeypatch.setattr(documents, "LAP", 350)


@pytest.fixture
def dying(monkeypatch):
    """Have a run end at the n-th time that something is kept, before it is or after; counts these."""
    state, keep = {"at": None, "before": False, "count": 0}, Workdir.keep

    def counting(self, name, kept):
        state["count"] += 1
        if state["count"] == state["at"] and state["before"]:
            raise Killed
        keep(self, name, kept)
        if state["count"] == state["at"]:
            raise Killed

    monkeypatch.setattr(Workdir, "keep", counting)
    return state


CASES = {
    "product codes": ("IVF16,PQ16x4", "ip", {"epochs": 2, "batch_size": 300}),
    "hard, l2": ("IVF16,PQ16x4", "l2", {"candidates": "in_batch + top40:5 + hard40:5", "batch_size": 300}),
    "additive": ("IVF16,RQ4x4_Nqint8", "l2", {"batch_size": 450}),
    "codes of faiss": ("IVF16,SQ8", "l2", {"batch_size": 450}),
    "no lists": ("PQ16x4", "ip", {"nprobe": 1, "batch_size": 450}),
    "frozen": ("IVF16,PQ16x4", "ip", {"encoding": "frozen", "batch_size": 450}),
    "encoder": ("IVF16,PQ16x4", "ip", {"batch_size": 300}),
}


@pytest.mark.usefixtures("quick", "one_thread")
@pytest.mark.parametrize("name", CASES)
def test_wherever_it_ends_it_goes_on_to_the_same_index(tmp_path, data, built, dying, name, monkeypatch):
    factory, metric, options = CASES[name]
    judge = Gate.judge
    monkeypatch.setattr(Gate, "judge", lambda *given: judge(*given)._replace(kept=True))  # so that an index is written

    def tune(folder):
        dying["count"] = 0
        encoder = LinearAdapter(64) if name == "encoder" else None
        index = built(factory, metric, n=1000)
        before = faiss.serialize_index(index).tobytes()
        try:
            report = distill(
                index, data.documents[:1000], data.queries[:700], query_encoder=encoder, workdir=folder, resume=True,
                **QUICK | options,
            )  # fmt: skip
        except Killed:
            assert faiss.serialize_index(index).tobytes() == before
            assert encoder is None or np.array_equal(encoder.matrix, np.eye(64))
            return None
        assert report.kept
        learned = [] if encoder is None else encoder.matrix.tolist()
        return faiss.serialize_index(index).tobytes(), report.history, report.gain, report.teacher, learned

    undisturbed = tune(None)
    assert tune(tmp_path / "once") == undisturbed
    kept = dying["count"]
    assert kept >= 5
    for before, at in ((False, 1), (True, 2)):  # after each time that something is kept, and before the next
        dying["before"], dying["at"], died = before, at, 0
        while (found := tune(tmp_path / str(before))) is None:
            died += 1
        assert found == undisturbed
        assert died >= kept - 2
    dying["at"] = None
    with monkeypatch.context() as patched:
        patched.setattr(Workdir, "_write_run", dying_there())
        folder, died = tmp_path / "between", 0
        while (found := tune(folder)) is None:  # what was kept is there, and nothing says so
            died += 1
            patched.setattr(Workdir, "_write_run", dying_there())
    assert found == undisturbed
    assert died >= kept // 2
    assert tune(tmp_path / "True") == undisturbed
    assert dying["count"] == 0, "a run that is done is found"


@pytest.mark.usefixtures("quick", "one_thread")
def test_a_run_that_goes_on_rejects_the_same_epochs(tmp_path, data, built, dying, monkeypatch):
    means, known, died = iter([0.5, 0.6, 0.3, 0.4]), {}, 0

    def select(self, student, placement):
        codebooks = student.codebooks.detach().numpy().tobytes()
        if codebooks not in known:
            known[codebooks] = next(means)
        return np.full(50, known[codebooks]), 100.0

    monkeypatch.setattr("faiss_distill.learning.objective.Selection.__call__", select)
    options = QUICK | {"epochs": 3, "patience": 3, "batch_size": 450, "workdir": tmp_path / "run", "resume": True}
    dying["at"] = 2
    while True:
        dying["count"] = 0
        try:
            report = distill(built(n=1000), data.documents[:1000], data.queries[:700], **options)
            break
        except Killed:
            died += 1
    assert died > 5
    assert [h["overlap_at_10"] for h in report.history] == pytest.approx([0.5, 0.6, 0.3, 0.4])
    assert report.best_epoch == 1


@pytest.mark.usefixtures("quick", "one_thread")
def test_epochs_that_are_taken_from_the_folder_are_told_once(tmp_path, data, built, dying):
    told, died = [], 0

    def tune(**options):
        dying["count"] = 0
        return distill(
            built(n=1000), data.documents[:1000], data.queries[:700], workdir=tmp_path / "w", resume=True,
            on_epoch=told.append, **QUICK | {"epochs": 2, "batch_size": 300},
        )  # fmt: skip

    dying["at"] = 3  # each run gets as far as the next checkpoints
    while True:
        try:
            report = tune()
        except Killed:
            died += 1
        else:
            break
    assert died > 2
    assert [epoch["epoch"] for epoch in told] == [0, 1, 2]
    assert tuple(told) == report.history


def dying_there(at=2, write=Workdir._write_run):
    """What ends the run in place of writing down the second time what is kept."""
    count = 0

    def writing(self):
        nonlocal count
        count += 1
        if count == at:
            raise Killed
        write(self)

    return writing


REFUSED = {
    "another index": ("the folder of a run with another index; pass another folder, or remove it", {}),
    "another corpus": ("the folder of a run with other embeddings", {}),
    "other queries": ("the folder of a run with other queries", {}),
    "other options": (r"a run with other options \(epochs=1, now 2; seed=0, now 3\)", {"epochs": 2, "seed": 3}),
    "other options and corpus": (r"a run with other options \(seed=0, now 3\)", {"seed": 3}),
    "not to resume": ("one of a run that has begun; resume=True goes on with it", {"resume": False}),
    "one byte changed": ("another 'teacher.safetensors'; remove it", {}),
    "cut short": ("another 'teacher.safetensors'", {}),
    "another format": ("an unknown 'run.json'", {}),
    "no JSON": ("an unknown 'run.json'", {}),
    "someone else's": ("an empty folder, or one of a run, got one with 'thesis.tex'", {}),
    "in use": ("a folder that no other run is at work in", {}),
    "a file": ("a folder, got", {}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, data, built, name):
    text, options = REFUSED[name]
    folder, index, x, q = tmp_path / "work", built(), data.documents[:N].copy(), data.queries[:1000]
    options = QUICK | {"workdir": folder, "resume": True} | options
    distill(built(), x, q, workdir=folder, **QUICK)
    teacher, run = folder / "teacher.safetensors", folder / "run.json"
    whole = teacher.read_bytes()
    if name == "another index":
        index.remove_ids(np.arange(1))
        x, options["ids"] = x[1:], np.arange(1, N)
    elif name in ("another corpus", "other options and corpus"):
        x[7] *= 1.0001
    elif name == "other queries":
        q = q[1:]
    elif name == "one byte changed":
        teacher.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    elif name == "cut short":
        teacher.write_bytes(whole[:-100])
    elif name == "another format":
        run.write_text(json.dumps(json.loads(run.read_text()) | {"format": 99}))
    elif name == "no JSON":
        run.write_text("{")
    elif name == "someone else's":
        options["workdir"] = tmp_path / "other"
        options["workdir"].mkdir()
        (options["workdir"] / "thesis.tex").write_text("x")
    elif name == "a file":
        options["workdir"] = run
    before = faiss.serialize_index(index).tobytes()
    with open_workdir(folder if name == "in use" else None), pytest.raises(InputError, match=f"^workdir: .*{text}"):
        distill(index, x, q, **options)
    assert faiss.serialize_index(index).tobytes() == before
    if name == "someone else's":
        assert [path.name for path in options["workdir"].iterdir()] == ["thesis.tex"]


def test_files_without_a_name_may_be_seen_on_nfs(tmp_path, data, built):
    (tmp_path / ".nfs000000000054321a00000001").touch()
    report = distill(built(), data.documents[:N], data.queries[:1000], workdir=tmp_path, **QUICK)
    assert report.kept


def test_a_full_disk_leaves_the_index_and_what_was_kept(tmp_path, data, built, monkeypatch):
    index = built()
    before = faiss.serialize_index(index).tobytes()
    real = Path.write_bytes

    def full(path, content):
        if b"parameters/centroids" in content:
            raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"can't write '.*learned.safetensors': .*No space left"):
        distill(index, data.documents[:N], data.queries[:1000], workdir=tmp_path / "w", **QUICK)
    assert faiss.serialize_index(index).tobytes() == before
    monkeypatch.setattr(Path, "write_bytes", real)
    assert distill(index, data.documents[:N], data.queries[:1000], workdir=tmp_path / "w", resume=True, **QUICK).kept


def test_a_stage_that_was_removed_is_made_anew(tmp_path, data, built):
    folder = tmp_path / "work"
    distill(built(), data.documents[:N], data.queries[:1000], workdir=folder, **QUICK)
    (folder / "teacher.safetensors").unlink()
    report = distill(built(), data.documents[:N], data.queries[:1000], workdir=folder, resume=True, **QUICK)
    assert report.kept
    assert any(folder.glob("teacher*.safetensors"))


def test_what_is_kept_is_found_and_forgotten(tmp_path):
    with open_workdir(tmp_path / "a" / "b") as first:
        first.begin({"x": 1}, resume=False)
        assert first.stage("one", lambda: stored(1, 2)).facts == {"b": [1, 2]}
        assert first.stage("one", lambda: pytest.fail("made again")).arrays["a"].tolist() == [1, 2]
        first.keep("two", stored(4))
        first.keep("two", stored(3))
        assert first.found("two").facts == {"b": [3]}
    with open_workdir(tmp_path / "a" / "b") as again:
        again.begin({"x": 1}, resume=True)
        assert again.found("one").arrays["a"].tolist() == [1, 2]
        assert again.found("none") is None
        again.forget("one")
        again.forget("one")
        assert (again.has("one"), again.has("two")) == (False, True)
        (tmp_path / "a" / "b" / "mine").touch()
        again.clear()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["mine"]
    with open_workdir(tmp_path / "c") as empty:
        empty.begin({}, resume=False)
        empty.clear()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32, bool])
def test_every_dtype_comes_back(tmp_path, dtype):
    array = np.arange(7).astype(dtype)
    with open_workdir(tmp_path) as folder:
        folder.begin({}, resume=False)
        folder.keep("x", Stored({"a": torch.from_numpy(array)}, {}))
        found = folder.found("x").arrays["a"].numpy()
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.usefixtures("one_thread")
def test_the_command_line_goes_on_after_a_kill(tmp_path, data, built, monkeypatch):
    """Processes of one thread that are killed, and runs to the end in this one, which has imported all there is."""
    np.save(tmp_path / "x.npy", data.documents[:N])
    np.save(tmp_path / "q.npy", data.queries[:1000])
    faiss.write_index(built(), str(tmp_path / "a.faiss"))
    arguments = ["tune", "a.faiss", "x.npy", "--queries", "q.npy", "--fill-to", "0", "--nprobe", "4", "--epochs", "2"]
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "-o", "once.faiss"]) == 0
    work, resumed = tmp_path / "work", [*arguments, "--workdir", "work", "-o", "out.faiss"]
    told = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "stdout": subprocess.DEVNULL}
    for stage in ("teacher", "training", "lists"):
        process = subprocess.Popen([sys.executable, "-m", "faiss_distill", *resumed], **told)
        while process.poll() is None and not (work / f"{stage}.safetensors").exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out.faiss").exists() or process.returncode == 0
    assert main(resumed) == 0
    assert (tmp_path / "out.faiss").read_bytes() == (tmp_path / "once.faiss").read_bytes()
    assert not work.exists()


def test_a_trainer_does_not_train_twice_in_one_folder(tmp_path, data, built):
    config = DistillConfig(**QUICK)
    trainer = DistillTrainer(built(), data.documents[:N], data.queries[:1000], workdir=tmp_path / "w", config=config)
    assert trainer.train().kept
    with pytest.raises(InputError, match=r"workdir: expected the folder of this run, got .* another index"):
        trainer.train()
