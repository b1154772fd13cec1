"""The knowledge base: add, replace, delete and list documents, vectors and files in step with the catalogue.

A document is there once the catalogue's transaction says so. What must exist by then (the file's copy, the
vectors) is written before; what must go (those of a replaced or deleted document) is removed after. A crash
between the two leaves only what `reconcile` removes, or computes again, at the next start.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import threading
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Literal

from chatbot.catalogue import Catalogue, Collection, Entry
from chatbot.embedders.base import Embedder, Vectors
from chatbot.errors import InputError, NameTaken, PackedFiles, UnreadableDocument, room
from chatbot.index.base import Space, VectorStore
from chatbot.parse import Member, unpack
from chatbot.passage import Document, Page, Passage
from chatbot.progress import Progress, silent
from chatbot.scope import DEFAULT, Scope
from chatbot.stores import ARRIVING, Counting, Stores, sha256_of
from chatbot.upkeep import Rebuilding, Upkeep

_SUFFIX = re.compile(r"[.][A-Za-z0-9]{1,10}")  # kept in the name of a file's copy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str  # the document's: with a number, where one of that name was kept
    status: Literal["added", "replaced", "unchanged", "failed"]
    message: str = ""  # why it failed; else what a person should know of the text that was read
    document_id: str = ""  # "" where it failed
    passages: int = 0


@dataclass(frozen=True, slots=True)
class _Name:
    """Under which a file goes in."""

    name: str
    document_id: str
    old: Entry | None  # that it replaces


class KnowledgeBase:
    """Any thread may call. Reading never waits; a writer waits while another's document goes in.

    Where the disk is full, whatever writes raises DiskFull and leaves what was there.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: VectorStore,
        embedder: Embedder,
        files: Path,
        max_file_bytes: int = 100_000_000,
        passage_tokens: int = 160,
        forgotten: Callable[[], None] = lambda: None,  # called when a document's passages are gone
        *,
        passage_overlap: int = 0,
        embedder_name: str = "",  # how it is asked for in the settings
        earlier: Space | None = None,  # the embedder that the vectors were made by, where it is another
        across: AbstractContextManager[object] | None = None,  # a lock between the processes that share the home
    ) -> None:
        self._stores = Stores(
            catalogue,
            Space(embedder, store),
            files,
            passage_tokens=passage_tokens,
            passage_overlap=passage_overlap,
            max_file_bytes=max_file_bytes,
            embedder_name=embedder_name,
            earlier=earlier,
            across=across,
        )
        self._upkeep = Upkeep(self._stores, forgotten)
        self._catalogue, self._files = catalogue, files
        self._max_file_bytes = max_file_bytes
        self._forgotten = forgotten
        self._behind = ThreadPoolExecutor(1, "scrub")
        self._dirty = threading.Event()  # what was deleted is not overwritten yet

    @property
    def space(self) -> Space:
        """What searches by meaning now. Another process may have changed it."""
        return self._stores.space

    @property
    def rebuilding(self) -> Rebuilding | None:
        return self._upkeep.rebuilding

    def add(
        self,
        file: str | Path,
        *,
        name: str | None = None,
        replace: bool = False,
        keep: bool = False,
        collection: str = DEFAULT,
        progress: Progress = silent,
        embedding: Counting = lambda done, of: None,
    ) -> Outcome:
        """`keep`: where the name has other content, the document goes in as "name (2)". What is replaced is found
        until the new version is whole. `embedding` is told of the document's passages as they are embedded; what it,
        or `progress`, raises ends the adding and leaves nothing behind.

        Raises UnreadableDocument, or NameTaken where the name has other content and neither is asked for.
        """
        path = Path(file)
        with self._arriving(path, _printable(name or path.name)) as (folder, copy):
            asked = _Asked(_printable(name or path.name), collection, sha256_of(copy), replace, keep)
            chosen = self._choose(asked)
            if isinstance(chosen, Outcome):
                return chosen

            def report(done: int, of: int) -> None:
                embedding(done, of)
                progress(0.2 + 0.75 * done / of, f"embedding {of} passages of {asked.name}")

            def check() -> None:
                progress(0.0, f"reading {asked.name}")

            check()
            document = self._stores.read(copy, asked.name, check)
            while True:
                space = self._stores.space
                document = Document(chosen.name, document.kind, document.pages, document.notice)
                passages, language = self._stores.split(document, chosen.document_id, check)
                vectors = list(self._stores.embed(space, passages, report))
                with self._stores.writing():
                    before, chosen = chosen, self._choose(asked)
                    if isinstance(chosen, Outcome):  # another was quicker
                        return chosen
                    if chosen.document_id != before.document_id or self._stores.space.store is not space.store:
                        continue  # the name, or the embedder, is another by now
                    progress(0.95, f"storing {chosen.name}")
                    entry = Entry(
                        id=chosen.document_id,
                        name=document.name,
                        kind=document.kind,
                        bytes=copy.stat().st_size,
                        pages=None if any(page.number is None for page in document.pages) else len(document.pages),
                        passages=len(passages),
                        language=language,
                        added=datetime.now(UTC).isoformat(timespec="seconds"),
                        notice=document.notice,
                        collection=collection,
                    )
                    return self._commit(entry, document.pages, passages, vectors, folder, chosen.old)

    def add_all(
        self,
        files: Iterable[str | Path],
        *,
        replace: bool = False,
        keep: bool = False,
        collection: str = DEFAULT,
        progress: Progress = silent,
    ) -> Iterator[Outcome]:
        """One outcome a file, as each is done. Folders and zips of files are gone through; their files are named by
        path."""
        named = [pair for file in files for pair in walk(Path(file))]
        add = partial(self.add, replace=replace, keep=keep, collection=collection)
        for index, (path, name) in enumerate(named):

            def part(done: float, doing: str, before: int = index) -> None:
                progress((before + done) / len(named), doing)

            try:
                yield add(path, name=name, progress=part)
            except PackedFiles:
                yield from _each_in_zip(path, _printable(name), partial(add, progress=part))
            except InputError as error:
                yield Outcome(_printable(name), "failed", str(error))
            part(1.0, _printable(name))

    def compare(
        self, file: str | Path, *, name: str | None = None, collection: str = DEFAULT
    ) -> Literal["new", "unchanged", "taken"]:
        """What adding the file would meet; "taken": a document of its name with other content. Reads no text.

        Raises UnreadableDocument where the file cannot be opened.
        """
        path = Path(file)
        name = _printable(name or path.name)
        if (there := self.find(name, collection)) is None:
            return "new"
        try:
            same = there.id == self._stores.document_id(name, sha256_of(path), collection)
        except OSError as error:
            raise UnreadableDocument(f"{name!r} cannot be opened ({error.strerror}): check that it is there") from error
        return "unchanged" if same else "taken"

    def find(self, name: str, collection: str = DEFAULT) -> Entry | None:
        return self._catalogue.find(_printable(name), collection)

    def delete(self, document_id: str) -> Entry:
        """Raises UnknownDocument. What was deleted is overwritten, within a second or two."""
        with self._stores.writing():
            ids, key = self._catalogue.passage_ids(document_id), self._stores.key_of(document_id)
            entry = self._catalogue.delete(document_id)
            self._forget([document_id], ids, key)
        return entry

    def delete_collection(self, name: str) -> list[Entry]:
        """With its documents; those. Raises UnknownCollection."""
        with self._stores.writing():
            key = self._catalogue.key(name)
            entries = self._catalogue.delete_collection(name)
            for space in self._stores.spaces():
                space.store.drop(key)
            self._forget([entry.id for entry in entries], [], key)
        return entries

    def rename_collection(self, name: str, new: str) -> None:
        """Raises UnknownCollection, or NameTaken where `new` is there."""
        with self._stores.writing():
            self._catalogue.rename_collection(name, _printable(new))

    def collections(self) -> list[Collection]:
        """In the order of their names."""
        return self._catalogue.collections()

    def documents(self, collection: str | None = None) -> list[Entry]:
        """Newest first; None: of every collection. Raises UnknownCollection."""
        if collection is None:
            return self._catalogue.documents()
        self._catalogue.key(collection)
        return self._catalogue.documents(Scope(collections=(collection,)))

    def passages(self, ids: Sequence[str] | None = None) -> dict[str, Passage]:
        """By id; an id that is no longer there is left out. None: every passage."""
        return self._catalogue.passages(self._catalogue.passage_ids() if ids is None else ids)

    def text(self, document_id: str, page: int | None = None) -> str:
        """A page's text, or that of a format without pages: `text[passage.start:passage.end] == passage.text`.

        "" where an earlier version added the document, until `rebuild` has read it again. Raises UnknownDocument.
        """
        self._catalogue.get(document_id)
        return next((each.text for each in self._catalogue.pages(document_id) if each.number == page), "")

    def reconcile(self, progress: Progress = silent) -> list[str]:
        """Bring vectors and files in step again, after a crash or a lost store; what was amiss, a sentence each."""
        return self._upkeep.reconcile(progress)

    def verify(self, progress: Progress = silent) -> tuple[list[str], list[str]]:
        """(what was mended, what is wrong still), a sentence each. Reads everything."""
        return self._upkeep.verify(progress)

    def adopt(self) -> None:
        """Search with the chosen embedder from now on; vectors that it has not made are missing until `reconcile`."""
        self._stores.adopt()

    def is_outdated(self) -> bool:
        """Whether `rebuild` has something to do."""
        return self._upkeep.is_outdated()

    def rebuild(self, progress: Progress = silent, stop: threading.Event | None = None) -> None:
        """Follow a change of embedder or of splitting, while everything is used as it was. Taken up where it was
        stopped, by `stop` or a crash. `stop`: ends it whenever it is set, before it began too."""
        self._upkeep.rebuild(progress, stop)

    def stop(self) -> None:
        """Ends a `rebuild` that is running, after the batch at hand."""
        self._upkeep.stop()

    def close(self) -> None:
        """Returns when what was deleted is overwritten. A `rebuild`, or an `add` that its progress ends, writes nothing
        afterwards."""
        self._upkeep.close()
        self._stores.close()
        self._behind.shutdown()

    @contextmanager
    def _arriving(self, path: Path, name: str) -> Iterator[tuple[Path, Path]]:
        """A folder with a copy of the file, so that what is read is what is kept. Removed unless moved."""
        folder = self._files / f"{ARRIVING}{uuid.uuid4().hex}"
        try:
            if not path.is_file() or path.stat().st_size > self._max_file_bytes:
                self._stores.read(path, name)  # says what is wrong with it
            suffix = Path(name).suffix
            copy = folder / f"original{suffix if _SUFFIX.fullmatch(suffix) else ''}"
            try:
                with room(self._files):
                    folder.mkdir(parents=True)
                    shutil.copyfile(path, copy)
            except OSError as error:
                raise UnreadableDocument(f"{name!r} cannot be copied: {error.strerror}") from error
            yield folder, copy
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _choose(self, asked: _Asked) -> _Name | Outcome:
        """The name that the file goes in under; an outcome where it is there. Raises NameTaken."""
        for name in _numbered(asked.name) if asked.keep else [asked.name]:
            document_id = self._stores.document_id(name, asked.sha256, asked.collection)
            there = self._catalogue.find(name, asked.collection)
            if there and there.id == document_id:
                return Outcome(name, "unchanged", there.notice, there.id, there.passages)
            if there is None or asked.replace:
                return _Name(name, document_id, there)
        raise NameTaken(
            f"{asked.name!r} is there already, with other content: replace it, keep both, or give another name"
        )

    def _commit(
        self,
        entry: Entry,
        pages: Sequence[Page],
        passages: Sequence[Passage],
        vectors: Sequence[tuple[list[Passage], list[Vectors]]],
        folder: Path,
        old: Entry | None,
    ) -> Outcome:
        key = self._catalogue.key_for(entry.collection)
        gone = self._catalogue.passage_ids(old.id) if old else []
        place = self._files / entry.id
        shutil.rmtree(place, ignore_errors=True)  # left by a crash
        with room(self._files):
            folder.rename(place)
        try:
            ids = [passage.id for batch, _ in vectors for passage in batch]
            self._stores.space.store.upsert(ids, entry.id, [row for _, rows in vectors for row in rows], key)
            self._catalogue.add(
                entry, passages, replacing=old.id if old else None, pages=pages, splitter=self._stores.splitter
            )
        except BaseException:  # vectors without a passage are dropped by searches, and by `reconcile`
            shutil.rmtree(place, ignore_errors=True)
            raise
        if old:
            self._forget([old.id], gone, key)
        return Outcome(entry.name, "replaced" if old else "added", entry.notice, entry.id, entry.passages)

    def _forget(self, documents: Sequence[str], ids: Sequence[str], key: str) -> None:
        self._forgotten()
        for space in self._stores.spaces():
            space.store.delete_ids(ids, key)
        for document_id in documents:  # last: after a crash they tell what is left over
            shutil.rmtree(self._files / document_id, ignore_errors=True)
        if not self._dirty.is_set():
            self._dirty.set()
            self._behind.submit(self._scrub)

    def _scrub(self) -> None:
        """Behind the caller's back: it takes a second at 100,000 passages. After a crash `reconcile` does it."""
        self._dirty.clear()
        try:
            with self._stores.writing():
                self._catalogue.scrub()
        except Exception:  # nobody waits for it; the next deletion, or the next start, tries again
            log.exception("what was deleted could not be overwritten yet")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What `add` was asked for."""

    name: str
    collection: str
    sha256: str
    replace: bool
    keep: bool


def _numbered(name: str) -> Iterator[str]:
    """report.pdf, report (2).pdf, report (3).pdf, ..."""
    yield name
    path = PurePosixPath(name)
    number = 2
    while True:
        yield name.removesuffix(path.suffix) + f" ({number}){path.suffix}"
        number += 1


def _each_in_zip(path: Path, name: str, add: Callable[..., Outcome]) -> Iterator[Outcome]:
    with room(tempfile.gettempdir()), TemporaryDirectory() as folder:
        try:
            members = unpack(path, name, Path(folder))
        except InputError as error:
            members = [Member(name, None, str(error))]
        for member in members:
            try:
                if member.path is None:
                    raise UnreadableDocument(member.problem)
                yield add(member.path, name=member.name)
            except InputError as error:
                yield Outcome(_printable(member.name), "failed", str(error))


def walk(path: Path) -> Iterator[tuple[Path, str]]:
    """(file, name), sorted; what is hidden inside a folder is skipped."""
    if not path.is_dir():
        yield path, path.name
        return
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in inside.parts):
            yield file, inside.as_posix()


def _printable(name: str) -> str:
    """A file's name need not be Unicode, and macOS writes its accents apart."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
