"""The catalogue: documents, their pages' and passages' texts and the lexical index, in one SQLite file. The one truth.

What a transaction here makes visible is in the knowledge base; vectors and files follow it. Several processes may
use one catalogue at once. It does not rank by meaning and holds no vectors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import sqlite3
import threading
import unicodedata
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from chatbot.errors import HomeDamaged, NameTaken, UnknownCollection, UnknownDocument, room
from chatbot.index.base import Ranking, distinct
from chatbot.language import words
from chatbot.passage import Heading, Page, Passage, embedded
from chatbot.schema import Schema, transaction
from chatbot.scope import DEFAULT, EVERYTHING, Scope

_DOCUMENTS_2 = """
CREATE TABLE new_documents (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, kind TEXT NOT NULL, bytes INTEGER NOT NULL,
    pages INTEGER, passages INTEGER NOT NULL, language TEXT NOT NULL, added TEXT NOT NULL,
    notice TEXT NOT NULL, collection TEXT NOT NULL REFERENCES collections (key),
    splitter TEXT NOT NULL, version INTEGER NOT NULL,
    UNIQUE (collection, name)
)"""
_TABLES_1 = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE documents (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, bytes INTEGER NOT NULL,
        pages INTEGER, passages INTEGER NOT NULL, language TEXT NOT NULL, added TEXT NOT NULL, notice TEXT NOT NULL
    )""",
    """CREATE TABLE passages (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE, document_id TEXT NOT NULL REFERENCES documents (id),
        text TEXT NOT NULL, page INTEGER, heading TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL
    )""",
    "CREATE INDEX passages_of_document ON passages (document_id)",
)
_WORDS = (
    # The rowid is the passage's sequence; the words are `language.words`, which need only be split at spaces.
    "CREATE VIRTUAL TABLE lexical USING fts5 (words, tokenize = 'ascii')",
    "CREATE VIRTUAL TABLE vocabulary USING fts5vocab (lexical, row)",
)
_TABLES_2 = (  # beside the columns of documents and passages
    # A key stays when its collection is renamed: ids of documents and the vectors' places are made from it.
    "CREATE TABLE collections (key TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE) WITHOUT ROWID",
    """CREATE TABLE pages (
        document_id TEXT NOT NULL REFERENCES documents (id), place INTEGER NOT NULL, number INTEGER,
        text TEXT NOT NULL, PRIMARY KEY (document_id, place)
    )""",
    "CREATE INDEX passages_by_fingerprint ON passages (fingerprint)",
    f"INSERT INTO collections VALUES ('', '{DEFAULT}')",
)
_COLUMNS = "id, name, kind, bytes, pages, passages, language, added, notice"
_ENTRIES = (
    "SELECT d.id, d.name, d.kind, d.bytes, d.pages, d.passages, d.language, d.added, d.notice, c.name "
    "FROM documents d JOIN collections c ON c.key = d.collection"
)
_PASSAGES = (
    "SELECT p.id, p.document_id, d.name, p.text, p.page, p.heading, p.start, p.end "
    "FROM passages p JOIN documents d ON d.id = p.document_id"
)


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
    collection: str = DEFAULT


@dataclass(frozen=True, slots=True)
class Collection:
    name: str
    documents: int
    passages: int


