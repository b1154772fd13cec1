"""Vectors in Chroma, in a folder of our own or on a server. Ids and vectors only: texts are the catalogue's.

A folder belongs to one process: of two that write to it, vectors get lost (measured). Share a server instead.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import chromadb
import httpx
import numpy as np
from chromadb.api.client import Client
from chromadb.config import Settings
from chromadb.errors import ChromaError, NotFoundError

from chatbot.embedders.base import Embedder, Metric, Vectors
from chatbot.errors import HomeDamaged, SetupError, StoreUnreachable, WrongSetting
from chatbot.index.base import Ranking

_BATCH = 5_000  # Chroma 1.5 takes at most 5,461
_PAGE = 10_000
_EF = 200  # recall@100 .997 on 5,000 clustered vectors


class Chroma:
    """A collection for each catalogue (`owner`) and embedder (`fingerprint`), so that neither are ever mixed.

    Raises StoreUnreachable where the server does not answer, HomeDamaged where the folder cannot be read.
    """

    def __init__(self, where: str | Path, fingerprint: str, owner: str = "", metric: Metric = "cosine") -> None:
        self._where = str(where)
        self._remote = "://" in self._where
        self._prefix = f"marginalia-{owner[:32]}" if owner else "marginalia"
        self._name = f"{self._prefix}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:16]}"
        logging.getLogger("chromadb.telemetry").setLevel(logging.CRITICAL)
        with self._errors():
            self._client = self._connect()
            self._collection = self._client.get_or_create_collection(
                self._name,
                embedding_function=None,  # never Chroma's own: it would be downloaded
                configuration={"hnsw": {"space": metric, "ef_search": _EF, "ef_construction": _EF}},
            )
        space = (self._collection.configuration.get("hnsw") or {}).get("space")
        if space != metric:  # Chroma opens an existing collection as it is, without a word
            raise HomeDamaged(f"Chroma collection {self._name!r} measures {space!r}, not {metric}: delete it")

    def close(self) -> None:
        self._client.close()

    def upsert(
        self, ids: Sequence[str], document_id: str | Sequence[str], vectors: Vectors | Sequence[Vectors]
    ) -> None:
        """(N,) ids and (N, D) vectors, of one document or of (N,) documents; batches of 5,000 are atomic."""
        documents = [document_id] * len(ids) if isinstance(document_id, str) else document_id
        for start in range(0, len(ids), _BATCH):
            batch = slice(start, start + _BATCH)
            with self._errors():
                self._collection.upsert(
                    ids=list(ids[batch]),
                    embeddings=np.asarray(vectors[batch], dtype=np.float32),
                    metadatas=[{"document_id": document} for document in documents[batch]],
                )

    def delete(self, document_id: str) -> None:
        with self._errors():
            self._collection.delete(where={"document_id": document_id})

    def delete_ids(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _BATCH):
            with self._errors():
                self._collection.delete(ids=list(ids[start : start + _BATCH]))

    def search(self, vector: Vectors, k: int) -> Ranking:
        """The k nearest to (D,), with the metric as score: Chroma's distance is 1 minus it, for either."""
        with self._errors():
            k = min(k, self._collection.count())
            if k <= 0:
                return []
            found = self._collection.query(query_embeddings=vector[None], n_results=k, include=["distances"])
        distances = (found["distances"] or [[]])[0]
        return [(id, 1 - float(distance)) for id, distance in zip(found["ids"][0], distances, strict=True)]

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """(N,) -> (N, D) in the order of the ids; a row of zeros for one that is not there."""
        rows: dict[str, Vectors] = {}
        unique = list(dict.fromkeys(ids))
        for start in range(0, len(unique), _BATCH):
            with self._errors():
                found = self._collection.get(ids=unique[start : start + _BATCH], include=["embeddings"])
            rows |= zip(found["ids"], np.asarray(found["embeddings"], dtype=np.float32), strict=True)
        dimensions = next(iter(rows.values())).shape[0] if rows else 0
        absent = np.zeros(dimensions, dtype=np.float32)
        return np.array([rows.get(id, absent) for id in ids], dtype=np.float32).reshape(len(ids), dimensions)

    def ids(self) -> set[str]:
        every: set[str] = set()
        while True:
            with self._errors():
                page = self._collection.get(limit=_PAGE, offset=len(every), include=[])["ids"]
            every.update(page)
            if len(page) < _PAGE:
                return every

    def count(self) -> int:
        with self._errors():
            return self._collection.count()

    def drop_others(self) -> None:
        """Delete this owner's collections of other embedders."""
        with self._errors():
            for collection in self._client.list_collections():
                ours = re.fullmatch(rf"{self._prefix}-[0-9a-f]{{16}}", collection.name)
                if ours and collection.name != self._name:
                    self._client.delete_collection(collection.name)

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
            yield
        except (httpx.HTTPError, ChromaError, ValueError, OSError) as error:
            raise self._meaning(error) from error

    def _meaning(self, error: Exception) -> SetupError:
        reason = str(error).partition("\n")[0] or type(error).__name__
        if not self._remote:
            return HomeDamaged(
                f"the vectors in {self._where!r} cannot be used ({reason}): delete that folder, "
                "and they are computed again from the catalogue"
            )
        if isinstance(error, NotFoundError):
            return StoreUnreachable(f"the Chroma server at {self._where} lost our vectors: start again")
        return StoreUnreachable(f"no Chroma server answers at {self._where} ({reason}): is it running?")


class Dense:
    """Passages by the embedder's metric between their vectors and the text's."""

    def __init__(self, embedder: Embedder, store: Chroma) -> None:
        self._store = store
        self.metric = embedder.metric
        # A turn asks for each text twice: to search, and for similarities.
        self._vector = lru_cache(maxsize=16)(lambda text: embedder.queries([text])[0])

    def search(self, text: str, k: int) -> Ranking:
        return self._store.search(self._vector(text), k)

    def similarities(self, text: str, ids: Sequence[str]) -> list[float]:
        """(N,) exact, in the order of the ids; cosines lie in [-1, 1]; 0 for an id without a vector."""
        if not ids:
            return []
        vectors = self._store.vectors(ids)
        if not vectors.size:
            return [0.0] * len(ids)
        scores = vectors @ self._vector(text)
        return [float(score) for score in (np.clip(scores, -1, 1) if self.metric == "cosine" else scores)]
