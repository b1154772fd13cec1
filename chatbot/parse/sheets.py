"""Excel's .xlsx (and .xlsm, .xltx): each sheet a heading, its rows with their headers.

Formulas are never evaluated: the value that Excel stored with each is read, and one without a stored value is
empty. Hidden sheets, rows and columns are read; comments, charts, pictures and macros are not. openpyxl reads a
row at a time, and with defusedxml installed refuses XML that declares entities.
"""

from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, time
from pathlib import Path

from openpyxl import load_workbook
from openpyxl.cell.read_only import ReadOnlyCell
from openpyxl.worksheet._read_only import ReadOnlyWorksheet

from chatbot.errors import UnreadableDocument
from chatbot.parse.rows import limited, lines
from chatbot.passage import Document, Page


def read(path: Path, name: str) -> Document:
    with path.open("rb") as file:  # openpyxl would judge a path by its suffix
        try:
            workbook = load_workbook(file, read_only=True, data_only=True, keep_links=False)
        except (KeyError, OSError, ValueError) as error:  # what openpyxl says of it names our own folder
            raise UnreadableDocument(
                f"{name!r} is damaged, or no ordinary Excel workbook inside but, say, a binary one (.xlsb): "
                "open it in Excel and save it as 'Excel Workbook (.xlsx)'"
            ) from error
        with closing(workbook):
            texts = [(sheet.title, "\n".join(lines(_rows(sheet, name)))) for sheet in workbook.worksheets]
    return Document(name, "xlsx", (Page("\n\n".join(f"# {title}\n\n{text}" for title, text in texts if text)),))


def _rows(sheet: ReadOnlyWorksheet, name: str) -> Iterator[list[str]]:
    sheet.reset_dimensions()  # what a sheet says of its size may be wrong, or all of its 17 billion cells
    for row in limited(sheet.iter_rows(), name):
        yield [_written(cell) for cell in row]


def _written(cell: ReadOnlyCell) -> str:
    """Much as the sheet shows it; of number formats only dates and per cents are followed."""
    match cell.value:
        case None:
            return ""
        case bool(value):
            return str(value).upper()
        case float(value) | int(value) if "%" in (cell.number_format or ""):
            return f"{100 * value:.12g}%"
        case float(value):
            return f"{value:.15g}"  # Excel's own precision
        case datetime() as value:
            return value.isoformat(" ", "minutes").removesuffix(" 00:00")
        case date() | time() as value:
            return value.isoformat()
        case value:
            return str(value)
