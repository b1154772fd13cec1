"""Measuring replies against known answers: exact match, F1, abstention, calibration, splices. Pure.

F1 and exact match are SQuAD's (Rajpurkar et al. 2016 and 2018): over words in lower case, without punctuation and
articles; of several answers the best counts; a question without an answer scores 1 where the reply abstains, else 0.
Chinese, Japanese and Korean characters count as words.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean
from typing import Any

from chatbot import attribution
from chatbot.conversation import Reply
from chatbot.events import Token
from chatbot.passage import Hit
from chatbot.rows import Row

BINS = 10  # of the calibration error
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
TERM = re.compile(f"[{CJK}]|[^\\s{CJK}]+")
PUNCTUATION = {ord(character): None for character in f"{string.punctuation}“”‘’，。！？、；：（）《》「」"}
ARTICLES = frozenset(("a", "an", "the"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """A question and what came of it."""

    row: Row
    reply: Reply  # what would be said if nothing were withheld
    abstained: bool  # whether it is
    tokens: tuple[Token, ...] = ()
    hits: tuple[Hit, ...] = ()  # what it was read from, most similar first

    @property
    def right(self) -> float:
        """F1 of what would be said: what the confidence should foretell. 0 for a question without an answer."""
        return max((f1(self.reply.text, answer) for answer in self.row.answers), default=0.0)

    @property
    def f1(self) -> float:
        """With abstaining counted in, as SQuAD 2.0 does."""
        return float(not self.row.answerable) if self.abstained else self.right

    @property
    def exact(self) -> float:
        if self.abstained:
            return float(not self.row.answerable)
        return float(any(terms(self.reply.text) == terms(answer) for answer in self.row.answers))

    def as_json(self) -> dict[str, Any]:
        """What `eval answers --out` writes of it."""
        first = self.tokens[0] if self.tokens else None
        return {
            "row": self.row.number,
            "question": self.row.question,
            "answers": self.row.answers,
            "reply": self.reply.text,
            "abstained": self.abstained,
            "confidence": self.reply.confidence,
            "f1": self.f1,
            "em": self.exact,
            "weights": self.reply.weights,
            "refusing": first.refusing if first else (),
            "prior": first.prior if first else (),
            "gain": attribution.gain(self.tokens) if self.tokens else 0.0,
        }


def figures(outcomes: Sequence[Outcome], epsilon: float = 1.0) -> dict[str, float]:
    """The metrics by name; one that has no questions is left out. `coverage`: the share that got a reply.

    `aurc`: the mean over all coverages of the risk, 1 - F1, of the most confident replies (Geifman and El-Yaniv 2017,
    arXiv 1705.08500); `ece`: how far the confidence is from the share of right replies, over ten bins (Guo et al. 2017,
    arXiv 1706.04599). Both look at what would be said if nothing were withheld.
    """
    answerable = [each for each in outcomes if each.row.answerable]
    unanswerable = [each for each in outcomes if not each.row.answerable]
    replies = [each for each in outcomes if not each.abstained]
    found = {"em": fmean(each.exact for each in outcomes), "f1": fmean(each.f1 for each in outcomes)}
    found |= {"answerable_f1": fmean(each.f1 for each in answerable)} if answerable else {}
    found |= {"unanswerable_f1": fmean(each.f1 for each in unanswerable)} if unanswerable else {}
    found["coverage"] = len(replies) / len(outcomes)
    pairs = [(each.reply.confidence, each.right) for each in outcomes]
    found |= {"aurc": aurc(pairs), "ece": ece(pairs)}
    found |= {"splices_per_reply": fmean(splices(each.tokens, epsilon) for each in replies)} if replies else {}
    return found | {"questions": len(outcomes)}


def terms(text: str) -> list[str]:
    """What is compared."""
    return [term for term in TERM.findall(text.lower().translate(PUNCTUATION)) if term not in ARTICLES]


def f1(reply: str, answer: str) -> float:
    """The harmonic mean of the shares of terms that the two have in common."""
    said, wanted = terms(reply), terms(answer)
    if not said or not wanted:
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted))


def aurc(pairs: Sequence[tuple[float, float]]) -> float:
    """Of (confidence, how right): questions of equal confidence share their mean."""
    by_confidence: dict[float, list[float]] = {}
    for confidence, right in pairs:
        by_confidence.setdefault(confidence, []).append(right)
    ordered = [fmean(by_confidence[each]) for each in sorted(by_confidence, reverse=True) for _ in by_confidence[each]]
    return fmean(1 - total / (index + 1) for index, total in enumerate(accumulate(ordered)))


def ece(pairs: Sequence[tuple[float, float]]) -> float:
    """Of (confidence, how right)."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for confidence, right in pairs:
        bins.setdefault(min(BINS - 1, int(confidence * BINS)), []).append((confidence, right))
    return sum(
        len(each) / len(pairs) * abs(fmean(confidence for confidence, _ in each) - fmean(right for _, right in each))
        for each in bins.values()
    )


def splices(tokens: Sequence[Token], epsilon: float = 1.0) -> int:
    """How often the likeliest source, given the whole reply, is another than at the token before."""
    return sum(before != after for before, after in pairwise(attribution.most_likely_sources(tokens, epsilon)))
