"""A generator's training: the marginal likelihood of answers over their passages (Lewis et al. 2020, section 2.4).

    RAG-Token      -log p(y | x, D) = -sum_i log sum_z p(z | x, D) p(y_i | x, z, y_<i)
    RAG-Sequence   -log p(y | x, D) = -log sum_z p(z | x, D) prod_i p(y_i | x, z, y_<i)

p(z | x, D) is the chat's: a softmax over s_z, the similarity over its temperature plus, for a generator that judges its
questions, b log p(q | z) / |q|, b being `question_weight`. What is minimised is the marginal likelihood in all that it
is made of, so the gradient reaches the query encoder and, through p(q | z), the generator: d(-log p) / d s_z =
p(z | x) - p(z | x, y) (for RAG-Token the sum over the tokens), and nothing is held back of it.

A question without an answer has the refusal as its answer. The marginal likelihood alone leaves open what a branch
says whose passage does not hold the answer: others speak for it. Where a row names its `gold` passages, `refusing`
adds -log p(refusal | x, z) of the others, which is what makes a branch's refusal tell something.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chatbot.embedders.base import joined
from chatbot.likelihood import rag_sequence_nll, rag_token_nll
from chatbot.prompt import Prompt
from chatbot.rag_token import given_the_question
from chatbot.train.trainable import Branch, Trainable


@dataclass(frozen=True, slots=True)
class Example:
    """A row, ready: K prompts, with "no passage" last where it is read."""

    number: int  # of the row in its file
    prompts: tuple[Prompt, ...]
    log_prior: tuple[float, ...]  # (K,)
    targets: tuple[int, ...]
    lacking: tuple[int, ...] = ()  # branches whose passage is known not to hold the answer
    group: str = ""  # examples of one group are read together, as they share passages
    query: str = ""  # for a query encoder that is trained along
    vectors: Sequence[Tensor] | Tensor | None = None  # of each passage (P, D), see `Embedder.parts`, or (D,)


@dataclass(frozen=True, slots=True)
class Objective:
    sequence: bool = False  # RAG-Sequence instead of RAG-Token
    smoothing: float = 0.0
    refusing: float = 0.0  # weight of what a branch without the answer is taught


class Prior(nn.Module):
    """log p(z | x) with a gradient to the query encoder, the passages' vectors staying as they are (as in the paper).

    `encode`: a module that takes texts and gives (N, D).
    """

    def __init__(self, encode: nn.Module, temperature: float, no_passage: float) -> None:
        super().__init__()
        self.encode = encode
        self._temperature = temperature
        self._no_passage = no_passage

    def forward(
        self, queries: Sequence[str], vectors: Sequence[Sequence[Tensor] | Tensor], branches: Sequence[int]
    ) -> list[Tensor]:
        """(N,) texts, N times K of (P, D) or (D,), how many branches are read: K, or K + 1 with "no passage".

        A passage's parts are joined as in the chat, see `embedders.base.similarity`.
        """
        found = []
        for query, passages, count in zip(self.encode(list(queries)), vectors, branches, strict=True):
            similarities = [joined(parts.to(query).reshape(-1, len(query)) @ query) for parts in passages]
            scores = torch.stack([*similarities, query.new_tensor(self._no_passage)])[:count]
            found.append(torch.log_softmax(scores / self._temperature, dim=-1))
        return found


class Losses(nn.Module):
    """Wraps the branches, so that its `forward` is what several processes share."""

    def __init__(
        self,
        branches: Trainable,
        refusal: Sequence[int],
        objective: Objective,
        prior: Prior | None = None,
        *,
        question_weight: float = 0.0,
    ) -> None:
        """`prior`: a query encoder that is trained along; without it the examples' own prior is taken.

        `question_weight`: as in the chat, where branches that judge no question leave the prior as it is, too.
        """
        super().__init__()
        self.model = branches.model
        self.prior = prior
        self._branches = branches
        self._refusal = tuple(refusal)
        self._objective = objective
        self._question_weight = question_weight
        self._judged = getattr(branches, "judged", None) if question_weight else None

    def forward(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """(the sum of the losses in nats, the number of target tokens) over the examples."""
        wanted = [
            Branch(prompt, each.targets, judges=len(each.prompts) > 1) for each in examples for prompt in each.prompts
        ]
        lacking = [each.prompts[index] for each in examples for index in each.lacking if self._objective.refusing]
        refusing = [Branch(prompt, self._refusal) for prompt in lacking]
        priors = self._priors(examples)
        told, asked = self._told([*wanted, *refusing])
        losses, at, tokens = [], 0, 0.0
        for each, log_prior in zip(examples, priors, strict=True):
            here = slice(at, at + len(each.prompts))
            log_probs = torch.stack(told[here])
            at += len(each.prompts)
            tokens += len(each.targets)
            losses.append(self._marginal(each, self._given(log_prior.to(log_probs.device), asked[here]), log_probs))
        for log_probs in told[at:]:
            targets = torch.tensor(self._refusal, device=log_probs.device)
            losses.append(-self._objective.refusing * log_probs.gather(-1, targets[:, None]).sum())
            tokens += self._objective.refusing * len(self._refusal)
        return torch.stack(losses).sum(), torch.tensor(float(tokens))

    def _told(self, branches: Sequence[Branch]) -> tuple[list[Tensor], list[Tensor | None]]:
        """Of each branch: (T, V), log p of its targets; (), log p of its question, where it judges that."""
        if self._judged is None:
            return self._branches.log_probs(branches), [None] * len(branches)
        told = self._judged(branches)
        return [log_probs for log_probs, _ in told], [log_question for _, log_question in told]

    def _given(self, log_prior: Tensor, log_question: Sequence[Tensor | None]) -> Tensor:
        """The prior given the question, if it was judged: (K,), K of () -> (K,)."""
        judged = [each for each in log_question if each is not None]
        if len(judged) < len(log_question):
            return log_prior
        return given_the_question(log_prior, torch.stack(judged), self._question_weight)

    def _priors(self, examples: Sequence[Example]) -> list[Tensor]:
        """A query encoder's for those that searched; the others, such as greetings, have one branch."""
        priors = [torch.tensor(each.log_prior, dtype=torch.float32) for each in examples]
        searched = {place: each.vectors for place, each in enumerate(examples) if each.vectors is not None}
        if self.prior is None or not searched:
            return priors
        asked = [examples[place] for place in searched]
        found = self.prior(
            [each.query for each in asked], list(searched.values()), [len(each.prompts) for each in asked]
        )
        for place, prior in zip(searched, found, strict=True):
            priors[place] = prior
        return priors

    def _marginal(self, example: Example, log_prior: Tensor, log_probs: Tensor) -> Tensor:
        """(K,), (K, T, V) -> ()."""
        nll = rag_sequence_nll if self._objective.sequence else rag_token_nll
        targets = torch.tensor([example.targets], device=log_probs.device)
        mask = torch.ones_like(targets, dtype=torch.bool)
        return nll(
            log_prior.unsqueeze(0),
            log_probs.unsqueeze(0),
            targets,
            mask,
            self._objective.smoothing,
        ).squeeze(0)


def batches(examples: Sequence[Example], size: int, seed: int) -> list[list[Example]]:
    """One epoch: examples of a group together, as they share passages, groups and their parts in a random order."""
    chance = random.Random(seed)
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)
    made: list[list[Example]] = []
    loose: list[Example] = []
    for members in groups.values():
        chance.shuffle(members)
        cut = len(members) - len(members) % size
        made += [members[start : start + size] for start in range(0, cut, size)]
        loose += members[cut:]  # the rests are joined, still group by group
    made += [loose[start : start + size] for start in range(0, len(loose), size)]
    chance.shuffle(made)
    return made
