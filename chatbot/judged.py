"""Replies that a person judged -> rows: what was marked good is learned as it stands, a correction in its place."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from chatbot.conversation import Conversation, Turn
from chatbot.errors import UnreadableData
from chatbot.history import History, read
from chatbot.rows import Row, read_rows

log = logging.getLogger(__name__)


def rows_of(path: Path) -> list[Row]:
    """`path`: rows (JSON lines), one conversation (`.json`), a folder of them, or a home's `conversations.sqlite`.

    Rows of conversations are numbered in the order of files' names, or of keys. Raises UnreadableData for a file that
    cannot be read, and where no reply was judged.
    """
    of_home = path.with_name(f"{path.name}.sqlite")  # beside the folder where an earlier version kept them
    if path.suffix == ".sqlite" or (of_home.exists() and not path.is_file()):
        conversations = _kept(History(path.with_suffix("")))
    elif path.is_dir() or path.suffix == ".json":
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        conversations = [read(file) for file in files]
    else:
        return read_rows(path)
    rows = [row for conversation in conversations for row in judged_rows(conversation)]
    if not rows:
        raise UnreadableData(
            f"{str(path)!r} holds no reply to learn from: in the page, press the thumb up under good replies, or the "
            "thumb down and write what the reply should have said"
        )
    return [replace(row, number=number) for number, row in enumerate(rows, 1)]


def _kept(history: History) -> list[Conversation]:
    found = []
    for key in sorted(key for key, *_ in history.list()):
        try:
            found.append(history.load(key))
        except UnreadableData as error:
            log.warning("left out: %s", error)
    return [conversation for conversation in found if conversation is not None]


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
