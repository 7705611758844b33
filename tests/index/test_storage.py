"""Inverted lists that are on disk, or mapped from the index's file."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from conftest import METRICS, QUICK, N, core, serialized

import faiss_distill
from faiss_distill import DistillConfig, DistillTrainer, InputError, UnsupportedIndexError, distill
from faiss_distill.cli import main
from faiss_distill.index.parts.transaction import Transaction
from faiss_distill.index.parts.write_back import IVFWriteBack
from faiss_distill.index.registry import open_index
from faiss_distill.tuning.gate import Gate

FACTORIES = ["IVF16,PQ16x4", "IDMap2,OPQ8,IVF16_HNSW16,PQ8x4np,RFlat", "IVF16,SQ8", "IVF16,PRQ2x2x4"]


@pytest.fixture
def on_disk(built, tmp_path):
    def on_disk(factory="IVF16,PQ16x4", metric="ip"):
        index = built(factory, metric)
        inner = core(index)
        lists = faiss.OnDiskInvertedLists(inner.nlist, inner.code_size, str(tmp_path / "lists"))
        lists.merge_from_1(inner.invlists)
        inner.replace_invlists(lists, True)
        lists.this.disown()
        return index

    return on_disk


@pytest.fixture
def always_kept(monkeypatch):
    monkeypatch.setattr(Gate, "judge", lambda *_: (True, "", 0.0, (0.0, 0.0)))


def lists_of(index):
    return faiss.downcast_InvertedLists(core(index).invlists)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factory", FACTORIES)
def test_lists_on_disk_go_to_a_new_file(built, data, on_disk, always_kept, tmp_path, factory, metric):
    """The result is that of the same index in memory; the old files still make the old index."""
    index, plain = on_disk(factory, metric), built(factory, metric)
    faiss.write_index(index, str(tmp_path / "old.faiss"))
    content = (tmp_path / "lists").read_bytes()
    before = index.search(data.queries[:50], 10)
    distill(index, data.documents[:N], data.queries, **QUICK)
    distill(plain, data.documents[:N], data.queries, **QUICK)
    assert (type(lists_of(index)), Path(lists_of(index).filename)) == (
        faiss.OnDiskInvertedLists,
        tmp_path / "lists.tuned",
    )
    found = index.search(data.queries[:50], 10)
    for one, other in zip(found, plain.search(data.queries[:50], 10), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(found[0], before[0])
    faiss.write_index(index, str(tmp_path / "new.faiss"))
    del index
    assert (tmp_path / "lists").read_bytes() == content
    for name, expected in (("old", before), ("new", found)):
        again = faiss.read_index(str(tmp_path / f"{name}.faiss"))
        np.testing.assert_array_equal(again.search(data.queries[:50], 10)[0], expected[0])
    report = distill(again, data.documents[:N], data.queries, **QUICK)  # and once more
    assert Path(lists_of(again).filename) == tmp_path / "lists.tuned.tuned"
    assert report.kept


def test_a_result_that_is_not_kept_leaves_no_file(data, on_disk, monkeypatch, tmp_path):
    monkeypatch.setattr(Gate, "judge", lambda *_: (False, "", 0.0, (0.0, 0.0)))
    index = on_disk()
    before = serialized(index)
    distill(index, data.documents[:N], data.queries, **QUICK)
    assert serialized(index) == before
    assert [p.name for p in tmp_path.iterdir()] == ["lists"]


@pytest.mark.parametrize("where", ["open", "merge", "replace", "commit"])
def test_a_failure_in_making_the_file_undoes_everything(data, on_disk, always_kept, monkeypatch, tmp_path, where):
    index = on_disk()
    before, content = serialized(index), (tmp_path / "lists").read_bytes()
    found = index.search(data.queries[:50], 10)

    def fail(*_):
        raise KeyboardInterrupt("injected")

    if where == "open":
        monkeypatch.setattr(Path, "open", fail)
    elif where == "merge":
        monkeypatch.setattr(faiss.OnDiskInvertedLists, "merge_from_1", fail)
    elif where == "replace":
        real = IVFWriteBack._write_lists
        monkeypatch.setattr(
            IVFWriteBack,
            "_write_lists",
            lambda self: (real(self), fail() if (tmp_path / "lists.tuned").exists() else None),
        )
    else:
        real_commit = Transaction.commit
        monkeypatch.setattr(Transaction, "commit", lambda self: (real_commit(self), fail()))
    with pytest.raises(KeyboardInterrupt, match="injected"):
        distill(index, data.documents[:N], data.queries, **QUICK)
    monkeypatch.undo()
    assert serialized(index) == before
    np.testing.assert_array_equal(index.search(data.queries[:50], 10)[0], found[0])
    assert [p.name for p in tmp_path.iterdir()] == ["lists"]
    assert (tmp_path / "lists").read_bytes() == content


def test_mapped_lists_are_tuned_into_memory_or_a_new_file(built, data, always_kept, tmp_path):
    path = tmp_path / "i.faiss"
    faiss.write_index(built(), str(path))
    content, plain = path.read_bytes(), built()
    distill(plain, data.documents[:N], data.queries, **QUICK)
    expected = plain.search(data.queries[:50], 10)[0]
    for file in (None, tmp_path / "lists"):
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        assert type(lists_of(index)) is faiss.OnDiskInvertedLists
        distill(index, data.documents[:N], data.queries, invlists_file=file, **QUICK)
        kind = faiss.ArrayInvertedLists if file is None else faiss.OnDiskInvertedLists
        assert type(lists_of(index)) is kind
        np.testing.assert_array_equal(index.search(data.queries[:50], 10)[0], expected)
        assert path.read_bytes() == content
    faiss.write_index(index, str(path))  # over the file that was mapped
    np.testing.assert_array_equal(faiss.read_index(str(path)).search(data.queries[:50], 10)[0], expected)


def test_lists_in_memory_can_go_to_a_file(built, data, always_kept, tmp_path):
    index = built()
    distill(index, data.documents[:N], data.queries, invlists_file=tmp_path / "lists", **QUICK)
    assert type(lists_of(index)) is faiss.OnDiskInvertedLists
    again = faiss.deserialize_index(faiss.serialize_index(index))
    np.testing.assert_array_equal(again.search(data.queries[:9], 5)[1], index.search(data.queries[:9], 5)[1])


def test_frozen_codes_stay_in_their_file(data, on_disk, always_kept, tmp_path):
    index = on_disk()
    content = (tmp_path / "lists").read_bytes()
    distill(index, data.documents[:N], data.queries, encoding="frozen", **QUICK)
    assert Path(lists_of(index).filename) == tmp_path / "lists"
    assert [p.name for p in tmp_path.iterdir()] == ["lists"]
    assert (tmp_path / "lists").read_bytes() == content


def test_files_that_cannot_be(built, data, tmp_path):
    (tmp_path / "there").touch()
    for factory, file, match in (
        ("IVF16,PQ16x4", tmp_path / "there", "invlists_file: expected a file that does not exist yet"),
        ("IVF16,PQ16x4", tmp_path / "no" / "folder", "invlists_file: expected a file in a folder that can be written"),
        ("PQ16x4", tmp_path / "new", "invlists_file: expected None for an IndexPQ"),
        ("IVF16,PQ16x4fs", tmp_path / "new", "invlists_file: expected None for an IndexIVFPQFastScan"),
    ):
        index = built(factory)
        before = serialized(index)
        with pytest.raises(InputError, match=match):
            DistillTrainer(index, data.documents[:N], data.queries, invlists_file=file)
        assert serialized(index) == before
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_a_disk_that_is_too_small(built, data, on_disk, always_kept, monkeypatch, tmp_path):
    """faiss maps the file, and the process would end in writing to it."""
    full = SimpleNamespace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    index = built()
    before = serialized(index)
    with pytest.raises(InputError, match=r"invlists_file: expected room for .*, got 100 bytes free .* need 32000"):
        distill(index, data.documents[:N], data.queries, invlists_file=tmp_path / "l", **QUICK)
    full.free = 10**9
    trainer = DistillTrainer(
        index, data.documents[:N], data.queries, invlists_file=tmp_path / "l", config=DistillConfig(**QUICK)
    )
    measured = faiss_distill.tuning.trainer.measure
    monkeypatch.setattr(
        faiss_distill.tuning.trainer, "measure", lambda *a: (setattr(full, "free", 100), measured(*a))[1]
    )
    with pytest.raises(OSError, match=r"100 bytes free in .* need 32000"):
        trainer.train()
    assert serialized(index) == before
    assert list(tmp_path.iterdir()) == []


def test_other_files_that_cannot_be(built, data, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for options, match in (
        ({"invlists_file": 5}, "invlists_file: expected a path, got int"),
        ({"invlists_file": tmp_path / "link"}, "invlists_file: expected a file that does not exist yet"),
        (
            {"invlists_file": tmp_path / "l", "encoding": "frozen"},
            "invlists_file: expected None with encoding='frozen'",
        ),
    ):
        with pytest.raises(InputError, match=match):
            distill(built(), data.documents[:N], data.queries, **QUICK | options)


def test_a_whole_index_that_is_mapped_is_refused(built, tmp_path):
    path = str(tmp_path / "i.faiss")
    faiss.write_index(built("IVF16,PQ8np"), path)
    with pytest.raises(UnsupportedIndexError, match="read the index without IO_FLAG_MMAP_IFC"):
        open_index(faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC))


@pytest.fixture
def command(data, on_disk, tmp_path):
    """A command that tunes an index with lists on disk, and its files."""
    faiss.write_index(on_disk(), str(tmp_path / "i.faiss"))
    np.save(tmp_path / "x.npy", data.documents[:N])
    np.save(tmp_path / "q.npy", data.queries)
    options = ["--epochs", "1", "--no-progress", "--queries", str(tmp_path / "q.npy")]
    return ["tune", *(str(tmp_path / name) for name in ("i.faiss", "x.npy")), *options]


def test_the_command_line_says_where_the_lists_are(command, data, always_kept, tmp_path, capsys):
    assert main([*command, "-o", str(tmp_path / "o.faiss")]) == 0
    assert f"the inverted lists are in {tmp_path / 'lists.tuned'}, which" in capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path / "p.faiss"), "--invlists-file", str(tmp_path / "l")]) == 0
    one, other = (faiss.read_index(str(tmp_path / name)) for name in ("o.faiss", "p.faiss"))
    assert Path(lists_of(one).filename) == tmp_path / "lists.tuned"
    assert Path(lists_of(other).filename) == tmp_path / "l"
    np.testing.assert_array_equal(*(i.search(data.queries[:50], 10)[1] for i in (one, other)))
    assert {p.name for p in tmp_path.iterdir()} == {
        "i.faiss", "lists", "x.npy", "q.npy", "o.faiss", "lists.tuned", "p.faiss", "l"
    }  # fmt: skip


def test_lists_named_from_here_can_be_read_from_elsewhere(command, data, always_kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "-o", "o.faiss", "--invlists-file", "l"]) == 0
    monkeypatch.chdir("/")
    index = faiss.read_index(str(tmp_path / "o.faiss"))
    assert lists_of(index).filename == str(tmp_path / "l")
    assert index.search(data.queries[:5], 3)[1].min() >= 0


def test_an_index_with_a_relative_lists_file_is_written_with_an_absolute_one(built, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = faiss.read_index("i.faiss")
    lists_of(index).filename = "lists"
    faiss.write_index(index, "i.faiss")
    queries = command[command.index("--queries") + 1]
    options = ["--queries", queries, "--at-least", "0.01", "-o", "o.faiss"]
    assert main(["points", "i.faiss", command[2], *options]) == 0
    assert lists_of(faiss.read_index("o.faiss")).filename == str(tmp_path / "lists")


@pytest.mark.parametrize("output", ["lists", "hard", "soft", "lists.tuned"])
def test_an_output_on_inverted_lists_is_refused(command, tmp_path, capsys, output):
    """Whoever reads the index then would be killed."""
    (tmp_path / "soft").symlink_to(tmp_path / "lists")
    os.link(tmp_path / "lists", tmp_path / "hard")
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    assert main([*command, "-o", str(tmp_path / output), "--force"]) == 2
    error = f"output: expected another file than that of the inverted lists, got {str(tmp_path / output)!r}"
    assert error in capsys.readouterr().err
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("output", ["l", "./l", "soft"])
def test_an_output_that_is_the_new_lists_file_is_refused(command, tmp_path, monkeypatch, capsys, output):
    monkeypatch.chdir(tmp_path)
    Path("soft").symlink_to("l")
    assert main([*command, "-o", output, "--invlists-file", str(tmp_path / "l")]) == 2
    assert "output: expected another file than the inputs and other outputs" in capsys.readouterr().err
    assert not Path("l").exists()


@pytest.mark.parametrize("moment", ["writing", "placing", "replacing", "placed"])
def test_an_interrupt_while_writing_leaves_both_files_or_none(command, always_kept, tmp_path, monkeypatch, moment):
    """And the same command then works."""
    names = {"writing": (faiss, "write_index"), "placing": (os, "link"), "replacing": (Path, "replace")}
    where, step = names.get(moment, names["replacing"])
    real = getattr(where, step)

    def interrupted(*arguments):
        if moment == "placed":
            real(*arguments)
        raise KeyboardInterrupt

    before = sorted(p.name for p in tmp_path.iterdir())
    monkeypatch.setattr(where, step, interrupted)
    options = ["-o", str(tmp_path / "o.faiss"), "--invlists-file", str(tmp_path / "l")]
    with pytest.raises(KeyboardInterrupt):
        main([*command, *options])
    monkeypatch.setattr(where, step, real)
    if moment != "placed":
        assert sorted(p.name for p in tmp_path.iterdir()) == before
        assert main([*command, *options]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "l", "o.faiss"])
    assert faiss.read_index(str(tmp_path / "o.faiss")).ntotal == N


def test_lists_that_another_program_made_meanwhile_stay(command, always_kept, tmp_path, monkeypatch, capsys):
    real = faiss.write_index
    monkeypatch.setattr(faiss, "write_index", lambda *a: ((tmp_path / "l").write_text("other"), real(*a)))
    assert main([*command, "-o", str(tmp_path / "o.faiss"), "--invlists-file", str(tmp_path / "l")]) == 2
    assert "--invlists-file: expected a file that does not exist yet" in capsys.readouterr().err
    assert (tmp_path / "l").read_text() == "other"
    assert not (tmp_path / "o.faiss").exists()


def test_lists_where_a_file_has_one_name(command, always_kept, tmp_path, monkeypatch):
    """On a file system without links they are renamed."""

    def unsupported(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", unsupported)
    assert main([*command, "-o", str(tmp_path / "o.faiss"), "--invlists-file", str(tmp_path / "l")]) == 0
    assert lists_of(faiss.read_index(str(tmp_path / "o.faiss"))).filename == str(tmp_path / "l")


@pytest.mark.parametrize("name", ["l" * 300, "caf\udce9", "gone/l"])
def test_lists_files_that_cannot_be_are_refused_early(built, data, tmp_path, name):
    with pytest.raises(InputError, match="invlists_file: expected"):
        DistillTrainer(built(), data.documents[:N], data.queries, invlists_file=tmp_path / name)
