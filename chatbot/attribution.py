"""Posteriors -> citations, weights, confidence, abstention. Pure.

A token's own posterior misleads: function words follow the prior, and after a name's first token every branch
predicts the rest. So a span is attributed by all its tokens together: if one branch z wrote the whole span,

    p(z | span) ∝ a(z) prod_{i in span} l_i(z)          a: the weights before the span's first token

which is the posterior of `rag_token` with epsilon = 0 inside the span. That says which passage, not whether any:
with a sure prior a passage has all the mass of words that it never held. So a citation weighs

    weight = p(z | span) * evidence(span)

where the evidence is what the passages add over "no passage": words that the generator would have said
anyway, invented or commonplace, cite nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from chatbot.conversation import Citation, Reply
from chatbot.events import Token
from chatbot.language import sentence_ends
from chatbot.passage import Hit
from chatbot.rag_token import posterior, smooth

LEAST_WEIGHT = 0.2  # a passage with less of a span is not cited for it


def reply(tokens: Sequence[Token], hits: Sequence[Hit], epsilon: float = 1.0) -> Reply:
    """The reply that these tokens spell, with the passages its spans came from. `epsilon`: as it was generated."""
    raw = "".join(token.text for token in tokens)
    text = raw.strip()
    lead = len(raw) - len(raw.lstrip())
    citations = [
        Citation(start - lead, end - lead, hits[branch].passage.id, weight)
        for start, end in spans(raw)
        for branch, weight in _sources(_within(tokens, start, end))
    ]
    return Reply(text, tuple(citations), mean_posterior(tokens, epsilon), confidence(tokens))


def spans(text: str) -> list[tuple[int, int]]:
    """[start, end) of each sentence, without the white space around it."""
    cuts = [0, *sentence_ends(text), len(text)]
    found = []
    for start, end in pairwise(cuts):
        sentence = text[start:end]
        if sentence.strip():
            found.append((start + len(sentence) - len(sentence.lstrip()), start + len(sentence.rstrip())))
    return found


def mean_posterior(tokens: Sequence[Token], epsilon: float = 1.0) -> tuple[float, ...]:
    """(K + 1,), "no passage" last: the sources' weights in the reply as a whole.

    Where passages stay from token to token (epsilon < 1), each token's posterior is given the whole reply: what
    follows a word says which passage it came from, too.
    """
    return tuple(_smoothed(tokens, epsilon).mean(dim=0).tolist()) if tokens else ()


def most_likely_sources(tokens: Sequence[Token], epsilon: float = 1.0) -> list[int]:
    """(T,) the branch of most weight at each token, given the whole reply; K is "no passage"."""
    return [int(branch) for branch in _smoothed(tokens, epsilon).argmax(dim=-1)] if tokens else []


def _smoothed(tokens: Sequence[Token], epsilon: float) -> Tensor:
    """(T, K + 1)."""
    if epsilon == 1:
        return torch.tensor([token.posterior for token in tokens], dtype=torch.float64)
    log_prior = torch.tensor(tokens[0].prior, dtype=torch.float64).log()
    likelihoods = torch.tensor([token.log_likelihoods for token in tokens], dtype=torch.float64)
    return smooth(log_prior, likelihoods, epsilon).exp()


def confidence(tokens: Sequence[Token]) -> float:
    """How far the reply can be relied on, in [0, 1].

    Of a generator trained to refuse: the probability that a passage answers, times the mean probability of the tokens.
    Of any other: what the passages add, `evidence`.
    """
    if not tokens or not tokens[0].refusing:
        return evidence(tokens)
    return answerable(tokens) * math.exp(sum(map(_log_marginal, tokens)) / len(tokens))


def answerable(tokens: Sequence[Token]) -> float:
    """sum_z p(z | x) p(no refusal | x, z) over the passages, in [0, 1]; 1 for a generator that knows no refusal.

    It is known from the first token on, whose weights a(z) are p(z | x) times p(no refusal | x, z), normalised.
    """
    if not tokens or not tokens[0].refusing:
        return 1.0
    first = tokens[0]
    pairs = [(weight, refusing) for weight, refusing in zip(first.prior, first.refusing, strict=True) if weight > 0]
    total = sum(weight / max(1e-12, 1 - refusing) for weight, refusing in pairs)
    return (1 - first.prior[-1]) / total


def evidence(tokens: Sequence[Token]) -> float:
    """How much likelier the passages make the reply than no passage does, in [0, 1): 1 - exp(-gain), at least 0."""
    return 1 - math.exp(-max(0.0, gain(tokens)))


def gain(tokens: Sequence[Token]) -> float:
    """The mean over the tokens of log p(y_i | x, D) - log p(y_i | x, no passage), in nats."""
    if not tokens:
        return 0.0
    return sum(_log_marginal(token) - token.log_likelihoods[-1] for token in tokens) / len(tokens)


def _log_marginal(token: Token) -> float:
    """log p(y_i | x, y_<i) = log a(z) + log l(z) - log w(z), for the branch of most weight."""
    branch = max(range(len(token.posterior)), key=token.posterior.__getitem__)
    return math.log(token.prior[branch]) + token.log_likelihoods[branch] - math.log(token.posterior[branch])


def _sources(tokens: Sequence[Token]) -> list[tuple[int, float]]:
    """(branch, weight) of the passages that wrote these tokens, most weight first."""
    weights = torch.tensor(tokens[0].prior, dtype=torch.float64).log()
    likelihoods = torch.tensor([token.log_likelihoods for token in tokens], dtype=torch.float64).sum(dim=0)
    shares = (posterior(weights, likelihoods).exp() * evidence(tokens)).tolist()
    cited = [(branch, share) for branch, share in enumerate(shares[:-1]) if share >= LEAST_WEIGHT]
    return sorted(cited, key=lambda pair: -pair[1])


def _within(tokens: Sequence[Token], start: int, end: int) -> list[Token]:
    """The tokens that share a character with [start, end); one that reaches over a sentence's end is of both."""
    ends = list(accumulate(len(token.text) for token in tokens))
    return [token for token, stop in zip(tokens, ends, strict=True) if stop > start and stop - len(token.text) < end]
