"""Ways of reading: what each branch reads, and what is given back to passages."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chatbot import attribution
from chatbot.beam import beam
from chatbot.branches import READINGS, branches
from chatbot.conversation import Conversation, Query
from chatbot.events import Token
from chatbot.generate import Mixing, generate
from chatbot.generators.scripted import Scripted
from chatbot.passage import Hit, Passage
from chatbot.prompt import Prompt, answer_prompts
from chatbot.settings import FIELDS

HITS = [
    Hit(Passage("d:1", "d", "a/first.md", "The first is red."), 0.7),
    Hit(Passage("d:2", "d", "second.md", "The second is blue."), 0.6),
    Hit(Passage("d:3", "d", "third.md", "The third is green."), 0.5),
]
QUERY = Query("Which colours?", "Which colours?", "en")
PRIOR = (0.5, 0.3, 0.15, 0.05)
PRIORS = st.lists(st.floats(0.001, 1), min_size=2, max_size=7).map(lambda each: [p / sum(each) for p in each])


def prompts(reading: str) -> list[Prompt]:
    return answer_prompts(Conversation(), QUERY, HITS, branches(PRIOR, reading).reads)


def said(
    reading: str, mixing: Mixing, script: Scripted, prior: tuple[float, ...] = PRIOR, pair_prior: float = 0.5
) -> list[Token]:
    read = branches(prior, reading, pair_prior)
    asked = answer_prompts(Conversation(), QUERY, HITS, read.reads)
    return list(generate(script, asked, read.prior, mixing=mixing, shares=read.shares))


def test_apart_is_what_it_was_without_a_choice() -> None:
    assert prompts("apart") == answer_prompts(Conversation(), QUERY, HITS)
    read = branches(PRIOR)
    assert read.prior == PRIOR
    assert torch.equal(torch.tensor(read.shares), torch.eye(4))


def test_a_pair_is_read_besides_and_takes_its_share_from_its_two() -> None:
    read = branches((0.1, 0.5, 0.3, 0.1), "apart+pair", 0.25)
    assert read.reads == ((0,), (1,), (2,), (1, 2), ())
    assert read.prior == pytest.approx((0.1, 0.375, 0.225, 0.2, 0.1))
    assert read.shares[3] == pytest.approx((0, 0.625, 0.375, 0))
    assert [prompt.passage for prompt in prompts("apart+pair")][3] == "The first is red.\n\nThe second is blue."


def test_stuffing_reads_all_in_the_order_of_their_rank_and_no_passage() -> None:
    read = branches(PRIOR, "stuffing")
    assert read.reads == ((0, 1, 2), ())
    assert read.prior == pytest.approx((0.95, 0.05))
    stuffed, bare = prompts("stuffing")
    assert stuffed.passage == "The first is red.\n\nThe second is blue.\n\nThe third is green."
    assert (stuffed.title, bare.passage) == ("first, second, third", None)


@pytest.mark.parametrize("reading", READINGS)
@given(prior=PRIORS, share=st.floats(0, 1))
def test_over_the_branches_the_prior_is_retrievals_whatever_is_read_together(
    reading: str, prior: list[float], share: float
) -> None:
    read = branches(prior, reading, share)
    joint = torch.tensor(read.prior).unsqueeze(1) * torch.tensor(read.shares)
    assert joint.sum(dim=0).tolist() == pytest.approx(prior)
    assert torch.tensor(read.shares).sum(dim=1).tolist() == pytest.approx([1] * len(read.prior))


@pytest.mark.parametrize("reading", READINGS)
def test_one_passage_and_none_are_read_alike_in_every_way(reading: str) -> None:
    assert branches((0.8, 0.2), reading) == branches((0.8, 0.2))
    assert branches((1.0,), reading).reads == ((),)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_bayes_rule_holds_for_passages_in_every_way_of_reading(reading: str, epsilon: float) -> None:
    for token in said(reading, Mixing(epsilon), Scripted(lambda prompt: prompt.passage or "I don't know")):
        assert len(token.prior) == len(token.posterior) == len(token.log_likelihoods) == 4
        joint = torch.tensor(token.prior) * torch.tensor(token.log_likelihoods).exp()
        assert token.posterior == pytest.approx((joint / joint.sum()).tolist())
        assert sum(token.prior) == pytest.approx(1)


def test_what_only_the_pair_says_is_its_twos_by_their_prior_and_not_the_thirds() -> None:
    def script(prompt: Prompt) -> str:
        both = prompt.passage is not None and "first" in prompt.passage and "second" in prompt.passage
        return "red and blue" if both else "I don't know"

    tokens = said("apart+pair", Mixing(), Scripted(script), (0.6, 0.38, 0.01, 0.01), pair_prior=0.8)
    assert "".join(token.text for token in tokens) == "red and blue"
    first, second, third, _ = tokens[0].posterior
    assert first / second == pytest.approx(0.6 / 0.38)
    assert third < 0.001
    reply = attribution.reply(tokens, HITS)
    assert [citation.passage_id for citation in reply.citations] == ["d:1", "d:2"]


def test_stuffing_cannot_tell_passages_apart_and_gives_the_priors_shares() -> None:
    tokens = said("stuffing", Mixing(), Scripted(lambda prompt: "The second is blue." if prompt.passage else "No"))
    for token in tokens:
        of_passages = sum(token.posterior[:-1])
        assert [weight / of_passages for weight in token.posterior[:-1]] == pytest.approx(
            [weight / sum(PRIOR[:-1]) for weight in PRIOR[:-1]]
        )
        assert token.log_likelihoods[:-1] == pytest.approx([token.log_likelihoods[0]] * 3)
    assert attribution.confidence(tokens) > 0.5


def test_a_branch_that_is_not_read_takes_no_part_in_its_passage() -> None:
    (token, *_) = said("apart+pair", Mixing(least_prior=0.1), Scripted(), (0.7, 0.19, 0.06, 0.05))
    assert token.prior == pytest.approx((0.7 / 0.845, 0.095 / 0.845, 0, 0.05 / 0.845))  # the second: in the pair only
    assert token.log_likelihoods[2] == -math.inf
    assert token.dropped == pytest.approx(0.155)


def test_one_beam_over_a_pair_is_greedy_decoding() -> None:
    read = branches(PRIOR, "apart+pair")
    asked = answer_prompts(Conversation(), QUERY, HITS, read.reads)
    (found,) = beam(Scripted(), asked, read.prior, 1, shares=read.shares)
    assert list(found.tokens) == said("apart+pair", Mixing(), Scripted())


def test_the_setting_offers_every_way_of_reading() -> None:
    assert FIELDS["reading"].metadata["choices"] == READINGS


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.7]), min_size=3, max_size=6), st.floats(0, 1))
def test_the_pair_is_the_two_of_most_prior_in_the_order_of_their_rank(prior: list[float], share: float) -> None:
    read = branches(prior, "apart+pair", share)
    count = len(prior) - 1
    first = max(range(count), key=lambda place: prior[place])
    second = max((place for place in range(count) if place != first), key=lambda place: prior[place])
    pair = (min(first, second), max(first, second))
    assert read.reads == (*((place,) for place in range(count)), pair, ())
    both = prior[first] + prior[second]
    expected = [prior[place] / both if both else 0.5 for place in pair]  # of two of no prior, neither is the likelier
    assert [read.shares[-2][place] for place in pair] == pytest.approx(expected)


def test_two_passages_are_enough_to_be_read_together() -> None:
    assert branches((0.5, 0.4, 0.1), "stuffing").reads == ((0, 1), ())
    assert branches((0.5, 0.4, 0.1), "apart+pair").reads == ((0,), (1,), (0, 1), ())
    assert branches((0.0, 0.0, 0.0, 1.0), "stuffing").shares[0] == pytest.approx((1 / 3, 1 / 3, 1 / 3, 0))
