import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest

from faiss_distill.files import replacing, scratch, sweep


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
