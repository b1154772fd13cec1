"""JSON lines, and the rows that a generator learns from and is measured on.

A row: {history, question, passages, answer or answers, answerable}. `passages`: [{id, title, text}], or left out: they
are then retrieved. `gold`: the ids of those that hold the answer, where that is known. Rows of rewrites, {history,
utterance, rewrite}, are read as a question and its answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatbot.errors import UnreadableData
from chatbot.passage import Passage


@dataclass(frozen=True, slots=True)
class Row:
    number: int  # from 1, in its file
    history: tuple[tuple[str, str], ...]  # (utterance, reply), oldest first
    question: str
    passages: tuple[Passage, ...]  # none: to be retrieved
    answers: tuple[str, ...]  # what may be said; the first is learned. None for a question without an answer
    gold: frozenset[str] = frozenset()  # ids of passages
    kind: str = "answer"  # or "rewrite": the answer is the question rewritten; "reply": to what is no question

    @property
    def answerable(self) -> bool:
        return bool(self.answers)


def read_rows(path: Path) -> list[Row]:
    """Raises UnreadableData, with the row's number, for a field that is missing or of another kind."""
    rows = [_row(number, row, path) for number, row in enumerate(read_jsonl(path), start=1)]
    if not rows:
        raise UnreadableData(f"{path.name!r} holds no rows")
    return rows


def _row(number: int, row: Mapping[str, Any], path: Path) -> Row:
    def wrong(what: str) -> UnreadableData:
        return UnreadableData(f"{path.name!r} row {number} {what}")

    def texts(name: str, value: object) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise wrong(f"has {name!r} = {str(value)[:60]!r}: it must be a list of texts")
        return value

    question = row.get("question", row.get("utterance"))
    if not isinstance(question, str) or not question.strip():
        raise wrong("has no 'question'")
    told = texts("history", row.get("history") or [])
    if len(told) % 2:
        raise wrong(f"has a 'history' of {len(told)} texts: it must hold utterance and reply by turns")
    given = row.get("passages") or []
    if not isinstance(given, list):
        raise wrong("has 'passages' that are not a list")
    passages = tuple(_passage(each, index, wrong) for index, each in enumerate(given))
    answers = _answers(row, texts, wrong)
    kind = next((kind for kind in ("rewrite", "reply") if row.get(kind)), "answer")
    gold = frozenset(texts("gold", row.get("gold") or []))
    if unknown := gold - {passage.id for passage in passages}:
        raise wrong(f"has 'gold' = {sorted(unknown)[0]!r}, which is none of its passages")
    return Row(number, tuple(zip(told[::2], told[1::2], strict=True)), question.strip(), passages, answers, gold, kind)


def _passage(given: object, index: int, wrong: Any) -> Passage:
    text = given.get("text") if isinstance(given, dict) else given
    if not isinstance(text, str) or not text.strip():
        raise wrong(f"has an empty passage, its {index + 1}.: leave it out, or give it a 'text'")
    title, id = "", str(index)
    if isinstance(given, dict):
        title, id = str(given.get("title") or ""), str(given.get("id") or index)
    return Passage(id, title or id, title or id, text, heading=title)


def _answers(row: Mapping[str, Any], texts: Any, wrong: Any) -> tuple[str, ...]:
    one = row.get("rewrite") or row.get("answer") or row.get("reply")  # QReCC's rows have an answer besides
    given = [one] if one else row.get("answers") or []
    answers = tuple(answer for answer in texts("answers", given) if answer.strip())
    answerable = row.get("answerable", bool(answers))
    if not isinstance(answerable, bool):
        raise wrong(f"has 'answerable' = {answerable!r}: write true or false")
    if answerable and not answers:
        raise wrong("has no 'answer' though it is answerable")
    return answers if answerable else ()


def messages(row: Row) -> Sequence[tuple[str, str]]:
    """What was said before, as (role, text)."""
    return [pair for said, replied in row.history for pair in (("user", said), ("assistant", replied))]


def read_jsonl(path: Path, *needed: str) -> Iterator[dict[str, Any]]:
    """Objects that have the needed fields. Raises UnreadableData, naming the line, for anything else."""
    for number, line in enumerate(read_lines(path), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UnreadableData(f"{path.name!r} line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UnreadableData(f"{path.name!r} line {number} is no JSON object")
        if missing := [field for field in needed if field not in row]:
            raise UnreadableData(f"{path.name!r} line {number} has no {missing[0]!r}")
        yield row


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    try:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise UnreadableData(f"{str(path)!r} cannot be written: {error.strerror}") from error


def read_lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from (line.rstrip("\r\n") for line in file if line.strip())
    except OSError as error:
        raise UnreadableData(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnreadableData(f"{str(path)!r} is not UTF-8: {error}") from error
