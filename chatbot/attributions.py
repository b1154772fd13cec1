"""Measuring which passages a reply is said to come from, against those that hold its answer. Pure.

posterior   the passages that the reply cites, by the generator's own posterior: see `attribution`
similarity  the one whose vector is nearest to the reply's
top1        the one that retrieval ranked first
all         every one that was read
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

METHODS = ("posterior", "similarity", "top1", "all")
Named = Mapping[str, frozenset[str]]  # method -> ids of passages


def figures(replies: Sequence[tuple[frozenset[str], Named]]) -> dict[str, dict[str, float]]:
    """Of (gold ids, what each method names), each figure the mean over the replies, in [0, 1]. At least one reply.

    Naming none has a precision of 0.
    """
    return {method: _figures([(gold, named[method]) for gold, named in replies]) for method in METHODS}


def _figures(pairs: Sequence[tuple[frozenset[str], frozenset[str]]]) -> dict[str, float]:
    right = [(len(gold & named), len(gold), len(named)) for gold, named in pairs]
    return {
        "precision": fmean(both / named if named else 0.0 for both, _, named in right),
        "recall": fmean(both / gold for both, gold, _ in right),
        "f1": fmean(2 * both / (gold + named) for both, gold, named in right),
    }
