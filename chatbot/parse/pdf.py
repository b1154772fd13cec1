"""PDF, page by page, in the reading order that PDFium finds; the titles of its outline are headings.

Tables that lines are drawn around become a line a row, cells parted by bars. Pages that are pictures give no
text here: `chatbot.parse.ocr` reads them.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from statistics import quantiles

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
    return Page(text, index + 1, tuple(_headings(text, titles)))


def _headings(text: str, titles: list[tuple[int, str]]) -> Iterator[Heading]:
    """Each title where a line is it, else begins with it, else where the one before ended."""
    position = 0
    for level, title in titles:
        words = r"\s+".join(map(re.escape, title.split()))
        begins = rf"^[^\w\n]*(?:[\dIVX][\dIVX.]*\s+)?{words}"
        for pattern in (rf"{begins}[^\w\n]*$", rf"{begins}\b"):
            if found := re.compile(pattern, re.M | re.I).search(text, position):
                break
        start, end = found.span() if found else (position, position)
        yield Heading(level, title, start, end)
        position = end


def _text(pdf: pdfium.PdfDocument, index: int, finder: Finder) -> str:
    try:
        page = pdf[index]
        textpage = page.get_textpage()
    except pdfium.PdfiumError:  # one broken page; counted with those that have no text
        return ""
    tables = finder.tables(index) if _is_ruled(page) and textpage.count_chars() else []
    filled = [(table.box, rows) for table in tables if (rows := _rows(textpage, table))]
    text = "\n".join(_with_tables(textpage, filled)) if filled else unwrap(textpage.get_text_range())
    textpage.close()
    page.close()
    return text


def _is_ruled(page: pdfium.PdfPage) -> bool:
    """Whether lines may draw a table on it; not on a page that is turned or cut, where places would not agree."""
    if page.get_rotation() or page.get_mediabox()[:2] != (0, 0) or page.get_cropbox() != page.get_mediabox():
        return False
    drawn = page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_PATH], max_depth=3)
    return FEWEST_LINES <= sum(1 for _ in islice(drawn, MOST_LINES + 1)) <= MOST_LINES


def _rows(textpage: pdfium.PdfTextPage, table: Table) -> str:
    """A line a row; "" where its cells do not hold its text, or hold whole paragraphs, as a page's layout does."""
    rows = [[_line(textpage.get_text_bounded(*cell)) for cell in row] for row in table.rows]
    cells = "".join(map("".join, rows))
    whole = _line(textpage.get_text_bounded(*table.box))
    if len(cells.replace(" ", "")) < 0.95 * len(whole.replace(" ", "")) or any(
        len(cell) > _LONGEST_CELL for row in rows for cell in row
    ):
        return ""
    return "\n".join(" | ".join(row) for row in rows if any(row))


def _line(text: str) -> str:
    return " ".join(_HYPHEN.sub("", text).split())


def _with_tables(textpage: pdfium.PdfTextPage, tables: list[tuple[Box, str]]) -> Iterator[str]:
    """The page's text, with each table's rows where its first character stood."""
    start, count, pending = 0, textpage.count_chars(), list(tables)
    inside: tuple[Box, str] | None = None
    for index in range(count):
        left, bottom, right, top = textpage.get_charbox(index)
        if right <= left:  # a line break, which PDFium adds and which lies nowhere
            continue
        x, y = (left + right) / 2, (bottom + top) / 2
        table = next((t for t in tables if t[0][0] <= x <= t[0][2] and t[0][1] <= y <= t[0][3]), None)
        if table is inside:
            continue
        if inside is None and index > start:
            yield unwrap(textpage.get_text_range(start, index - start))
        if table in pending:
            pending.remove(table)
            yield table[1]
        inside, start = table, index
    if inside is None and count > start:
        yield unwrap(textpage.get_text_range(start, count - start))


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
