"""What the page shows of a conversation: its turns, the one in progress, and those that were stopped or failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from chatbot import EVERYTHING, Conversation, Passage, Scope
from ui import render
from ui.i18n import Texts, said
from ui.run import Progress, Run, View


@dataclass(frozen=True, slots=True)
class Asking:
    """The turn that is being answered; `after` is the conversation that it continues.

    `key`: under which the conversation is kept, empty where none is; `known`: what is known to be stored there.
    """

    utterance: str
    after: Conversation
    words: Texts  # of who asked
    searched: str = ""  # what to search for, where the person wrote it
    scope: Scope = EVERYTHING  # what of the documents the person chose to search
    key: str = ""
    known: Conversation = field(default_factory=Conversation)
    run: Run = field(default_factory=Run)
    view: View = field(default_factory=View)


@dataclass(frozen=True, slots=True)
class Aside:
    """A turn that was stopped or failed, and after how many turns of the conversation it happened."""

    after: int
    id: str  # of its run
    utterance: str
    note: str
    progress: Progress = field(default_factory=Progress)


def messages(
    conversation: Conversation,
    asides: Sequence[Aside],
    words: Texts,
    asking: Asking | None = None,
) -> list[dict[str, str]]:
    """What gradio's Chatbot shows."""
    exchanges: list[tuple[str, str]] = []
    open_to_change = asking is None and not any(aside.after == len(conversation.turns) for aside in asides)
    for number, turn in enumerate([*conversation.turns, None]):
        for aside in asides:
            if aside.after == number:
                come = aside.progress
                exchanges.append((aside.utterance, render.broken_off(come.query, come.text, aside.note, words)))
        if turn is not None:
            last = open_to_change and number == len(conversation.turns) - 1
            exchanges.append((turn.utterance, render.reply(turn, number, words, last)))
    if asking is not None:
        come = asking.run.progress
        unfinished = render.unfinished(come.query, come.text, waiting(come, 0, words), words, asking.run.id)
        exchanges.append((asking.utterance, unfinished))
    return [
        {"role": role, "content": content}
        for utterance, reply in exchanges
        for role, content in (("user", render.utterance(utterance)), ("assistant", reply))
    ]


def waiting(come: Progress, ahead: int, words: Texts) -> str:
    """What a reply waits for before its first word. `ahead`: how many wait before it."""
    if ahead:
        return words["ahead"].format(count=ahead)
    return words["reading" if come.hits else "thinking"]


def coming_value(asking: Asking, come: Progress, ahead: int, beat: int) -> dict[str, Any]:
    """What the page's script is told of a reply that comes; gradio sends what is new of it."""
    words = asking.words
    return {
        "run": asking.run.id,
        "turn": len(asking.after.turns),
        "head": render.searched(come.query, words),
        "waiting": waiting(come, ahead, words),
        "text": render.visible(come.text),
        "weights": come.shares.mean,
        "beat": beat,
    }


def passage_at(
    conversation: Conversation, asides: Sequence[Aside], asking: Asking | None, turn: object, source: object
) -> Passage | None:
    """The passage of a source's card; `turn` counts from 0, `source` from 1, as the page sends them."""
    turns = conversation.turns
    if not isinstance(turn, int) or not isinstance(source, int) or not 0 <= turn <= len(turns):
        return None
    begun = [aside.progress for aside in asides if aside.after == turn] + [
        each.run.progress for each in (asking,) if each is not None
    ]
    hits = turns[turn].hits if turn < len(turns) else begun[-1].hits if begun else ()
    return hits[source - 1].passage if 1 <= source <= len(hits) else None


def running(asking: Asking | None) -> bool:
    """Whether the session waits for it: until its end is drawn, or the session has turned to something else."""
    return asking is not None and not asking.view.left


def noted(note: str, words: Texts) -> str:
    """Why no reply comes: see `ui.run.Broken`."""
    return words[note] if note in words else said(note, words)


def without_last(conversation: Conversation, asides: tuple[Aside, ...]) -> tuple[Conversation, tuple[Aside, ...], str]:
    """The thread without its last exchange, and what was asked in it."""
    if asides and asides[-1].after == len(conversation.turns):
        return conversation, asides[:-1], asides[-1].utterance
    if not conversation.turns:
        return conversation, asides, ""
    return Conversation(conversation.turns[:-1]), asides, conversation.turns[-1].utterance
