"""Measuring on judged data. Retrieval: BEIR's three files, and the usual metrics as trec_eval defines them.

A query's text may hold a conversation: turns that start with `|user|:` or `|agent|:` at a line's head, the last one
the utterance; or a `history` list beside `text`. Each row of a corpus is one passage.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from chatbot.conversation import Conversation
from chatbot.errors import UnreadableData
from chatbot.history import from_messages
from chatbot.passage import Passage
from chatbot.rows import read_jsonl, read_lines

Run = dict[str, Sequence[tuple[str, float]]]  # query id -> (passage id, score), best first
Judgements = dict[str, dict[str, int]]  # query id -> passage id -> grade
SPEAKER = re.compile(r"^\|(user|agent)\|:", re.MULTILINE)
_GRADE = re.compile(r"-?\d+")


@dataclass(frozen=True, slots=True)
class Topic:
    """A query of a test collection, with what was said before it."""

    id: str
    conversation: Conversation
    utterance: str


def retrieval(
    topics: Sequence[Topic], judgements: Judgements, rank: Callable[[Topic], Sequence[tuple[str, float]]]
) -> tuple[dict[str, float], Run]:
    """(metrics, run: rankings by topic), of topics that are `judged`."""
    run = {topic.id: rank(topic) for topic in topics}
    rows = [metrics([id for id, _ in run[topic.id]], judgements[topic.id]) for topic in topics]
    return {name: fmean(row[name] for row in rows) for name in rows[0]} | {"queries": len(topics)}, run


def judged(topics: Sequence[Topic], judgements: Judgements) -> list[Topic]:
    """Those with a relevant passage: only they count, as in BEIR. Raises UnreadableData where there is none."""
    found = [topic for topic in topics if any(grade > 0 for grade in judgements.get(topic.id, {}).values())]
    if not found:
        raise UnreadableData("no query has a relevant passage in the judgements: check that the ids of the files agree")
    return found


def metrics(ranking: Sequence[str], grades: Mapping[str, int]) -> dict[str, float]:
    """One query's metrics, from passage ids best first and the grade of each judged passage (0: not relevant)."""
    relevant = {id for id, grade in grades.items() if grade > 0}
    found = {f"ndcg@{k}": ndcg(ranking, grades, k) for k in (1, 5, 10)}
    found |= {f"recall@{k}": len(relevant.intersection(ranking[:k])) / len(relevant) for k in (5, 10, 100)}
    first = next((rank for rank, id in enumerate(ranking[:10], start=1) if id in relevant), None)
    return found | {"mrr@10": 1 / first if first else 0.0}


def ndcg(ranking: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """Normalised discounted cumulative gain with the grade as gain (Järvelin and Kekäläinen 2002; trec_eval's)."""
    gains = [max(0, grades.get(id, 0)) for id in ranking[:k]]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k]
    return _discounted(gains) / _discounted(ideal) if ideal else 0.0


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def read_corpus(path: Path) -> Iterator[Passage]:
    for row in read_jsonl(path, "_id"):
        id = str(row["_id"])
        yield Passage(
            id, "corpus", str(row.get("title") or ""), str(row.get("text") or ""), heading=str(row.get("title") or "")
        )


def read_topics(path: Path) -> list[Topic]:
    return [_topic(row, path) for row in read_jsonl(path, "_id", "text")]


def read_judgements(path: Path) -> Judgements:
    """`query-id corpus-id score`, tab-separated, with or without a header; TREC's four columns are read as well."""
    judgements: Judgements = {}
    for number, line in enumerate(read_lines(path), start=1):
        columns = line.split("\t") if "\t" in line else line.split()
        grade = columns[-1].strip()
        if number == 1 and not _GRADE.fullmatch(grade):
            continue
        if len(columns) not in (3, 4) or not _GRADE.fullmatch(grade):
            raise UnreadableData(
                f"{path.name!r} line {number} is not 'query-id<tab>corpus-id<tab>grade': {line[:80]!r}"
            )
        judgements.setdefault(columns[0], {})[columns[-2]] = int(grade)
    return judgements


def write_run(path: Path, run: Run) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(("query-id", "corpus-id", "score"))
            writer.writerows((topic, id, score) for topic, ranking in run.items() for id, score in ranking)
    except OSError as error:
        raise UnreadableData(f"the run cannot be written to {str(path)!r}: {error.strerror}") from error


def _topic(row: Mapping[str, Any], path: Path) -> Topic:
    text, history = str(row["text"]), row.get("history") or []
    try:
        told = [_message(index, turn) for index, turn in enumerate(history)]
        pieces = SPEAKER.split(text)
        if len(pieces) > 1:
            told += [(speaker, words.strip()) for speaker, words in zip(pieces[1::2], pieces[2::2], strict=True)]
            text = told.pop()[1]
        return Topic(str(row["_id"]), from_messages(told), text.strip())
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableData(
            f"{path.name!r}, query {row['_id']!r}: its conversation cannot be read ({error})"
        ) from error


def _message(index: int, turn: Any) -> tuple[str, str]:
    """A turn of `history`: a text (user and assistant by turns), or an object with a role and a text."""
    if isinstance(turn, str):
        return ("user" if index % 2 == 0 else "assistant"), turn
    return turn.get("role") or turn["speaker"], turn["content"] if "content" in turn else turn["text"]
