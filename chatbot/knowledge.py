"""The knowledge base: add, replace, delete and list documents, vectors and files in step with the catalogue.

A document is there once the catalogue's transaction says so. What must exist by then (the file's copy, the
vectors) is written before; what must go (those of a replaced or deleted document) is removed after. A crash
between the two leaves only what `reconcile` removes, or computes again, at the next start.

The vectors are one embedder's at a time. After a change of embedder the earlier one's serve until `rebuild` has
computed all the new ones; after a change of how texts are split, `rebuild` splits document by document again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import threading
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Literal

from chatbot.catalogue import Catalogue, Collection, Entry
from chatbot.embedders.base import Embedder, Vectors
from chatbot.errors import InputError, NameTaken, PackedFiles, SetupError, UnknownDocument, UnreadableDocument
from chatbot.index.base import Space, VectorStore
from chatbot.language import detect
from chatbot.parse import Member, read, unpack
from chatbot.passage import Document, Page, Passage, embedded
from chatbot.progress import Progress, silent
from chatbot.scope import DEFAULT, Scope
from chatbot.split import SPLITTER, split

_BATCH = 32  # passages embedded at once: under a second on one core, so that progress shows
_PAGE = 1_000  # passages looked up at once when vectors are computed again
_SAMPLE = 5_000  # characters that tell a document's language
_SPECIAL_TOKENS = 2  # that an embedder puts around a text
_ID = re.compile(r"[0-9a-f]{16}")
_ARRIVING = "arriving-"  # folders of files whose document is not there yet
_ABANDONED = 86_400  # seconds after which such a folder is no other process's any more

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str  # the document's: with a number, where one of that name was kept
    status: Literal["added", "replaced", "unchanged", "failed"]
    message: str = ""  # why it failed; else what a person should know of the text that was read
    document_id: str = ""  # "" where it failed
    passages: int = 0


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """What goes on in the background after a change of settings."""

    done: float  # share, in [0, 1]
    doing: str
    lexical_only: bool  # nothing is found by meaning until it is done: the earlier embedder cannot be loaded


@dataclass(frozen=True, slots=True)
class _Name:
    """Under which a file goes in."""

    name: str
    document_id: str
    old: Entry | None  # that it replaces


Counting = Callable[[int, int], None]  # passages done, of how many


class KnowledgeBase:
    """Any thread may call. Reading never waits; a writer waits while another's document goes in."""

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
        self._catalogue = catalogue
        self._chosen = Space(embedder, store)
        self._embedder_name = embedder_name
        self._earlier = earlier
        self._files = files
        self._max_file_bytes = max_file_bytes
        self._passage_tokens = passage_tokens
        self._passage_overlap = passage_overlap
        self._forgotten = forgotten
        self._shared = across is not None
        self._across = across or nullcontext()
        self._threads = threading.Lock()
        self._stopped = threading.Event()
        self._rebuilding: Rebuilding | None = None
        self._behind = ThreadPoolExecutor(1, "scrub")
        self._dirty = threading.Event()  # what was deleted is not overwritten yet
        if embedder_of(catalogue) is None:
            self.adopt()

    @property
    def space(self) -> Space:
        """What searches by meaning now. Another process may have changed it."""
        told = embedder_of(self._catalogue)
        fingerprint = told[0] if told else self._chosen.embedder.fingerprint
        for space in self._spaces():
            if fingerprint == space.embedder.fingerprint:
                return space
        return replace(self._chosen, whole=False)

    @property
    def rebuilding(self) -> Rebuilding | None:
        return self._rebuilding

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
            asked = _Asked(_printable(name or path.name), collection, _sha256(copy), replace, keep)
            chosen = self._choose(asked)
            if isinstance(chosen, Outcome):
                return chosen

            def report(done: int, of: int) -> None:
                embedding(done, of)
                progress(0.2 + 0.75 * done / of, f"embedding {of} passages of {asked.name}")

            progress(0.0, f"reading {asked.name}")
            document = read(copy, asked.name, max_bytes=self._max_file_bytes)
            while True:
                space = self.space
                document = Document(chosen.name, document.kind, document.pages, document.notice)
                passages = self._split(document, chosen.document_id)
                if not passages:
                    raise UnreadableDocument(f"{document.name!r} has no text: scans and pictures are not read")
                vectors = list(self._embed(space, passages, report))
                with self._writing():
                    before, chosen = chosen, self._choose(asked)
                    if isinstance(chosen, Outcome):  # another was quicker
                        return chosen
                    if chosen.document_id != before.document_id or self.space.store is not space.store:
                        continue  # the name, or the embedder, is another by now
                    progress(0.95, f"storing {chosen.name}")
                    entry = _entry(document, chosen.document_id, copy.stat().st_size, len(passages), collection)
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
            same = there.id == self._document_id(name, _sha256(path), collection)
        except OSError as error:
            raise UnreadableDocument(f"{name!r} cannot be opened ({error.strerror}): check that it is there") from error
        return "unchanged" if same else "taken"

    def find(self, name: str, collection: str = DEFAULT) -> Entry | None:
        return self._catalogue.find(_printable(name), collection)

    def delete(self, document_id: str) -> Entry:
        """Raises UnknownDocument. What was deleted is overwritten, within a second or two."""
        with self._writing():
            ids, key = self._catalogue.passage_ids(document_id), self._key_of(document_id)
            entry = self._catalogue.delete(document_id)
            self._forget([document_id], ids, key)
        return entry

    def delete_collection(self, name: str) -> list[Entry]:
        """With its documents; those. Raises UnknownCollection."""
        with self._writing():
            key = self._catalogue.key(name)
            entries = self._catalogue.delete_collection(name)
            for space in self._spaces():
                space.store.drop(key)
            self._forget([entry.id for entry in entries], [], key)
        return entries

    def rename_collection(self, name: str, new: str) -> None:
        """Raises UnknownCollection, or NameTaken where `new` is there."""
        with self._writing():
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
        with self._writing():
            space, mended = self.space, list[str]()
            serving = embedder_of(self._catalogue)
            self._chosen.store.drop_others([serving[0]] if serving else [])
            known = self._catalogue.places()
            if strangers := sum(self._drop_strangers(each.store, known) for each in self._spaces()):
                mended.append(f"{strangers} vectors of passages that are gone were removed")
            if space.whole and (computed := self._compute(space, known, progress)):
                mended.append(f"{computed} lost vectors were computed again")
            if folders := self._remove_strangers({entry.id for entry in self._catalogue.documents()}):
                mended.append(f"{folders} folders of files that are not documents were removed")
            self._catalogue.scrub()
        return mended

    def verify(self, progress: Progress = silent) -> tuple[list[str], list[str]]:
        """(what was mended, what is wrong still), a sentence each. Reads everything."""
        mended = self.reconcile(progress)
        with self._writing():
            if faults := self._catalogue.faults():
                self._catalogue.mend()
                left = self._catalogue.faults()
                mended += [f"{fault}: made anew from the passages" for fault in faults if fault not in left]
            wrong = [f"the catalogue has {fault}" for fault in self._catalogue.faults()]
            for entry in self._catalogue.documents():
                if amiss := self._amiss(entry):
                    wrong.append(f"the original of {entry.name!r} {amiss}: it is still found; add it again")
        return mended, wrong

    def adopt(self) -> None:
        """Search with the chosen embedder from now on; vectors that it has not made are missing until `reconcile`."""
        told = [self._chosen.embedder.fingerprint, self._embedder_name]
        self._catalogue.set_meta("embedder", json.dumps(told))

    def is_outdated(self) -> bool:
        """Whether `rebuild` has something to do."""
        return self.space is not self._chosen or bool(self._catalogue.cut_otherwise(self._splitter))

    def rebuild(self, progress: Progress = silent) -> None:
        """Follow a change of embedder or of splitting, while everything is used as it was. Taken up where it was
        stopped, by `stop` or a crash."""

        def report(done: float, doing: str) -> None:
            self._rebuilding = Rebuilding(done, doing, not self.space.whole)
            progress(done, doing)

        self._stopped.clear()
        try:
            if self.space is not self._chosen:
                self._change_embedder(report)
            stale = self._catalogue.cut_otherwise(self._splitter)
            for number, document_id in enumerate(stale):
                if self._stopped.is_set():
                    return
                report(number / len(stale), "splitting documents again")
                self._split_again(document_id)
        finally:
            self._rebuilding = None

    def stop(self) -> None:
        """Ends a `rebuild` that is running, after the batch at hand."""
        self._stopped.set()

    def close(self) -> None:
        """Returns when what was deleted is overwritten."""
        self.stop()
        self._behind.shutdown()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._threads, self._across:
            yield

    @contextmanager
    def _arriving(self, path: Path, name: str) -> Iterator[tuple[Path, Path]]:
        """A folder with a copy of the file, so that what is read is what is kept. Removed unless moved."""
        folder = self._files / f"{_ARRIVING}{uuid.uuid4().hex}"
        try:
            if not path.is_file() or path.stat().st_size > self._max_file_bytes:
                read(path, name, max_bytes=self._max_file_bytes)  # says what is wrong with it
            folder.mkdir(parents=True)
            suffix = Path(name).suffix
            copy = folder / f"original{suffix if re.fullmatch(r'[.][A-Za-z0-9]{1,10}', suffix) else ''}"
            try:
                shutil.copyfile(path, copy)
            except OSError as error:
                raise UnreadableDocument(f"{name!r} cannot be copied: {error.strerror}") from error
            yield folder, copy
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _choose(self, asked: _Asked) -> _Name | Outcome:
        """The name that the file goes in under; an outcome where it is there. Raises NameTaken."""
        for name in _numbered(asked.name) if asked.keep else [asked.name]:
            document_id = self._document_id(name, asked.sha256, asked.collection)
            there = self._catalogue.find(name, asked.collection)
            if there and there.id == document_id:
                return Outcome(name, "unchanged", there.notice, there.id, there.passages)
            if there is None or asked.replace:
                return _Name(name, document_id, there)
        raise NameTaken(
            f"{asked.name!r} is there already, with other content: replace it, keep both, or give another name"
        )

    def _document_id(self, name: str, sha256: str, collection: str) -> str:
        key = self._catalogue.key_for(collection)
        return hashlib.sha256("\0".join([name, sha256, *filter(None, [key])]).encode()).hexdigest()[:16]

    def _key_of(self, document_id: str) -> str:
        return self._catalogue.key(self._catalogue.get(document_id).collection)

    def _spaces(self) -> list[Space]:
        return [space for space in (self._chosen, self._earlier) if space]

    @property
    def _max_tokens(self) -> int:
        return min(self._passage_tokens, self._chosen.embedder.max_tokens - _SPECIAL_TOKENS)

    @property
    def _overlap(self) -> int:
        return min(self._passage_overlap, self._max_tokens // 2)

    @property
    def _splitter(self) -> str:
        """Changes whenever the same text might be split otherwise."""
        return f"{SPLITTER} {self._max_tokens} {self._overlap} {self._chosen.embedder.fingerprint}"

    def _split(self, document: Document, document_id: str) -> list[Passage]:
        tokenizer = self._chosen.embedder.tokenizer
        return split(document, document_id, max_tokens=self._max_tokens, tokenizer=tokenizer, overlap=self._overlap)

    def _embed(
        self, space: Space, passages: Sequence[Passage], report: Counting = lambda done, of: None
    ) -> Iterator[tuple[list[Passage], Vectors]]:
        """Batches of like length, so that little is padding; longest first, so that progress speeds up."""
        ordered = sorted(passages, key=lambda passage: len(passage.text), reverse=True)
        for start in range(0, len(ordered), _BATCH):
            report(start, len(ordered))
            batch = ordered[start : start + _BATCH]
            yield batch, space.embedder.passages([embedded(passage) for passage in batch])

    def _commit(
        self,
        entry: Entry,
        pages: Sequence[Page],
        passages: Sequence[Passage],
        vectors: Sequence[tuple[list[Passage], Vectors]],
        folder: Path,
        old: Entry | None,
    ) -> Outcome:
        key = self._catalogue.key_for(entry.collection)
        gone = self._catalogue.passage_ids(old.id) if old else []
        place = self._files / entry.id
        shutil.rmtree(place, ignore_errors=True)  # left by a crash
        folder.rename(place)
        try:
            ids = [passage.id for batch, _ in vectors for passage in batch]
            self.space.store.upsert(ids, entry.id, [row for _, rows in vectors for row in rows], key)
            self._catalogue.add(
                entry, passages, replacing=old.id if old else None, pages=pages, splitter=self._splitter
            )
        except BaseException:  # vectors without a passage are dropped by searches, and by `reconcile`
            shutil.rmtree(place, ignore_errors=True)
            raise
        if old:
            self._forget([old.id], gone, key)
        return Outcome(entry.name, "replaced" if old else "added", entry.notice, entry.id, entry.passages)

    def _forget(self, documents: Sequence[str], ids: Sequence[str], key: str) -> None:
        self._forgotten()
        for space in self._spaces():
            space.store.delete_ids(ids, key)
        for document_id in documents:  # last: after a crash they tell what is left over
            shutil.rmtree(self._files / document_id, ignore_errors=True)
        if not self._dirty.is_set():
            self._dirty.set()
            self._behind.submit(self._scrub)

    def _scrub(self) -> None:
        """Behind the caller's back: it takes a second at 100,000 passages. After a crash `reconcile` does it."""
        try:
            with self._writing():
                self._dirty.clear()
                self._catalogue.scrub()
        except SetupError:
            log.exception("what was deleted could not be overwritten yet")

    def _drop_strangers(self, store: VectorStore, known: dict[str, list[str]]) -> int:
        """How many vectors were of no passage."""
        strangers = 0
        living = self._catalogue.keys_of()
        for key in store.collections():
            stray = store.ids(key).difference(known.get(key, ()))
            strangers += len(stray)
            if key not in living:
                store.drop(key)
            elif stray:
                store.delete_ids(sorted(stray), key)
        return strangers

    def _compute(self, space: Space, known: dict[str, list[str]], progress: Progress) -> int:
        """The vectors that are missing; how many they were."""
        missing = [(id, key) for key, ids in known.items() for id in _without(ids, space.store.ids(key))]
        for start in range(0, len(missing), _PAGE):
            self._compute_page(space, dict(missing[start : start + _PAGE]))
            progress(min(1.0, (start + _PAGE) / len(missing)), "computing vectors again")
        return len(missing)

    def _compute_page(self, space: Space, keys: dict[str, str]) -> None:
        for batch, vectors in self._embed(space, list(self._catalogue.passages(list(keys)).values())):
            for key in {keys[passage.id] for passage in batch}:
                rows = [row for row, passage in enumerate(batch) if keys[passage.id] == key]
                its = [batch[row] for row in rows]
                space.store.upsert([p.id for p in its], [p.document_id for p in its], vectors[rows], key)

    def _remove_strangers(self, known: set[str]) -> int:
        removed = 0
        for folder in self._files.iterdir() if self._files.is_dir() else ():
            arriving = folder.name.startswith(_ARRIVING)
            if arriving and self._shared and _age(folder) < _ABANDONED:
                continue  # another process may be reading it
            if arriving or (_ID.fullmatch(folder.name) and folder.name not in known):
                self._forgotten()
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        return removed

    def _amiss(self, entry: Entry) -> str:
        """What is wrong with the kept file; nothing: ""."""
        originals = list((self._files / entry.id).glob("*"))
        if len(originals) != 1:
            return "is missing" if not originals else "is not alone in its folder"
        same = self._document_id(entry.name, _sha256(originals[0]), entry.collection) == entry.id
        return "" if same else "has changed on disk"

    def _change_embedder(self, progress: Progress) -> None:
        """Compute what the chosen embedder has not, then put it in the place of the one that serves."""
        total = max(self._catalogue.count(), 1)
        missing = self._missing()
        while missing and not self._stopped.is_set():
            progress(1 - len(missing) / total, f"computing {total} vectors with the new embedder")
            batch, missing = missing[:_BATCH], missing[_BATCH:]
            made = list(self._embed(self._chosen, list(self._catalogue.passages(batch).values())))
            with self._writing():  # so that none deleted meanwhile comes back
                for passages, vectors in made:
                    self._store_living(passages, vectors)
            missing = missing or self._missing()
        if self._stopped.is_set():
            return
        with self._writing():
            self._compute(self._chosen, self._catalogue.places(), silent)  # what was added since
            self.adopt()
            self._earlier = None
            self._chosen.store.drop_others()

    def _missing(self) -> list[str]:
        known = self._catalogue.places()
        return [id for key, ids in known.items() for id in _without(ids, self._chosen.store.ids(key))]

    def _store_living(self, passages: Sequence[Passage], vectors: Vectors) -> None:
        row_of = {passage.id: row for row, passage in enumerate(passages)}
        for key, ids in self._catalogue.places(row_of).items():
            rows = [row_of[id] for id in ids]
            self._chosen.store.upsert(ids, [passages[row].document_id for row in rows], vectors[rows], key)

    def _split_again(self, document_id: str) -> None:
        """Replace the document's passages by those that it is split into now, at once; the same, nothing moves."""
        try:
            entry, (_, version) = self._catalogue.get(document_id), self._catalogue.cut(document_id)
            document = self._document(entry)
            passages, old = self._split(document, document_id), self._catalogue.passages_of(document_id)
        except UnknownDocument:  # deleted meanwhile
            return
        if not passages or list(map(_cut, passages)) == list(map(_cut, old)):
            with self._writing():
                self._catalogue.keep_split(document_id, document.pages, self._splitter)
            return
        version += 1
        passages = [replace(each, id=f"{document_id}:{version}.{n}") for n, each in enumerate(passages)]
        vectors = list(self._embed(space := self.space, passages))
        with self._writing():
            try:
                unchanged = self._catalogue.cut(document_id)[1] == version - 1
            except UnknownDocument:
                return
            if not unchanged or self.space.store is not space.store:  # another process's doing
                return
            key = self._key_of(document_id)
            ids = [passage.id for batch, _ in vectors for passage in batch]
            space.store.upsert(ids, document_id, [row for _, rows in vectors for row in rows], key)
            self._catalogue.split_again(document_id, passages, document.pages, self._splitter, version)
            for each in self._spaces():
                each.store.delete_ids([passage.id for passage in old], key)

    def _document(self, entry: Entry) -> Document:
        """From the stored pages; those that an earlier version did not store are read from the original."""
        pages = tuple(self._catalogue.pages(entry.id))
        if not pages:
            try:
                (original,) = (self._files / entry.id).glob("*")
                return read(original, entry.name, max_bytes=self._max_file_bytes)
            except (UnreadableDocument, ValueError) as error:
                log.warning("%r stays split as it is: %s", entry.name, error)
        return Document(entry.name, entry.kind, pages, entry.notice)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What `add` was asked for."""

    name: str
    collection: str
    sha256: str
    replace: bool
    keep: bool


def embedder_of(catalogue: Catalogue) -> tuple[str, str] | None:
    """(fingerprint, name in the settings) of the embedder that made the vectors; None: not told yet."""
    told = catalogue.meta("embedder")
    if told is None:
        return None
    fingerprint, name = json.loads(told)
    return str(fingerprint), str(name)


def _age(folder: Path) -> float:
    """Seconds; 0 for one that is gone."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _without(ids: Sequence[str], there: set[str]) -> list[str]:
    return [id for id in ids if id not in there]


def _cut(passage: Passage) -> tuple[object, ...]:
    return passage.text, passage.page, passage.heading, passage.start, passage.end


def _numbered(name: str) -> Iterator[str]:
    """report.pdf, report (2).pdf, report (3).pdf, ..."""
    yield name
    path = PurePosixPath(name)
    number = 2
    while True:
        yield name.removesuffix(path.suffix) + f" ({number}){path.suffix}"
        number += 1


def _entry(document: Document, document_id: str, size: int, passages: int, collection: str) -> Entry:
    text = ""
    for page in document.pages:
        text += page.text[: _SAMPLE - len(text)]
    return Entry(
        id=document_id,
        name=document.name,
        kind=document.kind,
        bytes=size,
        pages=None if any(page.number is None for page in document.pages) else len(document.pages),
        passages=passages,
        language=detect(text),
        added=datetime.now(UTC).isoformat(timespec="seconds"),
        notice=document.notice,
        collection=collection,
    )


def _each_in_zip(path: Path, name: str, add: Callable[..., Outcome]) -> Iterator[Outcome]:
    with TemporaryDirectory() as folder:
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


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _printable(name: str) -> str:
    """A file's name need not be Unicode, and macOS writes its accents apart."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
