"""Measuring rewrites against those that people made: exact match, BLEU-4, ROUGE-1 recall, the words added. Pure.

All count terms: words and numbers in lower case, characters of Chinese, Japanese and Korean singly, no punctuation.

exact               share of the rewrites with the person's terms in the person's order
bleu4               of the whole set (Papineni et al. 2002): geometric mean of the precisions of 1 to 4 terms in a row,
                    times the brevity penalty; not smoothed. With one reference and this tokenisation
rouge1_recall       share of the person's terms that the rewrite has (Lin 2004), mean over the rows
added_words_recall  share of the terms that the person's rewrite has and the utterance lacks, repeats counted, that
                    the rewrite has; over the set, since some rows add nothing
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from chatbot.answers import CJK

TERM = re.compile(rf"[{CJK}]|(?:(?![{CJK}])[^\W_])+")
APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")  # "don't" is one word, "Obama's" another than "Obama"
LONGEST = 4  # terms in a row that BLEU-4 looks at


@dataclass(frozen=True, slots=True)
class Rewrite:
    utterance: str
    wanted: str  # a person's rewrite
    got: str


def figures(rewrites: Sequence[Rewrite]) -> dict[str, float]:
    """By the names above, each in [0, 1]. At least one row."""
    triples = [(terms(each.utterance), terms(each.wanted), terms(each.got)) for each in rewrites]
    pairs = [(wanted, got) for _, wanted, got in triples]
    added = [(Counter(wanted) - Counter(utterance), Counter(got)) for utterance, wanted, got in triples]
    return {
        "exact": fmean(wanted == got for wanted, got in pairs),
        "bleu4": bleu(pairs),
        "rouge1_recall": fmean(_recall(wanted, got) for wanted, got in pairs),
        "added_words_recall": sum((wanted & got).total() for wanted, got in added)
        / max(1, sum(wanted.total() for wanted, _ in added)),
        "rows": len(rewrites),
    }


def terms(text: str) -> list[str]:
    return TERM.findall(APOSTROPHE.sub("", unicodedata.normalize("NFKC", text).casefold()))


def bleu(pairs: Sequence[tuple[list[str], list[str]]]) -> float:
    """Of (reference, hypothesis) pairs together."""
    length, longest = sum(len(got) for _, got in pairs), sum(len(wanted) for wanted, _ in pairs)
    precisions = [_precision(pairs, size) for size in range(1, LONGEST + 1)]
    if not all(precisions):
        return 0.0
    return math.exp(min(0.0, 1 - longest / length) + fmean(map(math.log, precisions)))


def _precision(pairs: Sequence[tuple[list[str], list[str]]], size: int) -> float:
    counted = [(_runs(wanted, size), _runs(got, size)) for wanted, got in pairs]
    return sum((wanted & got).total() for wanted, got in counted) / max(1, sum(got.total() for _, got in counted))


def _runs(terms: list[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(terms[start : start + size]) for start in range(len(terms) - size + 1))


def _recall(wanted: list[str], got: list[str]) -> float:
    return (Counter(wanted) & Counter(got)).total() / len(wanted) if wanted else float(not got)
