import errno
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import faiss
import h5py
import numpy as np
import pytest
from conftest import core

import faiss_distill
from faiss_distill import cli, messages
from faiss_distill.cli import main
from faiss_distill.data.formats import BY_SUFFIX

N = 2000
QUICK = ["--epochs", "1", "--nprobe", "4", "--no-progress"]


@pytest.fixture
def files(tmp_path, built, data):
    faiss.write_index(built("OPQ16,IVF16,PQ16x4"), str(tmp_path / "in.faiss"))
    np.save(tmp_path / "x.npy", data.documents[:N])
    np.save(tmp_path / "q.npy", data.queries)
    return tmp_path


def tune(files, *more, output="out.faiss", index="in.faiss", embeddings="x.npy"):
    return main(
        ["tune", str(files / index), str(files / embeddings), "--queries", str(files / "q.npy"), *QUICK,
         "-o", str(files / output), *more]
    )  # fmt: skip


def refused(capsys, status, *words):
    out = capsys.readouterr()
    assert status == 2
    assert out.err.count("\n") == 1
    assert out.err.startswith("faiss-distill: error: ")
    for word in words:
        assert word in out.err
    assert out.out == ""


def test_tune_writes_a_better_index(files, capsys, data):
    assert tune(files, "--plot", str(files / "p.png")) == 0
    printed = capsys.readouterr()
    assert "judged at nprobe 4; the file keeps its nprobe of 1" in printed.err
    out = printed.out
    assert "Kept: overlap@10 at nprobe 4 rose" in out
    assert f"wrote {files / 'out.faiss'}" in out
    assert (files / "p.png").stat().st_size > 5000
    exact = faiss.knn(data.queries, data.documents[:N], 1, metric=faiss.METRIC_INNER_PRODUCT)[1]
    hits = []
    for name in ("in.faiss", "out.faiss"):
        index = faiss.read_index(str(files / name))
        assert core(index).nprobe == 1
        core(index).nprobe = 4
        hits.append((index.search(data.queries, 10)[1] == exact).any(axis=1).mean())
    assert hits[1] > hits[0]
    assert sorted(p.name for p in files.iterdir()) == ["in.faiss", "out.faiss", "p.png", "q.npy", "x.npy"]


def test_tune_in_place_and_json(files, capsys):
    before = (files / "in.faiss").read_bytes()
    assert tune(files, "--json", output="in.faiss") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kept"]
    assert (files / "in.faiss").read_bytes() != before


