"""The catalogue: documents, their passages' texts and the lexical index, in one SQLite file. The one truth.

What a transaction here makes visible is in the knowledge base; vectors and files follow it. It does not rank
by meaning and holds no vectors.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from chatbot.errors import HomeDamaged, NameTaken, UnknownDocument
from chatbot.language import words
from chatbot.passage import Passage

_APPLICATION = 0x4D617267  # "Marg", in the file's header
_SCHEMA = 1  # PRAGMA user_version
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, bytes INTEGER NOT NULL,
    pages INTEGER, passages INTEGER NOT NULL, language TEXT NOT NULL, added TEXT NOT NULL,
    notice TEXT NOT NULL
);
CREATE TABLE passages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, document_id TEXT NOT NULL REFERENCES documents (id),
    text TEXT NOT NULL, page INTEGER, heading TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL
);
CREATE INDEX passages_of_document ON passages (document_id);
-- The rowid is the passage's sequence; the words are `language.words`, which need only be split at spaces.
CREATE VIRTUAL TABLE lexical USING fts5 (words, tokenize = 'ascii');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab (lexical, row);
"""
_ENTRY = "id, name, kind, bytes, pages, passages, language, added, notice"


@dataclass(frozen=True, slots=True)
class Entry:
    """A document as the list of documents shows it."""

    id: str
    name: str
    kind: str
    bytes: int
    pages: int | None  # None: a format without pages
    passages: int
    language: str  # ISO 639-1
    added: str  # ISO 8601, UTC
    notice: str = ""


class Catalogue:
    """Any thread may call; readers never wait. Raises HomeDamaged where the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        with self._connection() as connection:
            self._prepare(connection)
        self.identity = self.meta("identity") or ""

    def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def add(self, entry: Entry, passages: Sequence[Passage], *, replacing: str | None = None) -> None:
        """Make the document visible and, in the same transaction, the one with the id `replacing` invisible.

        Raises NameTaken.
        """
        with self._writing() as connection:
            if replacing is not None:
                _delete(connection, replacing)
            try:
                connection.execute(
                    f"INSERT INTO documents ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    dataclasses.astuple(dataclasses.replace(entry, passages=len(passages))),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken(f"{entry.name!r} is there: replace it or give another name") from error
            for each in passages:
                row = connection.execute(
                    "INSERT INTO passages (id, document_id, text, page, heading, start, end) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (each.id, entry.id, each.text, each.page, each.heading, each.start, each.end),
                )
                indexed = (row.lastrowid, _indexed(entry.name, each))
                connection.execute("INSERT INTO lexical (rowid, words) VALUES (?, ?)", indexed)

    def delete(self, document_id: str) -> Entry:
        """Raises UnknownDocument."""
        entry = self.get(document_id)
        with self._writing() as connection:
            _delete(connection, document_id)
        return entry

    def documents(self) -> list[Entry]:
        """Newest first."""
        with self._connection() as connection:
            rows = connection.execute(f"SELECT {_ENTRY} FROM documents ORDER BY sequence DESC")
            return [Entry(*row) for row in rows]

    def find(self, name: str) -> Entry | None:
        with self._connection() as connection:
            row = connection.execute(f"SELECT {_ENTRY} FROM documents WHERE name = ?", (name,)).fetchone()
            return Entry(*row) if row else None

    def get(self, document_id: str) -> Entry:
        """Raises UnknownDocument."""
        with self._connection() as connection:
            rows = connection.execute(f"SELECT {_ENTRY} FROM documents WHERE id = ?", (document_id,))
            row = rows.fetchone()
        if row is None:
            raise UnknownDocument(f"there is no document with the id {document_id!r}")
        return Entry(*row)

    def passages(self, ids: Sequence[str]) -> dict[str, Passage]:
        """By id, in the order of the ids; ids that are not there are left out."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT p.id, p.document_id, d.name, p.text, p.page, p.heading, p.start, p.end "
                "FROM passages p JOIN documents d ON d.id = p.document_id "
                "WHERE p.id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(ids)),),
            )
            found = {row[0]: Passage(*row) for row in rows}
        return {id: found[id] for id in ids if id in found}

    def passage_ids(self, document_id: str | None = None) -> list[str]:
        """Those of one document, or of all, in the order of the text."""
        where, values = ("", ()) if document_id is None else ("WHERE document_id = ?", (document_id,))
        with self._connection() as connection:
            rows = connection.execute(f"SELECT id FROM passages {where} ORDER BY sequence", values)
            return [id for (id,) in rows]

    def occurrences(self, terms: Sequence[str]) -> dict[str, int]:
        """In how many passages each word occurs; words that occur in none are left out."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT term, doc FROM vocabulary WHERE term IN (SELECT value FROM json_each(?))",
                (json.dumps(list(terms)),),
            )
            return dict(rows.fetchall())

    def matching(self, terms: Sequence[str], k: int) -> list[tuple[str, float]]:
        """The k best passages with any of these words of `language.words`: (id, BM25), best first."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT passages.id, -best.rank FROM "
                "(SELECT rowid, rank FROM lexical WHERE lexical MATCH ? ORDER BY rank LIMIT ?) AS best "
                "JOIN passages ON passages.sequence = best.rowid ORDER BY best.rank, passages.sequence",
                (" OR ".join(f'"{term}"' for term in terms), k),
            )
            return [(id, score) for id, score in rows]

    def meta(self, key: str) -> str | None:
        with self._connection() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return row[0] if row else None

    def set_meta(self, key: str, value: str) -> None:
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def scrub(self) -> None:
        """Overwrite what was deleted, also in the index's segments and in the log beside the file.

        0.2 s at 20,000 passages after a deletion; nothing to do costs nothing.
        """
        with self._writing() as connection:
            connection.execute("INSERT INTO lexical (lexical) VALUES ('optimize')")
        with self._connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        application, version, tables = (
            connection.execute(sql).fetchone()[0]
            for sql in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if application != _APPLICATION and tables:
            raise HomeDamaged(f"{str(self._path)!r} is another program's database: choose another home")
        if version > _SCHEMA:
            raise HomeDamaged(f"{str(self._path)!r} is of a newer version: update, or choose another home")
        if not tables:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(
                f"BEGIN IMMEDIATE; {_TABLES} INSERT INTO meta VALUES ('identity', '{uuid.uuid4().hex}');"
                f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_SCHEMA}; COMMIT;"
            )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:  # SQLite has rolled back already where the disk failed
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """One that no other thread uses meanwhile."""
        connection = None
        try:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            connection = connection or self._open()
            yield connection
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise  # mistakes of the caller's
        except sqlite3.DatabaseError as error:
            raise HomeDamaged(f"the catalogue {str(self._path)!r} cannot be used: {error}") from error
        finally:
            if connection is not None:
                with self._lock:
                    self._idle.append(connection)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        for pragma in ("foreign_keys = ON", "secure_delete = ON", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")
        return connection


def _indexed(name: str, passage: Passage) -> str:
    """The document's name is searched too: "what does the handbook say"."""
    return " ".join(words("\n".join((PurePosixPath(name).stem, passage.heading, passage.text))))


def _delete(connection: sqlite3.Connection, document_id: str) -> None:
    its = "(SELECT sequence FROM passages WHERE document_id = ?)"
    connection.execute(f"DELETE FROM lexical WHERE rowid IN {its}", (document_id,))
    connection.execute("DELETE FROM passages WHERE document_id = ?", (document_id,))
    connection.execute("DELETE FROM documents WHERE id = ?", (document_id,))
