"""PDF, page by page, in the reading order that PDFium finds; the titles of its outline are headings.

Tables that lines are drawn around become a line a row, cells parted by bars. Pages that are pictures give no
text here: `chatbot.parse.ocr` reads them.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice, pairwise
from operator import itemgetter
from pathlib import Path
from statistics import quantiles
from unicodedata import bidirectional

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from chatbot.errors import UnreadableDocument
from chatbot.parse.lines import NARROW, clean, goes_on, is_cjk, width
from chatbot.parse.tables import FEWEST_LINES, MOST_LINES, Box, Finder, Table
from chatbot.passage import Document, Heading, Page

MAX_PAGES = 20_000  # at 670 pages a second, half of the minute that a file may take
MAX_OUTLINE = 10_000  # entries
_LONGEST_TITLE = 200  # characters
_LONGEST_CELL = 500
Place = tuple[int, int, int]  # of a character: number of the table, its row, its column
_OUTSIDE: Place = (-1, -1, -1)
_BEFORE_TITLE = re.compile(r"^([^\w\n]*+)(?=([\dIVX][\dIVX.]*+\s++)?+)", re.M | re.I)  # marks, a number
_TOKEN, _OTHER, _EDGE = map(re.compile, (r"(\s{0,200}+)(\w++|[^\w\s])", r"[^\w\n]{0,200}+", r"\b"))
_HYPHEN = re.compile("\ufffe\\s*")  # PDFium's mark for a hyphen that only the line's end called for


def read(path: Path, name: str) -> Document:
    """Pages without text are among the pages: who asked for the document says so, or has them read by OCR."""
    with opened(path, name) as pdf:
        if len(pdf) > MAX_PAGES:
            raise UnreadableDocument(
                f"{name!r} has {len(pdf):,} pages, more than the {MAX_PAGES:,} that are read: split it"
            )
        titles, finder = _outline(pdf), Finder(path)
        return Document(name, "pdf", tuple(_page(pdf, index, titles[index], finder) for index in range(len(pdf))))


def opened(path: Path, name: str) -> pdfium.PdfDocument:
    """Raises UnreadableDocument where it is encrypted or damaged."""
    try:
        return pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        if any(word in str(error).lower() for word in ("password", "security")):
            raise UnreadableDocument(
                f"{name!r} is encrypted: save a copy without the password and give that"
            ) from error
        raise UnreadableDocument(f"{name!r} is cut short or damaged: save or download it again ({error})") from error


def _outline(pdf: pdfium.PdfDocument) -> defaultdict[int, list[tuple[int, str]]]:
    """Index of a page -> (level from 1, title) of the outline's entries that lead there, in the outline's order."""
    titles: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    for entry in islice(pdf.get_toc(), MAX_OUTLINE):
        target = entry.get_dest()
        index = target.get_index() if target else None
        title = " ".join(clean(entry.get_title()).split())[:_LONGEST_TITLE]
        if title and index is not None:
            titles[index].append((entry.level + 1, title))
    return titles


def _page(pdf: pdfium.PdfDocument, index: int, titles: list[tuple[int, str]], finder: Finder) -> Page:
    text = clean(_text(pdf, index, finder))
    return Page(text, index + 1, tuple(headings(text, titles)))


def headings(text: str, titles: list[tuple[int, str]]) -> Iterator[Heading]:
    """Each of (level, title) where a line is it, else begins with it, else where the one before ended.

    Takes time in proportion to the text and the titles, not to their product.
    """
    position, tree = 0, _Words()
    ends = [tree.with_title(title) for _, title in titles]
    if titles:
        _find(text, tree)
    for (level, title), end in zip(titles, ends, strict=True):
        found = (position, position)
        for lines in (end.begun, end.whole):
            if (index := bisect_left(lines, position, key=itemgetter(0))) < len(lines):
                found = lines[index]
        yield Heading(level, title, *found)
        position = found[1]


@dataclass(slots=True)
class _Words:
    """The titles' tree: all are looked for in one walk, so that many that begin alike cost no more than one."""

    following: "dict[str, _Words]" = field(default_factory=dict)
    ends: bool = False  # a title
    whole: list[tuple[int, int]] = field(default_factory=list)  # where lines are it: start of the line, its own end
    begun: list[tuple[int, int]] = field(default_factory=list)  # where lines begin with it

    def with_title(self, title: str) -> "_Words":
        """Where it ends."""
        end = self
        for token in _TOKEN.finditer(title):
            end = end.following.setdefault(_token(token), _Words())
        end.ends = True
        return end


def _token(token: re.Match[str]) -> str:
    """A word or mark, and whether there is a space before it."""
    return f"{token[1] and ' '}{token[2].lower()}"


def _find(text: str, tree: _Words) -> None:
    """Where lines are titles, after marks and a number, or begin with them."""
    for line in _BEFORE_TITLE.finditer(text):
        for place in (*[line.end(2)] * bool(line[2]), line.end(1), *reversed(range(*line.span(1)))):
            words = tree
            while (token := _TOKEN.match(text, place)) and (found := words.following.get(_token(token))):
                words, place = found, token.end()
                if words.ends:
                    rest = _OTHER.match(text, place)
                    if rest and text[rest.end() : rest.end() + 1] in ("", "\n"):
                        words.whole.append((line.start(), rest.end()))
                    elif _EDGE.match(text, place):
                        words.begun.append((line.start(), place))


