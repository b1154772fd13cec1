"""Which passages each branch reads, and what share of a branch's weight is each passage's. Pure.

As a rule every branch reads one passage ("apart"). Two other ways of reading are a joint distribution p(b, z | x) over
branches and passages, whose sum over the branches is the prior p(z | x) that retrieval gave:

    "apart+pair"    the two passages of most prior are also read together, in one branch more, for questions that need
                    both: it takes the share s of the prior of each, p(pair, z) = s p(z), p(z alone, z) = (1 - s) p(z)
    "stuffing"      one branch reads all passages, in the order of their rank: p(all, z) = p(z). The usual prompt of
                    a chat with documents, as a baseline

"No passage" is a branch of its own, the last, in each. A branch's weight is given back to its passages by p(z | b),
which is their prior: the generator says how well a branch explains a token, not which of the branch's passages did.
So with "stuffing" the sources of a reply are the prior's, the same for every part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

APART, PAIR, STUFFING = READINGS = ("apart", "apart+pair", "stuffing")


@dataclass(frozen=True, slots=True)
class Branches:
    """B branches over K passages."""

    reads: tuple[tuple[int, ...], ...]  # (B,): the places of the hits that each reads, in order; () last: no passage
    prior: tuple[float, ...]  # (B,): p(b | x)
    shares: tuple[tuple[float, ...], ...]  # (B, K + 1): p(z | b), "no passage" last


def branches(prior: Sequence[float], reading: str = APART, pair_prior: float = 0.5) -> Branches:
    """`prior`: (K + 1,), "no passage" last. `pair_prior`: the share s, in [0, 1]. K = 1 leaves nothing to combine."""
    count = len(prior) - 1
    groups: list[tuple[int, ...]] = [(place,) for place in range(count)]
    weights = list(prior[:-1])
    if reading == STUFFING and count > 1:
        groups, weights = [tuple(range(count))], [sum(prior[:-1])]
    if reading == PAIR and count > 1:
        pair = tuple(sorted(sorted(range(count), key=lambda place: -prior[place])[:2]))
        groups.append(pair)
        weights.append(pair_prior * sum(prior[place] for place in pair))
        for place in pair:
            weights[place] *= 1 - pair_prior
    return Branches(
        (*groups, ()),
        (*weights, prior[-1]),
        (*(_shares(prior, reads) for reads in groups), (*(0.0 for _ in range(count)), 1.0)),
    )


def _shares(prior: Sequence[float], reads: Sequence[int]) -> tuple[float, ...]:
    """p(z | b) of the passages that a branch reads: (K + 1,), by their prior."""
    total = sum(prior[place] for place in reads)
    share = {place: prior[place] / total if total else 1 / len(reads) for place in reads}
    return tuple(share.get(place, 0.0) for place in range(len(prior)))
