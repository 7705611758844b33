"""``faiss-distill`` as a process: its signals, its standard streams and its exit status."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
PIPE_CLOSED = 128 + 13
"""What a shell reports of a program that SIGPIPE ended; Python ignores that signal."""


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line in a process of its own.

    Returns:
        The exit status, as the help has it.
    """
    _on_signals(_leave)
    _open_streams()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # they are for programmers, who ask for them with python -W
    from faiss_distill import cli

    try:
        args = cli.parse(argv)
        status = cli.check(args)
        if status == 0:
            cli.loaded(args)
            _on_signals(_interrupt)
            status = cli.run(args)
        sys.stdout.flush()
    except Interrupted as interrupted:
        _on_signals(_leave)
        print(_interrupted(interrupted.args[0]), file=sys.stderr)
        status = 128 + interrupted.args[0]
    except OSError as error:  # of standard output: what has not been printed would fail once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return PIPE_CLOSED
        print(f"faiss-distill: error: can't write to standard output: {error.strerror}", file=sys.stderr)
        status = 2
    return status


def _on_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """Handle what asks the process to end, unless whoever started it had that ignored, as ``nohup`` does."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    """At once: there is nothing to undo, and an exception might get lost in the import of a compiled module."""
    os.write(2, f"{_interrupted(number)}\n".encode())
    os._exit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def _interrupted(number: int) -> str:
    return f"faiss-distill: interrupted ({signal.Signals(number).name}); no file is left half-written"


def _open_streams() -> None:
    """Have the report alone on standard output, in whatever encoding that has.

    What is printed in C++ goes to standard error. A stream that is closed is opened on nothing, or else the next file
    would get its number, and whatever is printed.
    """
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    encoding = getattr(sys.stdout, "encoding", None)
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=encoding, errors="replace")
    os.dup2(2, 1)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", errors="replace")


if __name__ == "__main__":
    sys.exit(main())