class Catalogue:
    """Any thread may call; readers never wait. Raises HomeDamaged where the file cannot be used, DiskFull where it
    cannot be written for want of room; what was to be written is then not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        try:
            _SCHEMA.check(path)
            with self._connection() as connection:
                _SCHEMA.prepare(connection, path)
            self.identity = self.meta("identity") or ""
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def add(
        self,
        entry: Entry,
        passages: Sequence[Passage],
        *,
        replacing: str | None = None,
        pages: Sequence[Page] = (),
        splitter: str = "",
        distinct: bool = True,
    ) -> None:
        """Make the document visible and, in the same transaction, the one with the id `replacing` invisible.

        `splitter`: what the passages were cut by. `distinct`: a search gives but one of passages that say the same.
        Raises NameTaken.
        """
        with self._writing() as connection:
            if replacing is not None:
                _delete(connection, replacing)
            key = _key(connection, entry.collection)
            connection.execute("INSERT OR IGNORE INTO collections VALUES (?, ?)", (key, entry.collection))
            counted = dataclasses.replace(entry, passages=len(passages), collection=key)
            try:
                connection.execute(
                    f"INSERT INTO documents ({_COLUMNS}, collection, splitter, version) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
                    (*dataclasses.astuple(counted), splitter),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken(f"{entry.name!r} is there: replace it or give another name") from error
            _insert(connection, entry.id, entry.name, passages, pages, distinct=distinct)

    def split_again(
        self, document_id: str, passages: Sequence[Passage], pages: Sequence[Page], splitter: str, version: int
    ) -> None:
        """Give the document other passages, in one transaction; their ids must be new. Raises UnknownDocument."""
        entry = self.get(document_id)
        with self._writing() as connection:
            _empty(connection, document_id)
            connection.execute(
                "UPDATE documents SET passages = ?, splitter = ?, version = ? WHERE id = ?",
                (len(passages), splitter, version, document_id),
            )
            _insert(connection, document_id, entry.name, passages, pages)

    def keep_split(self, document_id: str, pages: Sequence[Page] | None, splitter: str) -> None:
        """The document's passages are already what `splitter` cuts. None: its pages stay as they are, too."""
        with self._writing() as connection:
            there = connection.execute("UPDATE documents SET splitter = ? WHERE id = ?", (splitter, document_id))
            if there.rowcount and pages is not None:
                connection.execute("DELETE FROM pages WHERE document_id = ?", (document_id,))
                _insert_pages(connection, document_id, pages)

    def delete(self, document_id: str) -> Entry:
        """Raises UnknownDocument."""
        entry = self.get(document_id)
        with self._writing() as connection:
            _delete(connection, document_id)
        return entry

    def delete_collection(self, name: str) -> list[Entry]:
        """With its documents, in one transaction; those. Raises UnknownCollection."""
        key, entries = self.key(name), self.documents(Scope(collections=(name,)))
        with self._writing() as connection:
            for entry in entries:
                _delete(connection, entry.id)
            connection.execute("DELETE FROM collections WHERE key = ?", (key,))
        return entries

    def rename_collection(self, name: str, new: str) -> None:
        """Raises UnknownCollection, or NameTaken where `new` is there."""
        key = self.key(name)
        with self._writing() as connection:
            try:
                connection.execute("UPDATE collections SET name = ? WHERE key = ?", (new, key))
            except sqlite3.IntegrityError as error:
                raise NameTaken(f"there is a collection {new!r} already: choose another name") from error

    def collections(self) -> list[Collection]:
        """In the order of their names."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT c.name, count(d.id), coalesce(sum(d.passages), 0) FROM collections c "
                "LEFT JOIN documents d ON d.collection = c.key GROUP BY c.key ORDER BY c.name"
            )
            return [Collection(*row) for row in rows]

    def key(self, collection: str) -> str:
        """What ids and vectors' places are made from; "" for the default. Raises UnknownCollection."""
        with self._connection() as connection:
            row = connection.execute("SELECT key FROM collections WHERE name = ?", (collection,)).fetchone()
        if row is None:
            raise UnknownCollection(f"there is no collection {collection!r}")
        return str(row[0])

    def key_for(self, collection: str) -> str:
        """Its key, or the one that it gets with its first document."""
        with self._connection() as connection:
            return _key(connection, collection)

    def keys_of(self, scope: Scope = EVERYTHING) -> list[str]:
        """Of the collections that the scope names, or of all. Raises UnknownCollection."""
        if scope.collections:
            return [self.key(name) for name in dict.fromkeys(scope.collections)]
        with self._connection() as connection:
            return [key for (key,) in connection.execute("SELECT key FROM collections ORDER BY key")]

    def documents(self, scope: Scope = EVERYTHING) -> list[Entry]:
        """Newest first."""
        where, values = _within(scope)
        with self._connection() as connection:
            return [Entry(*row) for row in connection.execute(f"{_ENTRIES}{where} ORDER BY d.sequence DESC", values)]

    def find(self, name: str, collection: str = DEFAULT) -> Entry | None:
        with self._connection() as connection:
            row = connection.execute(f"{_ENTRIES} WHERE d.name = ? AND c.name = ?", (name, collection)).fetchone()
            return Entry(*row) if row else None

    def get(self, document_id: str) -> Entry:
        """Raises UnknownDocument."""
        with self._connection() as connection:
            row = connection.execute(f"{_ENTRIES} WHERE d.id = ?", (document_id,)).fetchone()
        if row is None:
            raise UnknownDocument(f"there is no document with the id {document_id!r}")
        return Entry(*row)

    def cut(self, document_id: str) -> tuple[str, int]:
        """(by which splitter, in which version) its passages are. Raises UnknownDocument."""
        with self._connection() as connection:
            row = connection.execute("SELECT splitter, version FROM documents WHERE id = ?", (document_id,)).fetchone()
        if row is None:
            raise UnknownDocument(f"there is no document with the id {document_id!r}")
        return str(row[0]), int(row[1])

    def cut_otherwise(self, splitter: str) -> list[str]:
        """Ids of the documents whose passages are another splitter's, newest first."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT id FROM documents WHERE splitter != ? ORDER BY sequence DESC", (splitter,)
            )
            return [id for (id,) in rows]

    def pages(self, document_id: str) -> list[Page]:
        """Of a document, in their order; none where they were not stored."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT text, number, coalesce(headings, '[]') FROM pages WHERE document_id = ? ORDER BY place",
                (document_id,),
            )
            return [
                Page(text, number, tuple(Heading(*heading) for heading in json.loads(headings)))
                for text, number, headings in rows
            ]

    def knows_headings(self, document_id: str) -> bool:
        """Whether the pages' headings are stored; an earlier version did not."""
        with self._connection() as connection:
            unknown = connection.execute(
                "SELECT count(*) FROM pages WHERE document_id = ? AND headings IS NULL", (document_id,)
            ).fetchone()
            return not unknown[0]

    def passages(self, ids: Sequence[str]) -> dict[str, Passage]:
        """By id, in the order of the ids; ids that are not there are left out."""
        with self._connection() as connection:
            rows = connection.execute(
                f"{_PASSAGES} WHERE p.id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids)),)
            )
            found = {row[0]: Passage(*row) for row in rows}
        return {id: found[id] for id in ids if id in found}

    def passages_of(self, document_id: str) -> list[Passage]:
        """In the order of the text."""
        with self._connection() as connection:
            rows = connection.execute(f"{_PASSAGES} WHERE p.document_id = ? ORDER BY p.sequence", (document_id,))
            return [Passage(*row) for row in rows]

    def passage_ids(self, document_id: str | None = None) -> list[str]:
        """Those of one document, or of all, in the order of the text."""
        return self.ids_within(EVERYTHING if document_id is None else Scope(documents=(document_id,)))

    def ids_within(self, scope: Scope) -> list[str]:
        """Ids of the passages of the scope's documents, in the order of the text."""
        where, values = _within(scope)
        of = f"WHERE p.document_id IN (SELECT d.id FROM documents d{where})" if where else ""
        with self._connection() as connection:
            rows = connection.execute(f"SELECT p.id FROM passages p {of} ORDER BY p.sequence", values)
            return [id for (id,) in rows]

    def count(self, scope: Scope = EVERYTHING) -> int:
        """Passages of the scope's documents."""
        where, values = _within(scope)
        with self._connection() as connection:
            found = connection.execute(
                f"SELECT coalesce(sum(d.passages), 0) FROM documents d{where}", values
            ).fetchone()
            return int(found[0])

    def places(self, ids: Iterable[str] | None = None) -> dict[str, list[str]]:
        """Ids of passages by their collection's key; None: all."""
        which = "" if ids is None else "WHERE p.id IN (SELECT value FROM json_each(?))"
        found: dict[str, list[str]] = defaultdict(list)
        with self._connection() as connection:
            rows = connection.execute(
                f"SELECT d.collection, p.id FROM passages p JOIN documents d ON d.id = p.document_id {which} "
                "ORDER BY p.sequence",
                () if ids is None else (json.dumps(list(ids)),),
            )
            for key, id in rows:
                found[key].append(id)
        return found

    def firsts(self, ids: Sequence[str], scope: Scope = EVERYTHING) -> dict[str, str]:
        """For each passage that is in the scope, the first there that says the same: itself, if it stands alone."""
        with self._reading() as connection:
            return _firsts(connection, ids, scope)

    def occurrences(self, terms: Sequence[str]) -> dict[str, int]:
        """In how many passages each word occurs; words that occur in none are left out."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT term, doc FROM vocabulary WHERE term IN (SELECT value FROM json_each(?))",
                (json.dumps(list(terms)),),
            )
            return dict(rows.fetchall())

    def matching(self, terms: Sequence[str], k: int, scope: Scope = EVERYTHING) -> Ranking:
        """The k best passages of the scope with any of these words of `language.words`, scored by BM25.

        Of those that say the same, the first.
        """
        where, values = _within(scope)
        matched = " OR ".join(f'"{term}"' for term in terms)
        with self._reading() as connection:

            def ranked(n: int) -> Ranking:
                # FTS5 ranks first, and passages out of the scope are passed over: 12 to 200 ms at 100,000 passages,
                # up to twice as long as without a scope. Giving FTS5 the scope's rowids took 16 ms to 41 s.
                rows = connection.execute(
                    "SELECT p.id, -best.rank FROM "
                    "(SELECT rowid, rank FROM lexical WHERE lexical MATCH ? ORDER BY rank) AS best "
                    f"JOIN passages p ON p.sequence = best.rowid JOIN documents d ON d.id = p.document_id{where} "
                    "ORDER BY best.rank, p.sequence LIMIT ?",
                    (matched, *values, n),
                )
                return [(id, score) for id, score in rows]

            return distinct(ranked, lambda ids: _firsts(connection, ids, scope), k)

    def faults(self) -> list[str]:
        """What does not fit together in here, a sentence each; thorough: it reads everything."""
        questions = {
            "documents with another number of passages than they say": "SELECT count(*) FROM documents d WHERE "
            "d.passages != (SELECT count(*) FROM passages p WHERE p.document_id = d.id)",
            "passages without words": "SELECT count(*) FROM passages WHERE sequence NOT IN (SELECT rowid FROM lexical)",
            "words without a passage": "SELECT count(*) FROM lexical "
            "WHERE rowid NOT IN (SELECT sequence FROM passages)",
            "rows that refer to none": "SELECT count(*) FROM pragma_foreign_key_check",
            "damaged places of the file": "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check != 'ok'",
        }
        with self._connection() as connection:
            counts = {what: connection.execute(sql).fetchone()[0] for what, sql in questions.items()}
        faults = [f"{count} {what}" for what, count in counts.items() if count]
        try:
            with self._writing() as connection:
                connection.execute("INSERT INTO lexical (lexical) VALUES ('integrity-check')")
        except HomeDamaged:
            faults.append("a damaged lexical index")
        return faults

    def mend(self) -> None:
        """Make words and counts anew from the passages."""
        with self._writing() as connection:
            connection.execute("DROP TABLE vocabulary")
            connection.execute("DROP TABLE lexical")
            for statement in _WORDS:
                connection.execute(statement)
            connection.execute(
                "UPDATE documents SET passages = (SELECT count(*) FROM passages p WHERE p.document_id = documents.id)"
            )
            for sequence, *row in connection.execute(f"SELECT p.sequence, {_PASSAGES.removeprefix('SELECT ')}"):
                passage = Passage(*row)
                indexed = (sequence, _indexed(passage.document, passage))
                connection.execute("INSERT INTO lexical (rowid, words) VALUES (?, ?)", indexed)

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

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection, transaction(connection):
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """What is read in here is of one moment, however many statements it takes."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """One that no other thread uses meanwhile."""
        connection = None
        try:
            with room(self._path):
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


def _within(scope: Scope, word: str = "WHERE") -> tuple[str, list[str]]:
    """(SQL, its values) that hold for the documents `d` of the scope; nothing for all."""
    lists = {
        "d.collection IN (SELECT key FROM collections WHERE name IN (SELECT value FROM json_each(?)))": (
            scope.collections
        ),
        "d.id IN (SELECT value FROM json_each(?))": scope.documents,
        "d.kind IN (SELECT value FROM json_each(?))": scope.kinds,
        "d.language IN (SELECT value FROM json_each(?))": scope.languages,
    }
    asked = [(sql, json.dumps(values)) for sql, values in lists.items() if values]
    for sql, moment in (("d.added >= ?", scope.added_after), ("d.added < ?", scope.added_before)):
        if moment is not None:
            asked.append((sql, written(moment)))
    return (f" {word} " + " AND ".join(sql for sql, _ in asked) if asked else ""), [value for _, value in asked]


def written(moment: datetime) -> str:
    """As `Entry.added` has it: in UTC, so that texts sort as moments do."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _firsts(connection: sqlite3.Connection, ids: Sequence[str], scope: Scope) -> dict[str, str]:
    where, values = _within(scope, "AND")
    joined = "FROM passages p JOIN documents d ON d.id = p.document_id"
    fingerprints = dict(
        connection.execute(
            f"SELECT p.id, p.fingerprint {joined} WHERE p.id IN (SELECT value FROM json_each(?)){where}",
            (json.dumps(list(ids)), *values),
        ).fetchall()
    )
    rows = connection.execute(
        f"SELECT p.fingerprint, p.id, min(p.sequence) {joined} "
        f"WHERE p.fingerprint IN (SELECT value FROM json_each(?)){where} GROUP BY p.fingerprint",
        (json.dumps(list(fingerprints.values())), *values),
    )
    first = {fingerprint: id for fingerprint, id, _ in rows}  # SQLite: the id is of the row with the minimum
    return {id: first.get(fingerprints[id], id) for id in ids if id in fingerprints}


