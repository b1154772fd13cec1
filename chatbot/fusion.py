"""Reciprocal rank fusion: several rankings into one. Pure."""

from collections import defaultdict
from collections.abc import Sequence


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[str]], weights: Sequence[float] | None = None, k: int = 60
) -> list[tuple[str, float]]:
    """(id, score) best first: score = sum over rankings of weight / (k + rank), rank from 1.

    k = 60: Cormack, Clarke and Buettcher 2009. The scores order and nothing more: their softmax is flat.
    Ids of equal score keep the order in which they were first seen.
    """
    scores: defaultdict[str, float] = defaultdict(float)
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, id in enumerate(ranking, start=1):
            scores[id] += weight / (k + rank)
    return sorted(scores.items(), key=lambda item: -item[1])
