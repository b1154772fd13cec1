"""A file becomes a `Document`, in a process of its own: what it holds is untrusted.

The process (`chatbot.parse.worker`) is limited in time and memory, imports only the parser it needs, and
answers with text or with one line that says what is wrong. Nothing in a file is executed, fetched or
expanded. To add a format, write a module with `read(path, name) -> Document` and name it in
`chatbot.parse.formats`.
"""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from chatbot.confined import MAX_MEMORY, Broken, Check, Confined, Late, unhindered
from chatbot.errors import DiskFull, PackedFiles, ReadingInterrupted, UnreadableDocument
from chatbot.passage import Document, Heading, Page

MEGABYTE = 1_000_000
TIMEOUT_S = 60.0
MOST_SCANS = 100  # pages of a document that OCR reads, at 2 to 6 seconds each
INSTALL_OCR = "pip install rapidocr-onnxruntime"


@dataclass(frozen=True, slots=True)
class Member:
    """A file that a zip held."""

    name: str  # "archive.zip/folder/file.txt", for people: untrusted text
    path: Path | None  # where it lies now; None where it could not be unpacked
    problem: str = ""  # why, in one line


def read(
    path: Path,
    name: str,
    *,
    max_bytes: int,
    timeout_s: float = TIMEOUT_S,
    max_memory_bytes: int = MAX_MEMORY,
    check: Check = unhindered,
) -> Document:
    """The text of the file at `path`, which the person knows as `name`. Can be called from any thread.

    The type is told by what the file holds; the name's suffix only tells Markdown, HTML and plain text apart.
    Pages of a PDF without text are read by OCR where that is installed, several within each `timeout_s`.
    Raises PackedFiles for a zip of files, and UnreadableDocument, in one line, for whatever else gives no text,
    or takes too much time or memory. What `check` raises ends the reading at once.
    """
    _check(path, name, max_bytes)
    ask = _Asking(path, name, timeout_s, max_memory_bytes, check)
    document = _document(name, ask({}))
    if document.kind == "pdf":
        document = _with_scans(document, ask)
    if not any(page.text.strip() for page in document.pages):
        raise UnreadableDocument(f"{name!r} {_NO_TEXT.get(document.kind, _NO_TEXT['text'])}")
    return document


_NO_TEXT = {
    "text": "holds no text: give a file with something to read in it",
    "image": "is an image in which no text was found: give a sharper or larger one",
    "pdf": "holds no text, only images in which none was found: give a better scan",
}


def unpack(
    path: Path,
    name: str,
    folder: Path,
    *,
    timeout_s: float = TIMEOUT_S,
    max_memory_bytes: int = MAX_MEMORY,
    check: Check = unhindered,
) -> list[Member]:
    """What the zip of files at `path` holds, unpacked into the empty `folder` under names of ours.

    A zip inside it is unpacked too, one inside that is not. Hidden files are left out, as in folders. Raises
    UnreadableDocument for a zip bomb or a damaged zip, DiskFull where there is no room; a single member that cannot be
    had is named with its problem. What `check` raises ends the unpacking at once.
    """
    answer = _Asking(path, name, timeout_s, max_memory_bytes, check)({"folder": str(folder.resolve())})
    return [Member(member, folder / file if file else None, problem) for member, file, problem in answer["members"]]


def has_ocr() -> bool:
    """Whether the extra `ocr` is installed."""
    return find_spec("rapidocr_onnxruntime") is not None


def _check(path: Path, name: str, max_bytes: int) -> None:
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableDocument(f"{name!r} cannot be opened ({reason}): check that it is there") from error
    if path.is_dir():
        raise UnreadableDocument(f"{name!r} is a folder: give the files in it")
    if not path.is_file():
        raise UnreadableDocument(f"{name!r} is a device or a pipe: give a file")
    if size == 0:
        raise UnreadableDocument(f"{name!r} is empty: was it saved, or copied to the end?")
    if size > max_bytes:
        raise UnreadableDocument(
            f"{name!r} has {size / MEGABYTE:.1f} MB, more than the {max_bytes / MEGABYTE:.1f} MB "
            "that are read: split it, or raise the setting max_file_mb"
        )


@dataclass(frozen=True, slots=True)
class _Asking:
    """Asks the worker about one file, in a new process each time."""

    path: Path
    name: str
    timeout_s: float
    memory: int
    check: Check

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the worker answers. Raises UnreadableDocument where that is an error, or nothing."""
        request = {"path": str(self.path.resolve()), "name": self.name} | request
        process = Confined("chatbot.parse.worker")
        try:
            answer = process.ask(request, timeout_s=self.timeout_s, memory=self.memory, check=self.check)
        except Late as error:
            raise ReadingInterrupted(
                f"{self.name!r} could not be read within {self.timeout_s:g} seconds: split it into smaller files"
            ) from error
        except Broken as error:
            raise (ReadingInterrupted if error.killed else UnreadableDocument)(
                f"{self.name!r} broke its reader (exit {error.status}), as a damaged or enormous file does: "
                "open it in its own program and save a fresh copy"
            ) from error
        finally:
            process.end()
        if answer.get("full"):
            raise DiskFull(answer["error"])
        if "error" in answer:
            raise (PackedFiles if answer.get("packed") else UnreadableDocument)(answer["error"])
        return answer


def _document(name: str, answer: dict[str, Any]) -> Document:
    pages = tuple(
        Page(text, number, tuple(Heading(*heading) for heading in headings))
        for number, text, headings in answer["pages"]
    )
    return Document(name, answer["kind"], pages, answer["notice"])


def _with_scans(document: Document, ask: _Asking) -> Document:
    """With what OCR reads on pages that have no text, and a notice of those pages."""
    empty = [page.number for page in document.pages if page.number and not page.text.strip()]
    if not empty:
        return document
    installed = has_ocr()
    if not installed and len(empty) == len(document.pages):
        raise UnreadableDocument(f"{document.name!r} holds no text, only images: to have them read, {INSTALL_OCR}")
    texts = _recognised(ask, empty[:MOST_SCANS]) if installed else {}
    pages = tuple(replace(page, text=texts.get(page.number or 0, page.text)) for page in document.pages)
    blank = len(empty) - sum(bool(text.strip()) for text in texts.values())
    notices = []
    if blank < len(empty):
        notices.append(f"{len(empty) - blank} of {len(pages)} pages were read by OCR")
    if blank:
        more = "" if installed else f" (if they are scans, {INSTALL_OCR})"
        notices.append(f"{blank} of {len(pages)} pages had no text{more}")
    return replace(document, pages=pages, notice=", ".join(notices))


def _recognised(ask: _Asking, numbers: list[int]) -> dict[int, str]:
    """Text by the page's number, up to the first page that takes too long or breaks the reader."""
    texts: dict[int, str] = {}
    while left := numbers[len(texts) :]:
        try:
            read = ask({"scans": left})["texts"]
        except UnreadableDocument:
            break
        texts |= zip(left, read, strict=False)
    return texts