def _key(connection: sqlite3.Connection, collection: str) -> str:
    """The collection's, or the one that it will get: the first made from the name that no renamed one has.

    The same whenever it is asked for, because ids are made from it before the collection is there.
    """
    keys = dict(connection.execute("SELECT name, key FROM collections").fetchall())
    if collection in keys:
        return str(keys[collection])
    taken = set(keys.values())
    return next(key for key in _keys_from(collection) if key not in taken)


def _keys_from(collection: str) -> Iterator[str]:
    if collection == DEFAULT:
        yield ""
    yield hashlib.sha256(collection.encode()).hexdigest()[:12]
    for number in itertools.count(2):
        yield hashlib.sha256(f"{collection}\0{number}".encode()).hexdigest()[:12]


def _insert(
    connection: sqlite3.Connection,
    document_id: str,
    name: str,
    passages: Sequence[Passage],
    pages: Sequence[Page],
    *,
    distinct: bool = True,
) -> None:
    for each in passages:
        row = connection.execute(
            "INSERT INTO passages (id, document_id, text, page, heading, start, end, fingerprint) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                each.id,
                document_id,
                each.text,
                each.page,
                each.heading,
                each.start,
                each.end,
                _fingerprint(each) if distinct else None,
            ),
        )
        indexed = (row.lastrowid, _indexed(name, each))
        connection.execute("INSERT INTO lexical (rowid, words) VALUES (?, ?)", indexed)
    _insert_pages(connection, document_id, pages)


