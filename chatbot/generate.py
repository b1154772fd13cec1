"""Generator + prompts + prior -> the tokens of a reply, one at a time, each with its posterior.

One token is chosen from the mixture and given to every branch. What is stopped (`close`) reads no further step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatbot.errors import BrokenModel
from chatbot.events import Token
from chatbot.generators.base import Decoding, Generator
from chatbot.prompt import Prompt
from chatbot.rag_token import (
    carry,
    contrast,
    discount_unsure,
    excluding,
    given_an_answer,
    given_the_question,
    join,
    marginalize,
    posterior,
    prune,
    to_passages,
)
from chatbot.sampling import GREEDY, Sampling, choose, ended


@dataclass(frozen=True, slots=True)
class Mixing:
    """How the branches' votes are joined: the defaults are RAG-Token. See `rag_token`."""

    epsilon: float = 1.0
    least_prior: float = 0.0  # passages of a smaller prior are not read
    contrast: float = 0.0  # times the passages' weight: where "no passage" has it all, there is nothing to contrast
    entropy_weight: float = 0.0
    question_weight: float = 0.0


RAG_TOKEN = Mixing()
Shares = Sequence[Sequence[float]] | None


def generate(
    generator: Generator,
    prompts: Sequence[Prompt],
    prior: Sequence[float],
    sampling: Sampling = GREEDY,
    mixing: Mixing = RAG_TOKEN,
    shares: Shares = None,
) -> Iterator[Token]:
    """`prior`: (B,) for as many prompts, "no passage" last; sums to 1.

    `shares`: (B, K + 1), p(z | b) where a branch reads several passages, see `branches`; None: each reads its own.

    Ends at an end token, before a stop string, after a loop, or at `max_tokens`. Raises BrokenModel for NaN.
    """
    return ended(_tokens(generator, prompts, prior, sampling, mixing, shares), sampling)


def _tokens(
    generator: Generator,
    prompts: Sequence[Prompt],
    prior: Sequence[float],
    sampling: Sampling,
    mixing: Mixing,
    shares: Shares,
) -> Iterator[Token]:
    mixer = Mixer(generator, prompts, prior, mixing, shares)
    decoding = mixer.read()
    log_weights = mixer.log_prior
    random = torch.Generator().manual_seed(sampling.seed)
    chosen: list[int] = []
    while len(chosen) < sampling.max_tokens:
        vote = mixer.vote(decoding, log_weights)
        token = choose(vote.mixture, chosen, sampling, random)
        if token in generator.end_tokens:
            return
        chosen.append(token)
        said, log_weights = mixer.push(decoding, vote, token)
        yield said


@dataclass(frozen=True, slots=True)
class Vote:
    """The branches on the next token; B of them are read."""

    log_weights: Tensor  # (B,), float64
    log_probs: Tensor  # (B, V)
    mixture: Tensor  # (V,): log p(y_i | x, y_<i), as it is chosen from


