"""What the command line says, in its own words: options in place of arguments, and what may have been meant."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from faiss_distill.checks import did_you_mean
from faiss_distill.errors import DistillError, MissingDependencyError


def told(error: DistillError | OSError, args: argparse.Namespace) -> str:
    """An error on one line, with arguments as the options that they come from."""
    if isinstance(error, DistillError):
        error = replace(
            error,
            argument=_options(args).get(error.argument, error.argument),
            expected=in_flags(error.expected, args),
            hint=error.hint if error.argument == "config" else in_flags(error.hint, args),
        )
    return re.sub(r"^\[Errno \d+\] ", "", " ".join(str(error).split()))


def in_flags(text: str, args: argparse.Namespace) -> str:
    """A text in which ``encoding='frozen'`` is ``--encoding frozen``, and so on for all options of the command.

    Names that might be words, such as ``ids``, are taken for options before an ``=`` alone. Quoted paths stay.
    """
    options = _options(args)
    if not options:
        return text
    names, distinct = "|".join(options), "|".join(name for name in options if "_" in name) or "(?!)"
    pattern = rf"'[^']*/[^']*'|\b(?P<name>{names})=(?P<value>'[^']*'|\w+(?:\.\w+)*)?|\b(?P<bare>{distinct})\b"

    def flag(match: re.Match[str]) -> str:
        if match["bare"]:
            return options[match["bare"]]
        if not match["name"]:
            return match[0]
        option, value = options[match["name"]], (match["value"] or "").strip("'")
        if value in ("True", "False"):
            off = f"--no-{option.removeprefix('--').removeprefix('no-')}"
            return off if value == "False" else option
        return f"{option} {value}".strip()

    return re.sub(pattern, flag, text)


def _options(args: argparse.Namespace) -> dict[str, str]:
    """The long options of the command, by argument."""
    actions = args.parser._actions
    return {a.dest: next(o for o in a.option_strings if o.startswith("--")) for a in actions if a.option_strings}


class Warned(logging.Formatter):
    """A warning as the command line tells it."""

    def __init__(self, args: argparse.Namespace) -> None:
        """For the options of the command."""
        super().__init__()
        self._args = args

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"faiss-distill: {level}{in_flags(record.getMessage(), self._args)}"


class OneOf:
    """A value that is one of some words, for argparse."""

    def __init__(self, known: Iterable[str]) -> None:
        """Take these words."""
        self._known = list(known)

    def __call__(self, word: str) -> str:
        """The word itself; ``overlap@10``, as tables have it, is ``overlap_at_10``.

        Raises:
            ArgumentTypeError: it is none of them; the message has the nearest.
        """
        word = word.replace("@", "_at_")
        if word not in self._known:
            near = did_you_mean(word, self._known)
            raise argparse.ArgumentTypeError(
                f"expected one of {', '.join(self._known)}, got {word!r}{near and f'; {near}'}"
            )
        return word


class Number:
    """An integer or another number, for argparse."""

    def __init__(self, kind: type[int] | type[float], several: bool = False) -> None:
        """Take a number of this ``kind``, perhaps one of ``several``."""
        self._kind, self._several = kind, several

    def __call__(self, text: str) -> int | float:
        """The number.

        Raises:
            ArgumentTypeError: it is none.
        """
        try:
            return self._kind(text)
        except ValueError:
            hint = ("; put spaces between several" if self._several else "; it takes one") if "," in text else ""
            expected = "an integer" if self._kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}{hint}") from None


def check_words(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """End with an error, as argparse does, for a command or an option that there is not, with what may be meant."""
    commands = _commands(parser)
    if not argv or argv[0].startswith("-"):
        return
    if argv[0] not in commands:
        near = did_you_mean(argv[0], commands)
        parser.error(f"no command {argv[0]!r}; {near or 'there are ' + ', '.join(commands)}")
    command = commands[argv[0]]
    known = [option for action in command._actions for option in action.option_strings]
    for word in argv[1:]:
        option = word.partition("=")[0]
        if option == "--":
            return
        if option.startswith("--") and option not in known:
            near = did_you_mean(option, known)
            command.error(f"no option {option}; {near or f'see faiss-distill {argv[0]} --help'}")


def check_places(parser: argparse.ArgumentParser, rest: Sequence[str]) -> None:
    """End with an error, as argparse does, if a command was given more than it takes without an option's name."""
    if rest:
        places = " and ".join(str(a.metavar) for a in parser._actions if not a.option_strings)
        allowed = f"only {places}" if places else "nothing"
        parser.error(f"unexpected {rest[0]!r}; {allowed} can be given without the name of an option")


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands, by name."""
    (choices,) = (a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(choices)


def print_completion() -> type[argparse.Action]:
    """An action that prints what a shell needs to complete commands, options and files, made by shtab."""

    class PrintCompletion(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, namespace: object, values: object, *_: object) -> None:
            try:
                import shtab
            except ImportError:
                needed = MissingDependencyError("", "shtab", "none", "pip install 'faiss-distill[completion]'")
                parser.error(f"{self.option_strings[0]}{needed}")
            for each in (parser, *_commands(parser).values()):
                for action in each._actions:
                    if action.type is Path or action.metavar in ("FILE", "EMBEDDINGS"):
                        action.complete = shtab.FILE  # type: ignore[attr-defined]
            sys.stdout.write(shtab.complete(parser, str(values)))
            parser.exit()

    return PrintCompletion
