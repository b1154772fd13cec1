"""Query -> hits and their prior p(z | x).

Every index ranks every text of the query; the rankings are fused by weights; a reranker may look at the best again.
The prior comes from similarities, not from the fused scores, since a softmax over those is flat and the mixture would
ignore the ranking. docs/retrieval.md has what the weights were fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from chatbot.conversation import Query
from chatbot.embedders.base import Embedder, similarity
from chatbot.events import Retrieved
from chatbot.fusion import Fusion, score_fusion
from chatbot.index.base import DenseIndex, Index, Ranking
from chatbot.passage import Hit, Passage, embedded
from chatbot.rag_token import log_prior
from chatbot.scope import EVERYTHING, Scope

RAW = 0.3  # of the raw turn beside it and its conversation, in the similarity: docs/retrieval.md


class Shelf(Protocol):
    """Where passages are looked up by id: the knowledge base. Ids that are no longer there are left out."""

    def passages(self, ids: Sequence[str]) -> Mapping[str, Passage]: ...


class Reranker(Protocol):
    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """One for each text, higher for a better answer."""


class Finder(Protocol):
    def retrieve(self, query: Query, scope: Scope = EVERYTHING) -> Retrieved: ...


@dataclass(frozen=True, slots=True)
class Shares:
    """How much each text of a query counts in the fusion, for a turn that leans on the conversation."""

    utterance: float = 1.0
    rewrite: float = 1.0
    context: float = 0.0  # dense only
    background: float = 0.0  # the context of a turn that stands alone, whose utterance counts 1
    lexical: float = 1.0  # how much of their weight the lexical rankings keep after a first turn


class Retriever:
    """`weights`: of the indexes' rankings; all 1 where none are given. `conversations`: searches a turn with its
    conversation, where the embedder learned to read that. `reranker` orders the best `second_look` again.
    """

    def __init__(
        self,
        shelf: Shelf,
        indexes: Sequence[Index],
        similarity: DenseIndex,
        *,
        weights: Sequence[float] | None = None,
        shares: Shares = Shares(),
        fusion: Fusion = score_fusion,
        reranker: Reranker | None = None,
        second_look: int = 30,
        k: int = 5,
        temperature: float = 0.05,
        no_passage: float = 0.25,
        depth: int = 100,  # how far down each ranking is read before fusing
    ) -> None:
        self._shelf = shelf
        self._indexes = indexes
        self._similarity = similarity
        self._weights = [1.0] * len(indexes) if weights is None else weights
        self._shares = shares
        self._fusion = fusion
        self._reranker = reranker
        self._second_look = second_look
        self._k = k
        self._temperature = temperature
        self._no_passage = no_passage
        self._depth = depth

    def rank(self, query: Query, k: int, scope: Scope = EVERYTHING) -> Ranking:
        """The k best passages by fused rank; for a single search, that index's own ranking and scores."""
        searches = self._searches(query)
        rankings = [index.search(text, max(k, self._depth), scope) for index, text, _ in searches]
        if len(rankings) == 1:
            return self._again(query, rankings[0])[:k]
        return self._again(query, self._fusion(rankings, [weight for *_, weight in searches]))[:k]

    def _searches(self, query: Query) -> list[tuple[Index, str, float]]:
        """(index, text, weight); a text of no weight is not searched."""
        by_words = self._shares.lexical if query.context else 1.0
        shares = self._both(query) if query.rewritten and not query.edited else {query.text: 1.0}
        return [
            (index, text, weight * share * (1.0 if index is self._similarity else by_words))
            for index, weight in zip(self._indexes, self._weights, strict=True)
            for text, share in (shares | self._context(query, index)).items()
            if weight * share
        ]

    def _both(self, query: Query) -> dict[str, float]:
        return {query.text: self._shares.rewrite, query.utterance: self._shares.utterance} if query.text else {}

    def _context(self, query: Query, index: Index) -> dict[str, float]:
        share = self._shares.context if query.leans else self._shares.background
        return {query.context: share} if query.context and index is self._similarity else {}

    def _again(self, query: Query, ranking: Ranking) -> Ranking:
        """The best in the reranker's order, by its scores; then the others as they were."""
        if self._reranker is None or not ranking:
            return ranking
        found = self._shelf.passages([id for id, _ in ranking[: self._second_look]])
        scores = self._reranker.scores(query.text, [embedded(passage) for passage in found.values()])
        best = sorted(zip(found, scores, strict=True), key=lambda pair: -pair[1])
        return [*best, *((id, -math.inf) for id, _ in ranking[self._second_look :])]

    def retrieve(self, query: Query, scope: Scope = EVERYTHING) -> Retrieved:
        """The k best of the fused rankings, scored by similarity to the query's texts, most similar first.

        Of passages with the same text only the best is taken: two would have twice the prior, and read as one.
        """
        found = self._shelf.passages([id for id, _ in self.rank(query, 2 * self._k, scope)])
        first = {found[id].text: id for id in reversed(list(found))}
        ids = [id for id in found if first[found[id].text] == id][: self._k]
        hits = [Hit(found[id], score) for id, score in zip(ids, self._similarities(query, ids), strict=True)]
        return weighed(hits, self._temperature, self._no_passage)

    def _similarities(self, query: Query, ids: Sequence[str]) -> list[float]:
        """(N,) to the nearest of the query's texts; of a turn read with its conversation a mean, so that a turn which
        changes the subject counts for more than what was talked about."""
        if not (query.leans and query.context and self._shares.context):
            return [max(each) for each in zip(*map(partial(self._to, ids), query.searches), strict=True)]
        read, raw = self._to(ids, query.context), self._to(ids, query.utterance)
        return [(one + RAW * other) / (1 + RAW) for one, other in zip(read, raw, strict=True)]

    def _to(self, ids: Sequence[str], text: str) -> list[float]:
        return self._similarity.similarities(text, ids)


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
        parts = self._embedder.parts([embedded(passage) for passage in self._passages])
        asked = self._embedder.queries(query.searches)
        scores = [max(similarity(each, vector) for vector in asked) for each in parts]
        hits = [Hit(passage, score) for passage, score in zip(self._passages, scores, strict=True)]
        best = sorted(hits, key=lambda hit: -hit.score)[: self._k]
        return weighed(best, self._temperature, self._no_passage)


def weighed(hits: Sequence[Hit], temperature: float, no_passage: float) -> Retrieved:
    """The hits by falling similarity, and the prior that those make."""
    ordered = sorted(hits, key=lambda hit: -hit.score)
    scores = torch.tensor([hit.score for hit in ordered], dtype=torch.float64)
    prior = log_prior(scores, temperature, no_passage if ordered else 0.0)
    return Retrieved(tuple(ordered), tuple(prior.exp().tolist()))
