"""The process in which one file is parsed: a request comes on stdin, an answer goes to stdout, both JSON.

Started by `chatbot.parse.read`, which keeps the clock. Importing this module imports no parser.
"""

import json
import math
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from chatbot.errors import UnreadableDocument
from chatbot.parse.formats import MODULES, kind_of
from chatbot.passage import Document

_NEWLINES = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
# C0 and C1 but tab and newline, byte order marks, and what Unicode promises never to be a character
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


class Parser(Protocol):
    """A module of `chatbot.parse` that reads one family of formats."""

    def read(self, path: Path, name: str) -> Document:
        """Raises UnreadableDocument where it knows what is wrong with the file."""


def parse(path: Path, name: str) -> Document:
    """`chatbot.parse.read` in this very process, without its limits."""
    parser = cast(Parser, import_module(MODULES[kind_of(path, name)]))
    document = parser.read(path, name)
    if not any(page.text.strip() for page in document.pages):
        raise UnreadableDocument(f"{name!r} holds no text: give a file with something to read in it")
    return document


def clean(text: str) -> str:
    """Newlines become \\n, control characters go, lone surrogates become U+FFFD; all else stays as it is."""
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", _NEWLINES.sub("\n", text)))


def answer(request: dict[str, object]) -> bytes:
    """The document, or `error` with one line; whatever is raised, the parent must hear of it."""
    name = str(request["name"])
    try:
        document = parse(Path(str(request["path"])), name)
        pages = [(page.number, clean(page.text)) for page in document.pages]
        return _json({"kind": document.kind, "pages": pages, "notice": document.notice})
    except UnreadableDocument as error:
        return _json({"error": str(error)})
    except MemoryError:
        return _json({"error": f"{name!r} needs too much memory to read: split it into smaller files"})
    except Exception as error:
        reason = clean(" ".join(f"{type(error).__name__}: {error}".split())[:200])
        return _json({"error": f"{name!r} is damaged, or too large: save a fresh or smaller copy ({reason})"})


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8")


def _limit(memory: int, seconds: float) -> None:
    try:
        import resource
    except ImportError:  # Windows: the parent's clock alone holds us
        return
    # Processor time too, so that we end even if the parent is killed before its clock runs out.
    for what, wanted in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, math.ceil(seconds) + 1)):
        _, hard = resource.getrlimit(what)
        ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(what, (ceiling, hard))
        except (ValueError, OSError):  # macOS refuses RLIMIT_AS
            continue


def main() -> None:
    request = json.load(sys.stdin)
    out = os.dup(sys.stdout.fileno())  # a parser that prints must not spoil the answer
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _limit(request["memory"], request["timeout_s"])
    with os.fdopen(out, "wb") as stdout:
        stdout.write(answer(request))


if __name__ == "__main__":
    main()
