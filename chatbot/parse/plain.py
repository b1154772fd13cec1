"""Markdown and plain text, in any encoding; the text is kept as it is."""

import codecs
import re
from pathlib import Path, PurePath

from charset_normalizer import from_bytes

from chatbot.errors import UnreadableDocument
from chatbot.parse.formats import READ, SUFFIXES
from chatbot.passage import Document, Page

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with that one's
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 200_000  # bytes that the encoding is guessed from
_USUAL = ("cp1252", "cp1251", "gb18030", "big5", "cp932", "cp949")  # win against rarer ones that fit nearly as well
_CENTRAL = ("Croatian", "Czech", "Hungarian", "Polish", "Romanian", "Slovak", "Slovene")
_OWN = dict.fromkeys(_CENTRAL, "cp1250") | {"Turkish": "cp1254"}  # of languages that cp1252 lacks letters of
_WINDOWS = re.compile(rb"[\x80-\x9f]")
_NEAR = 0.05  # in charset-normalizer's measures: its order means little within it
_DAMAGED = 0.1  # bytes that are no UTF-8, to a character of several bytes that is: fewer are damage, not an encoding
_BEYOND_ASCII = bytes(range(128, 256))
_NOT_TEXT = 0.02  # of the characters being controls or undecodable: more is a binary file


def read(path: Path, name: str) -> Document:
    kind = "markdown" if SUFFIXES.get(PurePath(name).suffix.lower()) == "markdown" else "text"
    return Document(name, kind, (Page(decode(path.read_bytes(), name)),))


def decode(data: bytes, name: str, declared: str = "") -> str:
    """Byte order mark, else UTF-8, but for a few damaged bytes, else the `declared` encoding, else the likeliest.

    Raises UnreadableDocument if that is not text.
    """
    encoding = _marked(data) or _wide(data) or _utf8(data) or _known(declared) or _likeliest(data)
    text = data.decode(encoding, errors="replace").removeprefix("\ufeff")
    odd = sum(text.count(character) for character in _ODD)
    if odd > _NOT_TEXT * len(text):
        raise UnreadableDocument(f"{name!r} is neither text nor of another type that is read: give a {READ} file")
    return text


_ODD = "\ufffd" + "".join(chr(code) for code in range(32) if chr(code) not in "\t\n\v\f\r\x1a\x1b")


def _marked(data: bytes) -> str:
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "")


def _wide(data: bytes) -> str:
    """UTF-32 and UTF-16 without a mark: two in four, and nearly every other byte of a text in Latin script, are 0."""
    sample = data[:4096]
    zeros = [sample[place::4].count(0) for place in range(4)]
    for encoding, empty, full in (("utf-32-le", zeros[2:], zeros[0]), ("utf-32-be", zeros[:2], zeros[3])):
        if min(empty) > len(sample) // 4 - 1 and full < 0.1 * len(sample) // 4:
            return encoding
    even, odd = zeros[0] + zeros[2], zeros[1] + zeros[3]
    if max(even, odd) < 0.2 * len(sample) or min(even, odd) > 0.1 * max(even, odd):
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def _utf8(data: bytes) -> str:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        damaged, ascii = text.count("\ufffd"), len(data.translate(None, _BEYOND_ASCII))
        if damaged > _DAMAGED * (len(text) - ascii - damaged):
            return ""
    return "" if b"\x1b$" in data or b"\x1b(" in data else "utf-8"  # ISO-2022 is valid ASCII, with escapes


def _known(declared: str) -> str:
    try:
        return codecs.lookup(declared).name if declared else ""
    except (LookupError, UnicodeError, ValueError):
        return ""


def _likeliest(data: bytes) -> str:
    cut = data.rfind(b"\n", 0, _SAMPLE) if len(data) > _SAMPLE else -1  # never inside a character
    matches = from_bytes(data[:cut] if cut > 0 else data)
    if not matches:
        return "utf-8"
    best = matches[0]
    if best.multi_byte_usage:
        equal = [m.encoding for m in matches if (m.chaos, m.coherence) == (best.chaos, best.coherence)]
        return next((encoding for encoding in _USUAL if encoding in equal), equal[0])
    near = [m for m in matches if m.chaos <= best.chaos + _NEAR and m.coherence >= best.coherence - _NEAR]
    fitting = [m.encoding for m in near if not m.multi_byte_usage]
    if (own := _OWN.get(best.language)) in fitting:
        # Where Windows' page differs from ISO's, it has letters below 0xA0, which ISO's leaves to controls.
        return "iso8859_2" if own == "cp1250" and not _WINDOWS.search(data) else str(own)
    return next((encoding for encoding in _USUAL if encoding in fitting), fitting[0])
