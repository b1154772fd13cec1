"""The lexical index: BM25 over the words of `language.words`, kept by SQLite's FTS5 inside the catalogue."""

from __future__ import annotations

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

    def search(self, text: str, k: int, scope: Scope = EVERYTHING) -> Ranking:
        self._catalogue.keys_of(scope)  # raises for a collection that is not there
        occurrences = self._catalogue.occurrences(list(dict.fromkeys(words(text))))
        terms = _affordable(occurrences)
        return self._catalogue.matching(terms, k, scope) if terms and k > 0 else []


def _affordable(occurrences: dict[str, int]) -> list[str]:
    rarest = sorted(occurrences, key=lambda word: (occurrences[word], word))[:_MOST_WORDS]
    total = list(accumulate(occurrences[word] for word in rarest))
    return [word for place, word in enumerate(rarest) if place == 0 or total[place] <= _MOST_OCCURRENCES]
