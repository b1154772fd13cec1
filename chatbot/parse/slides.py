"""PowerPoint's .pptx (and .pptm, .ppsx, .potx): a page a slide; its title a heading, then its text, then its notes.

python-pptx opens the package. The text is walked over in the XML, in the order in which PowerPoint reads it out:
python-pptx leaves out shapes that it does not know, diagrams and formulas. Layouts and masters behind a slide,
comments, pictures and macros are left out. A chart gives its categories with the values of each series.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pptx.opc.package import Part, PartFactory
from pptx.oxml import parse_xml
from pptx.oxml.ns import qn
from pptx.package import Package
from pptx.parts.presentation import PresentationPart
from pptx.slide import Slide

from chatbot.errors import UnreadableDocument
from chatbot.parse.rows import lines, written
from chatbot.passage import Document, Page

Element = Any  # lxml's

_KINDS = (  # main parts that differ from a .pptm's in nothing that matters here
    "application/vnd.ms-powerpoint.slideshow.macroEnabled.main+xml",
    "application/vnd.ms-powerpoint.template.macroEnabled.main+xml",
)
_P, _TBL, _TR, _TC, _BR = qn("a:p"), qn("a:tbl"), qn("a:tr"), qn("a:tc"), qn("a:br")
_TEXT = {qn("a:t"), "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"}
_SHAPE, _BODY = qn("p:sp"), qn("p:txBody")
_CHART, _DIAGRAM = qn("c:chart"), "{http://schemas.openxmlformats.org/drawingml/2006/diagram}relIds"
_TRUE = ("1", "true")
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # the same once more
_TITLES = {"title", "ctrTitle"}
_APART = _TITLES | {"sldNum", "dt", "ftr", "hdr", "sldImg"}  # the title comes first; the rest is not the slide's


def read(path: Path, name: str) -> Document:
    for kind in _KINDS:
        PartFactory.part_type_for[kind] = PresentationPart
    try:
        with path.open("rb") as file:
            slides = Package.open(file).main_document_part.presentation.slides
    except (KeyError, AttributeError) as error:  # a relationship or a member, by its name; no presentation
        raise UnreadableDocument(
            f"{name!r} is no ordinary PowerPoint file inside: open it in PowerPoint and save it as "
            "'PowerPoint Presentation (.pptx)'"
        ) from error
    pages = tuple(Page(_text(slide, number), number) for number, slide in enumerate(slides, 1))
    blank = sum(not page.text for page in pages)
    return Document(name, "pptx", pages, f"{blank} of {len(pages)} slides had no text" if blank else "")


def _text(slide: Slide, number: int) -> str:
    """Each slide has a heading, or passages of one without would seem to belong to the slide before."""
    tree = slide.element
    titles = [_runs(shape) for shape in tree.iter(_SHAPE) if _placeholder(shape) in _TITLES]
    title = " ".join(" ".join(titles).split())
    blocks = list(_blocks(tree, slide.part))
    if slide.has_notes_slide:
        notes = slide.notes_slide
        spoken = [block for block in _blocks(notes.element, notes.part) if block]
        blocks += ["\n".join(["Notes:", *spoken])] if spoken else []
    texts = list(filter(None, blocks))
    return "\n\n".join([f"# {title or f'Slide {number}'}", *texts]) if title or texts else ""


def _placeholder(shape: Element) -> str:
    """What the shape stands in for on the layout, or nothing."""
    place = shape.find(f"{qn('p:nvSpPr')}/{qn('p:nvPr')}/{qn('p:ph')}")
    return place.get("type", "") if place is not None else ""


def _blocks(parent: Element, part: Part) -> Iterator[str]:
    """Texts, tables, charts and diagrams below `parent`, in order, through groups and whatever else wraps them."""
    for child in parent.iterchildren("*"):
        if child.tag == _BODY:
            yield _paragraphs(child)
        elif child.tag == _P:
            yield _runs(child).strip()
        elif child.tag == _TBL:
            yield "\n".join(lines(_rows(child)))
        elif child.tag == _CHART:
            yield from map(_chart, _related(part, child.get(qn("r:id"))))
        elif child.tag == _DIAGRAM:
            for diagram in _related(part, child.get(qn("r:dm"))):
                yield from _blocks(diagram, part)
        elif child.tag != _FALLBACK and not (child.tag == _SHAPE and _placeholder(child) in _APART):
            yield from _blocks(child, part)


def _rows(table: Element) -> Iterator[list[str]]:
    """A merged cell's text stands in each place that the cell takes, so that every row has it."""
    cells: list[str] = []
    for row in table.iterchildren(_TR):
        above, cells = cells, []
        for column, cell in enumerate(row.iterchildren(_TC)):
            if cell.get("vMerge") in _TRUE and column < len(above):
                cells.append(above[column])
            else:
                cells.append(cells[-1] if cell.get("hMerge") in _TRUE and cells else _runs(cell))
        yield cells


def _paragraphs(body: Element) -> str:
    """One stands as it is; several are the items of a list, which they nearly always are."""
    texts = [(paragraph, text) for paragraph in body.iterchildren(_P) if (text := _runs(paragraph).strip())]
    if len(texts) <= 1:
        return "".join(text for _, text in texts)
    return "\n".join(f"{'  ' * _level(paragraph)}- {text}" for paragraph, text in texts)


def _level(paragraph: Element) -> int:
    properties = paragraph.find(qn("a:pPr"))
    value = properties.get("lvl", "0") if properties is not None else "0"
    return int(value) if value in set("012345678") else 0


def _runs(parent: Element) -> str:
    """The text below `parent` in one line; paragraphs and line breaks in it end words."""
    parts = []
    for child in parent.iterchildren("*"):
        if child.tag in _TEXT:
            parts.append(child.text or "")
        elif child.tag == _BR:
            parts.append(" ")
        elif child.tag != _FALLBACK:
            parts.append(_runs(child) + (" " if child.tag == _P else ""))
    return "".join(parts)


def _related(part: Part, relation_id: str) -> Iterator[Element]:
    """The XML that the slide names so; nothing where it is missing or outside the file."""
    relation = part.rels.get(relation_id)
    if relation is not None and not relation.is_external:
        yield parse_xml(relation.target_part.blob)


def _chart(chart: Element) -> str:
    """Its title, then a row for each category, from the values that the chart keeps of its sheet."""
    title = next((" ".join(_runs(title).split()) for title in chart.iter(qn("c:title"))), "")
    names: dict[int, str] = {}
    rows: dict[str, dict[int, str]] = {}
    for column, series in enumerate(chart.iter(qn("c:ser")), 1):
        names[column] = " ".join(text for _, text in _points(series, "c:tx"))
        for tag in ("c:cat", "c:xVal", "c:val", "c:yVal"):
            for index, text in _points(series, tag):
                rows.setdefault(index, {}).setdefault(0 if tag in ("c:cat", "c:xVal") else column, text)
    header = {column: text for column, text in names.items() if text}
    return "\n".join([title, *(f"- {written(row, header)}" for row in rows.values())]).strip()


def _points(series: Element, tag: str) -> Iterator[tuple[str, str]]:
    for held in series.iterchildren(qn(tag)):
        for value in held.iter(qn("c:v")):
            yield value.getparent().get("idx", "0"), value.text or ""
