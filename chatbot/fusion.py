"""Several rankings into one. Pure."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import pstdev

Ranked = Sequence[tuple[str, float]]  # (id, score), best first
Fusion = Callable[[Sequence[Ranked], Sequence[float]], list[tuple[str, float]]]


def score_fusion(rankings: Sequence[Ranked], weights: Sequence[float]) -> list[tuple[str, float]]:
    """(id, score) best first: score = sum over rankings of weight · (score there - floor) / standard deviation.

    So the scale of a ranking's scores does not matter, while a passage far ahead of the others counts for more than one
    ahead by a hair, which ranks alone cannot say. What a ranking leaves out has its floor: its last score, or 0
    where it found less than another did, as a lexical index does. A ranking whose scores are all the same says nothing.
    Ids of equal score keep the order in which they were first seen.
    """
    longest = max(map(len, rankings), default=0)
    fused: defaultdict[str, float] = defaultdict(float)
    for ranking, weight in zip(rankings, weights, strict=True):
        scores = [score for _, score in ranking]
        floor = scores[-1] if len(scores) == longest and scores else 0.0
        spread = pstdev([*scores, *[floor] * (longest - len(scores))]) if longest else 0.0
        for id, score in ranking:
            fused[id] += weight * (score - floor) / spread if spread else 0.0
    return sorted(fused.items(), key=lambda item: -item[1])


def rank_fusion(rankings: Sequence[Ranked], weights: Sequence[float]) -> list[tuple[str, float]]:
    """`reciprocal_rank_fusion` of rankings with scores, which it does not look at."""
    return reciprocal_rank_fusion([[id for id, _ in ranking] for ranking in rankings], weights)


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
