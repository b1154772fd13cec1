"""Query -> hits and their prior p(z | x).

Every index ranks every text of the query; the rankings are fused; the prior comes from similarities, not
from the fused scores, since a softmax over those is flat and the mixture would ignore the ranking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from chatbot.conversation import Query
from chatbot.embedders.base import Embedder
from chatbot.events import Retrieved
from chatbot.fusion import reciprocal_rank_fusion
from chatbot.index.base import DenseIndex, Index, Ranking
from chatbot.passage import Hit, Passage, embedded
from chatbot.rag_token import log_prior
from chatbot.scope import EVERYTHING, Scope


class Shelf(Protocol):
    """Where passages are looked up by id: the knowledge base. Ids that are no longer there are left out."""

    def passages(self, ids: Sequence[str]) -> Mapping[str, Passage]: ...


class Finder(Protocol):
    def retrieve(self, query: Query, scope: Scope = EVERYTHING) -> Retrieved: ...


class Retriever:
    def __init__(
        self,
        shelf: Shelf,
        indexes: Sequence[Index],
        similarity: DenseIndex,
        *,
        k: int = 5,
        temperature: float = 0.05,
        no_passage: float = 0.25,
        depth: int = 100,  # how far down each ranking is read before fusing
    ) -> None:
        self._shelf = shelf
        self._indexes = indexes
        self._similarity = similarity
        self._k = k
        self._temperature = temperature
        self._no_passage = no_passage
        self._depth = depth

    def rank(self, query: Query, k: int, scope: Scope = EVERYTHING) -> Ranking:
        """The k best passages by fused rank; for a single index, its own ranking and scores."""
        deep = max(k, self._depth)
        rankings = [index.search(text, deep, scope) for text in query.searches for index in self._indexes]
        if len(rankings) == 1:
            return rankings[0][:k]
        return reciprocal_rank_fusion([[id for id, _ in ranking] for ranking in rankings])[:k]

    def retrieve(self, query: Query, scope: Scope = EVERYTHING) -> Retrieved:
        """The k best by fused rank, scored by similarity to the nearest of the query's texts, most similar first.

        Of passages with the same text only the best is taken: two would have twice the prior, and read as one.
        """
        found = self._shelf.passages([id for id, _ in self.rank(query, 2 * self._k, scope)])
        first = {found[id].text: id for id in reversed(list(found))}
        ids = [id for id in found if first[found[id].text] == id][: self._k]
        nearest = [max(scores) for scores in zip(*self._similarities(query, ids), strict=True)]
        hits = [Hit(found[id], score) for id, score in zip(ids, nearest, strict=True)]
        return weighed(hits, self._temperature, self._no_passage)

    def _similarities(self, query: Query, ids: Sequence[str]) -> list[list[float]]:
        return [self._similarity.similarities(text, ids) for text in query.searches]


class Given:
    """Passages that are handed over with a question: nothing is searched, they are only weighed; the best k count."""

    def __init__(
        self, passages: Sequence[Passage], embedder: Embedder, *, k: int, temperature: float, no_passage: float
    ) -> None:
        self._passages = passages
        self._embedder = embedder
        self._k = k
        self._temperature = temperature
        self._no_passage = no_passage

    def retrieve(self, query: Query, scope: Scope = EVERYTHING) -> Retrieved:
        """Of whatever scope."""
        vectors = self._embedder.passages([embedded(passage) for passage in self._passages])
        scores = (vectors @ self._embedder.queries(query.searches).T).max(axis=1)
        hits = [Hit(passage, float(score)) for passage, score in zip(self._passages, scores, strict=True)]
        best = sorted(hits, key=lambda hit: -hit.score)[: self._k]
        return weighed(best, self._temperature, self._no_passage)


def weighed(hits: Sequence[Hit], temperature: float, no_passage: float) -> Retrieved:
    """The hits by falling similarity, and the prior that those make."""
    ordered = sorted(hits, key=lambda hit: -hit.score)
    scores = torch.tensor([hit.score for hit in ordered], dtype=torch.float64)
    prior = log_prior(scores, temperature, no_passage if ordered else 0.0)
    return Retrieved(tuple(ordered), tuple(prior.exp().tolist()))
