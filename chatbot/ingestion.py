"""Files on their way into the knowledge base: a queue that several people fill and threads empty.

What was handed in survives a kill: its copy and its line in the queue are written before `submit` returns, and stay
until the document is in, has failed or was given up. A file that was being read is begun anew; so is a web address
that was being fetched, and a file for which the disk had no room: it waits, and is tried again. A file goes in as
`KnowledgeBase.add` does it, wholly or not at all; this module reads, splits and embeds nothing itself.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol

from chatbot.errors import DiskFull, HomeDamaged, MarginaliaError, NameTaken, PackedFiles, is_full, room
from chatbot.fetch import fetch, name_of
from chatbot.knowledge import Outcome
from chatbot.parse import Member, unpack
from chatbot.progress import Progress
from chatbot.schema import Schema, transaction
from chatbot.scope import DEFAULT

State = Literal[
    "waiting", "reading", "embedding", "cancelling", "asking", "added", "replaced", "unchanged", "failed", "cancelled"
]
Choice = Literal["replace", "keep", "skip"]

RUNNING: frozenset[State] = frozenset(("reading", "embedding"))
UNDONE: frozenset[State] = RUNNING | {"waiting", "cancelling"}

_THREADS = 3  # one file's passages are embedded while the next files are parsed
_PAUSE_S = 1.0  # after a full disk; twice as long after each time
_LONGEST_PAUSE_S = 15.0
_NO_ROOM = "the disk is full: it goes on by itself when there is room"
_CLOSING_S = 5.0  # storing a document that is under way takes less
_WINDOW_S = 30.0  # over which rates are measured
_TABLE = """
CREATE TABLE IF NOT EXISTS files (
    place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, batch TEXT NOT NULL, owner TEXT NOT NULL,
    name TEXT NOT NULL, bytes INTEGER NOT NULL, choice TEXT NOT NULL, state TEXT NOT NULL, message TEXT NOT NULL,
    passages INTEGER NOT NULL
)
"""
_ADDED_SINCE = {"collection": DEFAULT, "address": ""}  # columns that a queue without a version may have or not
_STORE = "queue.sqlite"
_COLUMNS = "id, batch, owner, name, bytes, choice, state, message, passages, collection, address"

Fetch = Callable[[str, Path], str]  # writes what a web address holds to a file; the document's name
_FETCH: Fetch = partial(fetch, max_bytes=100_000_000)

log = logging.getLogger(__name__)


def check_queue(folder: Path) -> None:
    """Raises HomeDamaged, and touches nothing, where a later version wrote the queue in the folder."""
    _SCHEMA.check(folder / _STORE)


class Knowledge(Protocol):
    """What takes a file: a KnowledgeBase."""

    def add(
        self,
        file: str | Path,
        *,
        name: str | None,
        replace: bool,
        keep: bool,
        collection: str,
        progress: Progress,
        embedding: Callable[[int, int], None],
    ) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class File:
    """One file of a batch, as far as it has come."""

    id: str
    batch: str
    owner: str  # who handed it in, as the caller tells people apart
    name: str
    bytes: int
    choice: Literal["", "replace", "keep"] = ""  # what to do where the name is taken; "": ask
    state: State = "waiting"
    message: str = ""  # why it failed or waits; else what a person should know of it
    passages: int = 0  # 0: not known yet
    collection: str = DEFAULT
    address: str = ""  # that it is fetched from; "": it was handed in
    embedded: int = 0  # passages of them


@dataclass(frozen=True, slots=True)
class Batch:
    """What one person handed in at one time, in that order."""

    id: str
    files: tuple[File, ...]
    passages_per_s: float = 0.0  # of all batches together, over the last half minute; 0: not known
    seconds_left: float | None = None  # None: not known, or nothing left

    @property
    def done(self) -> bool:
        """Nothing more happens by itself; a file may still wait for an answer."""
        return not any(file.state in UNDONE for file in self.files)


class _Cancelled(Exception):
    """Raised inside `add`, by the progress that it reports to."""


@dataclass
class _Pace:
    """How fast things went lately: passages and bytes, over the last `_WINDOW_S` seconds of work."""

    steps: deque[tuple[float, float, float]] = field(default_factory=deque)  # (when, passages, bytes)

    def add(self, passages: float, size: float) -> None:
        self.steps.append((time.monotonic(), passages, size))

    def rates(self, now: float) -> tuple[float, float]:
        """(passages, bytes) a second; (0, 0) where nothing is known."""
        while self.steps and now - self.steps[0][0] > _WINDOW_S:
            self.steps.popleft()
        if len(self.steps) < 2 or (span := now - self.steps[0][0]) < 0.5:
            return 0.0, 0.0
        later = list(self.steps)[1:]  # what the first step did was done before the window
        return sum(step[1] for step in later) / span, sum(step[2] for step in later) / span


class Ingestion:
    """Any thread may call; nothing here waits for a file. `folder` is its own. Raises HomeDamaged or DiskFull.

    Batches take turns, so that one file does not wait behind another person's five hundred. What was left over when
    the last process ended goes on at once. `around` is entered by each thread that works. `fetch` raises
    UnreadableDocument.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        folder: Path,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
        threads: int = _THREADS,
        fetch: Fetch = _FETCH,
    ) -> None:
        self._knowledge = knowledge
        self._folder = folder
        self._around = around
        self._fetch = fetch
        self._changed = threading.Condition()
        self._files: dict[str, File] = {}
        self._turns = itertools.count(1)
        self._served: dict[str, int] = {}  # which turn each batch, and each file, had last
        self._pause_s = _PAUSE_S
        self._resumes = 0.0  # when the disk may have room again
        self._leaving: set[str] = set()  # files being read that are no longer wanted
        self._pace = _Pace()
        self._closed = False
        with self._errors():
            self._store = self._open()
            try:
                self._recover()
            except BaseException:
                self._store.close()
                raise
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        files: Iterable[tuple[Path, str]],
        *,
        owner: str = "",
        replace: bool = False,
        keep: bool = False,
        collection: str = DEFAULT,
        move: bool = False,
    ) -> str:
        """The batch's id, once (file, name) are in our hands: `move` takes the files away from where they are.

        `replace`, `keep`: what to do where a name is taken by other content; without either, it is asked. A file that
        cannot be copied has failed, and stays where it is; so have all where the queue cannot be written. The owner's
        earlier batches are shown no more once they are done and nothing is asked.
        """
        new = File("", uuid.uuid4().hex, owner, "", 0, _choice(replace, keep), collection=collection)
        taken = [(self._take(_named(new, name), path, move), path) for path, name in files]
        refused = self._hand_in([file for file, _ in taken], owner)
        for file, path in taken if refused else ():
            self._give_back(file, path, move)
        return new.batch

    def submit_address(
        self, address: str, *, owner: str = "", replace: bool = False, keep: bool = False, collection: str = DEFAULT
    ) -> str:
        """As `submit`, for what a web address holds: it is fetched when its turn comes, which may fail then.

        Raises UnreadableDocument where it is no web address.
        """
        new = File("", uuid.uuid4().hex, owner, "", 0, _choice(replace, keep), collection=collection, address=address)
        self._hand_in([_named(new, name_of(address))], owner)
        return new.batch

    def batches(self, owner: str | None = None) -> tuple[Batch, ...]:
        """Oldest first: those of an owner, or of everybody."""
        with self._changed:
            return self._of(owner)

    def cancel(self, batch: str, owner: str | None = None) -> None:
        """Nothing more of it goes in; what is in stays. A file that is being read is "cancelling" until it is given up,
        within a few seconds; an address that is being fetched, until it is there or its time is up."""
        with self._changed:
            for file in self._in(batch, owner):
                if file.state in ("waiting", "asking"):
                    self._finish(replace(file, state="cancelled", message=""))
                elif file.state in RUNNING:
                    self._leaving.add(file.id)
                    self._put(replace(file, state="cancelling", message=""))

    def answer(self, file: str, choice: Choice, owner: str | None = None) -> None:
        """What to do with a file whose state is "asking"; of any other, and of another owner's, nothing happens."""
        with self._changed:
            asked = self._files.get(file)
            if asked is None or asked.state != "asking" or owner not in (None, asked.owner):
                return
            if choice == "skip":
                self._finish(replace(asked, state="cancelled", message=""))
            else:
                self._put(replace(asked, state="waiting", choice=choice, message=""))
                self._changed.notify_all()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until nothing is left to do, or time is up; whether nothing is."""
        with self._changed:
            return self._changed.wait_for(lambda: all(f.state not in UNDONE for f in self._files.values()), timeout_s)

    def close(self) -> None:
        """What is under way is given up, and begun anew by the next who opens this folder."""
        with self._changed:
            self._closed = True
            self._leaving |= set(self._files)
            self._changed.notify_all()
        deadline = time.monotonic() + _CLOSING_S
        for thread in self._threads:  # one that waits for an embedder touches nothing afterwards
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            self._store.close()

    # -- the queue, under the lock

    def _hand_in(self, files: Sequence[File], owner: str) -> bool:
        """Whether they had to be refused, because the queue cannot be written."""
        with self._changed:
            finished = [earlier for earlier in self._of(owner) if earlier.done]
            self._drop(batch for batch in finished if all(file.state != "asking" for file in batch.files))
            try:
                self._insert(files)
                return False
            except sqlite3.Error as error:
                log.exception("%d files could not be written to the queue", len(files))
                full = is_full(error, self._folder)
                why = "the disk is full: make room" if full else "the queue of files cannot be written, see the log"
                for file in files:
                    refused = replace(
                        file, state="failed", message=f"{file.name!r} was not taken in, since {why}, then give it again"
                    )
                    self._files[file.id] = file if file.state == "failed" else refused
                return True

    def _of(self, owner: str | None) -> tuple[Batch, ...]:
        grouped: dict[str, list[File]] = {}
        for file in self._files.values():
            if owner in (None, file.owner):
                grouped.setdefault(file.batch, []).append(file)
        passages, size = self._pace.rates(time.monotonic())
        everything = _left(self._files.values())
        active = len({file.batch for file in self._files.values() if file.state in UNDONE})
        return tuple(
            Batch(id, tuple(files), passages if _left(files) else 0.0, _seconds(_left(files), active, everything, size))
            for id, files in grouped.items()
        )

    def _in(self, batch: str, owner: str | None) -> list[File]:
        return [file for file in self._files.values() if file.batch == batch and owner in (None, file.owner)]

    def _next(self) -> File | None:
        """Of the batch whose last turn is longest ago, the first waiting file that was never tried, or else longest
        ago."""
        waiting = (file for file in self._files.values() if file.state == "waiting")
        served = self._served
        return min(waiting, key=lambda file: (served.get(file.batch, 0), served.get(file.id, 0)), default=None)

    def _put(self, file: File) -> None:
        """Also on disk. What cannot be written is done again at the next start, which changes nothing."""
        self._files[file.id] = file
        state = "cancelled" if file.state == "cancelling" else file.state  # it is not begun anew after a kill
        try:
            with transaction(self._store):
                self._store.execute(
                    "UPDATE files SET state = ?, message = ?, passages = ?, choice = ? WHERE id = ?",
                    (state, file.message, file.passages, file.choice, file.id),
                )
        except sqlite3.Error:
            log.exception("what became of %r could not be written", file.name)

    def _insert(self, files: Sequence[File], instead_of: File | None = None) -> None:
        """All or none. Raises sqlite3.Error."""
        with transaction(self._store):
            self._store.executemany(
                f"INSERT INTO files ({_COLUMNS}) VALUES ({', '.join('?' * len(_COLUMNS.split(', ')))})",
                [tuple(getattr(file, column) for column in _COLUMNS.split(", ")) for file in files],
            )
            if instead_of is not None:
                self._store.execute("DELETE FROM files WHERE id = ?", (instead_of.id,))
        if instead_of is not None:
            del self._files[instead_of.id]
        self._files |= {file.id: file for file in files}
        self._changed.notify_all()

    def _finish(self, file: File) -> None:
        self._put(file)
        self._leaving.discard(file.id)
        shutil.rmtree(self._folder / file.id, ignore_errors=True)
        self._changed.notify_all()

    def _drop(self, batches: Iterable[Batch]) -> None:
        gone = [file.id for batch in batches for file in batch.files]
        try:
            with transaction(self._store):
                self._store.executemany("DELETE FROM files WHERE id = ?", [(id,) for id in gone])
        except sqlite3.Error:  # the next start drops them
            log.exception("%d files that are done are listed still", len(gone))
        for id in gone:
            del self._files[id]
            shutil.rmtree(self._folder / id, ignore_errors=True)

    # -- one file

    def _take(self, file: File, path: Path, move: bool) -> File:
        place = self._folder / file.id
        try:
            place.mkdir(parents=True)
            copy = place / "file"
            if move:
                shutil.move(path, copy)
            else:
                shutil.copyfile(path, copy)
            return replace(file, bytes=copy.stat().st_size)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            why = "the disk is full: make room, then give it again" if is_full(error) else error.strerror or error
            return replace(file, state="failed", message=f"{file.name!r} cannot be copied: {why}")

    def _give_back(self, file: File, path: Path, move: bool) -> None:
        """What `_take` took."""
        try:
            if move and file.state == "waiting":
                shutil.move(self._folder / file.id / "file", path)
        except OSError:
            log.exception("%r could not be put back to where it was", file.name)
        else:
            shutil.rmtree(self._folder / file.id, ignore_errors=True)

    def _work(self) -> None:
        with self._around():
            while (file := self._begin()) is not None:
                if (outcome := self._outcome(file)) is not None:
                    self._end(file.id, outcome)

    def _begin(self) -> File | None:
        """Waits for a file; None when there will be no more."""
        with self._changed:
            while not self._closed:
                pause = self._resumes - time.monotonic()
                if pause <= 0 and (file := self._next()) is not None:
                    self._served[file.batch] = self._served[file.id] = next(self._turns)
                    # on disk it waits still: it may be begun anew
                    self._files[file.id] = replace(file, state="reading", message="")
                    return self._files[file.id]
                self._changed.wait(pause if pause > 0 else None)
            return None

    def _outcome(self, file: File) -> File | None:
        """What became of it; None: the files in it took its place. Whatever goes wrong is the file's end, never the
        thread's."""
        try:
            with room(self._folder):
                try:
                    return self._add(file)
                except PackedFiles:
                    self._unpack(file)
                    return None
        except _Cancelled:
            return replace(file, state="cancelled")
        except NameTaken as error:
            return replace(file, state="asking", message=str(error))
        except DiskFull:
            log.exception("there was no room for %r", file.name)
            return replace(file, state="waiting", message=_NO_ROOM)
        except MarginaliaError as error:
            return replace(file, state="failed", message=str(error))
        except MemoryError:
            log.exception("%r could not be added", file.name)
            return replace(file, state="failed", message=f"{file.name!r} needs more memory than there is: split it")
        except OSError as error:
            log.exception("%r could not be added", file.name)
            why = error.strerror or type(error).__name__
            return replace(file, state="failed", message=f"{file.name!r} could not be added ({why}): give it again")
        except BaseException as error:  # a panic in a library's Rust is no Exception
            log.exception("%r could not be added", file.name)
            return replace(file, state="failed", message=f"{type(error).__name__}: this is a bug of ours, see the log")

    def _add(self, file: File) -> File:
        outcome = self._knowledge.add(
            self._fetched(file) if file.address else self._folder / file.id / "file",
            name=file.name,
            replace=file.choice == "replace",
            keep=file.choice == "keep",
            collection=file.collection,
            progress=lambda share, doing: self._check(file.id),
            embedding=lambda done, of: self._report(file.id, done, of),
        )
        return replace(
            file, state=outcome.status, message=outcome.message, passages=outcome.passages, embedded=outcome.passages
        )

    def _fetched(self, file: File) -> Path:
        """The file that its address holds; one that was fetched already is not fetched again."""
        place = self._folder / file.id / "file"
        if not place.exists():
            coming = place.with_name("coming")
            coming.parent.mkdir(exist_ok=True)
            self._fetch(file.address, coming)
            self._check(file.id)
            coming.rename(place)
        return place

    def _check(self, id: str) -> None:
        """Raises _Cancelled where the file is no longer wanted, and so ends the adding that calls this."""
        with self._changed:
            if id in self._leaving:
                raise _Cancelled

    def _report(self, id: str, done: int, of: int) -> None:
        with self._changed:
            self._check(id)
            before = self._files[id]
            self._advance(before, replace(before, state="embedding", passages=of, embedded=done))

    def _unpack(self, file: File) -> None:
        """The files in a zip take its place in the batch; where anything is raised, none of them is there."""
        with TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as folder, ExitStack() as undoing:
            taken = []
            for member in unpack(
                self._folder / file.id / "file", file.name, Path(folder), check=lambda: self._check(file.id)
            ):
                taken.append(self._member(file, member))
                undoing.callback(shutil.rmtree, self._folder / taken[-1].id, ignore_errors=True)
            with self._changed:
                self._check(file.id)
                self._insert(taken, instead_of=file)
            undoing.pop_all()
        shutil.rmtree(self._folder / file.id, ignore_errors=True)

    def _member(self, file: File, member: Member) -> File:
        of_zip = replace(file, id=uuid.uuid4().hex, name=member.name, bytes=0, state="waiting", address="")
        if member.path is None:
            return replace(of_zip, state="failed", message=member.problem)
        (place := self._folder / of_zip.id).mkdir()
        member.path.rename(place / "file")
        return replace(of_zip, bytes=(place / "file").stat().st_size)

    def _advance(self, before: File, after: File) -> None:
        done = after.embedded - before.embedded
        self._pace.add(done, after.bytes * done / after.passages if after.passages else 0)
        self._files[after.id] = after

    def _end(self, id: str, outcome: File) -> None:
        with self._changed:
            if self._closed and outcome.state not in ("added", "replaced", "unchanged"):
                return  # it waits on disk, for the next process
            if outcome.state in ("waiting", "asking") and id in self._leaving:
                outcome = replace(outcome, state="cancelled", message="")
            before = self._files[id]
            if outcome.state in ("added", "replaced"):
                self._advance(before, replace(before, passages=outcome.passages, embedded=outcome.passages))
            if outcome.state == "waiting" and time.monotonic() > self._resumes:  # for room
                self._resumes = time.monotonic() + self._pause_s
                self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            elif outcome.state in ("added", "replaced"):
                self._pause_s = _PAUSE_S
            if outcome.state in ("waiting", "asking"):
                self._put(outcome)
                self._changed.notify_all()
            else:
                self._finish(outcome)

    # -- on disk

    @contextmanager
    def _errors(self) -> Iterator[None]:
        path = self._folder / _STORE
        try:
            with room(path):
                yield
        except (OSError, sqlite3.DatabaseError) as error:
            raise HomeDamaged(
                f"the queue of files {str(path)!r} cannot be used ({error}): delete its folder, and what waits in it"
            ) from error

    def _open(self) -> sqlite3.Connection:
        """In autocommit; used under the lock, by whichever thread."""
        check_queue(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        store = sqlite3.connect(self._folder / _STORE, isolation_level=None, check_same_thread=False)
        try:
            _SCHEMA.prepare(store, self._folder / _STORE)
            store.execute("PRAGMA secure_delete = ON")
        except BaseException:
            store.close()
            raise
        return store

    def _recover(self) -> None:
        """What waited or was being read waits; copies that belong to nothing go."""
        rows: Sequence[tuple[Any, ...]] = self._store.execute(f"SELECT {_COLUMNS} FROM files ORDER BY place").fetchall()
        self._files = {row[0]: File(*row) for row in rows}
        self._drop(batch for batch in self._of(None) if all(f.state not in UNDONE | {"asking"} for f in batch.files))
        kept = {file.id for file in self._files.values() if file.state in ("waiting", "asking")}
        for place in os.scandir(self._folder):
            if place.is_dir() and place.name not in kept:
                shutil.rmtree(place.path, ignore_errors=True)


def _to_1(store: sqlite3.Connection) -> None:
    store.execute(_TABLE)
    there = {row[1] for row in store.execute("PRAGMA table_info(files)")}
    for column in _ADDED_SINCE.keys() - there:
        store.execute(f"ALTER TABLE files ADD COLUMN {column} TEXT NOT NULL DEFAULT '{_ADDED_SINCE[column]}'")


_SCHEMA = Schema("the queue of files", 0x4D617271, (_to_1,), unmarked="files")  # "Marq"


def _choice(replace: bool, keep: bool) -> Literal["", "replace", "keep"]:
    return "replace" if replace else "keep" if keep else ""


def _named(file: File, name: str) -> File:
    """One of a batch."""
    return replace(file, id=uuid.uuid4().hex, name=name)


def _left(files: Iterable[File]) -> float:
    """Bytes still to be done."""
    return sum(
        file.bytes * (1 - file.embedded / file.passages if file.passages else 1)
        for file in files
        if file.state in UNDONE
    )


def _seconds(left: float, active: int, everything: float, rate: float) -> float | None:
    """Batches take turns: of `active` ones each gets its share of `rate`, in bytes a second."""
    return min(left * active, everything) / rate if rate and left else None
