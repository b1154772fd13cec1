"""From the command line to a command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from chatbot.cli.chat import add_ask, add_serve
from chatbot.cli.documents import add_documents
from chatbot.cli.measure import add_bench, add_eval
from chatbot.cli.terminal import Command, fail
from chatbot.cli.training import add_train
from chatbot.errors import MarginaliaError

DEFAULT_COMMAND = "serve"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 with one line that says why, or 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        options = parser().parse_args(_with_command(sys.argv[1:] if arguments is None else arguments))
        command: Command = options.command
        return command(options)
    except MarginaliaError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of standard output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SystemExit(fail(f"{message} (see {self.prog} --help)"))


def parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--home", metavar="DIR", help="folder that holds all state")
    common.add_argument("--settings", metavar="FILE", help="a TOML file of settings (default: <home>/settings.toml)")
    common.add_argument("--set", metavar="KEY=VALUE", action="append", help="one setting; may be repeated")
    top = _Parser(prog="marginalia", description="Chat with your documents.", parents=[common])
    commands = top.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)

    def add(name: str, command: Command, help: str, within: Any = commands) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = within.add_parser(name, help=help, description=help, parents=[common])
        made.set_defaults(command=command)
        return made

    for each in (add_serve, add_documents, add_ask, add_eval, add_train, add_bench):
        each(add)
    return top


def _with_command(arguments: Sequence[str]) -> list[str]:
    """`run.py --port 8000` serves: the command may be left out."""
    given = list(arguments)
    index = 0
    while index < len(given) and given[index] in ("--home", "--settings", "--set"):
        index += 2
    if index < len(given) and (not given[index].startswith("-") or given[index] in ("-h", "--help")):
        return given
    if index < len(given) and given[index].startswith(("--home=", "--settings=", "--set=")):
        rest = _with_command(given[index + 1 :])
        return [*given[: index + 1], *rest]
    return [*given[:index], DEFAULT_COMMAND, *given[index:]]
