"""Tables that lines are drawn around, on a page of a PDF: where they lie, and their cells.

pdfplumber finds them, at 5 to 20 pages a second: it is asked only of pages that have lines drawn on them, and
not for longer than a budget. Tables that only white space makes are not found; their text is read all the same.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Box = tuple[float, float, float, float]  # left, bottom, right, top in points, as PDF counts: y grows upwards

FEWEST_LINES, MOST_LINES = 4, 2_000  # drawn on the page: fewer are no table, more are a drawing or a map
BUDGET_S = 20.0  # for all the pages of a document


@dataclass(frozen=True, slots=True)
class Table:
    box: Box
    rows: tuple[tuple[Box, ...], ...]  # its cells, from the top and from the left


class Finder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: Any = None  # opened for the first page that may have a table
        self._left_s = BUDGET_S

    def tables(self, index: int) -> list[Table]:
        """Of the page at `index`, which is upright with its corner at (0, 0); none once the budget is spent."""
        if self._left_s <= 0:
            return []
        started = time.monotonic()
        try:
            return self._tables(index)
        finally:
            self._left_s -= time.monotonic() - started

    def _tables(self, index: int) -> list[Table]:
        if self._opened is None:
            import pdfplumber  # takes 0.3 s

            self._opened = pdfplumber.open(self._path)
        try:
            page = self._opened.pages[index]
            found = [_table(table, float(page.height)) for table in page.find_tables()]
            page.close()
        except Exception:  # pdfminer raises of every kind for damaged pages; PDFium has read the text
            return []
        return [table for table in found if len(table.rows) > 1 and max(map(len, table.rows)) > 1]


def _table(table: Any, height: float) -> Table:
    rows = tuple(tuple(_upwards(cell, height) for cell in row.cells if cell) for row in table.rows)
    return Table(_upwards(table.bbox, height), rows)


def _upwards(box: Box, height: float) -> Box:
    left, top, right, bottom = box
    return left, height - bottom, right, height - top
