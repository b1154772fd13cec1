"""The words put to a generator, per language. A prompt keeps its parts apart, in the order they are read."""

from __future__ import annotations

from dataclasses import dataclass

from chatbot.conversation import Conversation


@dataclass(frozen=True, slots=True)
class Prompt:
    """One branch. What stands before `conversation` depends on the passage alone, so it can be cached."""

    instruction: str
    passage: str | None  # None: the "no passage" branch
    conversation: tuple[tuple[str, str], ...]  # (utterance, reply), oldest first
    query: str
    opening: str = ""  # the words with which the reply has begun already
