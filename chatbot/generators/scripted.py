"""A generator without weights: each branch says what a script says of its prompt. For tests and for building on.

It decodes like a real one: the vocabulary is the words of all its branches' replies, and each branch
gives `sureness` to its own next word and shares the rest evenly among the others.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from chatbot.generators.base import Decoding
from chatbot.prompt import Prompt

END, REFUSAL = 0, 1
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_WORD = re.compile(r"\w+")
_SPACED_WORD = re.compile(r"(?<!\s)\s*+\S+")


def best_sentence(prompt: Prompt) -> str:
    """The passage's sentence that shares most words with the query; "I don't know." without a passage."""
    sentences = _BETWEEN_SENTENCES.split(prompt.passage or "")
    asked = set(_WORD.findall(prompt.query.lower()))
    shared = [len(asked & set(_WORD.findall(sentence.lower()))) for sentence in sentences]
    return sentences[shared.index(max(shared))].strip() or "I don't know."


class Scripted:
    """`script` says a branch's whole reply, given its prompt. `refusal`: the word that begins a refusal."""

    end_tokens = frozenset({END})

    def __init__(
        self, script: Callable[[Prompt], str] = best_sentence, sureness: float = 0.9, refusal: str | None = None
    ) -> None:
        self.refusal = None if refusal is None else REFUSAL
        self._script = script
        self._sureness = sureness
        self._first = ["", refusal or ""]

    def read(self, prompts: Sequence[Prompt]) -> Decoding:
        replies = [_SPACED_WORD.findall(self._script(prompt)) for prompt in prompts]
        return _Reading(self._first[: 1 if self.refusal is None else 2], replies, self._sureness)


class _Reading:
    def __init__(self, first: list[str], replies: list[list[str]], sureness: float) -> None:
        self._words = list(dict.fromkeys([*first, *(word for reply in replies for word in reply)]))
        self._replies = [[*(self._words.index(word) for word in reply), END] for reply in replies]
        self._sureness = sureness
        self._step = 0

    def log_probs(self) -> Tensor:
        others = (1 - self._sureness) / max(1, len(self._words) - 1)
        probs = torch.full((len(self._replies), len(self._words)), others, dtype=torch.float64)
        for branch, reply in enumerate(self._replies):
            probs[branch, reply[min(self._step, len(reply) - 1)]] = self._sureness
        return (probs / probs.sum(dim=1, keepdim=True)).log()

    def push(self, token: int) -> str:
        self._step += 1
        return self._words[token]

    def fork(self) -> Decoding:
        return copy.copy(self)