class Mixer:
    """The branches of one reply that are read, and how they vote. Knows nothing of the reply, so beams share it."""

    def __init__(
        self,
        generator: Generator,
        prompts: Sequence[Prompt],
        prior: Sequence[float],
        mixing: Mixing,
        shares: Shares = None,
    ) -> None:
        log_prior = torch.tensor(prior, dtype=torch.float64).log()
        log_prior = join(log_prior, [prompts.index(prompt) for prompt in prompts])
        most = generator.at_once(prompts) if hasattr(generator, "at_once") else None
        self._generator, self._mixing = generator, mixing
        self._kept, self._dropped = prune(log_prior, mixing.least_prior, most)
        self.prompts = [prompts[branch] for branch in self._kept]
        self.log_prior = torch.log_softmax(log_prior[self._kept], dim=-1)
        given = torch.eye(len(prompts)).tolist() if shares is None else shares
        self._log_shares = torch.tensor(given, dtype=torch.float64)[self._kept].log()
        self._refusing: tuple[float, ...] = ()

    def read(self) -> Decoding:
        """The branches, read. A prior rises with the question's likelihood in its branch and falls with refusing."""
        decoding = self._generator.read(self.prompts)
        log_question: Tensor | None = getattr(decoding, "log_question", None)
        if self._mixing.question_weight and log_question is not None:
            self.log_prior = given_the_question(self.log_prior, log_question.double(), self._mixing.question_weight)
        refusal: int | None = getattr(self._generator, "refusal", None)
        if refusal is None:
            return decoding
        log_refusal = decoding.log_probs()[:, refusal].double()
        of_passages = self._of_passages(self.log_prior, log_refusal)
        self._refusing = tuple(math.exp(each) if each > -math.inf else 1.0 for each in of_passages)
        self.log_prior = given_an_answer(self.log_prior, log_refusal)
        return _Answering(decoding, refusal)

    def vote(self, decoding: Decoding, log_weights: Tensor) -> Vote:
        """Raises BrokenModel where a branch gives NaN."""
        log_probs = decoding.log_probs()
        if self._mixing.entropy_weight:
            log_weights = discount_unsure(log_weights, log_probs, self._mixing.entropy_weight)
        mixture = marginalize(log_weights, log_probs)
        if mixture.max().isnan():
            raise BrokenModel(self._broken(log_probs))
        strength = self._mixing.contrast * (1 - float(log_weights[-1].exp()))
        if strength > 0:
            mixture = contrast(mixture, log_probs[-1], strength)
        return Vote(log_weights, log_probs, mixture)

    def push(self, decoding: Decoding, vote: Vote, token: int) -> tuple[Token, Tensor]:
        """Give the token to every branch: what it says of itself, and the weights (B,) that vote on the next."""
        log_likelihoods = vote.log_probs[:, token].double()
        log_posterior = posterior(vote.log_weights, log_likelihoods)
        said = Token(
            text=decoding.push(token),
            prior=tuple(to_passages(vote.log_weights, self._log_shares).exp().tolist()),
            posterior=tuple(to_passages(log_posterior, self._log_shares).exp().tolist()),
            log_likelihoods=self._of_passages(vote.log_weights, log_likelihoods),
            dropped=self._dropped,
            refusing=self._refusing,
            cut=getattr(decoding, "cut", ()),
        )
        return said, carry(log_posterior, self.log_prior, self._mixing.epsilon)

    def _of_passages(self, log_weights: Tensor, log_likelihoods: Tensor) -> tuple[float, ...]:
        """log p(y_i | x, z, y_<i), the mean over the branches that read z: (B,), (B,) -> (K + 1,), -inf for none.

        So that Bayes' rule holds for passages as it does for branches: posterior ∝ prior times likelihood.
        """
        weights = to_passages(log_weights, self._log_shares)
        likelihoods = to_passages(log_weights + log_likelihoods, self._log_shares) - weights
        return tuple(likelihoods.masked_fill(weights == -math.inf, -math.inf).tolist())

    def _broken(self, log_probs: Tensor) -> str:
        branch = int(log_probs.isnan().any(dim=-1).nonzero()[0])
        places = [place + 1 for place in (self._log_shares[branch] > -math.inf).nonzero().flatten().tolist()]
        name = '"no passage"' if branch == len(log_probs) - 1 else f"passage {' + '.join(map(str, places))}"
        return (
            f"the generator gives NaN in the branch of {name}: its weights are damaged, or overflow in their number "
            "format; fetch them anew, or choose another with --set generator="
        )


class _Answering:
    """Branches whose reply does not begin with the refusal."""

    def __init__(self, decoding: Decoding, refusal: int) -> None:
        self.cut: tuple[str, ...] = getattr(decoding, "cut", ())
        self._decoding = decoding
        self._first: Tensor | None = excluding(decoding.log_probs(), refusal)

    def log_probs(self) -> Tensor:
        return self._decoding.log_probs() if self._first is None else self._first

    def push(self, token: int) -> str:
        self._first = None
        return self._decoding.push(token)

    def fork(self) -> Decoding:
        other = copy.copy(self)
        other._decoding = self._decoding.fork()
        return other
