"""What an index is to the rest: a ranking of passage ids. The catalogue turns ids into passages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chatbot.embedders.base import Embedder, Vectors
from chatbot.scope import EVERYTHING, Scope

Ranking = list[tuple[str, float]]  # (passage id, score), best first

_MORE = 4  # times as many are asked for where too few of those found were to be had


class Index(Protocol):
    def search(self, text: str, k: int, scope: Scope = EVERYTHING) -> Ranking:
        """The k passages of the scope that match best, each saying something else; fewer where fewer match.

        The score's scale is the index's own. Raises UnknownCollection.
        """


class DenseIndex(Index, Protocol):
    def similarities(self, text: str, ids: Sequence[str]) -> list[float]:
        """How well the text's vector matches each passage's, by the embedder's metric, in the order of the ids."""


class VectorStore(Protocol):
    """Ids and vectors of one embedder, nothing else: whatever is lost is computed again.

    `collection` is the key of the catalogue's collection that the passages are in.
    """

    def upsert(
        self,
        ids: Sequence[str],
        document_id: str | Sequence[str],
        vectors: Sequence[Vectors],
        collection: str = "",
    ) -> None:
        """(N,) ids, and what `Embedder.parts` gives for them; of one document or of (N,) documents."""

    def delete_ids(self, ids: Sequence[str], collection: str = "") -> None: ...

    def ids(self, collection: str = "") -> set[str]: ...

    def search(self, vector: Vectors, k: int, collection: str = "") -> Ranking:
        """Of the k passages that are as a whole nearest to (D,), the `similarity`, best first."""

    def parts(self, ids: Sequence[str], collection: str = "") -> dict[str, Vectors]:
        """By id, each (P, D); an id that is not there is left out."""

    def drop(self, collection: str) -> None:
        """All of a collection; none is no error."""

    def collections(self) -> list[str]: ...

    def drop_others(self, fingerprints: Sequence[str] = ()) -> None:
        """Remove what embedders other than its own and these left."""


@dataclass(frozen=True, slots=True)
class Space:
    """An embedder and the vectors that it made."""

    embedder: Embedder
    store: VectorStore
    whole: bool = True  # False: not every passage has its vector yet, so that nothing can be ranked by them


def distinct(
    search: Callable[[int], Ranking], firsts: Callable[[Sequence[str]], Mapping[str, str]], k: int, start: int = 0
) -> Ranking:
    """The k best of what `search(n)` ranks: those that `firsts` has, each under the id that it gives, once.

    `search(n)` is asked for `start` at first, and for more until there are k, or it has no more.
    """
    n = max(k, start)
    while True:
        ranking = search(n)
        first = firsts([id for id, _ in ranking])
        best: dict[str, float] = {}
        for id, score in ranking:
            if id in first:
                best.setdefault(first[id], score)
        if len(best) >= k or len(ranking) < n:
            return list(best.items())[:k]
        n *= _MORE
