"""JSON and JSON Lines, as `- path: value` lines that keep the nesting; notebooks (.ipynb) as Markdown.

A short object in an array is a row of its own, `- path[0]: key: value | key: value`, and so is each line of JSON Lines.
Numbers stay as they are written; nulls and empty values are left out. Text that is no JSON is read as plain text.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chatbot.errors import UnreadableDocument
from chatbot.parse.plain import decode
from chatbot.parse.rows import BETWEEN_CELLS
from chatbot.passage import Document, Page

Value = Any  # what JSON can hold, with numbers as str

_LONGEST_ROW = 500  # characters


def read(path: Path, name: str) -> Document:
    text = decode(path.read_bytes(), name)
    try:
        value = _parsed(text)
        if isinstance(value, dict) and "nbformat" in value and isinstance(value.get("cells"), list):
            return Document(name, "markdown", (Page("\n\n".join(_cells(value["cells"]))),))
        return Document(name, "json", (Page("\n".join(f"- {line}" for line in _lines(value, ""))),))
    except ValueError:
        return Document(name, "text", (Page(text),))
    except RecursionError as error:
        raise UnreadableDocument(f"{name!r} is JSON nested hundreds of levels deep: flatten it") from error


def _parsed(text: str) -> Value:
    """Raises ValueError for what is neither JSON nor lines of JSON objects or arrays."""
    try:
        return _value(text)
    except ValueError:
        values = [_value(line) for line in text.splitlines() if line.strip()]
        if not all(isinstance(value, dict | list) for value in values):
            raise
        return values


def _value(text: str) -> Value:
    return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=_Object)


class _Object(dict[str, Value]):
    """What an object says of a key for the first time, and, in `again`, what it says of one that it has."""

    def __init__(self, pairs: list[tuple[str, Value]]) -> None:
        self.again: list[tuple[str, Value]] = []
        for key, value in pairs:
            if key in self:
                self.again.append((key, value))
            else:
                self[key] = value


def _lines(value: Value, path: str) -> Iterator[str]:
    for place, inner in _children(value, path):
        if isinstance(value, list) and (row := _row(inner)):
            yield f"{place}: {row}" if path else row
        else:
            yield from _lines(inner, place)
    if (leaf := _leaf(value)) and path:
        yield f"{path}: {leaf}"
    elif leaf:
        yield leaf


def _row(value: Value) -> str:
    """The whole value in one line; empty where that would be long."""
    parts, length = [], 0
    for path, text in _leaves(value, ""):
        parts.append(f"{path}: {text}" if path else text)
        length += len(parts[-1])
        if length > _LONGEST_ROW or "\n" in text:
            return ""
    return BETWEEN_CELLS.join(parts)


def _leaves(value: Value, path: str) -> Iterator[tuple[str, str]]:
    if leaf := _leaf(value):
        yield path, leaf
    for place, inner in _children(value, path):
        yield from _leaves(inner, place)


def _children(value: Value, path: str) -> Iterator[tuple[str, Value]]:
    if isinstance(value, dict):
        pairs = [*value.items(), *value.again] if isinstance(value, _Object) else value.items()
        yield from ((f"{path}.{key}" if path else key, inner) for key, inner in pairs)
    elif isinstance(value, list) and not _plain(value):
        yield from ((f"{path}[{i}]", inner) for i, inner in enumerate(value))


def _leaf(value: Value) -> str:
    match value:
        case None | dict():
            return ""
        case list():
            return ", ".join(filter(None, map(_leaf, value))) if _plain(value) else ""
        case bool():
            return str(value).lower()
    return str(value).strip()


def _plain(values: list[Value]) -> bool:
    """Whether these are short scalars, which fit on one line."""
    return not any(isinstance(value, dict | list) or len(str(value)) > _LONGEST_ROW for value in values)


def _cells(cells: list[Value]) -> Iterator[str]:
    """Text as it is; code, and what it wrote as text, fenced. A part that is not as it should be is taken for empty."""
    for cell in filter(_is_object, cells):
        source = _joined(cell.get("source"))
        if cell.get("cell_type") == "code":
            outputs = filter(_is_object, cell.get("outputs") or [])
            written = (output.get("text") or (output.get("data") or {}).get("text/plain") for output in outputs)
            yield from (f"```\n{text.strip()}\n```" for text in [source, *map(_joined, written)] if text.strip())
        elif source.strip():
            yield source


def _is_object(value: Value) -> bool:
    return isinstance(value, dict)


def _joined(lines: Value) -> str:
    return "".join(map(str, lines)) if isinstance(lines, list | str) else ""
