"""What the commands share: settings from the command line, progress, JSON, one line for an error."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from chatbot.settings import Settings, load, parse_assignment

if TYPE_CHECKING:
    from chatbot.assemble import Chatbot

Command = Callable[[argparse.Namespace], int]
Add = Callable[..., argparse.ArgumentParser]  # (name, command, help, within) -> the command's parser
JUDGED = "rows (.jsonl), or judged conversations: a home's .sqlite, a file (.json) or a folder; see docs/training.md"


def settings_of(options: argparse.Namespace) -> Settings:
    chosen = dict(parse_assignment(text) for text in getattr(options, "set", []))
    return load(getattr(options, "home", None), getattr(options, "settings", None), chosen)


def opened(options: argparse.Namespace) -> Chatbot:
    chosen = settings_of(options)
    from chatbot.assemble import Chatbot  # loads torch
    from chatbot.loading import give_back_freed_memory

    give_back_freed_memory()
    return Chatbot(chosen)


@contextlib.contextmanager
def bar() -> Iterator[Callable[[float, str], None]]:
    """A progress bar on standard error, shown from the first report on."""
    from tqdm import tqdm

    shown: Any = None

    def report(share: float, what: str) -> None:
        nonlocal shown
        if shown is None:
            shown = tqdm(
                total=100, unit="%", file=sys.stderr, bar_format="{l_bar}{bar}| {elapsed}<{remaining}", leave=False
            )
        drawn = (shown.desc, shown.n)
        shown.set_description_str(what, refresh=False)
        shown.n = min(100, round(share * 100))
        if (shown.desc, shown.n) != drawn or sys.stderr.isatty():  # there its clock goes on
            shown.refresh()

    try:
        yield report
    finally:
        if shown is not None:
            shown.close()


def takes_json(made: argparse.ArgumentParser) -> None:
    made.add_argument("--json", action="store_true", help="print one JSON object on standard output and nothing else")


def text(word: str) -> str:
    """For argparse: of bytes that are no text, marks, as in a file's name."""
    return word.encode("utf-8", "replace").decode()


def count(text: str) -> int:
    """For argparse: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def fields(value: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(value)


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


def fail(line: str) -> int:
    print(f"marginalia: {line}", file=sys.stderr)
    return 1
