"""Takes Markdown's marks off a source's text, for reading: nothing is rendered, so nothing in it can be fetched. Pure.

Marks are only left out, never replaced: what is kept stands where it stood, so that a passage can still be marked in
the text around it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from pathlib import PurePath

Span = tuple[int, int]  # start and end of what is left out

# Kinds into whose text parsing writes headings, and kinds whose whole text is Markdown's, as a web page's is.
# All others are kept as they are: a star means something else in a table of figures or in code.
OFFICE = {".docx", ".docm", ".dotx", ".pptx", ".pptm", ".xlsx", ".xlsm", ".odt", ".ods", ".odp", ".msg"}
WRITTEN = {".md", ".markdown", ".mdown", ".mkd", ".html", ".htm", ".xhtml", ".xht", ".epub", ".eml", ".ipynb"}

_ADDRESS = re.compile(r"\A[^\s/.]+(?:\.[^\s/.]+)++/\S*")
_HEADING = re.compile(r"[ ]{0,3}(#{1,6}[ \t]+)(?=\S)")
_FENCE = re.compile(r"[ ]{0,3}(`{3,}+|~{3,}+)")
_RULED = re.compile(
    r"\A[ \t]*+(?:={3,}+|-{3,}+|(?:[*][ \t]*+){3,}+|(?:_[ \t]*+){3,}+|\|?(?=[^\n]*\|)[-:| \t]{3,}+)[ \t]*+"
)
_QUOTE = re.compile(r"[ ]{0,3}(?:>[ ]?)++")
_ROW = re.compile(r"(?<![ \t])[ \t]*+\|")
_TICKS = re.compile(r"`++")
_LABEL = r"(?:!\[[^\[\]\n]*+\]\([^()\n]*+\)|[^\[\]\n])*+"  # it may hold images
_LINK = re.compile(rf"(!?\[)({_LABEL})(\](?:\([^()\n]*+(?:\([^()\n]*+\)[^()\n]*+)*+\)|\[[^\[\]\n]*+\]))")
_DELIMITER = re.compile(r"[*]{1,3}|_{1,3}|~~")
_ESCAPED = re.compile(r"\\(?=[!-/:-@\[-`{-~])")


def plain(text: str, name: str) -> str:
    """The text of a document called `name` without Markdown's marks, where it is of a kind that has them."""
    return without(text, marks(text, name), 0, len(text))


def without(text: str, spans: list[Span], start: int, end: int) -> str:
    """`text[start:end]` without those spans, which are in order and do not overlap."""
    kept, at = [], start
    for first, last in spans:
        if last > at and first < end:
            kept.append(text[at : max(at, first)])
            at = min(last, end)
    return "".join([*kept, text[at:end]])


def marks(text: str, name: str) -> list[Span]:
    """Where Markdown's marks stand in the text, in order. In time linear in the text's length."""
    suffix = PurePath(name).suffix.lower()
    if suffix in OFFICE:
        return _joined(heading for start, end in _lines(text) if (heading := _heading(text, start, end)))
    written = suffix in WRITTEN or (not suffix and _ADDRESS.fullmatch(name))
    return _joined(_marks(text)) if written else []


def _marks(text: str) -> Iterator[Span]:
    fence, paragraph = "", 0  # the fence that is open; where the paragraph that is being read begins
    for start, end in _lines(text):
        fenced = _FENCE.match(text, start, end)
        if fenced and (not fence or fenced[1].startswith(fence)):
            yield from _inline(text, paragraph, start)
            yield start, min(end + 1, len(text))
            fence, paragraph = "" if fence else fenced[1], end + 1
        elif fence:
            paragraph = end + 1
        elif not text[start:end].strip() or _RULED.fullmatch(text[start:end]):
            yield from _inline(text, paragraph, start)
            if text[start:end].strip():
                yield start, min(end + 1, len(text))
            paragraph = end + 1
        else:
            yield from _block(text, start, end)
    yield from _inline(text, paragraph, len(text))


def _lines(text: str) -> Iterator[Span]:
    start = 0
    for line in text.split("\n"):
        yield start, start + len(line)
        start += len(line) + 1


def _heading(text: str, start: int, end: int) -> Span | None:
    found = _HEADING.match(text, start, end)
    return found.span(1) if found else None


def _block(text: str, start: int, end: int) -> Iterator[Span]:
    """What stands at a line's beginning, and at both ends of a table's row."""
    if quoted := _QUOTE.match(text, start, end):
        yield quoted.span()
        start = quoted.end()
    if heading := _heading(text, start, end):
        yield heading
    if row := _ROW.match(text, start, end):
        last = start + len(text[start:end].rstrip()) - 1
        if last >= row.end() and text[last] == "|":
            yield row.start(), row.end() + (text[row.end()] == " ")
            yield last, last + 1


def _inline(text: str, start: int, end: int) -> Iterator[Span]:
    """Of one paragraph: code's ticks, links' targets, emphasis, backslashes before marks."""
    code = list(_code(text, start, end))
    for first, last, size in code:
        yield first, first + size
        yield last - size, last
    kept = [(first, last) for first, last, _ in code]
    links = [found for found in _LINK.finditer(text, start, end) if not _inside(found.start(), kept)]
    for link in links:
        yield link.span(1)
        yield link.span(3)
        kept.append(link.span(3))
        for image in _LINK.finditer(text, *link.span(2)):
            yield image.span(1)
            yield image.span(3)
            kept.append(image.span(3))
    kept.sort()
    escaped = [found.span() for found in _ESCAPED.finditer(text, start, end) if not _inside(found.start(), kept)]
    yield from escaped
    kept = sorted([*kept, *((first, last + 1) for first, last in escaped)])
    yield from _emphasis(text, start, end, kept)


def _code(text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Spans of code with their ticks, and how many ticks."""
    runs = list(_TICKS.finditer(text, start, end))
    closing: dict[int, deque[int]] = {}
    for number, run in enumerate(runs):
        closing.setdefault(len(run[0]), deque()).append(number)
    at = 0
    while at < len(runs):
        same = closing[len(runs[at][0])]
        while same and same[0] <= at:
            same.popleft()
        if same:
            yield runs[at].start(), runs[same[0]].end(), len(runs[at][0])
            at = same[0]
        at += 1


def _emphasis(text: str, start: int, end: int, kept: list[Span]) -> Iterator[Span]:
    """Pairs of stars, underscores or tildes around words: never inside a word, where they may mean what they are."""
    opened: dict[str, Span] = {}
    for found in _DELIMITER.finditer(text, start, end):
        if _inside(found.start(), kept):
            continue
        before = text[found.start() - 1] if found.start() > start else " "
        after = text[found.end()] if found.end() < end else " "
        if found[0] in opened and not before.isspace() and not _in_a_word(after):
            yield opened.pop(found[0])
            yield found.span()
        elif not after.isspace() and not _in_a_word(before):
            opened[found[0]] = found.span()


def _in_a_word(letter: str) -> bool:
    """Of scripts that put spaces between words; emphasis in Chinese stands between any two characters."""
    return letter.isascii() and letter.isalnum()


def _inside(at: int, spans: list[Span]) -> bool:
    """Whether a place is inside one of these spans, which are in order."""
    low, high = 0, len(spans)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if spans[middle][1] <= at else (low, middle)
    return low < len(spans) and spans[low][0] <= at


def _joined(spans: Iterator[Span]) -> list[Span]:
    """In order, and those that touch or overlap as one."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
