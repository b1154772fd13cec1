"""Beam search, held to the search through every reply."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from chatbot.beam import Hypothesis, beam
from chatbot.generate import Mixing, generate
from chatbot.generators.base import Generator
from chatbot.generators.causal import Causal
from chatbot.generators.scripted import Scripted
from chatbot.prompt import Prompt
from chatbot.rag_token import log_likelihood
from chatbot.sampling import Sampling

PROMPTS = [
    Prompt("Answer.", "the passage is long", (), "the question"),
    Prompt("Answer.", "text", (), "the question"),
    Prompt("Answer.", None, (), "the question"),
]
PRIOR = [0.5, 0.3, 0.2]
END = 0
EPSILONS = st.sampled_from([0.0, 0.3, 1.0])


class Random:
    """A generator of few tokens whose probabilities depend on the branch and on all that it has read."""

    end_tokens = frozenset({END})

    def __init__(self, seed: int, vocabulary: int = 4) -> None:
        self._seed = seed
        self.vocabulary = vocabulary

    def read(self, prompts: Sequence[Prompt]) -> Random:
        self._passages, self._read = [prompt.passage for prompt in prompts], ""
        return copy.copy(self)

    def log_probs(self) -> Tensor:
        keys = [f"{self._seed} {passage} {self._read}" for passage in self._passages]
        seeds = [torch.Generator().manual_seed(zlib.crc32(key.encode())) for key in keys]
        rows = [torch.randn(self.vocabulary, generator=seed, dtype=torch.float64) for seed in seeds]
        return (2 * torch.stack(rows)).log_softmax(-1)

    def push(self, token: int) -> str:
        self._read += f"{token}"
        return f"{token}"

    def fork(self) -> Random:
        return copy.copy(self)


def every_reply(generator: Random, epsilon: float, longest: int) -> list[tuple[str, float]]:
    """(text, log-probability) of all replies, likeliest first: those that end, and those as long as allowed."""
    found = []
    for length in range(longest + 1):
        for tokens in product(range(1, generator.vocabulary), repeat=length):
            ids = tokens if length == longest else (*tokens, END)
            decoding, rows = generator.read(PROMPTS), []
            for token in ids:
                rows.append(decoding.log_probs()[:, token])
                decoding.push(token)
            prior = torch.tensor(PRIOR, dtype=torch.float64).log()
            found.append(("".join(map(str, tokens)), float(log_likelihood(prior, torch.stack(rows), epsilon))))
    return sorted(found, key=lambda pair: -pair[1])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), EPSILONS)
def test_beams_wide_enough_find_every_reply_in_its_order(seed: int, epsilon: float) -> None:
    expected = every_reply(Random(seed), epsilon, longest=3)
    found = beam(Random(seed), PROMPTS, PRIOR, width=len(expected), max_tokens=3, mixing=Mixing(epsilon))
    assert [hypothesis.text for hypothesis in found] == [text for text, _ in expected]
    assert [hypothesis.log_probability for hypothesis in found] == pytest.approx([value for _, value in expected])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), EPSILONS, st.integers(1, 4))
def test_where_no_beam_is_lost_the_search_stops_no_sooner_than_it_may(seed: int, epsilon: float, width: int) -> None:
    expected = every_reply(Random(seed, vocabulary=2), epsilon, longest=4)[:width]
    found = beam(Random(seed, vocabulary=2), PROMPTS, PRIOR, max(2, width), max_tokens=4, mixing=Mixing(epsilon))
    assert [hypothesis.text for hypothesis in found[:width]] == [text for text, _ in expected]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), EPSILONS, st.integers(1, 4))
def test_a_beam_weighs_what_its_tokens_say_of_themselves(seed: int, epsilon: float, width: int) -> None:
    for each in beam(Random(seed), PROMPTS, PRIOR, width, max_tokens=4, mixing=Mixing(epsilon)):
        if len(each.ids) < 4:
            continue  # it ended, and the end token says nothing of itself
        likelihoods = torch.tensor([token.log_likelihoods for token in each.tokens], dtype=torch.float64)
        prior = torch.tensor(PRIOR, dtype=torch.float64).log()
        assert each.log_probability == pytest.approx(float(log_likelihood(prior, likelihoods, epsilon)))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), EPSILONS)
def test_one_beam_is_greedy_decoding_on_a_random_model(seed: int, epsilon: float) -> None:
    greedy = tuple(generate(Random(seed), PROMPTS, PRIOR, Sampling(max_tokens=6), Mixing(epsilon)))
    (found,) = beam(Random(seed), PROMPTS, PRIOR, 1, max_tokens=6, mixing=Mixing(epsilon))
    assert found.tokens == greedy


@pytest.fixture(params=["scripted", "causal"])
def generator(request: pytest.FixtureRequest, tiny_llama: Path) -> Generator:
    return Scripted() if request.param == "scripted" else Causal(str(tiny_llama))


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_one_beam_is_greedy_decoding(generator: Generator, epsilon: float) -> None:
    greedy = list(generate(generator, PROMPTS, PRIOR, Sampling(max_tokens=6), Mixing(epsilon)))
    (found,) = beam(generator, PROMPTS, PRIOR, 1, max_tokens=6, mixing=Mixing(epsilon))
    assert [token.text for token in found.tokens] == [token.text for token in greedy]
    assert [token.posterior for token in found.tokens] == [pytest.approx(token.posterior) for token in greedy]


def test_beams_of_a_causal_model_weigh_what_reading_them_anew_gives(tiny_llama: Path) -> None:
    generator = Causal(str(tiny_llama))
    found = beam(generator, PROMPTS, PRIOR, 3, max_tokens=4, mixing=Mixing(0.3))
    assert len({hypothesis.ids for hypothesis in found}) == 3
    for hypothesis in found:
        assert hypothesis.log_probability == pytest.approx(weighed(generator, hypothesis), abs=1e-3)


def weighed(generator: Causal, hypothesis: Hypothesis) -> float:
    decoding, rows = generator.read(PROMPTS), []
    for token in hypothesis.ids:
        rows.append(decoding.log_probs()[:, token].double())
        decoding.push(token)
    prior = torch.tensor(PRIOR, dtype=torch.float64).log()
    if len(hypothesis.ids) == 4:
        return float(log_likelihood(prior, torch.stack(rows), 0.3))
    last = decoding.log_probs().double()
    ends = [float(log_likelihood(prior, torch.stack([*rows, last[:, end]]), 0.3)) for end in generator.end_tokens]
    return max(ends, key=lambda value: -abs(value - hypothesis.log_probability))


def test_a_wider_beam_finds_no_less_likely_a_reply(tiny_llama: Path) -> None:
    generator = Causal(str(tiny_llama))
    best = [beam(generator, PROMPTS, PRIOR, width, max_tokens=3)[0].log_probability for width in (1, 12)]
    assert best[1] >= best[0] - 1e-6


def test_replies_that_cannot_be_are_not_found() -> None:
    found = beam(Scripted(lambda prompt: "only this", sureness=1.0), PROMPTS, PRIOR, 5)
    assert [(each.text, each.log_probability) for each in found] == [("only this", pytest.approx(0.0))]
    assert all(math.isfinite(token.log_likelihoods[0]) for token in found[0].tokens)


class Ending(Random):
    """Two of its tokens end a reply."""

    end_tokens = frozenset({0, 1})


def searched(generator: Random, width: int, longest: int) -> list[tuple[str, float]]:
    """Beam search over whole replies, each read anew: after every token the `width` likeliest that have not ended."""
    prior = torch.tensor(PRIOR, dtype=torch.float64).log()

    def weight(ids: tuple[int, ...]) -> float:
        decoding, rows = generator.read(PROMPTS), []
        for token in ids:
            rows.append(decoding.log_probs()[:, token])
            decoding.push(token)
        return float(log_likelihood(prior, torch.stack(rows), 0.3))

    live, ended = [((), 0.0)], []
    for _ in range(longest):
        longer = [((*ids, token), weight((*ids, token))) for ids, _ in live for token in range(generator.vocabulary)]
        longer.sort(key=lambda pair: -pair[1])
        ended += [pair for pair in longer[:width] if pair[0][-1] in generator.end_tokens]
        live = [pair for pair in longer if pair[0][-1] not in generator.end_tokens][:width]
    found = sorted([*ended, *live], key=lambda pair: -pair[1])[:width]
    return [("".join(str(token) for token in ids if token not in generator.end_tokens), value) for ids, value in found]


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 3))
@example(9, 3)  # of these, the candidates of each beam must be more than the width
@example(34, 2)
def test_replies_that_ended_take_no_beam_from_those_that_go_on(seed: int, width: int) -> None:
    expected = searched(Ending(seed, vocabulary=5), width, longest=3)
    found = beam(Ending(seed, vocabulary=5), PROMPTS, PRIOR, width, max_tokens=3, mixing=Mixing(0.3))
    assert [hypothesis.text for hypothesis in found] == [text for text, _ in expected]
    assert [hypothesis.log_probability for hypothesis in found] == pytest.approx([value for _, value in expected])