def _text(pdf: pdfium.PdfDocument, index: int, finder: Finder) -> str:
    try:
        page = pdf[index]
        textpage = page.get_textpage()
    except pdfium.PdfiumError:  # one broken page; counted with those that have no text
        return ""
    tables = finder.tables(index) if _is_ruled(page) and textpage.count_chars() else []
    text = _with_tables(textpage, tables) if tables else unwrap(textpage.get_text_range())
    textpage.close()
    page.close()
    return text


def _is_ruled(page: pdfium.PdfPage) -> bool:
    """Whether lines may draw a table on it; not on a page that is turned or cut, where places would not agree."""
    if page.get_rotation() or page.get_mediabox()[:2] != (0, 0) or page.get_cropbox() != page.get_mediabox():
        return False
    drawn = page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_PATH], max_depth=3)
    return FEWEST_LINES <= sum(1 for _ in islice(drawn, MOST_LINES + 1)) <= MOST_LINES


def _with_tables(textpage: pdfium.PdfTextPage, tables: list[Table]) -> str:
    """The page's text, with each table's rows where its characters stood."""
    places = list(_places(textpage, tables))
    spans = {number: span for number in range(len(tables)) if (span := _span(places, number))}
    cells: defaultdict[Place, str] = defaultdict(str)
    for place, run in groupby(range(len(places)), key=places.__getitem__):
        numbers = list(run)
        cells[place] += f"{textpage.get_text_range(numbers[0], len(numbers))}\n"
    parts, end = [], 0
    for number, (first, last) in sorted(spans.items(), key=itemgetter(1)):
        if first >= end and (rows := _rows(tables[number], number, cells)):
            parts += [unwrap(textpage.get_text_range(end, first - end)), rows]
            end = last + 1
    parts.append(unwrap(textpage.get_text_range(end, len(places) - end)))
    return "\n".join(part.strip("\n") for part in parts if part.strip())


def _span(places: list[Place], number: int) -> tuple[int, int] | None:
    """Its first and last character; None where others stand between them, as where only part of it has lines."""
    own = [index for index, place in enumerate(places) if place[0] == number]
    return (own[0], own[-1]) if own and len(own) == own[-1] - own[0] + 1 else None


def _places(textpage: pdfium.PdfTextPage, tables: list[Table]) -> Iterator[Place]:
    """Of each character. A line break, which PDFium adds, lies nowhere: it stays with the one before."""
    place = _OUTSIDE
    for index in range(textpage.count_chars()):
        left, bottom, right, top = textpage.get_charbox(index)
        if right > left:
            place = _place(tables, (left + right) / 2, (bottom + top) / 2)
        yield place


def _place(tables: list[Table], x: float, y: float) -> Place:
    for number, table in enumerate(tables):
        if _holds(table.box, x, y):
            for row, cells in enumerate(table.rows):
                for column, cell in enumerate(cells):
                    if _holds(cell, x, y):
                        return number, row, column
    return _OUTSIDE


def _holds(box: Box, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def _rows(table: Table, number: int, cells: dict[Place, str]) -> str:
    """A line a row; "" where a cell holds whole paragraphs, as where lines only lay out the page."""
    rows = [
        {box[0]: _line(cells.get((number, row, column), "")) for column, box in enumerate(boxes)}
        for row, boxes in enumerate(table.rows)
    ]
    if any(len(cell) > _LONGEST_CELL for row in rows for cell in row.values()):
        return ""
    filled = {left for row in rows for left, cell in row.items() if cell}  # others lie between double lines
    lines = [[cell for left, cell in row.items() if left in filled] for row in rows]
    return "\n".join(" | ".join(line[:: -1 if _leftwards("".join(line)) else 1]) for line in lines if any(line))


def _line(text: str) -> str:
    return " ".join(_HYPHEN.sub("", text).split())


def _leftwards(text: str) -> bool:
    """Whether it is Hebrew, Arabic or another script that runs from right to left."""
    return 2 * sum(bidirectional(character) in ("R", "AL") for character in text) > sum(map(str.isalpha, text))


def unwrap(text: str) -> str:
    """One line a paragraph: a PDF has a line break at the end of each printed line.

    A paragraph whose last line is as wide as the page's widest runs into the next; a short line never does.
    """
    lines = [line.strip() for line in _HYPHEN.sub("", text).replace("\r", "").split("\n")]
    widths = [width(line) for line in lines]
    full = max(NARROW, 0.75 * quantiles(widths, n=10, method="inclusive")[-1] if len(widths) > 1 else 0)
    joined = lines[:1]
    for line, following in pairwise(lines):
        if goes_on(line, following, full):
            joined.append("" if is_cjk(line[-1]) and is_cjk(following[0]) else " ")
        else:
            joined.append("\n")
        joined.append(following)
    return "".join(joined)
