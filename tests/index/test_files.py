import errno
import os
from pathlib import Path

import faiss
import pytest
from conftest import serialized

from faiss_distill import InputError
from faiss_distill.index.files import check_output, is_index, read_index, stored_name, write_index

FAMILIES = ["Flat", "IVF16,PQ16x4", "OPQ8,IVF16,PQ8x4np", "IDMap2,IVF16,SQ8,RFlat", "HNSW8", "PQ8x4fs", "IVF16,RQ2x4"]


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
