"""What a knowledge base is kept in: catalogue, vectors and files, how a text gets into them, and one writer at a time.

The vectors are one embedder's at a time: `Stores.space`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from chatbot.catalogue import Catalogue
from chatbot.confined import Check, unhindered
from chatbot.embedders.base import Vectors
from chatbot.errors import UnreadableDocument
from chatbot.index.base import Space
from chatbot.parse import read
from chatbot.passage import Document, Passage, embedded
from chatbot.split import SPLITTER
from chatbot.splitter import Splitter

BATCH = 32  # passages embedded at once: under a second on one core, so that progress shows
ARRIVING = "arriving-"  # folders of files whose document is not there yet
_SPECIAL_TOKENS = 2  # that an embedder puts around a text

Counting = Callable[[int, int], None]  # passages done, of how many


class Stores:
    def __init__(
        self,
        catalogue: Catalogue,
        chosen: Space,
        files: Path,  # a folder with the original of each document, named by its id
        *,
        passage_tokens: int,
        passage_overlap: int,
        max_file_bytes: int,
        embedder_name: str,  # how it is asked for in the settings
        earlier: Space | None,  # the embedder that the vectors were made by, where it is another
        across: AbstractContextManager[object] | None,  # a lock between the processes that share the home
    ) -> None:
        self.catalogue = catalogue
        self.chosen = chosen
        self.earlier = earlier
        self.files = files
        self.shared = across is not None
        self._passage_tokens = passage_tokens
        self._passage_overlap = passage_overlap
        self._max_file_bytes = max_file_bytes
        self._embedder_name = embedder_name
        self._splitting = Splitter(lambda: chosen.embedder.tokenizer)
        self._threads = threading.Lock()
        self._across = across or nullcontext()
        if embedder_of(catalogue) is None:
            self.adopt()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._threads, self._across:
            yield

    @property
    def space(self) -> Space:
        """What searches by meaning now. Another process may have changed it."""
        told = embedder_of(self.catalogue)
        fingerprint = told[0] if told else self.chosen.embedder.fingerprint
        for space in self.spaces():
            if fingerprint == space.embedder.fingerprint:
                return space
        return replace(self.chosen, whole=False)

    def spaces(self) -> list[Space]:
        return [space for space in (self.chosen, self.earlier) if space]

    def adopt(self) -> None:
        """Search with the chosen embedder from now on; vectors that it has not made are missing until `reconcile`."""
        told = [self.chosen.embedder.fingerprint, self._embedder_name]
        self.catalogue.set_meta("embedder", json.dumps(told))

    def read(self, file: Path, name: str, check: Check = unhindered) -> Document:
        """Raises UnreadableDocument, and PackedFiles for a zip of files. What `check` raises ends it at once."""
        return read(file, name, max_bytes=self._max_file_bytes, check=check)

    def split(self, document: Document, document_id: str, check: Check = unhindered) -> tuple[list[Passage], str]:
        """Its passages and its language, ISO 639-1. Raises UnreadableDocument where it holds no text or cannot be
        split. What `check` raises ends it at once."""
        limits = {"max_tokens": self._max_tokens, "overlap": self._overlap}
        passages, language = self._splitting.split(document, document_id, **limits, check=check)
        if not passages:
            raise UnreadableDocument(f"{document.name!r} holds no text: give a file with something to read in it")
        return passages, language

    def close(self) -> None:
        self._splitting.close()

    def embed(
        self, space: Space, passages: Sequence[Passage], report: Counting = lambda done, of: None
    ) -> Iterator[tuple[list[Passage], list[Vectors]]]:
        """Batches of like length, so that little is padding; longest first, so that progress speeds up."""
        ordered = sorted(passages, key=lambda passage: len(passage.text), reverse=True)
        for start in range(0, len(ordered), BATCH):
            report(start, len(ordered))
            batch = ordered[start : start + BATCH]
            yield batch, space.embedder.parts([embedded(passage) for passage in batch])

    @property
    def splitter(self) -> str:
        """Changes whenever the same text might be split otherwise."""
        return f"{SPLITTER} {self._max_tokens} {self._overlap} {self.chosen.embedder.fingerprint}"

    @property
    def _max_tokens(self) -> int:
        return min(self._passage_tokens, self.chosen.embedder.max_tokens - _SPECIAL_TOKENS)

    @property
    def _overlap(self) -> int:
        return min(self._passage_overlap, self._max_tokens // 2)

    def document_id(self, name: str, sha256: str, collection: str) -> str:
        key = self.catalogue.key_for(collection)
        return hashlib.sha256("\0".join([name, sha256, *filter(None, [key])]).encode()).hexdigest()[:16]

    def key_of(self, document_id: str) -> str:
        return self.catalogue.key(self.catalogue.get(document_id).collection)


def embedder_of(catalogue: Catalogue) -> tuple[str, str] | None:
    """(fingerprint, name in the settings) of the embedder that made the vectors; None: not told yet."""
    told = catalogue.meta("embedder")
    if told is None:
        return None
    fingerprint, name = json.loads(told)
    return str(fingerprint), str(name)


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
