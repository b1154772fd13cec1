"""Where a passage stands in the text of its page, and how much of the text around it is shown. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from chatbot import Passage

WINDOW = 20_000  # characters shown at first, and more at each asking: a page may hold a whole book


@dataclass(frozen=True, slots=True)
class Place:
    """`text[start:end]` is the passage, `text[first:last]` is shown."""

    text: str
    start: int
    end: int
    first: int
    last: int


def place(passage: Passage, text: str, first: object = None, last: object = None) -> Place | None:
    """None where the text no longer holds the passage. `first`, `last`: what a page asks for, which shows no less."""
    start = passage.start if text[passage.start : passage.end] == passage.text else text.find(passage.text)
    if start < 0 or not passage.text:
        return None
    end = start + len(passage.text)
    least = max(0, (start + end - WINDOW) // 2)
    most = max(end, least + WINDOW)
    if isinstance(first, int):
        least = max(0, min(least, first))
    if isinstance(last, int):
        most = max(most, last)
    return Place(text, start, end, min(least, start), min(most, len(text)))
