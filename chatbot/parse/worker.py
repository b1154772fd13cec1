"""The process in which one file is parsed: `chatbot.parse` starts and asks it.

Importing this module imports no parser.
"""

import tempfile
import time
from dataclasses import astuple
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from chatbot.confined import packed, serve
from chatbot.errors import DiskFull, PackedFiles, UnreadableDocument, room
from chatbot.parse.formats import MODULES, kind_of
from chatbot.parse.lines import clean
from chatbot.passage import Document

_SHARE = 0.5  # of the time that OCR begins pages in: the last of them must end too


class Parser(Protocol):
    """A module of `chatbot.parse` that reads one family of formats."""

    def read(self, path: Path, name: str) -> Document:
        """Raises UnreadableDocument where it knows what is wrong with the file."""


def parse(path: Path, name: str) -> Document:
    """`chatbot.parse.read` in this very process, without its limits and without OCR; there may be no text."""
    parser = cast(Parser, import_module(MODULES[kind_of(path, name)]))
    return parser.read(path, name)


def answer(request: dict[str, Any]) -> bytes:
    """What was asked for, or `error` with one line; whatever is raised, the parent must hear of it."""
    name, path = str(request["name"]), Path(str(request["path"]))
    try:
        if "scans" in request:
            return packed({"texts": _recognised(path, name, request["scans"], request["timeout_s"])})
        if "folder" in request:
            return packed({"members": _unpacked(path, name, Path(str(request["folder"])))})
        with room(tempfile.gettempdir()):  # some readers lay what they unpack there
            document = parse(path, name)
        pages = [(page.number, clean(page.text), list(map(astuple, page.headings))) for page in document.pages]
        return packed({"kind": document.kind, "pages": pages, "notice": document.notice})
    except UnreadableDocument as error:
        return packed({"error": str(error), "packed": isinstance(error, PackedFiles)})
    except DiskFull as error:
        return packed({"error": str(error), "full": True})
    except MemoryError:
        return packed({"error": f"{name!r} needs too much memory to read: split it into smaller files"})
    except Exception as error:
        reason = clean(" ".join(f"{type(error).__name__}: {error}".split())[:200])
        return packed({"error": f"{name!r} is damaged, or too large: save a fresh or smaller copy ({reason})"})


def _recognised(path: Path, name: str, numbers: list[int], timeout_s: float) -> list[str]:
    """Text of the first so many of a PDF's pages as can be read in time."""
    from chatbot.parse.ocr import pages

    texts, end = [], time.monotonic() + _SHARE * timeout_s
    for text in pages(path, name, numbers):
        texts.append(clean(text))
        if time.monotonic() > end:
            break
    return texts


def _unpacked(path: Path, name: str, folder: Path) -> list[tuple[str, str, str]]:
    from chatbot.parse.unpack import unpack

    return [(clean(member.name), member.file, member.problem) for member in unpack(path, name, folder)]


if __name__ == "__main__":
    serve(answer)
