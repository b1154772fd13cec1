"""EPUB books: the chapters in reading order, each through the reader of HTML, headings as Markdown's.

The table of contents, and what the book's own order leaves out, are left out here too. Nothing in a book is fetched
or run. Books locked by their shop (DRM) are refused.
"""

import posixpath
import re
import zipfile
from pathlib import Path
from urllib.parse import unquote, urldefrag

from chatbot.errors import UnreadableDocument
from chatbot.parse.plain import decode
from chatbot.parse.web import whole
from chatbot.parse.xml import Element, root
from chatbot.passage import Document, Page

_CHAPTERS = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
# Closed in themselves as XML may, these would swallow the rest of the page as HTML
_CLOSED = re.compile(r"<(title|script|style|iframe|noscript|textarea)\b([^<>]*)/>", re.I)


def read(path: Path, name: str) -> Document:
    try:
        with zipfile.ZipFile(path) as archive:
            package = next(root(archive, "META-INF/container.xml").iter("{*}rootfile")).get("full-path")
            book = root(archive, package)
            chapters = list(dict.fromkeys(_place(package, href) for href in _spine(book)))
            if set(chapters) & _locked(archive):
                raise UnreadableDocument(f"{name!r} is locked by the shop that sold it: give a copy without the lock")
            there = set(archive.namelist())
            texts = [_chapter(archive.read(chapter), name) for chapter in chapters if chapter in there]
    except (KeyError, StopIteration) as error:
        raise UnreadableDocument(
            f"{name!r} lacks a part that every EPUB book has ({error}): download it again, or convert it with Calibre"
        ) from error
    titles = (" ".join("".join(title.itertext()).split()) for title in book.iter("{*}title"))
    gone = len(chapters) - len(texts)
    notice = f"{gone} of {len(chapters)} chapters were not found in the book" if gone else ""
    return Document(name, "epub", (Page("\n\n".join(filter(None, [next(titles, ""), *texts]))),), notice)


def _place(package: str, href: str) -> str:
    """The member of the archive that the package document calls so."""
    place = posixpath.join(posixpath.dirname(package), unquote(urldefrag(href).url))
    return posixpath.normpath(place).lstrip("/")


def _spine(book: Element) -> list[str]:
    """The chapters' places, relative to the package document, in reading order, without the table of contents."""
    items = {item.get("id"): item for item in book.iter("{*}item") if item.get("media-type") in _CHAPTERS}
    spine = [items[each.get("idref")] for each in book.iter("{*}itemref") if each.get("idref") in items]
    return [item.get("href", "") for item in spine if "nav" not in item.get("properties", "").split()]


def _locked(archive: zipfile.ZipFile) -> set[str]:
    """What is encrypted: in an honest book at most the fonts."""
    if "META-INF/encryption.xml" not in archive.namelist():
        return set()
    ciphers = root(archive, "META-INF/encryption.xml").iter("{*}CipherReference")
    return {unquote(cipher.get("URI", "")) for cipher in ciphers}


def _chapter(data: bytes, name: str) -> str:
    return whole(_CLOSED.sub(r"<\1\2></\1>", decode(data, name)))
