"""Conversations on disk, one JSON file each, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chatbot.conversation import RATINGS, Citation, Conversation, Query, Reply, Turn
from chatbot.errors import UnreadableData
from chatbot.language import detect
from chatbot.passage import Hit, Passage

KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


class History:
    """`list` is newest first. A key is 1 to 64 letters, digits, '-' or '_'; any other is unknown."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, key: str, conversation: Conversation) -> None:
        path = self._path(key)
        if path is None:
            raise UnreadableData(f"conversation key {key!r} cannot be used: take 1 to 64 letters, digits, '-' or '_'")
        write(path, conversation)

    def load(self, key: str) -> Conversation | None:
        path = self._path(key)
        return read(path) if path is not None and path.exists() else None

    def list(self) -> list[tuple[str, str, str]]:
        """(key, the first utterance, when it was last added to in ISO 8601 UTC)."""
        found = []
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(UnreadableData, FileNotFoundError):  # a file of a person's own, or just deleted
                changed = path.stat().st_mtime
                if turns := read(path).turns:
                    found.append((changed, path.stem, turns[0].utterance))
        return [
            (key, title, datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds"))
            for changed, key, title in sorted(found, reverse=True)
        ]

    def delete(self, key: str) -> None:
        if (path := self._path(key)) is not None:
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path | None:
        return self._folder / f"{key}.json" if KEY.fullmatch(key) else None


def write(path: Path, conversation: Conversation) -> None:
    """Raises UnreadableData where the file cannot be written."""
    text = json.dumps({"turns": [asdict(turn) for turn in conversation.turns]}, ensure_ascii=False, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError as error:
        raise UnreadableData(f"conversation {str(path)!r} cannot be written: {error.strerror}") from error


def read(path: Path) -> Conversation:
    """A file that `write` made, or a list of messages `{"role": "user" | "assistant", "content": text}`.

    Raises UnreadableData for anything else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, list):
            return from_messages([(message["role"], message["content"]) for message in data])
        turns = tuple(_turn(turn) for turn in data["turns"])
    except OSError as error:
        raise UnreadableData(f"conversation {str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UnreadableData(
            f"{str(path)!r} holds no conversation ({type(error).__name__}: {error}): give a file that "
            '`ask --conversation` wrote, or a JSON list of {"role": "user" or "assistant", "content": text}'
        ) from error
    _check_judgements(turns, path)
    return Conversation(turns)


def _check_judgements(turns: Sequence[Turn], path: Path) -> None:
    """Files are corrected by hand too."""
    for number, turn in enumerate(turns, 1):
        if turn.rating not in RATINGS:
            raise UnreadableData(f"{str(path)!r} turn {number} has rating {turn.rating!r}: write 'up', 'down' or ''")
        if not isinstance(turn.correction, str):
            raise UnreadableData(f"{str(path)!r} turn {number} has correction {turn.correction!r}: write a text")


def from_messages(messages: list[tuple[str, str]]) -> Conversation:
    """(role, text) pairs -> turns: each user message with the assistant messages that follow it."""
    turns: list[tuple[str, str]] = []
    for role, text in messages:
        if role not in ("user", "assistant", "agent"):
            raise ValueError(f"role {role!r} is neither user nor assistant")
        if role == "user":
            turns.append((text, ""))
        elif turns:
            utterance, reply = turns[-1]
            turns[-1] = (utterance, f"{reply}\n{text}".strip())
    return Conversation(tuple(_told(utterance, reply) for utterance, reply in turns))


def _told(utterance: str, reply: str) -> Turn:
    return Turn(Query(utterance, utterance, detect(utterance)), Reply(reply))


def _turn(turn: Mapping[str, Any]) -> Turn:
    reply = dict(turn["reply"])
    reply["citations"] = tuple(Citation(**citation) for citation in reply.get("citations", ()))
    reply["weights"] = tuple(reply.get("weights", ()))
    return Turn(
        query=Query(**turn["query"]),
        reply=Reply(**reply),
        hits=tuple(Hit(Passage(**hit["passage"]), hit["score"]) for hit in turn.get("hits", ())),
        prior=tuple(turn.get("prior", ())),
        seconds=dict(turn.get("seconds", {})),
        rating=turn.get("rating", ""),
        correction=turn.get("correction", ""),
    )
