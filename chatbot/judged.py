"""Replies that a person judged -> rows: what was marked good is learned as it stands, a correction in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from chatbot.conversation import Conversation, Turn
from chatbot.errors import UnreadableData
from chatbot.history import read
from chatbot.rows import Row, read_rows


def rows_of(path: Path) -> list[Row]:
    """`path`: rows (JSON lines), one conversation (`.json`), or a folder of conversations.

    Rows of conversations are numbered in the order of files' names. Raises UnreadableData for a file that cannot be
    read, and where no reply was judged.
    """
    if not path.is_dir() and path.suffix != ".json":
        return read_rows(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    rows = [row for file in files for row in judged_rows(read(file))]
    if not rows:
        raise UnreadableData(
            f"{str(path)!r} holds no reply to learn from: in the page, press the thumb up under good replies, or the "
            "thumb down and write what the reply should have said"
        )
    return [replace(row, number=number) for number, row in enumerate(rows, 1)]


def judged_rows(conversation: Conversation) -> Iterator[Row]:
    """The turns that were corrected or marked good, numbered from 1 as they stand in the conversation.

    A reply that abstained and was marked good is a question without an answer. A turn for which nothing was found makes
    no row: there is nothing to read its answer from.
    """
    for number, turn in enumerate(conversation.turns, 1):
        if turn.hits and (turn.correction.strip() or turn.rating == "up"):
            yield _row(number, turn, conversation.turns[: number - 1])


def _row(number: int, turn: Turn, before: Sequence[Turn]) -> Row:
    """The question is the query, which stands alone: the generator learns to answer without what was said before."""
    said = tuple((each.utterance, each.reply.text) for each in before)
    row = Row(number, said, turn.query.question, tuple(hit.passage for hit in turn.hits), ())
    if correction := turn.correction.strip():
        return replace(row, answers=(correction,))
    if turn.reply.abstained:
        return row
    found = {hit.passage.id for hit in turn.hits}
    gold = frozenset(citation.passage_id for citation in turn.reply.citations) & found
    return replace(row, answers=(turn.reply.text,), gold=gold)
