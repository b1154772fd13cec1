"""What the page shows of a conversation: its turns, the one in progress, and those that were stopped or failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from chatbot import EVERYTHING, Conversation, Hit, Passage, Query, Scope
from ui import render
from ui.i18n import Texts
from ui.run import Run


@dataclass(frozen=True, slots=True)
class Asking:
    """The turn that is being answered, as far as it has come; `after` is the conversation that it continues."""

    utterance: str
    after: Conversation
    searched: str = ""  # what to search for, where the person wrote it
    scope: Scope = EVERYTHING  # what of the documents the person chose to search
    query: Query | None = None
    hits: tuple[Hit, ...] = ()
    text: str = ""
    run: Run = field(default_factory=Run)


@dataclass(frozen=True, slots=True)
class Aside:
    """A turn that was stopped or failed, and after how many turns of the conversation it happened."""

    after: int
    asked: Asking
    note: str


def messages(
    conversation: Conversation,
    asides: Sequence[Aside],
    words: Texts,
    asking: Asking | None = None,
    waiting: str = "",
) -> list[dict[str, str]]:
    """What gradio's Chatbot shows. `waiting`: what the turn in progress waits for before its first word."""
    exchanges: list[tuple[str, str]] = []
    open_to_change = asking is None and not any(aside.after == len(conversation.turns) for aside in asides)
    for number, turn in enumerate([*conversation.turns, None]):
        for aside in asides:
            if aside.after == number:
                asked = aside.asked
                exchanges.append((asked.utterance, render.broken_off(asked.query, asked.text, aside.note, words)))
        if turn is not None:
            last = open_to_change and number == len(conversation.turns) - 1
            exchanges.append((turn.utterance, render.reply(turn, number, words, last)))
    if asking is not None:
        exchanges.append((asking.utterance, render.unfinished(asking.query, asking.text, waiting, words)))
    return [
        {"role": role, "content": content}
        for utterance, reply in exchanges
        for role, content in (("user", render.utterance(utterance)), ("assistant", reply))
    ]


def passage_at(
    conversation: Conversation, asides: Sequence[Aside], asking: Asking | None, turn: object, source: object
) -> Passage | None:
    """The passage of a source's card; `turn` counts from 0, `source` from 1, as the page sends them."""
    turns = conversation.turns
    if not isinstance(turn, int) or not isinstance(source, int) or not 0 <= turn <= len(turns):
        return None
    begun = [aside.asked for aside in asides if aside.after == turn] + [asking] * (asking is not None)
    hits = turns[turn].hits if turn < len(turns) else begun[-1].hits if begun else ()
    return hits[source - 1].passage if 1 <= source <= len(hits) else None


def running(asking: Asking | None) -> bool:
    return asking is not None and not asking.run.stopped


def without_last(conversation: Conversation, asides: tuple[Aside, ...]) -> tuple[Conversation, tuple[Aside, ...], str]:
    """The thread without its last exchange, and what was asked in it."""
    if asides and asides[-1].after == len(conversation.turns):
        return conversation, asides[:-1], asides[-1].asked.utterance
    if not conversation.turns:
        return conversation, asides, ""
    return Conversation(conversation.turns[:-1]), asides, conversation.turns[-1].utterance
