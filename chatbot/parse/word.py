"""Word's .docx (and .docm, .dotx): body, tables, text boxes, then notes; headings as Markdown's `#` lines.

python-docx opens the package. Its own walk (`iter_inner_content`, `Paragraph.text`) leaves out content
controls, tracked insertions, text boxes, formulas and notes, so the walk here is over the XML. Headers and
footers, comments, deleted text and macros are left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docx.opc.part import PartFactory
from docx.oxml.ns import qn
from docx.oxml.parser import parse_xml
from docx.package import Package
from docx.parts.document import DocumentPart

from chatbot.errors import UnreadableDocument
from chatbot.passage import Document, Page

Element = Any  # lxml's

_KINDS = (  # main parts that differ from a .docx's in nothing that matters here
    "application/vnd.ms-word.document.macroEnabled.main+xml",
    "application/vnd.ms-word.template.macroEnabledTemplate.main+xml",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
)
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_P, _TBL, _TR, _TC = qn("w:p"), qn("w:tbl"), qn("w:tr"), qn("w:tc")
_TEXT_BOX = qn("w:txbxContent")
_TEXT = {qn("w:t"), "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"}
_FIXED = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_SKIPPED = {  # what a reader of the page does not see, or would see twice
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    qn("w:pPr"),
    qn("w:moveFrom"),
    qn("w:rt"),
    qn("w:sectPr"),
}


def read(path: Path, name: str) -> Document:
    for kind in _KINDS:
        PartFactory.part_type_for[kind] = DocumentPart
    try:
        part = Package.open(path).main_document_part
    except KeyError as error:  # a relationship or a member, by its name
        raise UnreadableDocument(
            f"{name!r} is no ordinary Word file inside, perhaps a 'Strict Open XML' one: "
            "open it in Word and save it as 'Word Document (.docx)'"
        ) from error
    headings, items = _styles(part)
    blocks = [*_blocks(part.element.body, headings, items), *_notes(part, headings, items)]
    return Document(name, "docx", (Page("\n\n".join(filter(str.strip, blocks))),))


def _styles(part: DocumentPart) -> tuple[dict[str, int], set[str]]:
    """Heading levels by style id, and the ids of list styles; what a style is based on counts too."""
    headings: dict[str, int] = {}
    items: set[str] = set()
    for style in part.styles:
        ancestor = style
        for _ in range(10):  # a damaged file may base a style on itself
            if ancestor is None:
                break
            label = (ancestor.name or "").lower()
            if label == "title":
                headings.setdefault(style.style_id, 1)
            elif label.startswith("heading ") and label[8:].isdecimal():
                headings.setdefault(style.style_id, int(label[8:]))
            elif label.startswith("list"):
                items.add(style.style_id)
            ancestor = getattr(ancestor, "base_style", None)
    return headings, items


def _notes(part: DocumentPart, headings: dict[str, int], items: set[str]) -> Iterator[str]:
    for relation in part.rels.values():
        if not relation.is_external and relation.reltype.endswith(("/footnotes", "/endnotes")):
            for note in parse_xml(relation.target_part.blob):
                if note.get(f"{_W}type") is None:  # the others are the lines that separate notes
                    yield from _blocks(note, headings, items)


def _blocks(parent: Element, headings: dict[str, int], items: set[str]) -> Iterator[str]:
    """Paragraphs and tables below `parent`, in order, through whatever wraps them."""
    for child in parent.iterchildren("*"):
        if child.tag == _P:
            yield _paragraph(child, headings, items)
            for box in child.iter(_TEXT_BOX):
                if not any(ancestor.tag in _SKIPPED for ancestor in box.iterancestors()):
                    yield from _blocks(box, headings, items)
        elif child.tag == _TBL:
            yield from _table(child, headings, items)
        elif child.tag not in _SKIPPED:
            yield from _blocks(child, headings, items)


def _paragraph(paragraph: Element, headings: dict[str, int], items: set[str]) -> str:
    text = "".join(_runs(paragraph)).strip()
    style = paragraph.find(f"{_W}pPr/{_W}pStyle")
    style_id = style.get(f"{_W}val", "") if style is not None else ""
    level = _outline_level(paragraph) or headings.get(style_id, 0)
    if text and level:
        return f"{'#' * min(level, 6)} {' '.join(text.split())}"
    if text and (style_id in items or paragraph.find(f"{_W}pPr/{_W}numPr") is not None):
        return f"- {text}"
    return text


def _outline_level(paragraph: Element) -> int:
    """1 to 9, or 0 for body text."""
    outline = paragraph.find(f"{_W}pPr/{_W}outlineLvl")
    value = outline.get(f"{_W}val", "9") if outline is not None else "9"
    return int(value) + 1 if value in set("012345678") else 0


def _runs(parent: Element) -> Iterator[str]:
    for child in parent.iterchildren("*"):
        if child.tag in _TEXT:
            yield child.text or ""
        elif child.tag in _FIXED:
            yield _FIXED[child.tag]
        elif child.tag not in _SKIPPED and child.tag != _TEXT_BOX:
            yield from _runs(child)


def _table(table: Element, headings: dict[str, int], items: set[str]) -> Iterator[str]:
    """A line a row, cells parted by bars; a table of one column is layout, and its cells are read as text."""
    rows = [[list(_blocks(cell, headings, items)) for cell in _nearest(row, _TC)] for row in _nearest(table, _TR)]
    if all(len(row) <= 1 for row in rows):
        for row in rows:
            for cell in row:
                yield from cell
        return
    lines = [[" ".join(" ".join(cell).split()) for cell in row] for row in rows]
    yield "\n".join(" | ".join(line) for line in lines if any(line))


def _nearest(parent: Element, tag: str) -> Iterator[Element]:
    """Rows of this table, or cells of this row, through content controls, and not those of a table inside."""
    for child in parent.iterchildren("*"):
        if child.tag == tag:
            yield child
        elif child.tag != _TBL:
            yield from _nearest(child, tag)
