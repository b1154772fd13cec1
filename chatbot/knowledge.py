"""The knowledge base: add, replace, delete and list documents, vectors and files in step with the catalogue.

A document is there once the catalogue's transaction says so. What must exist by then (the file's copy, the
vectors) is written before; what must go (those of a replaced or deleted document) is removed after. A crash
between the two leaves only what `reconcile` removes, or computes again, at the next start.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from chatbot.catalogue import Catalogue, Entry
from chatbot.embedders.base import Embedder, Vectors
from chatbot.errors import InputError, NameTaken, UnreadableDocument
from chatbot.language import detect
from chatbot.parse import read
from chatbot.passage import Document, Passage
from chatbot.progress import Progress, silent
from chatbot.split import split

_BATCH = 32  # passages embedded at once: under a second on one core, so that progress shows
_PAGE = 1_000  # passages looked up at once when vectors are computed again
_SAMPLE = 5_000  # characters that tell a document's language
_SPECIAL_TOKENS = 2  # that an embedder puts around a text
_ID = re.compile(r"[0-9a-f]{16}")
_ARRIVING = "arriving-"  # folders of files whose document is not there yet


class VectorStore(Protocol):
    """Ids and vectors, nothing else: whatever is lost is computed again."""

    def upsert(
        self, ids: Sequence[str], document_id: str | Sequence[str], vectors: Vectors | Sequence[Vectors]
    ) -> None:
        """(N,) ids and (N, D) vectors, of one document or of (N,) documents."""

    def delete(self, document_id: str) -> None:
        """All of a document; none is no error."""

    def delete_ids(self, ids: Sequence[str]) -> None: ...

    def ids(self) -> set[str]: ...

    def drop_others(self) -> None:
        """Remove what earlier embedders left."""


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str
    status: Literal["added", "replaced", "unchanged", "failed"]
    message: str = ""  # why it failed; else what a person should know of the text that was read
    document_id: str = ""  # "" where it failed
    passages: int = 0


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
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._embedder = embedder
        self._files = files
        self._max_file_bytes = max_file_bytes
        self._passage_tokens = passage_tokens
        self._forgotten = forgotten
        self._writing = threading.Lock()

    def add(
        self,
        file: str | Path,
        *,
        name: str | None = None,
        replace: bool = False,
        progress: Progress = silent,
    ) -> Outcome:
        """Raises UnreadableDocument, or NameTaken where the name has other content and `replace` is False."""
        path = Path(file)
        name = _printable(name or path.name)
        with self._arriving(path, name) as (folder, copy):
            document_id = _document_id(name, _sha256(copy))
            if unchanged := self._taken(name, document_id, replace):
                return unchanged
            progress(0.0, f"reading {name}")
            document = read(copy, name, max_bytes=self._max_file_bytes)
            passages = self._split(document, document_id)
            vectors = list(self._embed(passages, lambda done, doing: progress(0.2 + 0.75 * done, doing)))
            with self._writing:
                if unchanged := self._taken(name, document_id, replace):  # another thread was quicker
                    return unchanged
                progress(0.95, f"storing {name}")
                entry = _entry(document, document_id, copy.stat().st_size, len(passages))
                return self._commit(entry, passages, vectors, folder)

    def add_all(
        self, files: Iterable[str | Path], *, replace: bool = False, progress: Progress = silent
    ) -> Iterator[Outcome]:
        """One outcome a file, as each is done. Folders are walked; their files are named by path."""
        named = [pair for file in files for pair in _walk(Path(file))]
        for index, (path, name) in enumerate(named):

            def part(done: float, doing: str, before: int = index) -> None:
                progress((before + done) / len(named), doing)

            try:
                yield self.add(path, name=name, replace=replace, progress=part)
            except InputError as error:
                yield Outcome(_printable(name), "failed", str(error))
            part(1.0, _printable(name))

    def delete(self, document_id: str) -> Entry:
        """Raises UnknownDocument. What was deleted is overwritten, not only forgotten."""
        with self._writing:
            entry = self._catalogue.delete(document_id)
            self._forget(document_id)
            self._catalogue.scrub()
        return entry

    def documents(self) -> list[Entry]:
        """Newest first."""
        return self._catalogue.documents()

    def passages(self, ids: Sequence[str] | None = None) -> dict[str, Passage]:
        """By id; an id that is no longer there is left out. None: every passage."""
        return self._catalogue.passages(self._catalogue.passage_ids() if ids is None else ids)

    def reconcile(self, progress: Progress = silent) -> None:
        """Bring vectors and files in step again, after a crash, a lost store or a change of embedder."""
        with self._writing:
            self._store.drop_others()
            known, stored = self._catalogue.passage_ids(), self._store.ids()
            self._store.delete_ids(sorted(stored.difference(known)))
            missing = [id for id in known if id not in stored]
            for start in range(0, len(missing), _PAGE):
                page = list(self._catalogue.passages(missing[start : start + _PAGE]).values())
                for batch, vectors in self._embed(page, silent):
                    self._store.upsert([p.id for p in batch], [p.document_id for p in batch], vectors)
                progress((start + len(page)) / len(missing), "computing vectors again")
            self._remove_strangers({entry.id for entry in self._catalogue.documents()})
            self._catalogue.scrub()

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

    def _taken(self, name: str, document_id: str, replace: bool) -> Outcome | None:
        there = self._catalogue.find(name)
        if there is None or (there.id != document_id and replace):
            return None
        if there.id == document_id:
            return Outcome(name, "unchanged", there.notice, there.id, there.passages)
        raise NameTaken(f"{name!r} is there already, with other content: replace it, or give another name")

    def _split(self, document: Document, document_id: str) -> list[Passage]:
        max_tokens = min(self._passage_tokens, self._embedder.max_tokens - _SPECIAL_TOKENS)
        passages = split(document, document_id, max_tokens=max_tokens, tokenizer=self._embedder.tokenizer)
        if not passages:
            raise UnreadableDocument(f"{document.name!r} has no text: scans and pictures are not read")
        return passages

    def _embed(self, passages: Sequence[Passage], progress: Progress) -> Iterator[tuple[list[Passage], Vectors]]:
        """Batches of like length, so that little is padding; longest first, so that progress speeds up."""
        ordered = sorted(passages, key=lambda passage: len(passage.text), reverse=True)
        for start in range(0, len(ordered), _BATCH):
            progress(start / len(ordered), f"embedding {len(ordered)} passages of {ordered[0].document}")
            batch = ordered[start : start + _BATCH]
            yield batch, self._embedder.passages([embedded(passage) for passage in batch])

    def _commit(
        self,
        entry: Entry,
        passages: Sequence[Passage],
        vectors: Sequence[tuple[list[Passage], Vectors]],
        folder: Path,
    ) -> Outcome:
        old = self._catalogue.find(entry.name)
        place = self._files / entry.id
        shutil.rmtree(place, ignore_errors=True)  # left by a crash
        folder.rename(place)
        try:
            ids = [passage.id for batch, _ in vectors for passage in batch]
            self._store.upsert(ids, entry.id, [row for _, rows in vectors for row in rows])
            self._catalogue.add(entry, passages, replacing=old.id if old else None)
        except BaseException:  # vectors without a passage are dropped by searches, and by `reconcile`
            shutil.rmtree(place, ignore_errors=True)
            raise
        if old:
            self._forget(old.id)
        return Outcome(entry.name, "replaced" if old else "added", entry.notice, entry.id, entry.passages)

    def _forget(self, document_id: str) -> None:
        self._forgotten()
        self._store.delete(document_id)
        shutil.rmtree(self._files / document_id, ignore_errors=True)  # last: after a crash it tells what is left over

    def _remove_strangers(self, known: set[str]) -> None:
        for folder in self._files.iterdir() if self._files.is_dir() else ():
            if folder.name.startswith(_ARRIVING) or (_ID.fullmatch(folder.name) and folder.name not in known):
                self._forgotten()
                shutil.rmtree(folder, ignore_errors=True)


def embedded(passage: Passage) -> str:
    """With its heading: nDCG@10 .278 instead of .266 (MiniLM, 1,200 documents of NFCorpus, title as heading)."""
    return f"{passage.heading}\n{passage.text}" if passage.heading else passage.text


def _entry(document: Document, document_id: str, size: int, passages: int) -> Entry:
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
    )


def _walk(path: Path) -> Iterator[tuple[Path, str]]:
    """(file, name), sorted; what is hidden inside a folder is skipped."""
    if not path.is_dir():
        yield path, path.name
        return
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in inside.parts):
            yield file, inside.as_posix()


def _document_id(name: str, sha256: str) -> str:
    return hashlib.sha256(f"{name}\0{sha256}".encode()).hexdigest()[:16]


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _printable(name: str) -> str:
    """A file's name need not be Unicode, and macOS writes its accents apart."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
