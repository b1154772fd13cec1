"""The lexical index: BM25 or TF-IDF over the words of `language.words`, kept by SQLite's FTS5 in the catalogue."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

from chatbot.catalogue import Catalogue
from chatbot.index.base import Ranking
from chatbot.language import words
from chatbot.scope import EVERYTHING, Scope

_MOST_WORDS = 256  # of a query, whose time grows with their square: 0.4 s; 6 s for 16,000
_MOST_OCCURRENCES = 50_000  # of a query's words together: about 50 ms, whatever the collection's size


class Lexical:
    """A query's words are looked up rarest first, as long as the time lasts; the commonest tell least.

    Dropping every word that occurs in over a tenth of the passages instead costs .006 nDCG@10 on NFCorpus, of
    3,633 passages.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def importance(self, words: Sequence[str]) -> dict[str, float]:
        """idf of words of `language.words`, in nats; those that occur in no passage are left out."""
        passages = self._catalogue.count()
        occurrences = self._catalogue.occurrences(list(words))
        return {word: math.log(1 + passages / count) for word, count in occurrences.items()}

    def search(self, text: str, k: int, scope: Scope = EVERYTHING) -> Ranking:
        self._catalogue.keys_of(scope)  # raises for a collection that is not there
        occurrences = self._catalogue.occurrences(list(dict.fromkeys(words(text))))
        terms = _affordable(occurrences)
        return self._catalogue.matching(terms, k, scope) if terms and k > 0 else []


class TfIdf:
    """Cosine between weights (1 + log tf) idf (Salton and Buckley 1988), of the passages that BM25 ranks highest.

    For comparisons: it reads those passages' words again at each search.
    """

    def __init__(self, catalogue: Catalogue, candidates: int = 1_000) -> None:
        self._catalogue = catalogue
        self._bm25 = Lexical(catalogue)
        self._candidates = candidates

    def search(self, text: str, k: int, scope: Scope = EVERYTHING) -> Ranking:
        ids = [id for id, _ in self._bm25.search(text, self._candidates, scope)]
        counts = {id: Counter(words(f"{p.heading}\n{p.text}")) for id, p in self._catalogue.passages(ids).items()}
        asked = Counter(words(text))
        idf = self._bm25.importance(list(set(asked).union(*counts.values())))
        query = _tf_idf(asked, idf)
        scored = [(id, _cosine(query, _tf_idf(each, idf))) for id, each in counts.items()]
        return sorted(scored, key=lambda pair: -pair[1])[: max(0, k)]


def _tf_idf(counts: Mapping[str, int], idf: Mapping[str, float]) -> dict[str, float]:
    return {word: (1 + math.log(count)) * idf[word] for word, count in counts.items() if word in idf}


def _cosine(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    lengths = math.hypot(*one.values()) * math.hypot(*other.values())
    return sum(weight * other.get(word, 0.0) for word, weight in one.items()) / lengths if lengths else 0.0


def _affordable(occurrences: dict[str, int]) -> list[str]:
    rarest = sorted(occurrences, key=lambda word: (occurrences[word], word))[:_MOST_WORDS]
    total = list(accumulate(occurrences[word] for word in rarest))
    return [word for place, word in enumerate(rarest) if place == 0 or total[place] <= _MOST_OCCURRENCES]
