"""Which formats are read, by which module, and how a file shows its type.

What a file holds decides. A name decides only between kinds of text, which look alike.
"""

import re
from pathlib import Path, PurePath

from chatbot.errors import PackedFiles, UnreadableDocument
from chatbot.parse import archive

MODULES = {  # kind -> the module that reads it
    "pdf": "chatbot.parse.pdf",
    "docx": "chatbot.parse.word",
    "html": "chatbot.parse.web",
    "markdown": "chatbot.parse.plain",
    "text": "chatbot.parse.plain",
    "image": "chatbot.parse.ocr",
}
READ = "PDF, Word (.docx), HTML, Markdown or plain text"  # for messages: what to give instead

ZIPPED = {"word/": "docx"}  # a member's name begins with -> kind
SUFFIXES = {
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml", ".xht"), "html"),
}

_HEAD = 4096  # bytes in which a file shows its type
_SAVE_AS = f"save it as {READ} and give that"
_ZIPPED_BUT_NOT_READ = {
    "xl/": "an Excel workbook",
    "ppt/": "a PowerPoint presentation",
    "visio/": "a Visio drawing",
    "META-INF/container.xml": "an EPUB book",
    "META-INF/manifest.xml": "an OpenDocument file",
    "Index/": "a file of Apple's Pages, Numbers or Keynote",
}
# Names of streams in an OLE container (MS-CFB), which lie in it as UTF-16. The first one found is it.
_OLE = {
    "EncryptedPackage": ("is encrypted", "save a copy without the password and give that"),
    "WordDocument": ("is an old Word file (.doc)", "save it as .docx and give that"),
    "Workbook": ("is an old Excel file (.xls)", _SAVE_AS),
    "PowerPoint Document": ("is an old PowerPoint file (.ppt)", _SAVE_AS),
    "__properties_version1.0": ("is an Outlook message (.msg)", _SAVE_AS),
}
_PICTURE = ("is an image or an icon of a kind that is not read", "save it as PNG or JPEG and give that")
_PROGRAM = ("is a program", f"give a {READ} file")
_ARCHIVE = ("is a packed archive", "unpack it and give the files in it")
_MEDIA = ("is a sound or a film", "give its text, such as the subtitles")
_MAGIC = (
    (rb"....ftyp(?:hei|mif1|avif)|\x00\x00\x01\x00[^\x00]", _PICTURE),
    (rb"\x7fELF|MZ[^\n]*\x00|[\xce\xcf]\xfa\xed\xfe|\xfe\xed\xfa[\xce\xcf]|\xca\xfe\xba\xbe", _PROGRAM),
    (rb"\x1f\x8b|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|BZh[1-9]1AY|\xfd7zXZ|.{257}ustar", _ARCHIVE),
    (rb"....ftyp|RIFF....(?:WAVE|AVI )|OggS\x00|ID3[\x02-\x04]\x00|fLaC\x00|\x1aE\xdf\xa3", _MEDIA),
    (rb"\{\\rtf", ("is an RTF file", _SAVE_AS)),
    (rb"%!PS", ("is a PostScript file", "convert it to PDF and give that")),
    (rb"SQLite format 3\x00", ("is a database", "export what you want to ask about as text")),
)
_IMAGE = re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\x00|MM\x00\*|BM....\x00\x00\x00\x00", re.S)
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.I | re.S
)


def kind_of(path: Path, name: str) -> str:
    """A key of MODULES. Raises PackedFiles for a zip of files, UnreadableDocument for what is known and not read."""
    suffix = PurePath(name).suffix.lower()
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _zipped(path, name)
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        raise _refusal(name, *_in_ole(path.read_bytes()))
    # Readers accept junk before a PDF's header; a text may well speak of "%PDF-".
    if head.lstrip().startswith(b"%PDF-") or (suffix == ".pdf" and b"%PDF-" in head[:1024]):
        return "pdf"
    if _IMAGE.match(head):
        return "image"
    for magic, refusal in _MAGIC:
        if re.match(magic, head, re.S):
            raise _refusal(name, *refusal)
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    return "html" if _HTML.match(head) else "text"


def _zipped(path: Path, name: str) -> str:
    members = [entry.filename for entry in archive.entries(path, name)]
    for start, kind in ZIPPED.items():
        if any(member.startswith(start) for member in members):
            archive.members(path, name)
            return kind
    for start, what in _ZIPPED_BUT_NOT_READ.items():
        if any(member.startswith(start) for member in members):
            raise _refusal(name, f"is {what}, which is not read yet", _SAVE_AS)
    raise PackedFiles(f"{name!r} is a zip archive: unpack it and give the files in it")


def _in_ole(data: bytes) -> tuple[str, str]:
    for stream, refusal in _OLE.items():
        if stream.encode("utf-16-le") in data:
            return refusal
    return "is an old Office file", _SAVE_AS


def _refusal(name: str, what: str, remedy: str) -> UnreadableDocument:
    return UnreadableDocument(f"{name!r} {what}: {remedy}")
