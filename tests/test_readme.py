"""The README's code, run as it stands on small files of the names it uses."""

import re
import shlex
from pathlib import Path

import faiss
import numpy as np
import pytest

from faiss_distill.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def _files(tmp_path, monkeypatch, built, data):
    monkeypatch.chdir(tmp_path)
    for name in ("wiki.ivfpq.faiss", "wiki.faiss"):
        faiss.write_index(built(), name)
    np.save("wiki.npy", data.documents[:2000])
    np.save("log.npy", data.queries[:1500])
    np.save("test.npy", data.queries[1500:])


@pytest.mark.usefixtures("_files")
def test_python_block(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(block, {})
    assert "Kept: overlap@10 at nprobe 1 rose" in capsys.readouterr().out


@pytest.mark.usefixtures("_files")
def test_command_lines(capsys):
    lines = re.findall(r"^faiss-distill (.*?)(?: +#.*)?$", README, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["inspect", "tune", "eval"]
    for line in lines:
        assert main(shlex.split(line)) == 0
    assert "can be tuned" in capsys.readouterr().out
    assert Path("recall.png").exists()


def test_make_targets_exist():
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)|`make (\w+)`", README, re.MULTILINE):
        assert f"\n{''.join(target)}:" in makefile
