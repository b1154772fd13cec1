"""Splitting a document and telling its language, in a process that is kept for the next one: its text is untrusted.

A kept process spares a small document the loading of the tokenizer and of the languages' profiles, which takes longer
than splitting it. What is computed there is `chatbot.split` and `chatbot.language`, unchanged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from chatbot.confined import MAX_MEMORY, Broken, Check, Confined, Late, packed, serve, unhindered
from chatbot.errors import ReadingInterrupted, UnreadableDocument
from chatbot.language import detect
from chatbot.passage import Document, Heading, Page, Passage
from chatbot.split import Cutter, passages

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TIMEOUT_S = 60.0
_S_PER_CHARACTER = 2e-4  # besides; it takes 6e-7 to 9e-5 of one core: see LOG.md, 2026-11-27
_SMALL = 1_000_000  # characters: after a longer document the process, which has grown, is not kept
_SAMPLE = 5_000  # characters that tell a document's language
_MOST_HEADINGS = 10  # times as long as the text, all passages' different headings together, and `_SMALL` besides


class Splitter:
    """Any thread may call; each has a process to itself meanwhile. `idle_s`: how long one is kept without work."""

    def __init__(
        self, tokenizer: Callable[[], Tokenizer], *, max_memory_bytes: int = MAX_MEMORY, idle_s: float = 60.0
    ) -> None:
        self._tokenizer = tokenizer
        self._memory = max_memory_bytes
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._kept: list[tuple[Confined, threading.Timer]] = []
        self._closed = False

    def split(
        self,
        document: Document,
        document_id: str,
        *,
        max_tokens: int,
        overlap: int,
        timeout_s: float = TIMEOUT_S,
        check: Check = unhindered,
    ) -> tuple[list[Passage], str]:
        """The passages that `chatbot.split.split` gives, and the language, ISO 639-1.

        Raises UnreadableDocument where that takes too much time or memory; `timeout_s` grows with the text. What
        `check` raises ends it at once.
        """
        characters = sum(len(page.text) for page in document.pages)
        timeout_s += characters * _S_PER_CHARACTER
        request = {
            "name": document.name,
            "kind": document.kind,
            "pages": [(page.text, page.number, list(map(astuple, page.headings))) for page in document.pages],
            "max_tokens": max_tokens,
            "overlap": overlap,
        }
        try:
            answer = self._answer(request, timeout_s, check, keep=characters <= _SMALL)
        except Late as error:
            raise ReadingInterrupted(
                f"{document.name!r} could not be split into passages within {timeout_s:.0f} seconds: "
                "split it into smaller files"
            ) from error
        except Broken as error:
            raise (ReadingInterrupted if error.killed else UnreadableDocument)(
                f"{document.name!r} could not be split into passages, its process ended (exit {error.status}): "
                "is there enough memory? Else split it into smaller files"
            ) from error
        if "error" in answer:
            raise UnreadableDocument(answer["error"])
        headings = answer["headings"]
        places = ((index, start, end, headings[heading]) for index, start, end, heading in answer["places"])
        return passages(document, document_id, places), answer["language"]

    def close(self) -> None:
        """A process that is at work ends with it."""
        with self._lock:
            self._closed = True
            kept, self._kept = self._kept, []
        for process, ending in kept:
            ending.cancel()
            process.end()

    def _answer(self, request: dict[str, Any], timeout_s: float, check: Check, *, keep: bool) -> dict[str, Any]:
        try:
            return self._asked(self._taken(), request, timeout_s, check, keep=keep)
        except Broken:  # it may have been killed while it was idle, or for want of memory
            return self._asked(None, request, timeout_s, check, keep=keep)

    def _asked(
        self, process: Confined | None, request: dict[str, Any], timeout_s: float, check: Check, *, keep: bool
    ) -> dict[str, Any]:
        """By one that was kept, or else by a new one."""
        if process is None:
            process = Confined("chatbot.splitter")
            told = {"tokenizer": self._tokenizer().to_str()}
            process.ask(told, timeout_s=TIMEOUT_S, memory=self._memory, check=check)
        answer = process.ask(request, timeout_s=timeout_s, memory=self._memory, check=check)
        self._give_back(process, keep and "error" not in answer)
        return answer

    def _taken(self) -> Confined | None:
        with self._lock:
            if not self._kept:
                return None
            process, ending = self._kept.pop()
        ending.cancel()
        return process

    def _give_back(self, process: Confined, keep: bool) -> None:
        ending = threading.Timer(self._idle_s, self._end, [process])
        ending.daemon = True
        with self._lock:
            if keep := keep and not self._closed:
                self._kept.append((process, ending))
                ending.start()
        if not keep:
            process.end()

    def _end(self, process: Confined) -> None:
        with self._lock:
            idle = [kept for kept in self._kept if kept[0] is process]
            self._kept = [kept for kept in self._kept if kept[0] is not process]
        if idle:  # else it was taken a moment ago
            process.end()


class Worker:
    """What runs in the process."""

    def __init__(self) -> None:
        self._tokenizer: Tokenizer | None = None
        self._cutter: tuple[tuple[int, int], Cutter] | None = None  # the last one, and what it was made for

    def answer(self, request: dict[str, Any]) -> bytes:
        """To {"tokenizer"}, which comes first, nothing; to a document {"places", "headings", "language"}, or {"error"}
        with one line. A place has its heading's number."""
        if "tokenizer" in request:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_str(request["tokenizer"])
            return packed({})
        try:
            return packed(self._split(request))
        except UnreadableDocument as error:
            return packed({"error": str(error)})
        except MemoryError:
            name = request["name"]
            return packed({"error": f"{name!r} needs too much memory to split: split it into smaller files"})
        except Exception as error:
            name, reason = request["name"], " ".join(f"{type(error).__name__}: {error}".split())[:200]
            return packed({"error": f"{name!r} could not be split into passages ({reason}): this is a bug of ours"})

    def _split(self, request: dict[str, Any]) -> dict[str, Any]:
        pages = tuple(
            Page(text, number, tuple(Heading(*heading) for heading in headings))
            for text, number, headings in request["pages"]
        )
        made_for = request["max_tokens"], request["overlap"]
        if self._cutter is None or self._cutter[0] != made_for:
            assert self._tokenizer is not None
            self._cutter = made_for, Cutter(self._tokenizer, *made_for)
        places, headings = _numbered(self._cutter[1], Document(request["name"], request["kind"], pages))
        return {"places": places, "headings": headings, "language": detect(_sample(pages))}


def _numbered(cutter: Cutter, document: Document) -> tuple[list[tuple[int, int, int, int]], list[str]]:
    """The places, with numbers for headings, and the headings.

    Raises UnreadableDocument where the text is a small part of them, as where each word has six levels above it.
    """
    most = _MOST_HEADINGS * sum(len(page.text) for page in document.pages) + _SMALL
    numbers: dict[str, int] = {}
    places = []
    for index, start, end, heading in cutter.places(document):
        if heading not in numbers:
            numbers[heading] = len(numbers)
            most -= len(heading)
        if most < 0:
            raise UnreadableDocument(f"{document.name!r} has too many long headings for its text: shorten them")
        places.append((index, start, end, numbers[heading]))
    return places, list(numbers)


def _sample(pages: tuple[Page, ...]) -> str:
    text = ""
    for page in pages:
        text += page.text[: _SAMPLE - len(text)]
    return text


if __name__ == "__main__":
    serve(Worker().answer)
