"""Source code and configuration, as it stands, in any encoding."""

from pathlib import Path

from chatbot.parse.plain import decode
from chatbot.passage import Document, Page


def read(path: Path, name: str) -> Document:
    return Document(name, "code", (Page(decode(path.read_bytes(), name)),))