def _insert_pages(connection: sqlite3.Connection, document_id: str, pages: Sequence[Page]) -> None:
    rows = [
        (document_id, place, page.number, page.text, json.dumps([dataclasses.astuple(each) for each in page.headings]))
        for place, page in enumerate(pages)
    ]
    connection.executemany(
        "INSERT INTO pages (document_id, place, number, text, headings) VALUES (?, ?, ?, ?, ?)", rows
    )


def _fingerprint(passage: Passage) -> int:
    """64 bits of what it says: heading and text, whatever their case, width and white space."""
    said = " ".join(unicodedata.normalize("NFKC", embedded(passage)).casefold().split())
    return int.from_bytes(hashlib.sha256(said.encode("utf-8", "replace")).digest()[:8], "big", signed=True)


def _indexed(name: str, passage: Passage) -> str:
    """The document's name is searched too: "what does the handbook say"."""
    return " ".join(words("\n".join((PurePosixPath(name).stem, passage.heading, passage.text))))


def _delete(connection: sqlite3.Connection, document_id: str) -> None:
    _empty(connection, document_id)
    connection.execute("DELETE FROM documents WHERE id = ?", (document_id,))


def _empty(connection: sqlite3.Connection, document_id: str) -> None:
    its = "(SELECT sequence FROM passages WHERE document_id = ?)"
    connection.execute(f"DELETE FROM lexical WHERE rowid IN {its}", (document_id,))
    connection.execute("DELETE FROM passages WHERE document_id = ?", (document_id,))
    connection.execute("DELETE FROM pages WHERE document_id = ?", (document_id,))


