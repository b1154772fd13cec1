"""Vectors in Chroma, in a folder of our own or on a server. Ids and vectors only: texts are the catalogue's.

A folder belongs to one process: of two that write to it, vectors get lost (measured). Share a server instead.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import heapq
import logging
import re
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from operator import methodcaller
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import chromadb
import httpx
import numpy as np
from chromadb.api.client import Client
from chromadb.api.models.Collection import Collection
from chromadb.config import Settings
from chromadb.errors import ChromaError, NotFoundError

from chatbot.catalogue import Catalogue
from chatbot.embedders.base import Metric, Vectors, similarity
from chatbot.errors import DiskFull, HomeDamaged, SetupError, StoreUnreachable, WrongSetting, room
from chatbot.index.base import Ranking, Space, distinct
from chatbot.passage import embedded
from chatbot.scope import EVERYTHING, Scope

_BATCH = 5_000  # Chroma 1.5 takes at most 5,461
_PAGE = 10_000
_ENOUGH = 2_000_000  # bytes on the disk; with fewer, Chroma may say "failed to apply logs" and not why
_EF = 200  # recall@100 .997 on 5,000 clustered vectors
_ENDING = re.compile(r"(-[0-9a-f]{16})(-[0-9a-f]{12})?")  # of a collection's name: of the embedder, of ours
_READING = 5  # times as long as naming a neighbour (12 µs), reading a vector out of Chroma takes (60 µs)


class Chroma:
    """Vectors of one catalogue (`owner`) and one embedder (`fingerprint`), so that neither are ever mixed.

    Each collection of the catalogue's has one of Chroma's: a `where` filter would cost about 180 ms at 100,000 vectors.
    Raises StoreUnreachable where the server does not answer, HomeDamaged where the folder cannot be read, DiskFull
    where it cannot be written for want of room.
    """

    def __init__(self, where: str | Path, fingerprint: str, owner: str = "", metric: Metric = "cosine") -> None:
        self._where = str(where)
        self._remote = "://" in self._where
        self._metric = metric
        self._prefix = f"marginalia-{owner[:32]}" if owner else "marginalia"
        self._name = self._named(fingerprint)
        self._opened: dict[str, Collection] = {}
        self._stuck = threading.Event()
        logging.getLogger("chromadb.telemetry").setLevel(logging.CRITICAL)
        with self._errors():
            self._client = self._connect()
            self._open("")

    def close(self) -> None:
        self._client.close()

    def upsert(
        self,
        ids: Sequence[str],
        document_id: str | Sequence[str],
        vectors: Sequence[Vectors],
        collection: str = "",
    ) -> None:
        """(N,) ids and vectors, each (D,) or (P, D), of one document or of (N,) documents; batches of 5,000 are atomic.

        Windows lie beside the vector of the whole, as text: rows of their own make a search six times as slow.
        """
        documents = [document_id] * len(ids) if isinstance(document_id, str) else document_id
        for start in range(0, len(ids), _BATCH):
            batch = slice(start, start + _BATCH)
            parts = [np.atleast_2d(each) for each in vectors[batch]]
            rows = np.stack([each[0] for each in parts]).astype(np.float32)
            metadatas = [  # windows in any case: what upserting leaves out stays as it was
                {"document_id": document, "windows": _packed(each[1:]) if len(each) > 1 else ""}
                for document, each in zip(documents[batch], parts, strict=True)
            ]
            self._in(collection, methodcaller("upsert", ids=list(ids[batch]), embeddings=rows, metadatas=metadatas))

    def delete_ids(self, ids: Sequence[str], collection: str = "") -> None:
        for start in range(0, len(ids), _BATCH):
            self._in(collection, methodcaller("delete", ids=list(ids[start : start + _BATCH])))

    def search(self, vector: Vectors, k: int, collection: str = "") -> Ranking:
        """Of the k passages that are as a whole nearest to (D,), the `similarity`, best first."""
        k = min(k, self.count(collection))
        if k <= 0:
            return []
        found = self._in(
            collection,
            methodcaller("query", query_embeddings=vector[None], n_results=k, include=["distances", "metadatas"]),
        )
        whole = [1 - distance for distance in found["distances"][0]]  # of either metric
        scores = [
            (one + float((_unpacked(windows) @ vector).max())) / 2 if (windows := its.get("windows")) else float(one)
            for one, its in zip(whole, found["metadatas"][0], strict=True)
        ]
        return _best(zip(found["ids"][0], scores, strict=True), k)

    def parts(self, ids: Sequence[str], collection: str = "") -> dict[str, Vectors]:
        """By id, each (P, D); an id that is not there is left out."""
        rows: dict[str, Vectors] = {}
        unique = list(dict.fromkeys(ids))
        for start in range(0, len(unique), _BATCH):
            batch = unique[start : start + _BATCH]
            found = self._in(collection, methodcaller("get", ids=batch, include=["embeddings", "metadatas"]))
            whole = np.asarray(found["embeddings"], dtype=np.float32)
            for id, row, its in zip(found["ids"], whole, found["metadatas"], strict=True):
                rows[id] = np.vstack([row, _unpacked(windows)]) if (windows := its.get("windows")) else row[None]
        return rows

    def ids(self, collection: str = "") -> set[str]:
        every: set[str] = set()
        while True:
            page = self._in(collection, methodcaller("get", limit=_PAGE, offset=len(every), include=[]))["ids"]
            every.update(page)
            if len(page) < _PAGE:
                return every

    def count(self, collection: str = "") -> int:
        return int(self._in(collection, methodcaller("count")))

    def drop(self, collection: str) -> None:
        """All of a collection; none is no error."""
        self._opened.pop(collection, None)
        with self._errors(), contextlib.suppress(NotFoundError):
            self._client.delete_collection(self._name_of(collection))

    def collections(self) -> list[str]:
        """Keys of those that are there, empty ones too."""
        with self._errors():
            names = [each.name for each in self._client.list_collections()]
        return [name.removeprefix(self._name).removeprefix("-") for name in names if name.startswith(self._name)]

    def drop_others(self, fingerprints: Sequence[str] = ()) -> None:
        """Delete this owner's collections of embedders other than this one and those with these fingerprints."""
        kept = {self._name, *map(self._named, fingerprints)}
        with self._errors():
            for collection in self._client.list_collections():
                ours = _ENDING.fullmatch(collection.name.removeprefix(self._prefix))
                if ours and collection.name.startswith(self._prefix) and self._prefix + ours[1] not in kept:
                    with contextlib.suppress(NotFoundError):  # another process was quicker
                        self._client.delete_collection(collection.name)

    def _named(self, fingerprint: str) -> str:
        return f"{self._prefix}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:16]}"

    def _name_of(self, collection: str) -> str:
        return f"{self._name}-{collection}" if collection else self._name

    def _open(self, collection: str) -> Collection:
        opened = self._client.get_or_create_collection(
            self._name_of(collection),
            embedding_function=None,  # never Chroma's own: it would be downloaded
            configuration={"hnsw": {"space": self._metric, "ef_search": _EF, "ef_construction": _EF}},
        )
        space = (opened.configuration.get("hnsw") or {}).get("space")
        if space != self._metric:  # Chroma opens an existing collection as it is, without a word
            raise HomeDamaged(f"Chroma collection {opened.name!r} measures {space!r}, not {self._metric}: delete it")
        self._opened[collection] = opened
        return opened

    def _in(self, collection: str, do: Callable[[Collection], Any]) -> Any:
        """Once more where another process has deleted the collection, and perhaps made it again."""
        with self._errors():
            try:
                return do(self._opened.get(collection) or self._open(collection))
            except NotFoundError:
                return do(self._open(collection))

    def _connect(self) -> Client:
        settings = Settings(anonymized_telemetry=False)
        if not self._remote:
            return cast(Client, chromadb.PersistentClient(self._where, settings))
        try:
            address = urlsplit(self._where)
            port = address.port or (443 if address.scheme == "https" else 8000)
        except ValueError as error:
            raise WrongSetting(f"chroma is {self._where!r}: write it as http://host:port") from error
        if address.scheme not in ("http", "https") or not address.hostname or address.path.strip("/"):
            raise WrongSetting(f"chroma is {self._where!r}: write it as http://host:port")
        client = chromadb.HttpClient(address.hostname, port, address.scheme == "https", settings=settings)
        return cast(Client, client)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._room():
                yield
        except (httpx.HTTPError, ChromaError, ValueError, OSError) as error:
            raise self._meaning(error) from error

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Where a statement found no room, Chroma's connection keeps its transaction, and whoever writes next waits
        for ever: it connects anew."""
        if self._remote:
            yield
            return
        try:
            with room(self._where, _ENOUGH):
                if self._stuck.is_set():
                    self._connect_anew()
                yield
        except DiskFull:
            self._stuck.set()
            raise

    def _connect_anew(self) -> None:
        """For every client of this folder in this process."""
        if (client := getattr(self, "_client", None)) is not None:
            client._server.start()
        self._stuck.clear()

    def _meaning(self, error: Exception) -> SetupError:
        reason = str(error).partition("\n")[0] or type(error).__name__
        if not self._remote:
            return HomeDamaged(
                f"the vectors in {self._where!r} cannot be used ({reason}): delete that folder, "
                "and they are computed again from the catalogue"
            )
        return StoreUnreachable(f"no Chroma server answers at {self._where} ({reason}): is it running?")


class Dense:
    """Passages by the embedder's metric between their vectors and the text's.

    `space` is asked at each search: the embedder changes while it is running, once another's vectors are all there.
    Of a small scope every vector is compared; for a larger one, so many more neighbours are asked for. At 100,000
    passages and k = 100 the medians are 9 to 129 ms; the slowest of 12 took up to .6 s within a scope, and 1.3 s for a
    first search of everything. Chroma's `where` takes 80 to 320 ms.
    """

    def __init__(self, space: Callable[[], Space], catalogue: Catalogue) -> None:
        self._space = space
        self._catalogue = catalogue
        # A turn asks for each text twice: to search, and for similarities.
        self._vector = lru_cache(maxsize=16)(lambda embedder, text: embedder.queries([text])[0])

    @property
    def metric(self) -> Metric:
        return self._space().embedder.metric

    def search(self, text: str, k: int, scope: Scope = EVERYTHING) -> Ranking:
        """Nothing where not every passage has its vector yet."""
        space = self._space()
        try:
            return self._search(space, text, k, scope) if space.whole and k > 0 else []
        except SetupError:
            if (now := self._space()) == space:
                raise
            return self._search(now, text, k, scope)  # another embedder's vectors took the place of these

    def similarities(self, text: str, ids: Sequence[str]) -> list[float]:
        """(N,) exact, in the order of the ids; cosines lie in [-1, 1]; 0 for an id without a vector."""
        space = self._space()
        found = self._vectors(space, ids)
        if missing := [] if space.whole else [id for id in ids if id not in found]:
            passages = self._catalogue.passages(missing)
            found |= zip(passages, space.embedder.parts(list(map(embedded, passages.values()))), strict=True)
        if not found:
            return [0.0] * len(ids)
        query = self._vector(cast(Hashable, space.embedder), text)
        scores = np.array([similarity(found[id], query) if id in found else 0.0 for id in ids])
        return [float(score) for score in (np.clip(scores, -1, 1) if space.embedder.metric == "cosine" else scores)]

    def _vectors(self, space: Space, ids: Sequence[str]) -> dict[str, Vectors]:
        found: dict[str, Vectors] = {}
        for key, those in self._catalogue.places(ids).items():
            found |= space.store.parts(those, key)
        return found

    def _search(self, space: Space, text: str, k: int, scope: Scope) -> Ranking:
        vector, keys = self._vector(cast(Hashable, space.embedder), text), self._catalogue.keys_of(scope)

        def nearest(n: int) -> Ranking:
            return _best((found for key in keys for found in space.store.search(vector, n, key)), n)

        def firsts(ids: Sequence[str]) -> dict[str, str]:
            return self._catalogue.firsts(ids, scope)

        within = self._catalogue.count(scope)
        total = self._catalogue.count(Scope(collections=scope.collections))
        enough = k * total // max(within, 1)  # neighbours, for k of the scope, if it lies anywhere
        if within < total and within * _READING <= enough:
            exact = self._exact(space, vector, scope)
            return distinct(lambda n: exact[:n], firsts, k)
        return distinct(nearest, firsts, k, enough)

    def _exact(self, space: Space, vector: Vectors, scope: Scope) -> Ranking:
        """Every passage of a small scope."""
        found = self._vectors(space, self._catalogue.ids_within(scope))
        return _best(((id, similarity(parts, vector)) for id, parts in found.items()), len(found))


def _packed(windows: Vectors) -> str:
    """Unit vectors (W, D) in 8 bits a number, which moves a cosine by .001 at most."""
    size = windows.shape[1]
    scaled = windows / np.maximum(np.abs(windows).max(axis=1, keepdims=True), 1e-9)
    return f"{size} {base64.b64encode(np.round(127 * scaled).astype(np.int8).tobytes()).decode()}"


def _unpacked(text: str) -> Vectors:
    size, _, numbers = text.partition(" ")
    rows = np.frombuffer(base64.b64decode(numbers), dtype=np.int8).reshape(-1, int(size)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _best(found: Iterable[tuple[str, float]], n: int) -> Ranking:
    return heapq.nlargest(n, found, key=lambda pair: pair[1])
