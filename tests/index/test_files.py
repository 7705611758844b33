import contextlib
import errno
import os
import stat
from pathlib import Path

import faiss
import pytest
from conftest import serialized

from faiss_distill import InputError
from faiss_distill.index.files import check_output, is_index, read_index, replacing, stored_name, write_index
from faiss_distill.index.scratch import scratch, sweep

FAMILIES = ["Flat", "IVF16,PQ16x4", "OPQ8,IVF16,PQ8x4np", "IDMap2,IVF16,SQ8,RFlat", "HNSW8", "PQ8x4fs", "IVF16,RQ2x4"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestReplacing:
    def test_a_new_file_is_like_any_other(self, tmp_path):
        with replacing(tmp_path / "new") as new:
            new.write_text("new")
        (tmp_path / "plain").write_text("plain")
        assert (tmp_path / "new").read_text() == "new"
        assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
        assert names(tmp_path) == ["new", "plain"]

    def test_what_was_known_of_the_old_one_stays(self, tmp_path):
        old = tmp_path / "old"
        old.write_text("old")
        old.chmod(0o640)
        os.utime(old, (0, 0))
        attributes = {}
        with contextlib.suppress(OSError):  # of a file system that has none
            os.setxattr(old, "user.note", b"keep")
            attributes = {"user.note": b"keep"}
        if os.getuid() == 0:
            os.chown(old, 12345, 23456)
        before = old.stat()
        with replacing(old) as new:
            new.write_text("new")
        after = old.stat()
        assert old.read_text() == "new"
        assert [after.st_mode, after.st_uid, after.st_gid] == [before.st_mode, before.st_uid, before.st_gid]
        assert {name: os.getxattr(old, name) for name in attributes} == attributes
        assert after.st_mtime > 10**9

    def test_an_owner_that_cannot_be_kept_is_said(self, tmp_path, monkeypatch, caplog):
        (tmp_path / "old").touch()

        def forbidden(*_):
            raise PermissionError(errno.EPERM, "not permitted")

        monkeypatch.setattr(os, "chown", forbidden)
        with replacing(tmp_path / "old") as new:
            new.write_text("new")
        assert "its owner and group can't be kept" in caplog.text
        assert (tmp_path / "old").read_text() == "new"

    def test_file_and_folder_are_flushed_before_and_after_the_rename(self, tmp_path, monkeypatch):
        steps, sync, rename = [], os.fsync, Path.replace

        def flushed(descriptor):
            steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", flushed)
        monkeypatch.setattr(Path, "replace", lambda self, to: (steps.append("rename"), rename(self, to)))
        with replacing(tmp_path / "new") as new:
            new.write_text("new")
        assert steps == ["file", "rename", "folder"]

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
    def test_an_error_leaves_what_was_there(self, tmp_path, error):
        (tmp_path / "old").write_text("old")
        with pytest.raises(type(error)) as raised, replacing(tmp_path / "old") as new:
            new.write_text("half")
            raise error
        if isinstance(error, OSError):
            assert raised.value.errno == errno.ENOSPC
            assert raised.value.strerror == f"can't write {str(tmp_path / 'old')!r}: No space left on device"
        assert (tmp_path / "old").read_text() == "old"
        assert names(tmp_path) == ["old"]

    def test_a_link_stays_one_and_a_device_is_written_to(self, tmp_path):
        (tmp_path / "real").touch()
        (tmp_path / "link").symlink_to("real")
        with replacing(tmp_path / "link") as new:
            new.write_text("new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_text() == "new"
        with replacing("/dev/null") as new:
            assert new == Path("/dev/null")

    @pytest.mark.parametrize("name", ["n" * 250 + ".json", "caf\udce9"])
    def test_any_name_will_do(self, tmp_path, name):
        with replacing(tmp_path / name) as new:
            new.write_text("new")
        assert (tmp_path / name).read_text() == "new"


class TestSweep:
    def test_what_is_not_locked_is_removed(self, tmp_path, caplog):
        for left in ("dead", "empty"):
            (tmp_path / f".faiss-distill-{left}").mkdir()
        for name in ("lock", "new"):
            (tmp_path / ".faiss-distill-dead" / name).touch()
        (tmp_path / "other").mkdir()
        (tmp_path / ".faiss-distill-link").symlink_to(tmp_path / "other")
        (tmp_path / ".faiss-distill-file").touch()
        with scratch(tmp_path) as live:
            sweep([tmp_path, tmp_path])
            assert names(tmp_path) == sorted([".faiss-distill-file", ".faiss-distill-link", live.name, "other"])
        assert f"removed {tmp_path / '.faiss-distill-dead'}, which a killed run left" in caplog.text
        assert not live.exists()

    def test_another_users_are_not_touched(self, tmp_path, monkeypatch):
        (tmp_path / ".faiss-distill-theirs").mkdir()
        monkeypatch.setattr(os, "getuid", lambda: 4711)
        sweep([tmp_path])
        assert names(tmp_path) == [".faiss-distill-theirs"]

    def test_where_nothing_can_be_locked_nothing_is_removed(self, tmp_path, monkeypatch):
        def unsupported(*_):
            raise OSError(errno.ENOLCK, "no locks")

        monkeypatch.setattr("fcntl.flock", unsupported)
        with scratch(tmp_path):
            sweep([tmp_path])
            assert len(names(tmp_path)) == 1

    @pytest.mark.parametrize("done", [False, True])
    def test_lists_stay_in_their_place_only_with_their_index(self, tmp_path, done):
        """Killed between the two renames: the lists go if the index was not renamed, and stay if it was."""
        left, to_come = tmp_path / ".faiss-distill-lists", tmp_path / ".faiss-distill-index" / "new"
        for file in (left / "lists", to_come):
            file.parent.mkdir()
            file.touch()
        os.link(left / "lists", tmp_path / "l")
        (left / "placed").symlink_to(tmp_path / "l")
        (left / "index").symlink_to(to_come)
        if done:
            to_come.replace(tmp_path / "o.faiss")
        sweep([tmp_path])
        assert names(tmp_path) == (["l", "o.faiss"] if done else [])

    def test_lists_of_another_program_stay(self, tmp_path):
        left = tmp_path / ".faiss-distill-lists"
        left.mkdir()
        for file in (left / "lists", left / "new", tmp_path / "l"):
            file.touch()
        (left / "placed").symlink_to(tmp_path / "l")
        (left / "index").symlink_to(left / "new")
        sweep([tmp_path])
        assert names(tmp_path) == ["l"]

    def test_a_folder_that_was_swept_before_it_was_locked_is_made_again(self, tmp_path, monkeypatch):
        real, swept = os.open, []

        def opened(path, *arguments, **options):
            if str(path).endswith("lock") and not swept:
                swept.append(path)
                Path(path).parent.rmdir()
            return real(path, *arguments, **options)

        monkeypatch.setattr(os, "open", opened)
        with scratch(tmp_path) as folder:
            assert swept
            assert names(tmp_path) == [folder.name]


class TestOutputs:
    @pytest.fixture
    def index_file(self, tmp_path):
        faiss.write_index(faiss.IndexFlatL2(4), str(tmp_path / "i.faiss"))
        return tmp_path / "i.faiss"

    def test_a_new_file_an_index_and_an_empty_file_are_accepted(self, tmp_path, index_file):
        (tmp_path / "empty").touch()
        for name in ("new", "i.faiss", "empty"):
            check_output("output", tmp_path / name, [None, tmp_path / "other"], index=True)

    def test_what_is_no_index_needs_force(self, tmp_path):
        (tmp_path / "thesis").write_text("a year of work, " * 9)
        with pytest.raises(InputError, match=r"output: expected a new file or a faiss index, got .*; --force replaces"):
            check_output("output", tmp_path / "thesis", [], index=True)
        check_output("output", tmp_path / "thesis", [], index=True, force=True)

    def test_a_file_with_several_names_needs_force(self, tmp_path, index_file):
        os.link(index_file, tmp_path / "hard")
        with pytest.raises(InputError, match=r"expected a file with one name, got .*, which has 2 \(hard links\)"):
            check_output("output", tmp_path / "hard", [], index=True)
        check_output("output", tmp_path / "hard", [], index=True, force=True)

    @pytest.mark.parametrize("other", ["i.faiss", "hard", "soft", "./folder/../i.faiss"])
    def test_no_other_file_under_whatever_name(self, tmp_path, index_file, monkeypatch, other):
        monkeypatch.chdir(tmp_path)
        Path("folder").mkdir()
        os.link(index_file, "hard")
        Path("soft").symlink_to("i.faiss")
        with pytest.raises(InputError, match="plot: expected another file than the inputs and other outputs"):
            check_output("plot", index_file, [None, other], force=True)

    def test_only_regular_files(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for path in ("/dev/null", tmp_path / "pipe"):
            with pytest.raises(InputError, match="output: expected a file, got the device or pipe"):
                check_output("output", Path(path), [], index=True, force=True)
        with pytest.raises(InputError, match="output: expected a file, got the folder"):
            check_output("output", tmp_path, [])

    def test_names_that_cannot_be(self, tmp_path):
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "astray").symlink_to(tmp_path / "gone" / "o.faiss")
        for name, error in (("loop", errno.ELOOP), ("n" * 300, errno.ENAMETOOLONG)):
            with pytest.raises(OSError, match=name) as raised:
                check_output("output", tmp_path / name, [])
            assert raised.value.errno == error
        with pytest.raises(InputError, match=r"output: expected a folder that exists, got .*gone"):
            check_output("output", tmp_path / "astray", [])

    def test_a_folder_that_cannot_be_written_to(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(InputError, match="expected a folder that can be written to"):
            check_output("output", tmp_path / "o", [])


@pytest.mark.parametrize("factory", FAMILIES)
def test_index_files(built, tmp_path, factory):
    """Written as faiss writes them, known by their head, and read as faiss reads them, under any name."""
    index = built(factory)
    faiss.write_index(index, str(tmp_path / "theirs"))
    ours = tmp_path / "caf\udce9"
    write_index(index, ours)
    assert ours.read_bytes() == (tmp_path / "theirs").read_bytes()
    assert is_index(ours)
    limits = [n for n in dir(faiss) if n.startswith("get_deserialization")]
    before = [getattr(faiss, n)() for n in limits]
    assert serialized(read_index(ours)) == serialized(index)
    assert [getattr(faiss, n)() for n in limits] == before


@pytest.mark.skipif(not hasattr(faiss, "set_deserialization_vector_byte_limit"), reason="an older faiss has no limit")
def test_a_length_that_is_corrupt_is_not_allocated(built, tmp_path):
    index = built("Flat")
    content = serialized(index)
    length = (index.ntotal * index.d).to_bytes(8, "little")
    assert content.count(length) == 1
    (tmp_path / "i.faiss").write_bytes(content.replace(length, (1 << 35).to_bytes(8, "little")))
    with pytest.raises(InputError, match=r"expected a complete faiss index, got .*limit"):
        read_index(tmp_path / "i.faiss")


def test_a_name_that_faiss_cannot_store():
    assert stored_name("index", Path("lists")) == str(Path.cwd() / "lists")
    with pytest.raises(InputError, match="index: expected inverted lists in a file with a name in UTF-8"):
        stored_name("index", Path("caf\udce9"))
