"""Beam search over the mixture: the likeliest replies as wholes. Not streamed.

Each beam has branches of its own, since they have read its tokens, and weights of its own. Beams are compared by
their log-probability alone: no bonus for length, no stop strings, no repetition penalty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatbot.events import Token
from chatbot.generate import RAG_TOKEN, Mixer, Mixing, Shares, Vote
from chatbot.generators.base import Decoding, Generator
from chatbot.prompt import Prompt

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Hypothesis:
    tokens: tuple[Token, ...] = ()
    ids: tuple[int, ...] = ()  # without the end token
    log_probability: float = 0.0  # in nats, with the end token's where it ended

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


@dataclass(frozen=True, slots=True)
class _Beam:
    hypothesis: Hypothesis
    decoding: Decoding
    log_weights: Tensor  # (B,)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A beam and one token more."""

    beam: _Beam
    vote: Vote
    token: int
    log_probability: float


def beam(
    generator: Generator,
    prompts: Sequence[Prompt],
    prior: Sequence[float],
    width: int,
    *,
    max_tokens: int = 200,
    mixing: Mixing = RAG_TOKEN,
    shares: Shares = None,
) -> list[Hypothesis]:
    """At most `width` replies, likeliest first; width 1 is greedy decoding. Arguments as for `generate`."""
    mixer, ends = Mixer(generator, prompts, prior, mixing, shares), generator.end_tokens
    decoding = mixer.read()
    live = [_Beam(Hypothesis(), decoding, mixer.log_prior)]
    ended: list[Hypothesis] = []
    for _ in range(max_tokens):
        candidates = [each for one in live for each in _candidates(one, mixer, width + len(ends))]
        candidates.sort(key=lambda candidate: -candidate.log_probability)
        ended += [_ended(each) for each in candidates[:width] if each.token in ends]
        ended.sort(key=lambda hypothesis: -hypothesis.log_probability)
        going_on = [each for each in candidates if each.token not in ends][:width]
        if not going_on or (len(ended) >= width and ended[width - 1].log_probability >= going_on[0].log_probability):
            return ended[:width]  # none can overtake these: a reply only loses by going on
        live = _advanced(going_on, mixer)
    whole = [*ended, *(one.hypothesis for one in live)]
    return sorted(whole, key=lambda hypothesis: -hypothesis.log_probability)[:width]


def _candidates(one: _Beam, mixer: Mixer, count: int) -> Iterator[_Candidate]:
    """The likeliest next tokens."""
    vote = mixer.vote(one.decoding, one.log_weights)
    best = vote.mixture.double().topk(min(count, len(vote.mixture)))
    for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        if value > -math.inf:
            yield _Candidate(one, vote, token, one.hypothesis.log_probability + value)


def _ended(candidate: _Candidate) -> Hypothesis:
    before = candidate.beam.hypothesis
    return Hypothesis(before.tokens, before.ids, candidate.log_probability)


def _advanced(candidates: Sequence[_Candidate], mixer: Mixer) -> list[_Beam]:
    """A beam's own branches go on with its last candidate, copies of them with the others."""
    parents = [candidate.beam.decoding for candidate in candidates]
    decodings = [
        parent.fork() if any(parent is later for later in parents[place + 1 :]) else parent
        for place, parent in enumerate(parents)
    ]
    beams = []
    for candidate, decoding in zip(candidates, decodings, strict=True):
        said, log_weights = mixer.push(decoding, candidate.vote, candidate.token)
        before = candidate.beam.hypothesis
        longer = Hypothesis((*before.tokens, said), (*before.ids, candidate.token), candidate.log_probability)
        beams.append(_Beam(longer, decoding, log_weights))
    return beams