def _to_1(connection: sqlite3.Connection) -> None:
    for statement in (*_TABLES_1, *_WORDS):
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('identity', ?)", (uuid.uuid4().hex,))


def _to_2(connection: sqlite3.Connection) -> None:
    """Pages were not stored, and are read again from the originals, as after a change of the splitter."""
    connection.execute("ALTER TABLE passages ADD COLUMN fingerprint INTEGER")
    for statement in _TABLES_2:
        connection.execute(statement)
    connection.execute(_DOCUMENTS_2)
    connection.execute(
        f"INSERT INTO new_documents SELECT sequence, {_COLUMNS}, '', '', 0 FROM documents ORDER BY sequence"
    )
    connection.execute("DROP TABLE documents")
    connection.execute("ALTER TABLE new_documents RENAME TO documents")
    for sequence, *row in connection.execute(f"SELECT p.sequence, {_PASSAGES.removeprefix('SELECT ')}").fetchall():
        connection.execute(
            "UPDATE passages SET fingerprint = ? WHERE sequence = ?", (_fingerprint(Passage(*row)), sequence)
        )


def _to_3(connection: sqlite3.Connection) -> None:
    """Headings of pages were not stored. A PDF whose passages have none may have lost them, and is split again."""
    connection.execute("ALTER TABLE pages ADD COLUMN headings TEXT")  # JSON; NULL: not known
    connection.execute(
        "UPDATE documents SET splitter = '' WHERE kind = 'pdf' AND NOT EXISTS "
        "(SELECT 1 FROM passages p WHERE p.document_id = documents.id AND p.heading != '')"
    )


_SCHEMA = Schema("the catalogue", 0x4D617267, (_to_1, _to_2, _to_3))  # "Marg"
