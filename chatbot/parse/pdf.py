"""PDF, page by page, in the reading order that PDFium finds. Pages that are pictures give no text."""

import re
from itertools import pairwise
from pathlib import Path
from statistics import quantiles

import pypdfium2 as pdfium

from chatbot.errors import UnreadableDocument
from chatbot.parse.lines import NARROW, goes_on, is_cjk, width
from chatbot.passage import Document, Page

_HYPHEN = re.compile("\ufffe\\s*")  # PDFium's mark for a hyphen that only the line's end called for


def read(path: Path, name: str) -> Document:
    try:
        pdf = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise UnreadableDocument(
                f"{name!r} is encrypted: save a copy without the password and give that"
            ) from error
        raise UnreadableDocument(f"{name!r} is cut short or damaged: save or download it again ({error})") from error
    with pdf:
        pages = tuple(Page(unwrap(_text(pdf, index)), index + 1) for index in range(len(pdf)))
    blank = sum(not page.text.strip() for page in pages)
    if blank == len(pages):
        raise UnreadableDocument(f"{name!r} holds no text, only images: run OCR on it first and give the outcome")
    return Document(name, "pdf", pages, f"{blank} of {len(pages)} pages had no text" if blank else "")


def _text(pdf: pdfium.PdfDocument, index: int) -> str:
    try:
        page = pdf[index]
        textpage = page.get_textpage()
    except pdfium.PdfiumError:  # one broken page; counted with those that have no text
        return ""
    text: str = textpage.get_text_range()
    textpage.close()
    page.close()
    return text


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