def test_eval_agrees_with_the_library(files, capsys, data):
    relevant = faiss.knn(data.queries, data.documents[:N], 1, metric=faiss.METRIC_INNER_PRODUCT)[1].ravel()
    np.save(files / "rel.npy", relevant)
    args = ["eval", str(files / "in.faiss"), str(files / "x.npy"), "--queries", str(files / "q.npy"),
            "--relevant", str(files / "rel.npy"), "--nprobe", "2", "8"]  # fmt: skip
    assert main([*args, "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    index = faiss.read_index(str(files / "in.faiss"))
    expected = faiss_distill.evaluate(
        index, data.documents[:N], data.queries, relevant=relevant, nprobe=[2, 8], progress=False
    )
    for got, want in zip(points, expected.to_dict()["points"], strict=True):
        assert got | {"latency_ms": 0} == want | {"latency_ms": 0}
    assert main(args) == 0
    assert "MRR@10 (labels)" in capsys.readouterr().out


def test_options_and_labels_reach_the_trainer(files, capsys):
    (files / "qrels.txt").write_text("".join(f"{q} 0 {q} 1\n" for q in range(0, 2000, 3)))
    options = ["--relevant", str(files / "qrels.txt"), "--candidates", "gt + in_batch + top120:2", "--loss", "kl"]
    options += ["--balance", "--temperature", "0.05", "--learn", "codebooks", "--encoding", "frozen", "--json"]
    assert tune(files, *options) == 0
    printed = json.loads(capsys.readouterr().out)
    config = printed["config"]
    assert (config["candidates"], config["loss"], config["balance"]) == ("gt + in_batch + top120:2", "kl", True)
    assert (config["temperature"], config["learn"], config["encoding"]) == (0.05, "codebooks", "frozen")
    assert printed["temperature"] == 0.05
    assert printed["before"]["points"][0]["mrr_at_10"] is not None


def test_options_in_a_file(files, capsys):
    (files / "mine.toml").write_text("epochs = 0\nnprobe = 2\nlearning_rate = 0.5\nbalance = true\nloss = 'kl'\n")
    config, saved = ["--config", str(files / "mine.toml")], ["--save-config", str(files / "all.toml")]
    more = ["--learning-rate", "0.01", "--no-balance", "--seed", "5"]
    assert tune(files, *config, *saved, *more, "--json") == 0
    told = json.loads(capsys.readouterr().out)["config"]
    # those of QUICK and more, then those of the file, then the defaults
    expected = {
        "epochs": 1,
        "nprobe": 4,
        "learning_rate": 0.01,
        "balance": False,
        "seed": 5,
        "loss": "kl",
        "top_k": 100,
    }
    assert {name: told[name] for name in expected} == expected
    written = faiss_distill.DistillConfig.from_toml(files / "all.toml")
    assert {name: getattr(written, name) for name in expected} == expected
    given = ["tune", str(files / "in.faiss"), str(files / "x.npy"), "--queries", str(files / "q.npy")]
    again = [*given, "--config", str(files / "all.toml"), "--save-config", str(files / "again.toml")]
    assert main([*again, "-o", str(files / "again.faiss")]) == 0
    assert (files / "again.toml").read_bytes() == (files / "all.toml").read_bytes()
    assert (files / "again.faiss").read_bytes() == (files / "out.faiss").read_bytes()


def test_a_bad_value_in_a_file(files, capsys):
    path = files / "mine.toml"
    path.write_text("sweeps = 0")
    refused(
        capsys, tune(files, "--config", str(path)), f"--sweeps: expected an integer of at least 1, got 0 in '{path}'"
    )
    status = tune(files, "--config", str(path), "--save-config", str(path))
    refused(capsys, status, "--save-config: expected another file than the inputs and other outputs")
    assert path.read_text() == "sweeps = 0"
    assert not (files / "out.faiss").exists()


def test_inspect(files, capsys, built):
    assert main(["inspect", str(files / "in.faiss")]) == 0
    out = capsys.readouterr().out
    assert "IndexPreTransform(LinearTransform) > IndexIVFPQ" in out
    assert "can be tuned" in out
    assert "yes" in out
    faiss.write_index(faiss.index_factory(8, "Flat"), str(files / "flat.faiss"))
    assert main(["inspect", str(files / "flat.faiss"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["can_be_tuned"] is False
    assert facts["factory"] == "Flat"
    assert "IndexFlat" in facts["why_not"]


def test_inspect_shows_the_ids_that_a_search_returns(tmp_path, capsys, built):
    faiss.write_index(built("IDMap,IVF16,PQ16x4", ids=np.arange(N) + 10**9), str(tmp_path / "m.faiss"))
    assert main(["inspect", str(tmp_path / "m.faiss"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["details"]["ids"] == "1000000000..1000001999"


def test_eval_of_a_small_index(tmp_path, capsys, built, data):
    faiss.write_index(built(n=500), str(tmp_path / "i.faiss"))
    index = faiss.read_index(str(tmp_path / "i.faiss"))
    index.remove_ids(np.arange(50, 500))
    faiss.write_index(index, str(tmp_path / "i.faiss"))
    np.save(tmp_path / "x.npy", data.documents[:50])
    np.save(tmp_path / "q.npy", data.queries)
    files = [str(tmp_path / name) for name in ("i.faiss", "x.npy", "q.npy")]
    assert main(["eval", files[0], files[1], "--queries", files[2]]) == 0
    assert "recall@50" in capsys.readouterr().out


def test_a_linked_output_stays_a_link(files):
    shutil.copy(files / "in.faiss", files / "real.faiss")
    (files / "link.faiss").symlink_to(files / "real.faiss")
    assert tune(files, output="link.faiss") == 0
    assert (files / "link.faiss").is_symlink()
    assert faiss.read_index(str(files / "real.faiss")).ntotal == N


class TestErrors:
    """One line, status 2, and nothing written or lost."""

    @pytest.fixture(autouse=True)
    def _nothing_written(self, files):
        faiss.write_index(faiss.IndexFlatL2(4), str(files / "out.faiss"))  # precious
        before = {p.name: p.read_bytes() for p in files.iterdir()}
        yield
        after = {p.name: p.read_bytes() for p in files.iterdir()}
        assert {k: v for k, v in after.items() if not k.startswith("bad")} == before

    def test_no_such_index(self, files, capsys):
        refused(capsys, tune(files, index="nope.faiss"), "error: index: expected a file that exists", "nope.faiss")

    @pytest.mark.parametrize("content", [b"", b"not an index at all", None])
    def test_not_an_index(self, files, capsys, content):
        whole = (files / "in.faiss").read_bytes()
        (files / "bad.faiss").write_bytes(whole[: len(whole) // 2] if content is None else content)
        refused(capsys, tune(files, index="bad.faiss"), "index: expected a complete faiss index")
        swapped = main(["inspect", str(files / "q.npy")])
        refused(capsys, swapped, "pass the file that faiss.write_index has written")
        refused(capsys, main(["inspect", str(files)]), "expected a file, got the folder")

    def test_no_such_embeddings(self, files, capsys):
        refused(capsys, tune(files, embeddings="nope.npy"), "embeddings: expected a file that exists")

    def test_truncated_embeddings(self, files, capsys):
        (files / "bad.npy").write_bytes((files / "x.npy").read_bytes()[:-100])
        refused(capsys, tune(files, embeddings="bad.npy"), "expected a complete .npy file")

    def test_no_such_folder(self, files, capsys):
        refused(capsys, tune(files, output="nowhere/out.faiss"), "--output: expected a folder that exists")
        refused(capsys, tune(files, "--plot", str(files / "nowhere" / "p.png")), "--plot: expected a folder")

    def test_plot_that_cannot_be_drawn(self, files, capsys, monkeypatch):
        refused(capsys, tune(files, "--plot", str(files / "p.foo")), "--plot: expected a file ending in .png")
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        refused(capsys, tune(files, "--plot", str(files / "p.png")), "pip install 'faiss-distill[plot]'")

    def test_output_is_an_input(self, files, capsys):
        refused(capsys, tune(files, output="x.npy"), "--output: expected another file than the inputs", "x.npy")
        (files / "bad.png").symlink_to(files / "in.faiss")
        refused(capsys, tune(files, "--plot", str(files / "bad.png")), "--plot: expected another file than the inputs")

    def test_nprobe_above_nlist(self, files, capsys):
        refused(capsys, tune(files, "--nprobe", "17"), "--nprobe: expected at most nlist=16, got 17")

    def test_output_is_a_folder(self, files, capsys):
        refused(capsys, tune(files, output="."), "--output: expected a file, got the folder")

    def test_full_disk_found_before_the_work(self, files, capsys, monkeypatch):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, 5))
        refused(capsys, tune(files), "bytes free in", "got 5")

    def test_full_disk_while_writing(self, files, capsys, monkeypatch):
        def half_written(index, writer):
            writer(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(faiss, "PyCallbackIOWriter", lambda write: write)
        monkeypatch.setattr(faiss, "write_index", half_written)
        error = f"error: can't write {str(files / 'out.faiss')!r}: No space left on device\n"
        refused(capsys, tune(files), error)

    def test_bad_option(self, files, capsys):
        refused(capsys, tune(files, "--encoding", "best"), "--encoding: expected one of 'query_aware', 'nearest'")

    def test_labels_file(self, files, capsys):
        refused(capsys, tune(files, "--relevant", str(files / "no")), "--relevant: expected a file that exists")
        (files / "bad.tsv").write_text("q1\td1\t1\n")
        refused(
            capsys, tune(files, "--relevant", str(files / "bad.tsv")), "relevant: ", "pass query_ids= to read_qrels"
        )

    def test_candidates(self, files, capsys):
        refused(capsys, tune(files, "--candidates", "bm25"), "--candidates: expected in_batch, gt", "got 'bm25'")

    def test_ids_file(self, files, capsys):
        refused(capsys, tune(files, "--ids", str(files / "nope.npy")), "--ids: expected a file that exists")
        refused(capsys, tune(files, "--ids", str(files / "in.faiss")), "--ids: ", "expected a file ending in")


class TestFilesThatWouldBeDestroyed:
    """Refused before the work, under whatever name, and nothing is changed."""

    @pytest.fixture(autouse=True)
    def _nothing_changed(self, files):
        (files / "hard.npy").hardlink_to(files / "x.npy")
        (files / "soft.npy").symlink_to("x.npy")
        (files / "thesis.pdf").write_bytes(b"%PDF, a year of work")
        before = {p.name: p.read_bytes() for p in files.iterdir()}
        yield
        assert {p.name: p.read_bytes() for p in files.iterdir()} == before

    @pytest.mark.parametrize("name", ["x.npy", "hard.npy", "soft.npy", "./x.npy", "q.npy"])
    def test_an_input(self, files, capsys, name):
        refused(capsys, tune(files, "--force", output=name), "--output: expected another file than the inputs")

    def test_a_part_of_an_input(self, files, capsys):
        """A dataset in a file, a file in a folder, a file of a pattern."""
        with h5py.File(files / "x.hdf5", "w") as file:
            file["train"] = np.load(files / "x.npy")
        (files / "parts").mkdir()
        np.save(files / "parts" / "1.npy", np.load(files / "x.npy"))
        page = str(files / "parts" / "1.npy")
        for source, written in (("x.hdf5:train", str(files / "x.hdf5")), ("parts", page), ("parts/*.npy", page)):
            refused(
                capsys, tune(files, "--force", "--html", written, embeddings=source),
                "error: --html: expected another file than the inputs and other outputs",
            )  # fmt: skip
        (files / "x.hdf5").unlink()
        shutil.rmtree(files / "parts")

    def test_one_file_for_two_outputs(self, files, capsys):
        for name in ("new", "./new"):
            refused(capsys, tune(files, "--invlists-file", str(files / "new"), output=name), "expected another file")
            refused(
                capsys, tune(files, "--plot", str(files / "new.pdf"), output=f"{name}.pdf"), "expected another file"
            )
        refused(capsys, tune(files, "--plot", str(files / "n.pdf"), "--invlists-file", str(files / "n.pdf")), "another")
        refused(capsys, tune(files, "--invlists-file", str(files / "in.faiss")), "error: --invlists-file: expected a")

    def test_something_else_than_an_index(self, files, capsys):
        refused(capsys, tune(files, output="thesis.pdf"), "expected a new file or a faiss index", "--force replaces it")
        kinds = {"--html": ".html or .htm", "--save-config": ".toml", "--save-parameters": ".safetensors"}
        for option, ends in kinds.items():
            said = f"{option}: expected a new file, or one ending in {ends}"
            refused(capsys, tune(files, option, str(files / "thesis.pdf")), said, "--force replaces it")
        options = ["--queries", str(files / "q.npy"), "--at-least", "0.1", "-o", str(files / "thesis.pdf")]
        status = main(["points", str(files / "in.faiss"), str(files / "x.npy"), *options])
        refused(capsys, status, "expected a new file or a faiss index")

    def test_a_device(self, files, capsys):
        refused(capsys, tune(files, output="/dev/null"), "--output: expected a file, got the device or")

    def test_a_name_that_is_too_long(self, files, capsys):
        refused(capsys, tune(files, output="o" * 300), "File name too long")

    def test_a_folder_of_something_else_than_a_demo(self, tmp_path, capsys):
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "report.json").write_text("mine")
        refused(
            capsys, main(["demo", "-o", str(tmp_path / "d")]), "expected a new folder or one of a demo", "report.json"
        )
        assert (tmp_path / "d" / "report.json").read_text() == "mine"
        (tmp_path / "d" / "report.json").unlink()
        (tmp_path / "d").rmdir()


@pytest.mark.parametrize("name", ["o" * 250, "caf\udce9.faiss"])
def test_force_and_unusual_names(files, name):
    (files / name).write_bytes(b"something else")
    assert tune(files, "--force", "--json", output=name) == 0
    shutil.copy(files / name, files / "copy")
    assert faiss.read_index(str(files / "copy")).ntotal == N


def process(*argv, **options):
    """The command line in a process of its own."""
    return subprocess.run([sys.executable, "-m", "faiss_distill", *map(str, argv)], text=True, **options)


def heard():
    """Signals that whoever started the tests may have had ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


SERVER = """
import json, os, resource, signal, sys
import faiss, scipy.sparse, torch._dynamo
print(flush=True)
for line in sys.stdin:
    argv, errors, limit = json.loads(line)
    child = os.fork()
    if not child:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        from faiss_distill.__main__ import main
        sys.exit(main(argv))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs command lines, each in a process of its own that has imported nothing of ours, and what takes seconds before."""


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """Run a command line, with no file longer than a limit if there is one: its exit status, and its errors."""
    errors = tmp_path_factory.mktemp("forked") / "stderr"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-W", "ignore", "-c", SERVER]
    with subprocess.Popen(command, text=True, bufsize=1, **pipes) as server:
        server.stdout.readline()

        def forked(*argv, meanwhile=lambda pid: None, limit=0):
            errors.write_text("")
            server.stdin.write(json.dumps([[str(word) for word in argv], str(errors), limit]) + "\n")
            meanwhile(int(server.stdout.readline()))
            return int(server.stdout.readline()), errors.read_text()

        yield forked
        server.stdin.close()


class TestProcess:
    """What a script sees of it: streams and exit status."""

    def test_standard_output_that_is_closed_early(self, files):
        reading, writing = os.pipe()
        os.close(reading)
        run = process("inspect", files / "in.faiss", stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        assert (run.returncode, run.stderr) == (141, "")

    def test_standard_output_that_is_full(self, files):
        with Path("/dev/full").open("w") as full:
            run = process("inspect", files / "in.faiss", stdout=full, stderr=subprocess.PIPE)
        assert run.returncode == 2
        assert run.stderr == "faiss-distill: error: can't write to standard output: No space left on device\n"

    def test_report_alone_on_standard_output_in_its_encoding(self, files):
        """C++ prints there too; and latin-1 has no arrow."""
        inputs = [files / "in.faiss", files / "x.npy", "--queries", files / "q.npy", "-o", files / "o.faiss"]
        environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
        run = process("tune", *inputs, *QUICK, "--invlists-file", files / "l", capture_output=True, env=environment)
        assert run.returncode == 0
        assert run.stdout.startswith("IndexPreTransform")
        assert " ? " in run.stdout
        assert "resizing" not in run.stdout
        assert f"the inverted lists are in {files / 'l'}" in run.stderr
        assert faiss.read_index(str(files / "o.faiss")).ntotal == N

    def test_a_file_that_may_not_grow(self, files, forked):
        inputs = [files / "in.faiss", files / "x.npy", "--queries", files / "q.npy", "-o", files / "o.faiss"]
        before = sorted(p.name for p in files.iterdir())
        status, errors = forked("tune", *inputs, *QUICK, limit=10_000)
        error = f"faiss-distill: error: can't write {str(files / 'o.faiss')!r}: File too large"
        assert (status, errors.splitlines()[-1]) == (2, error)
        assert sorted(p.name for p in files.iterdir()) == before

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_while_it_learns(self, files, forked, number):
        before = sorted(p.name for p in files.iterdir())
        command = ["tune", files / "in.faiss", files / "x.npy", "--queries", files / "q.npy", "-o", files / "o.faiss",
                   "--invlists-file", files / "l", "--epochs=1000", "--patience=1000", "--no-progress"]  # fmt: skip

        def send(pid):
            end = time.monotonic() + 120
            while len(list(files.iterdir())) == len(before) and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(1)
            os.kill(pid, number)

        status, errors = forked(*command, meanwhile=send)
        assert errors.splitlines()[-1] == f"faiss-distill: interrupted ({number.name}); no file is left half-written"
        assert "Traceback" not in errors
        assert status == 128 + number
        assert sorted(p.name for p in files.iterdir()) == before

    def test_help_imports_nothing_large(self):
        """Which is what makes it quick."""
        code = "import sys, atexit; from faiss_distill import __main__ as m; "
        code += (
            "atexit.register(lambda: print([n for n in ('torch', 'faiss', 'scipy', 'numpy') if n in sys.modules])); "
        )
        for words in (["--help"], ["tune", "--help"], ["--version"]):
            run = subprocess.run(
                [sys.executable, "-c", f"{code} m.main({words})"], capture_output=True, text=True, check=True
            )
            assert run.stdout.splitlines()[-1] == "[]"

    @pytest.mark.parametrize(
        ("changed", "says"),
        [
            ({"index": "no.faiss"}, "error: index: expected a file that exists, got '{files}/no.faiss'"),
            ({"embeddings": "x.csv"}, "error: embeddings: expected a file ending in .npy, .npz, .fvecs, "),
            ({"embeddings": "cut.npy"}, "error: embeddings: expected a complete .npy file, got "),
            ({"--queries": "no.npy"}, "error: --queries: expected a file that exists, got '{files}/no.npy'"),
            ({"--queries": "x3.npy"}, "error: --queries: expected dimension 64, as the embeddings have, got 3"),
            ({"-o": "notes.txt"}, "error: --output: expected a new file or a faiss index, got '{files}/notes.txt'"),
            ({"-o": "no/o.faiss"}, "error: --output: expected a folder that exists, got '{files}/no'"),
            ({"-o": "q.npy"}, "error: --output: expected another file than the inputs and other outputs, got "),
            ({"--ids": "no.npy"}, "error: --ids: expected a file that exists, got '{files}/no.npy'"),
            ({"--teacher": "no.npz"}, "error: --teacher: expected a file that exists, got '{files}/no.npz'"),
            ({"--config": "no.toml"}, "error: --config: expected a file that exists, got '{files}/no.toml'"),
            ({"--config": "notes.txt"}, "error: --config: expected a TOML file of options, got '{files}/notes.txt': "),
            ({"--config": "p.toml"}, "'learing_rate' in '{files}/p.toml'; did you mean learning_rate?"),
            ({"--config": "o.toml"}, "'epoch' in '{files}/o.toml'; did you mean epochs?"),
            ({"--save-config": "q.npy"}, "error: --save-config: expected another file than the inputs and other out"),
        ],
    )
    def test_a_file_that_is_not_there_is_told_at_once(self, files, changed, says):
        """Before torch is imported, which takes seconds."""
        (files / "notes.txt").write_text("mine")
        (files / "o.toml").write_text("epoch = 3")
        (files / "p.toml").write_text("learing_rate = 0.1")
        np.save(files / "x3.npy", np.ones((99, 3), np.float32))
        (files / "cut.npy").write_bytes((files / "x.npy").read_bytes()[:-1])
        given = {"index": "in.faiss", "embeddings": "x.npy", "--queries": "q.npy", "-o": "o.faiss"} | changed
        words = ["tune", str(files / given.pop("index")), str(files / given.pop("embeddings"))]
        words += [word for name, value in given.items() for word in (name, str(files / value))]
        code = "import sys; from faiss_distill import __main__ as m; status = m.main(sys.argv[1:]); "
        code += "assert not {'torch', 'scipy'} & sys.modules.keys(); sys.exit(status)"
        run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
        assert says.format(files=files) in run.stderr

    def test_a_line_for_each_stage_where_there_is_no_terminal(self, files):
        inputs = [files / "in.faiss", files / "x.npy", "--queries", files / "q.npy", "-o", files / "o.faiss"]
        quick, pipes = ["--epochs", "1", "--nprobe", "4"], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        run = process("tune", *inputs, *quick, **pipes)
        assert run.returncode == 0
        lines = run.stderr.splitlines()
        said = [re.sub(r"\d[\d.,]*", "N", line.removeprefix("faiss-distill: ")) for line in lines]
        assert said[0] == "check embeddings: N rows"
        assert {"teacher: N docs", "train: N steps", "encode: N docs"} <= set(said)
        assert sum(line.startswith("epoch N of N: overlap@N of the selection queries N") for line in said) == 2
        assert all(line.startswith("faiss-distill: ") for line in lines[:-1])  # and then what to search with
        quiet = process("tune", *inputs, *quick, "--no-progress", **pipes).stderr
        assert quiet == "judged at nprobe 4; the file keeps its nprobe of 1: set it when you search\n"

    def test_a_signal_while_it_imports(self, tmp_path):
        """An import that takes its time, in place of torch's."""
        (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
        np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
        files = [str(tmp_path / name) for name in ("torch.py", "x.npy", "x.npy")]
        command = [sys.executable, "-m", "faiss_distill", "eval", *files[:2], "--queries", files[2]]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": heard}
        with subprocess.Popen(command, env=environment, **pipes) as run:
            assert run.stdout.readline() == "importing\n"
            run.send_signal(signal.SIGINT)
            assert run.stderr.read() == "faiss-distill: interrupted (SIGINT); no file is left half-written\n"
        assert run.returncode == 130

    def test_a_closed_standard_output_is_not_taken_for_a_file(self, files):
        inputs = [files / "in.faiss", files / "x.npy", "--queries", files / "q.npy", "-o", files / "o.faiss"]
        run = process("tune", *inputs, *QUICK, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
        assert run.returncode == 0
        assert faiss.read_index(str(files / "o.faiss")).ntotal == N

    def test_nohup(self, tmp_path):
        code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from faiss_distill import __main__ as m; "
        code += "m._on_signals(m._interrupt); signal.raise_signal(signal.SIGHUP); signal.raise_signal(signal.SIGTERM)"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.stderr.splitlines()[-1] == "faiss_distill.__main__.Interrupted: 15"


def test_any_module_can_be_the_first():
    """Each in a process that has none of ours; what others take seconds to import is there."""
    code = """
import os, sys
import faiss, numpy, safetensors.torch, scipy.sparse, scipy.stats, torch, torch.distributed
for module in sys.argv[1:]:
    if os.fork() == 0:
        assert not [name for name in sys.modules if name.startswith("faiss_distill")]
        __import__(f"faiss_distill.{module}")
        sys.exit()
    assert os.wait()[1] == 0, module
"""
    modules = ["tuning.trainer", "building.factory", "tuning.task", "data.queries", "api"]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, *modules], check=True)


@pytest.mark.parametrize("statement", ["import faiss_distill", "from faiss_distill import distill"])
def test_without_faiss_the_error_names_the_choices(statement):
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['faiss'] = None; {statement}"], capture_output=True, text=True
    )
    assert run.returncode == 1
    error = run.stderr.splitlines()[-1]
    assert "MissingDependencyError: faiss: expected one of its packages, got none" in error
    assert all(f"pip install {name}" in error for name in ("faiss-cpu", "faiss-gpu-cu12"))
    assert "faiss from conda" in error
    assert "During handling" not in run.stderr


@pytest.mark.parametrize(("version", "refused"), [("1.12.0", True), ("1.7.2", True), ("1.13.0", False), ("2.0", False)])
def test_a_faiss_that_is_too_old(tmp_path, version, refused):
    """Of any distribution, since none is a dependency."""
    (tmp_path / "faiss.py").write_text(f"__version__ = {version!r}")
    code = "import faiss_distill.index"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert (f"faiss: expected 1.13 or later, got {version}" in run.stderr) is refused
    assert (run.returncode != 0) is refused


def test_no_faiss_is_a_dependency():
    """Or pip would put it over another that is installed."""
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    (needed,) = re.findall(r"^dependencies = \[(.*)\]$", project, re.MULTILINE)
    assert re.findall(r'"([\w-]+)', needed) == ["numpy", "safetensors", "scipy", "tomli", "torch", "tqdm"]
    assert 'cpu = ["faiss-cpu>=1.13"]' in project


HEAVY = ("scipy", "pandas", "matplotlib", "numba", "sklearn", "sqlite3", "IPython")


@pytest.mark.parametrize(("names", "allowed"), [("", ()), ("distill", ("faiss", "torch"))], ids=["package", "distill"])
def test_what_an_import_imports(names, allowed):
    """faiss and torch when they are needed, and nothing else that takes its time; even if torch would."""
    code = f"""
import sys
{"".join(f"import {name}; " for name in allowed)}
before = set(sys.modules)
import faiss_distill
{"faiss_distill." + names if names else ""}
print(*(set(sys.modules) - before))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {module.partition(".")[0] for module in run.stdout.split()}
    assert not imported & {*HEAVY, "faiss", "torch", *(() if allowed else ("numpy",))} - set(allowed)
    assert "faiss_distill" in imported


def test_every_public_name_can_be_had():
    """They are imported when they are asked for."""
    code = "import sys, faiss_distill; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"distill", "DistillReport", "suggest"} <= set(faiss_distill.__all__) <= set(dir(faiss_distill))
    for name in faiss_distill.__all__:
        assert getattr(faiss_distill, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        faiss_distill.nonsense  # noqa: B018


def test_usage_errors_exit_2(capsys):
    for argv in ([], ["tune"], ["nonsense"]):
        with pytest.raises(SystemExit) as exit_:
            main(argv)
        assert exit_.value.code == 2


@pytest.mark.parametrize("command", [[], ["tune"], ["apply"], ["eval"], ["points"], ["inspect"], ["demo"]])
def test_help_is_complete(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert "None" not in out
    if command == ["tune"]:
        assert "--local-weight" not in out
        with pytest.raises(SystemExit):
            main(["tune", "--help-all"])
        whole = capsys.readouterr().out
        assert "--local-weight" in whole
        assert "one of" not in whole
        assert not re.findall(r"\b(?:validation_queries|top_k|learning_rate|max_queries)\b(?<!recall@top_k)", whole)


COMMANDS = ["tune", "apply", "eval", "points", "inspect", "demo"]


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_in_the_help_are_commands(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    examples = re.findall(r"^  (faiss-distill .*)", capsys.readouterr().out.partition("examples:")[2], re.M)
    assert examples
    assert {shlex.split(line)[1] for line in examples} >= {command}
    for line in examples:
        cli.parse(shlex.split(line)[1:])


def test_formats_in_the_help():
    assert set(re.findall(r"\.\w+", cli.VECTORS)) < set(BY_SUFFIX)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["tuen", "x"], "no command 'tuen'; did you mean tune?"),
        (["zzz"], "no command 'zzz'; there are tune, apply, add, eval, points, inspect, demo"),
        (["tune", "i", "x", "--quieries=q"], "no option --quieries; did you mean --queries?"),
        (["tune", "i", "x", "--zzz"], "no option --zzz; see faiss-distill tune --help"),
        (["points", "i", "x", "--queries", "q", "--quality", "overlap"], "got 'overlap'; did you mean overlap_at_10?"),
        (["points", "i", "x", "--queries", "q", "--cost", "zzz"], "expected one of distances, latency_ms, got 'zzz'"),
        (
            ["tune", "i", "x", "q", "-o", "o"],
            "unexpected 'q'; only INDEX and EMBEDDINGS can be given without the name of an option",
        ),
        (["demo", "x"], "unexpected 'x'; nothing can be given without the name of an option"),
        (
            ["eval", "i", "x", "--queries", "q", "--nprobe", "8,16"],
            "argument --nprobe: expected an integer, got '8,16'; put spaces between several",
        ),
        (
            ["tune", "i", "x", "-o", "o", "--nprobe", "8,16"],
            "argument --nprobe: expected an integer, got '8,16'; it takes one",
        ),
        (
            ["tune", "i", "x", "-o", "o", "--learning-rate", "fast"],
            "argument --learning-rate: expected a number, got 'fast'",
        ),
    ],
)
def test_what_may_have_been_meant(argv, says, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith(says)


def test_measures_can_be_named_as_tables_have_them():
    assert cli.parse(["points", "i", "x", "--queries", "q", "--quality", "overlap@10"]).quality == "overlap_at_10"


def test_what_most_need_comes_first_in_the_help():
    options = (
        next(a for a in cli.build_parser()._actions if a.choices and "tune" in a.choices).choices["tune"].format_help()
    )
    common, _, further = options.partition("further options of the tuning:")
    for option in ("--nprobe", "--epochs", "--seed", "--device", "--max-memory", "--no-progress"):
        assert f"  {option} " in common or f"  {option}\n" in common
        assert f"  {option} " not in further
    assert "--local-weight" in further


def test_words_after_two_dashes_are_no_options():
    assert cli.parse(["inspect", "--", "--odd-name"]).index == Path("--odd-name")


class TestItsOwnLanguage:
    """Options, not the arguments of Python's functions."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("'fixed' with encoding='frozen'", "'fixed' with --encoding frozen"),
            ("pass ids= with the id of each row", "pass --ids with the id of each row"),
            ("raise max_scan_increase=0.01 to accept that", "raise --max-scan-increase 0.01 to accept that"),
            ("judge_half_nprobe=False accepts that", "--no-judge-half-nprobe accepts that"),
            ("pass nprobe=", "pass --nprobe"),
            ("set it with top_k", "set it with --top-k"),
            ("balance=True, progress=False", "--balance, --no-progress"),
            ("other ids, epochs and nprobe 4", "other ids, epochs and nprobe 4"),
            ("query_ids= to read_qrels, query_encoder=", "query_ids= to read_qrels, query_encoder="),
            ("10 bytes free in '/tmp/top_k/ids=3'", "10 bytes free in '/tmp/top_k/ids=3'"),
        ],
    )
    def test_a_text(self, text, expected):
        assert messages.in_flags(text, cli.parse(["tune", "i", "x", "-o", "o"])) == expected

    def test_an_error(self, files, capsys):
        refused(
            capsys, tune(files, "--encoding", "frozen", "--assignment", "refreshed"),
            "error: --assignment: expected 'fixed' with --encoding frozen, got 'refreshed'",
        )  # fmt: skip
        refused(capsys, tune(files, "--loss", "lisnet"), "--loss: expected one of ", "; did you mean listnet?")
        refused(capsys, tune(files, "--encoding", "nearst"), "--encoding: ", "; did you mean nearest?")

    def test_what_to_search_with(self, files, capsys):
        inputs = [str(files / "in.faiss"), str(files / "x.npy"), "--queries", str(files / "q.npy")]
        refused(
            capsys,
            main(["points", *inputs, "--nprobe", "0"]),
            "error: --nprobe: expected integers from 1 to 16 for nprobe",
        )
        inputs[0] = inputs[1]  # no index, which would be told next
        refused(
            capsys, main(["points", *inputs, "--at-least", "45"]),
            "error: --at-least: expected a number between 0 and 1, got 45.0; 45 % is 0.45",
        )  # fmt: skip

    def test_a_warning(self):
        args = cli.parse(["tune", "i", "x", "-o", "o"])
        record = logging.makeLogRecord({"name": "faiss_distill.x", "levelname": "WARNING", "msg": "pass nprobe="})
        assert messages.Warned(args).format(record) == "faiss-distill: warning: pass --nprobe"

    def test_a_result_that_is_not_kept(self, files, capsys):
        assert tune(files, "--epochs", "0", "--encoding", "nearest", "--assignment", "fixed") == 0
        out = capsys.readouterr().out
        assert "NOT kept" in out
        assert out.endswith(f"wrote {files / 'out.faiss'}, unchanged: the index as it was\n")


class TestCompletion:
    def test_a_script(self, capsys):
        pytest.importorskip("shtab")
        with pytest.raises(SystemExit) as exit_:
            main(["--print-completion", "bash"])
        assert exit_.value.code == 0
        out = capsys.readouterr().out
        subprocess.run(["bash", "-n"], input=out, text=True, check=True)
        assert "--at-least" in out
        assert "_tune___queries_COMPGEN=_shtab_compgen_files" in out

    def test_without_shtab(self, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "shtab", None)
        with pytest.raises(SystemExit) as exit_:
            main(["--print-completion", "bash"])
        assert exit_.value.code == 2
        needed = "--print-completion: expected shtab, got none; pip install 'faiss-distill[completion]'"
        assert needed in capsys.readouterr().err


def test_python_m():
    run = subprocess.run(
        [sys.executable, "-m", "faiss_distill", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"faiss-distill {faiss_distill.__version__}\n"


def test_demo(tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path / "d"), "--factory", "IVF64,PQ16np"]) == 0
    shown = capsys.readouterr()
    assert "faiss trains IVF64,PQ16np on 16,000 documents: about " in shown.err
    assert "tuning it on 2,800 queries: about " in shown.err
    table = [line for line in shown.out.splitlines() if "→" in line or line.startswith("nprobe")]
    assert len(table) >= 24
    assert max(map(len, table)) <= 100
    for path in (tmp_path / "d").iterdir():
        assert f"wrote {path}: " in shown.out
    printed = json.loads((tmp_path / "d" / "test.json").read_text())
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [
        "recall.png",
        "report.json",
        "test.json",
        "tuned.faiss",
    ]
    own = [next(p for p in printed[s]["points"] if p["nprobe"] == 8) for s in ("before", "after")]
    assert own[1]["overlap_at_10"] > own[0]["overlap_at_10"] + 0.05
    assert own[1]["mrr_at_10"] > own[0]["mrr_at_10"]
    assert own[1]["codes_scanned"] <= own[0]["codes_scanned"]
    assert faiss.read_index(str(tmp_path / "d" / "tuned.faiss")).ntotal == 16000


def test_demo_of_something_else(tmp_path, capsys):
    refused(capsys, main(["demo", "-o", str(tmp_path), "--factory", "Flat"]), "--factory: expected one of an IVF index")


@pytest.mark.parametrize("nprobe", ["0", "-1"])
def test_the_demo_says_at_once_that_nprobe_is_wrong(nprobe, tmp_path, capsys):
    assert main(["demo", "--nprobe", nprobe, "-o", str(tmp_path / "demo")]) == 2
    assert "nprobe: expected an integer of at least 1" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
