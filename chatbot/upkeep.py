"""Bringing what a knowledge base is kept in up to date: after a crash, a lost store, or a change of settings.

After a change of embedder the earlier one's vectors serve until `rebuild` has computed all the new ones; after a
change of how texts are split, `rebuild` splits document by document again.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chatbot.catalogue import Entry
from chatbot.embedders.base import Vectors
from chatbot.errors import ReadingInterrupted, UnknownDocument, UnreadableDocument
from chatbot.index.base import Space, VectorStore
from chatbot.passage import Document, Passage
from chatbot.progress import Progress, silent
from chatbot.stores import ARRIVING, BATCH, Stores, embedder_of, sha256_of

_WITH_OUTLINE = "pdf"  # the kind whose headings stand beside the text
_PAGE = 1_000  # passages looked up at once when vectors are computed again
_ID = re.compile(r"[0-9a-f]{16}")
_ABANDONED = 86_400  # seconds after which a folder of a file that is arriving is no other process's any more

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """What goes on in the background after a change of settings."""

    done: float  # share, in [0, 1]
    doing: str
    lexical_only: bool  # nothing is found by meaning until it is done: the earlier embedder cannot be loaded


class _Stopped(Exception):
    """Raised inside `rebuild`, between two steps of it."""


class Upkeep:
    def __init__(self, stores: Stores, forgotten: Callable[[], None]) -> None:
        """`forgotten`: called when passages are gone."""
        self._stores = stores
        self._catalogue, self._files = stores.catalogue, stores.files
        self._forgotten = forgotten
        self._stops: set[threading.Event] = set()  # of the rebuilds that are running; none is ever cleared
        self._closed = threading.Event()
        self._rebuilding: Rebuilding | None = None

    @property
    def rebuilding(self) -> Rebuilding | None:
        return self._rebuilding

    def reconcile(self, progress: Progress = silent) -> list[str]:
        """Bring vectors and files in step again, after a crash or a lost store; what was amiss, a sentence each."""
        with self._stores.writing():
            space, mended = self._stores.space, list[str]()
            serving = embedder_of(self._catalogue)
            self._stores.chosen.store.drop_others([serving[0]] if serving else [])
            known = self._catalogue.places()
            if strangers := sum(self._drop_strangers(each.store, known) for each in self._stores.spaces()):
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
        with self._stores.writing():
            if faults := self._catalogue.faults():
                self._catalogue.mend()
                left = self._catalogue.faults()
                mended += [f"{fault}: made anew from the passages" for fault in faults if fault not in left]
            wrong = [f"the catalogue has {fault}" for fault in self._catalogue.faults()]
            for entry in self._catalogue.documents():
                if amiss := self._amiss(entry):
                    wrong.append(f"the original of {entry.name!r} {amiss}: it is still found; add it again")
        return mended, wrong

    def is_outdated(self) -> bool:
        """Whether `rebuild` has something to do."""
        return self._stores.space is not self._stores.chosen or bool(
            self._catalogue.cut_otherwise(self._stores.splitter)
        )

    def rebuild(self, progress: Progress = silent, stop: threading.Event | None = None) -> None:
        """Follow a change of embedder or of splitting, while everything is used as it was. Taken up where it was
        stopped, by `stop` or a crash. `stop`: ends it whenever it is set, before it began too."""
        stop = stop or threading.Event()

        def check() -> None:
            if stop.is_set() or self._closed.is_set():
                raise _Stopped

        def report(done: float, doing: str) -> None:
            self._rebuilding = Rebuilding(done, doing, not self._stores.space.whole)
            progress(done, doing)

        self._stops.add(stop)
        try:
            check()
            if self._stores.space is not self._stores.chosen:
                self._change_embedder(report, check)
            stale = self._catalogue.cut_otherwise(self._stores.splitter)
            for number, document_id in enumerate(stale):
                check()
                report(number / len(stale), "splitting documents again")
                self._split_again(document_id, check)
        except _Stopped:
            pass
        finally:
            self._stops.discard(stop)
            self._rebuilding = None

    def stop(self) -> None:
        """Ends a `rebuild` that is running, after the batch at hand."""
        for stop in tuple(self._stops):
            stop.set()

    def close(self) -> None:
        """Ends a `rebuild`, also one that is only about to begin; one that is still at work writes nothing more."""
        self._closed.set()
        with self._stores.writing():
            pass

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
        for batch, vectors in self._stores.embed(space, list(self._catalogue.passages(list(keys)).values())):
            for key in {keys[passage.id] for passage in batch}:
                its = [each for each in zip(batch, vectors, strict=True) if keys[each[0].id] == key]
                ids, documents = [p.id for p, _ in its], [p.document_id for p, _ in its]
                space.store.upsert(ids, documents, [parts for _, parts in its], key)

    def _remove_strangers(self, known: set[str]) -> int:
        removed = 0
        for folder in self._files.iterdir() if self._files.is_dir() else ():
            arriving = folder.name.startswith(ARRIVING)
            if arriving and self._stores.shared and _age(folder) < _ABANDONED:
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
        same = self._stores.document_id(entry.name, sha256_of(originals[0]), entry.collection) == entry.id
        return "" if same else "has changed on disk"

    def _change_embedder(self, progress: Progress, check: Callable[[], None]) -> None:
        """Compute what the chosen embedder has not, then put it in the place of the one that serves."""
        total = max(self._catalogue.count(), 1)
        missing = self._missing()
        while missing:
            check()
            progress(1 - len(missing) / total, f"computing {total} vectors with the new embedder")
            batch, missing = missing[:BATCH], missing[BATCH:]
            made = list(self._stores.embed(self._stores.chosen, list(self._catalogue.passages(batch).values())))
            with self._stores.writing():  # so that none deleted meanwhile comes back
                if self._closed.is_set():
                    raise _Stopped
                for passages, vectors in made:
                    self._store_living(passages, vectors)
            missing = missing or self._missing()
        with self._stores.writing():
            check()
            self._compute(self._stores.chosen, self._catalogue.places(), silent)  # what was added since
            self._stores.adopt()
            self._stores.earlier = None
            self._stores.chosen.store.drop_others()

    def _missing(self) -> list[str]:
        known = self._catalogue.places()
        return [id for key, ids in known.items() for id in _without(ids, self._stores.chosen.store.ids(key))]

    def _store_living(self, passages: Sequence[Passage], vectors: Sequence[Vectors]) -> None:
        made = {passage.id: (passage.document_id, parts) for passage, parts in zip(passages, vectors, strict=True)}
        for key, ids in self._catalogue.places(made).items():
            documents, rows = zip(*(made[id] for id in ids), strict=True)
            self._stores.chosen.store.upsert(ids, documents, rows, key)

    def _split_again(self, document_id: str, check: Callable[[], None]) -> None:
        """Replace the document's passages by those that it is split into now, at once; the same, nothing moves."""
        try:
            entry, (_, version) = self._catalogue.get(document_id), self._catalogue.cut(document_id)
            old = self._catalogue.passages_of(document_id)
        except UnknownDocument:  # deleted meanwhile
            return
        try:
            document, passages = self._read_again(entry, check)
        except ReadingInterrupted as error:
            log.warning("%r stays split as it is until the next start: %s", entry.name, error)
            return
        if not passages or list(map(_cut, passages)) == list(map(_cut, old)):
            with self._stores.writing():
                check()
                self._catalogue.keep_split(document_id, document.pages or None, self._stores.splitter)
            return
        version += 1
        passages = [replace(each, id=f"{document_id}:{version}.{n}") for n, each in enumerate(passages)]
        vectors = list(self._stores.embed(space := self._stores.space, passages, lambda done, of: check()))
        with self._stores.writing():
            check()
            try:
                unchanged = self._catalogue.cut(document_id)[1] == version - 1
            except UnknownDocument:
                return
            if not unchanged or self._stores.space.store is not space.store:  # another process's doing
                return
            key = self._stores.key_of(document_id)
            ids = [passage.id for batch, _ in vectors for passage in batch]
            space.store.upsert(ids, document_id, [row for _, rows in vectors for row in rows], key)
            self._catalogue.split_again(document_id, passages, document.pages, self._stores.splitter, version)
            for each in self._stores.spaces():
                each.store.delete_ids([passage.id for passage in old], key)

    def _read_again(self, entry: Entry, check: Callable[[], None]) -> tuple[Document, list[Passage]]:
        """No passages, nor pages, where it cannot be read or split: it stays as it is, and is not tried again. Raises
        ReadingInterrupted where it may be another time."""
        try:
            document = self._document(entry, check)
            return document, self._stores.split(document, entry.id, check)[0]
        except ReadingInterrupted:
            raise
        except (UnreadableDocument, ValueError) as error:
            log.warning("%r stays split as it is: %s", entry.name, error)
            return Document(entry.name, entry.kind, (), entry.notice), []

    def _document(self, entry: Entry, check: Callable[[], None]) -> Document:
        """From the stored pages; what an earlier version did not store of them is read from the original."""
        pages = tuple(self._catalogue.pages(entry.id))
        if pages and (entry.kind != _WITH_OUTLINE or self._catalogue.knows_headings(entry.id)):
            return Document(entry.name, entry.kind, pages, entry.notice)
        (original,) = (self._files / entry.id).glob("*")
        document = self._stores.read(original, entry.name, check)
        stored = {page.number: page for page in pages}  # what OCR read, which may be there no more
        fresh = (page if page.text.strip() else stored.get(page.number, page) for page in document.pages)
        return replace(document, pages=tuple(fresh))


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
