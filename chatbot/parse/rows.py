"""CSV and TSV; and how every format writes the rows of a table that may run over many passages.

A row stands alone: `- Header: value | Header: value`. A dash before it keeps the splitter from joining lines, and
Markdown's marks in a cell from being taken for a heading. Cells without text are left out. A header of two
rows is not recognised: its second row is then read as the first of the values.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path, PurePath
from typing import TypeVar

from chatbot.errors import UnreadableDocument
from chatbot.parse.plain import decode
from chatbot.passage import Document, Page

Row = Mapping[int, str]  # column -> text, of the cells that have some

Cell = TypeVar("Cell")

BETWEEN_CELLS = " | "

_LONGEST_LINE = 1_000_000  # characters; a real row has far fewer, and 50 million would be one passage after another
_MOST_CELLS = 10_000_000
_DELIMITERS = ",;\t|"
_SAMPLE = 8_000  # characters that the delimiter is guessed from: the time grows with their square
_LONGEST_HEADER = 80  # characters; longer cells are what a table says, not what its columns are called
_YEAR_OR_DATE = re.compile(r"(?:19|20)\d\d(?:-\d\d){0,2}")
_DECLARED = re.compile(r"sep=(.)\r?\n")
_MARK = re.compile(r"[#=~`-]")  # a line that begins so could be taken for Markdown's


def read(path: Path, name: str) -> Document:
    text = decode(path.read_bytes(), name)
    longest = max(map(len, text.splitlines()), default=0)
    if longest > _LONGEST_LINE:
        raise UnreadableDocument(
            f"{name!r} has a line of {longest:,} characters, more than the {_LONGEST_LINE:,} that a row may have: "
            "save it with a line for each row"
        )
    declared = _DECLARED.match(text)  # Excel's own first line
    body = text[declared.end() :] if declared else text
    delimiter = declared[1] if declared else _delimiter(body, name)
    try:
        rows = limited(csv.reader(io.StringIO(body, newline=""), delimiter=delimiter), name)
        return Document(name, "csv", (Page("\n".join(lines(row for row in rows if any(map(str.strip, row))))),))
    except csv.Error as error:
        raise UnreadableDocument(
            f"{name!r} cannot be read as a table ({error}), as after a quote that is never closed: "
            "mend it in a spreadsheet program, or name it .txt"
        ) from error


def _delimiter(text: str, name: str) -> str:
    if PurePath(name).suffix.lower() in (".tsv", ".tab"):
        return "\t"
    sample = text[:_SAMPLE]
    try:  # whole lines
        return csv.Sniffer().sniff(sample[: sample.rfind("\n") + 1] or sample, _DELIMITERS).delimiter
    except csv.Error:  # one column, or lines of uneven length
        first = sample.partition("\n")[0]
        return max(_DELIMITERS, key=first.count)


def lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """One line a row. An empty row parts tables; lines of one cell before a table are its title."""
    header: Row = {}
    opening = True  # no table yet since the last empty row
    begun = False
    for row, following in pairwise(chain(map(_cells, rows), [{}])):
        if not row:
            opening = True
            continue
        if opening and begun:
            yield ""
        begun = True
        if opening and _is_header(row, following):
            header, opening = {i: cell.rstrip(": ") for i, cell in row.items()}, False
            yield standing(BETWEEN_CELLS.join(row.values()))
        elif opening and len(row) == 1:
            yield standing(*row.values())
            begun = False  # what it is the title of follows without an empty line
        else:
            if opening and not row.keys() <= header.keys():
                header = {}
            opening = False
            yield f"- {written(row, header)}"


def limited(rows: Iterable[Sequence[Cell]], name: str) -> Iterator[Sequence[Cell]]:
    """The rows. Raises UnreadableDocument where they take more cells, empty ones counted, than a minute reads."""
    cells = 0
    for row in rows:
        cells += len(row)
        if cells > _MOST_CELLS:
            raise UnreadableDocument(
                f"{name!r} has a table of more than {_MOST_CELLS:,} cells, empty ones between others counted: "
                "split it, or delete its empty rows and columns"
            )
        yield row


def written(row: Row, header: Row) -> str:
    """`Header: value | Header: value`"""
    return BETWEEN_CELLS.join(f"{header[i]}: {cell}" if i in header else cell for i, cell in row.items())


def standing(line: str) -> str:
    """The line, which no mark at its head can turn into a heading."""
    return f"- {line}" if _MARK.match(line) else line


def _cells(row: Sequence[str]) -> Row:
    return {i: text for i, cell in enumerate(row) if cell and (text := " ".join(cell.split()))}


def _is_header(row: Row, following: Row) -> bool:
    """Short names, numbers only where they are years or dates and not at the head, and a row below.

    A row such as `Name: | Smith` is a form's: there the colon tells which cell is the name.
    """
    first, *others = row.values()
    return (
        bool(others and following)
        and not _is_number(first)
        and not any(_is_number(cell) and not _YEAR_OR_DATE.fullmatch(cell) for cell in others)
        and not any(len(cell) > _LONGEST_HEADER for cell in row.values())
        and len({cell.endswith(":") for cell in row.values()}) == 1
    )


def _is_number(cell: str) -> bool:
    return any(map(str.isdigit, cell)) and not any(map(str.isalpha, cell))
