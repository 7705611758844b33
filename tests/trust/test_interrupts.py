"""An index that is being changed when a signal comes: bitwise as it was, or completely the new one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import sized

from faiss_distill.index.parts.interrupts import Interrupts

EVERY = ["IndexIVFPQ", "IndexPQFastScan", "lists on disk"]
"""Those whose every line is tried in the short form, too."""
PROMISE = "an interrupted write-back leaves the index as before or as after"


def faults(place: str, change: str, step: int, *cases: str) -> subprocess.CompletedProcess[str]:
    """Run ``faults.py``, on one thread, since it forks."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).parent / "faults.py"), place, change, str(step)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *cases], capture_output=True, text=True, env=environment, check=False)


def outcomes(place: str, change: str, step: int, *cases: str) -> list[dict]:
    """What became of indexes, by case; faults that broke one are also told on the standard error."""
    run = faults(place, change, step, *cases)
    assert run.returncode == 0, run.stderr[-3000:]
    found = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert found
    for each in found:
        broken = [name for name in each if name.startswith("broken")]
        assert not broken, f"{each}\n{run.stderr[-3000:]}"
        assert each.get("before", 0) > 0, each
    return found


def told(found: list[dict]) -> str:
    """For the table."""
    total = {name: sum(each.get(name, 0) for each in found) for name in ("before", "after")}
    return f"{sum(total.values())} faults: {total['before']} before, {total['after']} after, 0 broken"


@pytest.mark.parametrize(("change", "step"), [("write-back", 1), ("tuning", 4)])
def test_a_signal_at_every_line(figure, change, step):
    """A handler that raises finds nothing half done, in any family; the index lives on and the handler is back."""
    if change == "write-back":
        found = outcomes("signal", change, step, *sized(EVERY, ()))
        found += sized(lambda: outcomes("signal", change, 50), list)()
    else:
        found = outcomes("signal", change, sized(20, step), *sized(EVERY[:1], ()))
    for each in found:  # only where every point is tried is one behind the commit certainly among them
        after = each.get("after", 0) > 0
        assert each["commit"] >= after if change == "tuning" else each["commit"] == after, each
    assert any(each.get("after", 0) for each in found)
    figure(PROMISE, f"a signal at each point, {change}, {len({each['case'] for each in found})} kinds", told(found))


def test_a_storm_of_signals(figure):
    """Up to ten signals in close succession: what one of them raises must not be undone by the next."""
    found = outcomes("storm", "write-back", sized(15, 20), *sized(EVERY[:1], ()))
    figure(PROMISE, "up to 10 signals of a timer", told(found))


def test_an_exception_thrown_into_another_thread(figure):
    """Nothing can hold that back, so the change may be half done; nothing is freed twice or used after that."""
    cases = ["IndexIVFPQ", "lists of the caller's", "lists on disk"]
    run = faults("thread", "write-back", sized(20, 1), *cases)
    found = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert len(found) == 2 * len(cases)
    assert not [each for each in found if any(name.startswith("broken") for name in each)], run.stderr[-3000:]
    figure(
        "an exception thrown into another thread crashes nothing",
        "at each point of a write-back",
        f"{told(found).replace('0 broken', '')}{sum(each.get('half', 0) for each in found)} half done, 0 crashes",
    )


class TestInterrupts:
    @pytest.fixture
    def came(self):
        """Handlers that write down what comes; that of SIGUSR1 also raises."""
        came = []

        def handle(number, frame):
            came.append(number)
            if number == signal.SIGUSR1:
                raise TimeoutError

        own = {number: signal.signal(number, handle) for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)}
        yield came
        for number, handler in own.items():
            signal.signal(number, handler)

    def test_signals_wait_and_keep_their_order(self, came):
        interrupts = Interrupts()
        interrupts.begin()
        for number in (signal.SIGALRM, signal.SIGUSR2):
            signal.raise_signal(number)
        assert came == []
        interrupts.end()
        assert came == [signal.SIGALRM, signal.SIGUSR2]

    def test_all_of_them_are_told_though_one_raises(self, came):
        interrupts = Interrupts()
        interrupts.begin()
        for number in (signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2):
            signal.raise_signal(number)
        with pytest.raises(TimeoutError):
            interrupts.end()
        assert came == [signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2]

    def test_they_are_delivered_where_that_is_allowed(self, came):
        interrupts = Interrupts()
        interrupts.begin()
        signal.raise_signal(signal.SIGALRM)

        def body():
            assert came == [signal.SIGALRM]
            with pytest.raises(TimeoutError):
                signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGUSR2)  # also after one that raised
            return len(came)

        assert interrupts.deliver_in(body) == 3
        signal.raise_signal(signal.SIGUSR2)
        assert len(came) == 3
        interrupts.end()
        assert came == [signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR2]

    def test_one_inside_the_other(self, came):
        outer, inner = Interrupts(), Interrupts()
        outer.begin()
        inner.begin()
        signal.raise_signal(signal.SIGALRM)
        inner.end()
        assert came == []
        outer.end()
        assert came == [signal.SIGALRM]

    def test_a_handler_that_is_set_meanwhile_stays(self, came):
        interrupts = Interrupts()
        interrupts.begin()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        interrupts.end()
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN

    def test_signals_without_a_handler_are_left_alone(self):
        before = {number: signal.getsignal(number) for number in signal.valid_signals()}
        interrupts = Interrupts()
        interrupts.begin()
        for number, handler in before.items():
            assert (signal.getsignal(number) == handler) != callable(handler)
        interrupts.end()
        assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
