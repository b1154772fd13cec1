"""Conversations on disk: those of a home in one SQLite file, and one in a JSON file of a person's own.

What is written is there whole or not at all. Several processes may use one home's conversations at once.
"""

from __future__ import annotations

import json
import re
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from chatbot.conversation import RATINGS, Asked, Citation, Conversation, Query, Reply, Turn
from chatbot.errors import HomeDamaged, UnreadableData, is_full, room
from chatbot.language import detect
from chatbot.passage import Hit, Passage
from chatbot.schema import Schema, transaction

_T = TypeVar("_T")
KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DAMAGE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)  # what reading anything else raises
_KINDS: dict[object, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "int | None": (int, type(None)),
}
TITLE = 120  # characters of a title in the list
_TABLES = (
    "CREATE TABLE conversations (key TEXT PRIMARY KEY, title TEXT NOT NULL, changed REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX conversations_by_age ON conversations (changed)",
    """CREATE TABLE turns (
        key TEXT NOT NULL REFERENCES conversations (key), number INTEGER NOT NULL, turn TEXT NOT NULL,
        PRIMARY KEY (key, number)
    )""",
    "CREATE TABLE unread (name TEXT PRIMARY KEY) WITHOUT ROWID",  # files that were named once
)
_ASKED_ONE = """CREATE TABLE asked (
    key TEXT PRIMARY KEY REFERENCES conversations (key), id TEXT NOT NULL, utterance TEXT NOT NULL, text TEXT NOT NULL,
    note TEXT NOT NULL
) WITHOUT ROWID"""
_ASKED = (
    "ALTER TABLE asked RENAME TO asked_one",
    """CREATE TABLE asked (
        number INTEGER PRIMARY KEY, key TEXT NOT NULL REFERENCES conversations (key), id TEXT NOT NULL,
        utterance TEXT NOT NULL, text TEXT NOT NULL, note TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX asked_by_key ON asked (key, id)",
    "INSERT INTO asked (key, id, utterance, text, note) SELECT key, id, utterance, text, note FROM asked_one",
    "DROP TABLE asked_one",
)


UNANSWERED = 1000  # questions without a reply: a script asks more than are ever answered, and would fill the disk


class History:
    """The conversations beside `folder`, in one SQLite file. `list` is newest first; any thread or process may call.

    A key is 1 to 64 letters, digits, '-' or '_'; any other is unknown. What an earlier version kept in `folder`, a JSON
    file each, is moved over when this is opened. `unread`: the files that could not be, a sentence each, said once.
    Raises HomeDamaged where the file cannot be used, DiskFull where there is no room: what was stored then still is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder.with_name(f"{folder.name}.sqlite")
        self._prepare()
        self.unread = self._move_in()

    def save(
        self, key: str, conversation: Conversation, since: Conversation | None = None, answered: str = ""
    ) -> Conversation:
        """Gives what is stored then: the conversation, or, where others may have changed it `since` it was that, what
        both have made of it (see `merged`). `answered`: the id of the question whose reply is in it now.
        Raises UnreadableData for a key that cannot be used, and where what is stored is damaged: that stays.
        """
        _check(key)
        with self._writing() as connection:
            connection.execute("DELETE FROM asked WHERE key = ? AND id = ?", (key, answered))
            rows = _rows(connection, key)
            stored = self._turns(key, rows)
            turns = list(conversation.turns)
            if since is not None and stored:
                turns = merged(stored, since.turns, conversation.turns)
            _put(connection, key, rows, turns, datetime.now(UTC).timestamp())
        return Conversation(tuple(turns))

    def load(self, key: str) -> Conversation | None:
        """Raises UnreadableData where it is damaged."""
        with self._reading() as connection:
            rows = _rows(connection, key)
        return Conversation(tuple(self._turns(key, rows))) if rows else None

    def _turns(self, key: str, rows: Sequence[str]) -> list[Turn]:
        with self._undamaged(key):
            return [_turn(json.loads(row)) for row in rows]

    @contextmanager
    def _undamaged(self, key: str) -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            raise UnreadableData(
                f"conversation {key!r} in {str(self._path)!r} is damaged ({_told_of(error)}): delete it from the list; "
                "the others stay"
            ) from error

    def ask(self, key: str, asked: Asked, beside: Collection[str] = ()) -> None:
        """Keeps a question that has no reply yet, in place of the earlier ones of its conversation but for those whose
        ids are in `beside`: they are being answered too. Of all that have no reply it keeps the latest `UNANSWERED`.
        Raises UnreadableData as `save` does."""
        _check(key)
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO conversations VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET changed = excluded.changed",
                (key, _title(asked.utterance), datetime.now(UTC).timestamp()),
            )
            for (id,) in connection.execute("SELECT id FROM asked WHERE key = ?", (key,)).fetchall():
                if id not in beside:
                    connection.execute("DELETE FROM asked WHERE key = ? AND id = ?", (key, id))
            row = (key, asked.id, _ascii(asked.utterance), _ascii(asked.text), _ascii(asked.note))
            into = "INSERT OR REPLACE INTO asked (key, id, utterance, text, note) VALUES (?, ?, ?, ?, ?)"
            connection.execute(into, row)
            latest = "SELECT number, key FROM asked ORDER BY number DESC LIMIT -1 OFFSET ?"
            for number, old in connection.execute(latest, (UNANSWERED,)).fetchall():
                connection.execute("DELETE FROM asked WHERE number = ?", (number,))
                _drop_empty(connection, old)

    def end(self, key: str, asked: Asked) -> None:
        """Keeps why a question gets no reply, and what there was of it. Another that was asked meanwhile stays."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE asked SET text = ?, note = ? WHERE key = ? AND id = ?",
                (_ascii(asked.text), _ascii(asked.note), key, asked.id),
            )

    def asked(self, key: str) -> tuple[Asked, ...]:
        """The questions that have no reply, the earliest first. Raises UnreadableData where one is damaged."""
        with self._reading() as connection:
            select = "SELECT id, utterance, text, note FROM asked WHERE key = ? ORDER BY number"
            found = connection.execute(select, (key,)).fetchall()
        with self._undamaged(key):
            return tuple(Asked(id, *map(json.loads, texts)) for id, *texts in found)

    def take_back(self, key: str, id: str) -> None:
        """Forgets the question of that id; one that began a conversation takes it along."""
        with self._writing() as connection:
            connection.execute("DELETE FROM asked WHERE key = ? AND id = ?", (key, id))
            _drop_empty(connection, key)

    def list(self) -> list[tuple[str, str, str]]:
        """(key, the first utterance's beginning, in one line; when it was last changed in ISO 8601 UTC)."""
        with self._reading() as connection:
            rows = connection.execute("SELECT key, title, changed FROM conversations ORDER BY changed DESC, key DESC")
            return [
                (key, title, datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds"))
                for key, title, changed in rows
            ]

    def delete(self, key: str) -> None:
        with self._writing() as connection:
            for table in ("turns", "asked", "conversations"):
                connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))

    def _move_in(self) -> tuple[str, ...]:
        """A file is removed once what it held is on the disk: a crash leaves it in both places, and then here."""
        said: tuple[str, ...] = ()
        for path in sorted(self._folder.glob("*.json")):
            try:
                if KEY.fullmatch(path.stem):
                    self._move(path)
                    path.unlink(missing_ok=True)
            except FileNotFoundError:  # another process moved it
                continue
            except (UnreadableData, OSError) as error:
                with self._writing() as connection:
                    new = connection.execute("INSERT OR IGNORE INTO unread VALUES (?)", (path.name,))
                    said += (f"left where it is: {error}",) * new.rowcount
        return said

    def _move(self, path: Path) -> None:
        changed, conversation = path.stat().st_mtime, read(path)
        with self._writing() as connection:
            if not _rows(connection, path.stem):
                _put(connection, path.stem, [], conversation.turns, changed)

    def _prepare(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HomeDamaged(f"{str(self._path.parent)!r} cannot be made: {error.strerror}") from error
        _SCHEMA.check(self._path)
        with self._reading() as connection:
            _SCHEMA.prepare(connection, self._path)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._open(self._connected) as connection, transaction(connection):
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._open(self._readable) as connection:
            yield connection

    @contextmanager
    def _open(self, connect: Callable[[], sqlite3.Connection]) -> Iterator[sqlite3.Connection]:
        connection = None
        try:
            with room(self._path):
                connection = connect()
                yield connection
        except sqlite3.DatabaseError as error:
            raise HomeDamaged(f"the conversations {str(self._path)!r} cannot be used: {error}") from error
        finally:
            if connection is not None:
                connection.close()

    def _connected(self, options: str = "") -> sqlite3.Connection:
        place = f"{self._path.absolute().as_uri()}{options}"
        connection = sqlite3.connect(place, timeout=30, isolation_level=None, uri=True)
        connection.text_factory = _decoded  # one damaged title hides no other conversation
        try:
            for pragma in ("foreign_keys = ON", "secure_delete = ON", "synchronous = FULL", "user_version"):
                connection.execute(f"PRAGMA {pragma}")  # the last one reads
        except BaseException:
            connection.close()
            raise
        return connection

    def _readable(self) -> sqlite3.Connection:
        """Also on a full disk, where SQLite finds no room for the file beside it by which connections share a log: of
        one that has no log, there is nothing to share."""
        try:
            return self._connected()
        except sqlite3.OperationalError as error:
            log = self._path.with_name(f"{self._path.name}-wal")
            if not is_full(error, self._path) or (log.exists() and log.stat().st_size):
                raise
            return self._connected("?immutable=1")


def _to_1(connection: sqlite3.Connection) -> None:
    for statement in _TABLES:
        connection.execute(statement)


def _to_2(connection: sqlite3.Connection) -> None:
    connection.execute(_ASKED_ONE)


def _to_3(connection: sqlite3.Connection) -> None:
    for statement in _ASKED:
        connection.execute(statement)


_SCHEMA = Schema("the store of conversations", 0x4D617268, (_to_1, _to_2, _to_3))  # "Marh"


def _drop_empty(connection: sqlite3.Connection, key: str) -> None:
    connection.execute(
        "DELETE FROM conversations WHERE key = ? AND NOT EXISTS (SELECT 1 FROM turns WHERE turns.key = ?) "
        "AND NOT EXISTS (SELECT 1 FROM asked WHERE asked.key = ?)",
        (key, key, key),
    )


def _check(key: str) -> None:
    if not KEY.fullmatch(key):
        raise UnreadableData(f"conversation key {key!r} cannot be used: take 1 to 64 letters, digits, '-' or '_'")


def _decoded(text: bytes) -> str:
    return text.decode(errors="replace")


def _told_of(error: Exception) -> str:
    """In one line, with half of a character, as a damaged file may name one, as an escape."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line.encode(errors="backslashreplace").decode()


def _ascii(text: str) -> str:
    """As JSON: half of a character has no UTF-8."""
    return json.dumps(text)


def merged(stored: Sequence[Turn], before: Sequence[Turn], after: Sequence[Turn]) -> list[Turn]:
    """`stored` with what turned `before` into `after`: turns taken back, changed or added. Whatever another added
    to `stored` meanwhile stays; of a turn that both judged, the judgement of `after` holds.
    """
    start = next(
        (n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    most = min(len(before), len(after)) - start
    end = next((n for n in range(most) if before[-1 - n] != after[-1 - n]), most)
    gone = [_unjudged(turn) for turn in before[start : len(before) - end]]
    kept: list[Turn] = []
    place = None
    for turn in stored:
        if _unjudged(turn) in gone:
            gone.remove(_unjudged(turn))
            place = len(kept) if place is None else place
        else:
            kept.append(turn)
    place = len(kept) if place is None else place
    return [*kept[:place], *after[start : len(after) - end], *kept[place:]]


def _unjudged(turn: Turn) -> Turn:
    return replace(turn, rating="", correction="")


def _rows(connection: sqlite3.Connection, key: str) -> list[str]:
    """Its turns, as they are written."""
    found = connection.execute("SELECT turn FROM turns WHERE key = ? ORDER BY number", (key,))
    return [row for (row,) in found]


def _put(connection: sqlite3.Connection, key: str, rows: Sequence[str], turns: Sequence[Turn], changed: float) -> None:
    """Writes what differs from `rows`, those that are there."""
    written = [json.dumps(asdict(turn)) for turn in turns]  # in ASCII: it holds whatever was typed
    if not written:
        connection.execute("DELETE FROM turns WHERE key = ?", (key,))
        connection.execute(
            "DELETE FROM conversations WHERE key = ? AND NOT EXISTS (SELECT 1 FROM asked WHERE asked.key = ?)",
            (key, key),
        )
        return
    connection.execute(
        "INSERT INTO conversations VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET title = excluded.title, "
        "changed = excluded.changed",
        (key, _title(turns[0].utterance), changed),
    )
    for number, row in enumerate(written):
        if number >= len(rows) or rows[number] != row:
            connection.execute("INSERT OR REPLACE INTO turns VALUES (?, ?, ?)", (key, number, row))
    connection.execute("DELETE FROM turns WHERE key = ? AND number >= ?", (key, len(written)))


def _title(utterance: str) -> str:
    line = " ".join(utterance.encode("utf-8", "replace").decode().split())
    return line if len(line) <= TITLE else f"{line[: TITLE - 1].rstrip()}…"


def write(path: Path, conversation: Conversation) -> None:
    """Raises UnreadableData where the file cannot be written."""
    text = json.dumps({"turns": [asdict(turn) for turn in conversation.turns]}, ensure_ascii=False, indent=1)
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # half of a character (a lone surrogate) has no UTF-8; written as an escape it is still JSON
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", dir=path.parent, delete=False
        ) as file:
            name = file.name
            file.write(text)
        Path(name).replace(path)
    except OSError as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
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
        _check_judgements(turns, path)
    except OSError as error:
        raise UnreadableData(f"conversation {str(path)!r} cannot be read: {error.strerror}") from error
    except _DAMAGE as error:
        raise UnreadableData(
            f"{str(path)!r} holds no conversation ({_told_of(error)}): give a file that "
            '`ask --conversation` wrote, or a JSON list of {"role": "user" or "assistant", "content": text}'
        ) from error
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
    reply["citations"] = tuple(_made(Citation, citation) for citation in reply.get("citations", ()))
    reply["weights"] = tuple(map(float, reply.get("weights", ())))
    hits = [{**hit, "passage": _made(Passage, hit["passage"])} for hit in turn.get("hits", ())]
    return Turn(
        query=_made(Query, turn["query"]),
        reply=_made(Reply, reply),
        hits=tuple(_made(Hit, hit) for hit in hits),
        prior=tuple(map(float, turn.get("prior", ()))),
        seconds={step: float(taken) for step, taken in turn.get("seconds", {}).items()},
        rating=turn.get("rating", ""),
        correction=turn.get("correction", ""),
    )


def _made(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """Raises TypeError for a text, a number or a truth that is none: it could be anything, and nested without end."""
    for each in fields(kind):  # type: ignore[arg-type]
        expected = _KINDS.get(each.type)
        if expected and each.name in values and not isinstance(values[each.name], expected):
            raise TypeError(f"{each.name} is no {each.type}")
    return kind(**values)
