"""A file becomes a `Document`, in a process of its own: what it holds is untrusted.

The process (`chatbot.parse.worker`) is limited in time and memory, imports only the parser it needs, and
answers with text or with one line that says what is wrong. Nothing in a file is executed, fetched or
expanded. Pictures are not read (no OCR). To add a format, write a module with
`read(path, name) -> Document` and name it in `chatbot.parse.formats`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from chatbot.errors import UnreadableDocument
from chatbot.passage import Document, Page

MEGABYTE = 1_000_000
_FOLDER_OF_PACKAGE = Path(__file__).parents[2]


def read(
    path: Path,
    name: str,
    *,
    max_bytes: int,
    timeout_s: float = 60,
    max_memory_bytes: int = 2 * 1024**3,
) -> Document:
    """The text of the file at `path`, which the person knows as `name`. Can be called from any thread.

    The type is told by what the file holds; the name's suffix only tells Markdown, HTML and plain text apart.
    Raises UnreadableDocument, in one line, for whatever gives no text, or takes too much time or memory.
    """
    _check(path, name, max_bytes)
    request = {"path": str(path.resolve()), "name": name, "timeout_s": timeout_s, "memory": max_memory_bytes}
    try:
        # Not multiprocessing: its children run the parent's main module again.
        finished = subprocess.run(
            [sys.executable, "-P", "-m", "chatbot.parse.worker"],
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            timeout=timeout_s,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows would show a console
        )
    except subprocess.TimeoutExpired as error:
        raise UnreadableDocument(
            f"{name!r} could not be read within {timeout_s:g} seconds: split it into smaller files"
        ) from error
    return _document(name, finished)


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


def _environment() -> dict[str, str]:
    """Ours, with this package importable: the parent may have found it through its own sys.path."""
    paths = [str(_FOLDER_OF_PACKAGE), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _document(name: str, finished: subprocess.CompletedProcess[bytes]) -> Document:
    try:
        answer = json.loads(finished.stdout)
    except ValueError as error:  # it died before it could answer: native code ran out of memory, or crashed
        raise UnreadableDocument(
            f"{name!r} broke its reader (exit {finished.returncode}), as a damaged or enormous file does: "
            "open it in its own program and save a fresh copy"
        ) from error
    if "error" in answer:
        raise UnreadableDocument(answer["error"])
    pages = tuple(Page(text, number) for number, text in answer["pages"])
    return Document(name, answer["kind"], pages, answer["notice"])
