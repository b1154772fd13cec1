"""What an index is to the rest: a ranking of passage ids. The catalogue turns ids into passages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Ranking = list[tuple[str, float]]  # (passage id, score), best first


class Index(Protocol):
    def search(self, text: str, k: int) -> Ranking:
        """The k passages that match best; fewer where fewer match. The score's scale is the index's own."""


class DenseIndex(Index, Protocol):
    def similarities(self, text: str, ids: Sequence[str]) -> list[float]:
        """How well the text's vector matches each passage's, by the embedder's metric, in the order of the ids."""
