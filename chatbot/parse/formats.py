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
    "pptx": "chatbot.parse.slides",
    "xlsx": "chatbot.parse.sheets",
    "opendocument": "chatbot.parse.opendocument",  # gives odt, ods or odp
    "rtf": "chatbot.parse.rtf",
    "epub": "chatbot.parse.book",
    "eml": "chatbot.parse.mail",
    "msg": "chatbot.parse.outlook",
    "csv": "chatbot.parse.rows",
    "json": "chatbot.parse.structured",
    "code": "chatbot.parse.code",
    "image": "chatbot.parse.ocr",
}
READ = "PDF, Word, PowerPoint, Excel, OpenDocument, RTF, EPUB, HTML, mail, CSV, JSON or text"  # what to give instead

ZIPPED = {  # a member's name begins with -> kind
    "word/": "docx",
    "ppt/": "pptx",
    "xl/": "xlsx",
    "META-INF/container.xml": "epub",
    "META-INF/manifest.xml": "opendocument",
}
_OFFICE = "[Content_Types].xml"  # in every file of Microsoft's Office
SUFFIXES = {
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml", ".xht"), "html"),
    **dict.fromkeys((".csv", ".tsv", ".tab"), "csv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson", ".geojson", ".ipynb"), "json"),
    **dict.fromkeys((".eml", ".mht", ".mhtml"), "eml"),
    **dict.fromkeys(
        (
            *(".py", ".pyi", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".vue", ".svelte", ".css", ".scss", ".less"),
            *(".java", ".kt", ".kts", ".scala", ".groovy", ".gradle", ".clj", ".cs", ".fs", ".vb", ".dart", ".swift"),
            *(".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".m", ".mm", ".cu", ".go", ".rs", ".zig", ".nim"),
            *(".rb", ".php", ".pl", ".pm", ".lua", ".r", ".jl", ".hs", ".ml", ".mli", ".ex", ".exs", ".erl", ".el"),
            *(".sh", ".bash", ".zsh", ".fish", ".ps1", ".bat", ".cmd", ".mk", ".cmake", ".tf", ".hcl", ".proto"),
            *(".sql", ".graphql", ".f90", ".pas", ".asm", ".s", ".v", ".sv", ".vhd", ".sol", ".yaml", ".yml"),
            *(".toml", ".ini", ".cfg", ".conf", ".properties"),
        ),
        "code",
    ),
}

_HEAD = 4096  # bytes in which a file shows its type
_SAVE_AS = f"save it as {READ} and give that"
_ZIPPED_BUT_NOT_READ = {
    "visio/": "a Visio drawing",
    "Index/": "a file of Apple's Pages, Numbers or Keynote",
}
# Names of streams in an OLE container (MS-CFB), which lie in it as UTF-16. The first one found is it.
_OLE = {
    "EncryptedPackage": ("is encrypted", "save a copy without the password and give that"),
    "WordDocument": ("is an old Word file (.doc)", "save it as .docx and give that"),
    "Workbook": ("is an old Excel file (.xls)", "save it as .xlsx and give that"),
    "PowerPoint Document": ("is an old PowerPoint file (.ppt)", "save it as .pptx and give that"),
}
_OUTLOOK = "__properties_version1.0".encode("utf-16-le")  # looked for first: it may have any of those attached
_PICTURE = ("is an image or an icon of a kind that is not read", "save it as PNG or JPEG and give that")
_PROGRAM = ("is a program", f"give a {READ} file")
_ARCHIVE = ("is a packed archive", "unpack it and give the files in it")
_MEDIA = ("is a sound or a film", "give its text, such as the subtitles")
_MAGIC = (
    (re.compile(rb"\x00\x00..ftyp(?:hei|mif1|avif)|\x00\x00\x01\x00[^\x00]", re.S), _PICTURE),
    (
        re.compile(rb"\A(?:\x7fELF|MZ[^\n]*\x00|[\xce\xcf]\xfa\xed\xfe|\xfe\xed\xfa[\xce\xcf]|\xca\xfe\xba\xbe)", re.S),
        _PROGRAM,
    ),
    (re.compile(rb"\x1f\x8b|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|BZh[1-9]1AY|\xfd7zXZ|.{257}ustar", re.S), _ARCHIVE),
    (
        re.compile(rb"\x00\x00..ftyp|RIFF....(?:WAVE|AVI )|OggS\x00|ID3[\x02-\x04]\x00|fLaC\x00|\x1aE\xdf\xa3", re.S),
        _MEDIA,
    ),
    (re.compile(rb"%!PS(?:-Adobe|[ \t]*+[\r\n])", re.S), ("is a PostScript file", "convert it to PDF and give that")),
    (re.compile(rb"SQLite format 3\x00", re.S), ("is a database", "export what you want to ask about as text")),
)
_PDF = re.compile(rb"\A\s*+%PDF-[0-9]")
_IMAGE = re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\x00|MM\x00\*|BM....\x00\x00\x00\x00", re.S)
_HTML = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*+(?:<\?xml[^>]*+>\s*+)?+(?:<!--(?>.*?-->)\s*+)*+<(?:!doctype\s++html|html[\s>])",
    re.I | re.S,
)
_HEADER = re.compile(rb"^([!-9;-~]+):", re.M)
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_OF_MAIL = {b"message-id", b"mime-version", b"received", b"return-path", b"delivered-to", b"content-type"}


