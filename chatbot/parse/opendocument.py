"""OpenDocument: text (.odt), sheets (.ods), slides and drawings (.odp, .odg), and their templates.

A walk over content.xml. Sheets become headings with their rows below, slides pages. Comments, deleted text, pictures,
macros, headers and footers are left out; formulas are never evaluated: a cell's stored text is read.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

from chatbot.errors import UnreadableDocument
from chatbot.parse.rows import lines
from chatbot.parse.xml import Element, root
from chatbot.passage import Document, Page

_NAMESPACE = "{{urn:oasis:names:tc:opendocument:xmlns:{}:1.0}}{}".format
_BODY = _NAMESPACE("office", "body")
_KINDS = {  # the body's element -> kind
    _NAMESPACE("office", "text"): "odt",
    _NAMESPACE("office", "spreadsheet"): "ods",
    _NAMESPACE("office", "presentation"): "odp",
    _NAMESPACE("office", "drawing"): "odp",
}
_H, _P, _LIST, _NOTE = (_NAMESPACE("text", tag) for tag in ("h", "p", "list", "note"))
_STYLE, _PARENT = _NAMESPACE("style", "name"), _NAMESPACE("style", "parent-style-name")
_OF_STYLE = _NAMESPACE("text", "style-name")
_LEVEL = _NAMESPACE("text", "outline-level")
_TABLE, _ROW, _TITLE = _NAMESPACE("table", "table"), _NAMESPACE("table", "table-row"), _NAMESPACE("table", "name")
_CELL, _COVERED = _NAMESPACE("table", "table-cell"), _NAMESPACE("table", "covered-table-cell")
_ROWS_REPEATED = _NAMESPACE("table", "number-rows-repeated")
_CELLS_SPANNED = _NAMESPACE("table", "number-columns-spanned")
_CELLS_REPEATED = _NAMESPACE("table", "number-columns-repeated")
_PAGE, _FRAME, _BOX = (_NAMESPACE("drawing", tag) for tag in ("page", "frame", "text-box"))
_NOTES, _CLASS = _NAMESPACE("presentation", "notes"), _NAMESPACE("presentation", "class")
_FIXED = {
    _NAMESPACE("text", "s"): " ",
    _NAMESPACE("text", "tab"): "\t",
    _NAMESPACE("text", "line-break"): "\n",
}
_SKIPPED = {
    _NOTES,
    _NAMESPACE("office", "annotation"),
    _NAMESPACE("office", "forms"),
    _NAMESPACE("table", "shapes"),
    *(_NAMESPACE("text", tag) for tag in ("tracked-changes", "table-of-content", "note-citation", "ruby-text")),
}
_IN_A_CELL = -1_000  # lists: items of a list in a table are not marked
_APART = {"title", "page-number", "header", "footer", "date-time"}  # the title comes first; the rest is not the slide's


def read(path: Path, name: str) -> Document:
    with zipfile.ZipFile(path) as archive:
        if b"encryption-data" in archive.read("META-INF/manifest.xml"):
            raise UnreadableDocument(f"{name!r} is encrypted: save a copy without the password and give that")
        xml = root(archive, "content.xml")
    content = next(xml.find(_BODY).iterchildren(*_KINDS), None)
    if content is None:
        raise UnreadableDocument(f"{name!r} is an OpenDocument formula, chart or database: save it as PDF")
    _mark_titles(xml)
    kind = _KINDS[content.tag]
    if kind == "odp":
        slides = [_slide(slide, number) for number, slide in enumerate(content.iterchildren(_PAGE), 1)]
        blank = sum(not slide for slide in slides)
        notice = f"{blank} of {len(slides)} slides had no text" if blank else ""
        return Document(name, kind, tuple(Page(text, number) for number, text in enumerate(slides, 1)), notice)
    blocks = _sheets(content) if kind == "ods" else _blocks(content)
    return Document(name, kind, (Page("\n\n".join(blocks)),))


def _mark_titles(xml: Element) -> None:
    """Makes paragraphs in the style `Title` headings: writers say so by the style alone."""
    derived = (style.get(_STYLE) for style in xml.iter(_NAMESPACE("style", "style")) if style.get(_PARENT) == "Title")
    styles = {"Title", *derived}
    for paragraph in xml.iter(_P):
        if paragraph.get(_OF_STYLE) in styles:
            paragraph.tag = _H


def _slide(page: Element, number: int) -> str:
    frames = [frame for frame in page.iter(_FRAME) if frame.get(_CLASS) == "title"]
    title = " ".join(text for frame in frames for block in _blocks(frame) for text in block.split())
    texts = list(_blocks(page))
    spoken = [block for notes in page.iterchildren(_NOTES) for block in _blocks(notes)]
    texts += ["\n".join(["Notes:", *spoken])] if spoken else []
    return "\n\n".join([f"# {title or f'Slide {number}'}", *texts]) if title or texts else ""


def _sheets(content: Element) -> Iterator[str]:
    for table in content.iterchildren(_TABLE):
        if text := "\n".join(lines(_rows(table))):
            yield f"# {table.get(_TITLE)}\n\n{text}"


def _blocks(parent: Element, depth: int = 0) -> Iterator[str]:
    """Headings, paragraphs, items and tables below `parent`, in order; `depth` counts the lists around them."""
    for child in parent.iterchildren("*"):
        if child.tag in (_H, _P):
            text = _runs(child).strip()
            if text := " ".join(text.split()) if child.tag == _H else text:
                yield f"{_mark(child, depth)}{text}"
            for box in child.iter(_BOX):
                if next(box.iterancestors(_P, _H)) is child:  # not that of a paragraph inside
                    yield from _blocks(box)
        elif child.tag == _TABLE:
            if rows := "\n".join(lines(_rows(child))):
                yield rows
        elif child.tag not in _SKIPPED and child.get(_CLASS) not in _APART:
            yield from _blocks(child, depth + (child.tag == _LIST))


def _mark(block: Element, depth: int) -> str:
    """What Markdown puts before a heading or an item."""
    if block.tag == _H:
        level = block.get(_LEVEL, "1")
        return f"{'#' * (int(level) if level in set('123456') else 6)} "
    return f"{'  ' * (depth - 1)}- " if depth > 0 else ""


def _runs(parent: Element) -> str:
    """The words of a paragraph; a note stands in brackets where it is called for. Text boxes are left out."""
    parts = [parent.text or ""]
    for child in parent.iterchildren("*"):
        if child.tag == _NOTE:
            parts.append(f" [{' '.join(_blocks(child))}]")
        elif child.tag in _FIXED:
            parts.append(_FIXED[child.tag])
        elif child.tag not in _SKIPPED and child.tag != _BOX:
            parts.append(_runs(child))
        parts.append(child.tail or "")
    return "".join(parts)


def _rows(table: Element) -> Iterator[list[str]]:
    """A merged cell's text stands in each place that the cell takes, so that every row has it."""
    cells: list[str] = []
    for row in _nearest(table, _ROW):
        above, cells, left = cells, [], 0  # cells to the right of a merged one that belong to it
        for cell in row.iterchildren(_CELL, _COVERED):
            text = " ".join(_blocks(cell, _IN_A_CELL))
            for _ in range(_times(cell, _CELLS_REPEATED)):
                if cell.tag == _COVERED:
                    text = cells[-1] if left and cells else "".join(above[len(cells) : len(cells) + 1])
                    left = max(0, left - 1)
                else:
                    left = _times(cell, _CELLS_SPANNED) - 1
                cells.append(text)
        yield from [cells] * (_times(row, _ROWS_REPEATED, 100) if any(cells) else 1)


def _times(element: Element, attribute: str, most: int = 1_000) -> int:
    """How often the element stands there; once where it would only fill the sheet."""
    value = element.get(attribute, "1")
    return int(value) if value.isdecimal() and len(value) < 8 and int(value) <= most else 1


def _nearest(parent: Element, tag: str) -> Iterator[Element]:
    """Rows of this table, through groups of rows, and not those of a table inside."""
    for child in parent.iterchildren("*"):
        if child.tag == tag:
            yield child
        elif child.tag not in (_TABLE, _CELL, _COVERED):
            yield from _nearest(child, tag)
