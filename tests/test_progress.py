import io
import os
import signal
import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from tqdm import tqdm

from faiss_distill.data.vectors import open_vectors
from faiss_distill.progress import counted, progress_bar, waiting


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "wanted", "shown"), [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)]
)
def test_bars_are_on_terminals_if_wanted(monkeypatch, stream, wanted, shown):
    monkeypatch.setattr(sys, "stderr", stream())
    with progress_bar(3, "search", "docs", wanted) as bar:
        bar.update(2)
        bar.set_postfix({"loss": 1})
    assert ("search" in sys.stderr.getvalue()) is shown
    assert list(counted([5, 7], "points", "points", wanted)) == [5, 7]
    assert ("points" in sys.stderr.getvalue()) is shown


@pytest.mark.parametrize("estimate", [0.01, 100.0])
def test_waiting_shows_how_long_about(monkeypatch, estimate):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with waiting("faiss trains", lambda: estimate, lambda s: f"{s:g} s", True, every=0.01):
        time.sleep(0.1)
    shown = sys.stderr.getvalue()
    assert "faiss trains:   0%" in shown
    assert f"of about {estimate:g} s" in shown
    assert "faiss trains: 100%" in shown.splitlines()[-1] or "100%" in shown.rpartition("\r")[2]


@pytest.mark.parametrize(("stream", "wanted"), [(Terminal, False), (io.StringIO, True)])
def test_nobody_waits_unseen(monkeypatch, stream, wanted):
    monkeypatch.setattr(sys, "stderr", stream())
    with waiting("faiss trains", lambda: pytest.fail("estimated"), str, wanted):
        pass
    assert sys.stderr.getvalue() == ""


def test_waiting_ends_with_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(RuntimeError, match="no"), waiting("faiss trains", lambda: 9.0, str, True, every=0.01):
        raise RuntimeError("no")
    assert "100%" not in sys.stderr.getvalue()


def test_where_no_bar_is_seen_there_is_a_line(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level("INFO", "faiss_distill")
    for wanted in (False, True):
        with progress_bar(3, "encode", "docs", wanted), progress_bar(0, "nothing", "docs", wanted):
            pass
        with waiting("faiss trains", lambda: 1.0, str, wanted):
            pass
    assert [record.getMessage() for record in caplog.records] == ["encode: 3 docs", "faiss trains"]


class Widget(list):
    """In place of a bar of tqdm.auto's."""

    def __init__(self, **shown):
        super().__init__([shown["desc"]])
        self.total = shown["total"]
        WIDGETS.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.append("closed")

    def update(self, n=1):
        self.append(n)


WIDGETS = []


@pytest.fixture
def notebook(monkeypatch):
    """A kernel of Jupyter's, as far as can be told from within; its standard error is no terminal."""

    def notebook(shell="ZMQInteractiveShell", widgets=True):
        monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", ModuleType("ipykernel.zmqshell"))
        found = None if shell is None else type(shell, (), {})()
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: found))
        for name in ("auto", "autonotebook", "notebook"):
            monkeypatch.delitem(sys.modules, f"tqdm.{name}", raising=False)
        if widgets:
            monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Widget))
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        WIDGETS.clear()

    return notebook


def test_a_notebook_shows_widgets(notebook, caplog):
    caplog.set_level("INFO", "faiss_distill")
    notebook()
    assert list(counted([5, 7], "points", "points", True)) == [5, 7]
    assert list(counted([5, 7], "points", "points", False)) == [5, 7]
    assert WIDGETS == [["points", 1, 1, "closed"]]
    with waiting("faiss trains", lambda: 9.0, str, True):
        pass
    assert WIDGETS[1].n == WIDGETS[1].total == 9.0
    assert sys.stderr.getvalue() == ""
    assert not caplog.records


def test_without_ipywidgets_a_notebook_shows_text(notebook, monkeypatch):
    """tqdm would warn, and warnings are errors here."""
    notebook(widgets=False)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with progress_bar(3, "search", "docs", True) as bar:
        bar.update(2)
    assert "search:  67%" in sys.stderr.getvalue()


def test_ipykernel_alone_makes_no_notebook(notebook):
    notebook(shell=None)
    with progress_bar(3, "search", "docs", True):
        pass
    assert not WIDGETS
    assert sys.stderr.getvalue() == ""


def test_without_a_standard_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with progress_bar(3, "search", "docs", True) as bar:
        bar.update()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("progress", [False, True])
def test_a_worker_killed_in_its_bar_leaves_others_alone(progress):
    """The lock of tqdm's that forked processes share is held by one that is killed; pytest's stderr is no terminal."""
    lock = tqdm.get_lock()
    reading, writing = os.pipe()
    holder = os.fork()
    if holder == 0:
        lock.acquire()
        os.write(writing, b"held")
        time.sleep(60)
    assert os.read(reading, 4) == b"held"
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    other = os.fork()
    if other == 0:
        open_vectors(np.zeros((9, 4), dtype=np.float32), "x").check_finite(4, progress=progress)
        os._exit(0)
    try:
        for _ in range(100):
            done, status = os.waitpid(other, os.WNOHANG)
            if done:
                break
            time.sleep(0.1)
        else:
            os.kill(other, signal.SIGKILL)
            os.waitpid(other, 0)
        assert (done, status) == (other, 0)
    finally:
        type(lock).mp_lock = None  # nobody can release it any more
        del tqdm._lock