def kind_of(path: Path, name: str) -> str:
    """A key of MODULES. Raises PackedFiles for a zip of files, UnreadableDocument for what is known and not read."""
    suffix = PurePath(name).suffix.lower()
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _zipped(path, name)
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return _in_ole(path.read_bytes(), name)
    # Readers accept junk before a PDF's header; a text may well speak of "%PDF-".
    if _PDF.match(head) or (suffix == ".pdf" and b"%PDF-" in head[:1024]):
        return "pdf"
    if _IMAGE.match(head):
        return "image"
    for magic, refusal in _MAGIC:
        if magic.match(head):
            raise _refusal(name, *refusal)
    if head.startswith(b"{\\rtf"):
        return "rtf"
    return _kind_of_text(head, SUFFIXES.get(suffix, "text"))


def _kind_of_text(head: bytes, named: str) -> str:
    """As it is `named`, unless the text is plainly something else; its reader has the last word on JSON."""
    if named in ("html", "markdown", "code"):
        return named
    if _HTML.match(head):
        return "html"
    if named == "text" and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        return "json"
    headers = {header.lower() for header in _HEADER.findall(_BLANK_LINE.split(head, maxsplit=1)[0])}
    if named == "text" and _HEADER.match(head) and len(headers & _OF_MAIL) > 1:
        return "eml"
    return named


def _zipped(path: Path, name: str) -> str:
    members = [entry.filename for entry in archive.entries(path, name)]
    for start, kind in ZIPPED.items():
        of_office = not start.startswith("META-INF")  # a zip of files may well hold a folder called word/
        if any(member.startswith(start) for member in members) and (not of_office or _OFFICE in members):
            archive.members(path, name)
            return kind
    for start, what in _ZIPPED_BUT_NOT_READ.items():
        if any(member.startswith(start) for member in members):
            raise _refusal(name, f"is {what}, which is not read yet", _SAVE_AS)
    raise PackedFiles(f"{name!r} is a zip archive: unpack it and give the files in it")


def _in_ole(data: bytes, name: str) -> str:
    if _OUTLOOK in data:
        return "msg"
    for stream, refusal in _OLE.items():
        if stream.encode("utf-16-le") in data:
            raise _refusal(name, *refusal)
    raise _refusal(name, "is an old Office file", _SAVE_AS)


def _refusal(name: str, what: str, remedy: str) -> UnreadableDocument:
    return UnreadableDocument(f"{name!r} {what}: {remedy}")
