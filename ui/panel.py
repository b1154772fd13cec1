"""What the panel of sources is given: its cards, and the share that each has. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chatbot import Turn
from ui import render
from ui.i18n import Texts


@dataclass(frozen=True, slots=True)
class Shares:
    """The running mean posterior: what each source has had of the reply so far."""

    sums: tuple[float, ...] = ()
    tokens: int = 0

    def plus(self, posterior: Sequence[float]) -> Shares:
        sums = self.sums or (0.0,) * len(posterior)
        return Shares(tuple(a + b for a, b in zip(sums, posterior, strict=True)), self.tokens + 1)

    @property
    def mean(self) -> list[float]:
        return [total / max(1, self.tokens) for total in self.sums]


def panel_value(
    html: str = "", turn: int = -1, weights: Sequence[float] = (), cited: Sequence[int] | None = None
) -> dict[str, Any]:
    """Without `html` the panel says what will appear there. `weights`: by card. `cited`: sources' numbers, if known."""
    return {"html": html, "turn": turn, "weights": list(weights), "cited": cited}


def turn_value(turn: Turn, number: int, words: Texts) -> dict[str, Any]:
    ids = {citation.passage_id for citation in turn.reply.citations}
    cited = [rank for rank, hit in enumerate(turn.hits, 1) if hit.passage.id in ids]
    return panel_value(render.sources(turn.hits, turn.prior, words), number, turn.reply.weights, cited)
