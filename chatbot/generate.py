"""Generator + prompts + prior -> the tokens of a reply, one at a time, each with its posterior.

One token is chosen from the mixture and given to every branch. Temperature and repetition penalty act on
the mixture's log-probabilities, not on any branch's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatbot.events import Token
from chatbot.generators.base import Generator
from chatbot.prompt import Prompt
from chatbot.rag_token import carry, marginalize, posterior


@dataclass(frozen=True, slots=True)
class Sampling:
    max_tokens: int = 200
    temperature: float = 0.0  # 0: the likeliest token
    repetition_penalty: float = 1.0  # Keskar et al. 2019, on log-probabilities: 1 is none
    seed: int = 0


GREEDY = Sampling()


def generate(
    generator: Generator,
    prompts: Sequence[Prompt],
    prior: Sequence[float],
    sampling: Sampling = GREEDY,
    epsilon: float = 1.0,
) -> Iterator[Token]:
    """`prior`: (K,) for K prompts, sums to 1; `epsilon`: see `rag_token`.

    Ends at an end token, or at `max_tokens`.
    """
    log_prior = torch.tensor(prior, dtype=torch.float64).log()
    log_weights = log_prior
    decoding = generator.read(prompts)
    random = torch.Generator().manual_seed(sampling.seed)
    chosen: list[int] = []
    while len(chosen) < sampling.max_tokens:
        log_probs = decoding.log_probs().double()
        token = choose(marginalize(log_weights, log_probs), chosen, sampling, random)
        if token in generator.end_tokens:
            return
        log_likelihoods = log_probs[:, token]
        log_posterior = posterior(log_weights, log_likelihoods)
        chosen.append(token)
        yield Token(
            text=decoding.push(token),
            prior=tuple(log_weights.exp().tolist()),
            posterior=tuple(log_posterior.exp().tolist()),
            log_likelihoods=tuple(log_likelihoods.tolist()),
        )
        log_weights = carry(log_posterior, log_prior, epsilon)


def choose(mixture: Tensor, chosen: Sequence[int], sampling: Sampling, random: torch.Generator) -> int:
    """The next token from (V,) log-probabilities of the mixture."""
    if chosen and sampling.repetition_penalty != 1:
        mixture = mixture.clone()
        mixture[list(set(chosen))] *= sampling.repetition_penalty  # they are negative: more so is less likely
    if sampling.temperature == 0:
        return int(mixture.argmax())
    probs = torch.softmax(mixture / sampling.temperature, dim=-1)
    return int(torch.multinomial(probs, 1, generator=random))
