"""The equations, each held against the formula written the slow way, in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from chatbot.rag_token import carry, log_likelihood, log_prior, marginalize, posterior

SEEDS = st.integers(0, 10_000)
EPSILONS = st.sampled_from([0.0, 0.2, 1.0])


def random_reply(seed: int, tokens: int = 4, branches: int = 3, vocabulary: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """log prior (K,), log p(y | z) (T, K, V), and the T tokens of a reply."""
    random = torch.Generator().manual_seed(seed)
    prior = torch.randn(branches, generator=random, dtype=torch.float64).log_softmax(0)
    probs = (3 * torch.randn(tokens, branches, vocabulary, generator=random, dtype=torch.float64)).log_softmax(-1)
    return prior, probs, torch.randint(vocabulary, (tokens,), generator=random)


@given(SEEDS)
def test_the_marginal_is_the_double_loop_over_tokens_and_passages(seed: int) -> None:
    prior, probs, reply = random_reply(seed)
    slow = 1.0
    for step, token in enumerate(reply):
        slow *= sum(math.exp(prior[z]) * math.exp(probs[step, z, token]) for z in range(3))
    fast = sum(marginalize(prior, probs[step])[token] for step, token in enumerate(reply))
    assert math.isclose(float(fast), math.log(slow), rel_tol=1e-9)


@given(SEEDS)
def test_the_mixture_of_distributions_is_a_distribution(seed: int) -> None:
    prior, probs, _ = random_reply(seed)
    assert torch.allclose(marginalize(prior, probs[0]).exp().sum(), torch.tensor(1.0, dtype=torch.float64))


@given(SEEDS)
def test_the_posterior_is_bayes_rule(seed: int) -> None:
    prior, probs, reply = random_reply(seed)
    likelihoods = probs[0, :, reply[0]]
    joint = [math.exp(prior[z]) * math.exp(likelihoods[z]) for z in range(3)]
    expected = torch.tensor([p / sum(joint) for p in joint], dtype=torch.float64)
    assert torch.allclose(posterior(prior, likelihoods).exp(), expected)


@given(SEEDS)
def test_epsilon_zero_is_rag_sequence(seed: int) -> None:
    prior, probs, reply = random_reply(seed)
    likelihoods = torch.stack([probs[step, :, token] for step, token in enumerate(reply)])
    sequence = sum(math.exp(prior[z]) * math.exp(likelihoods[:, z].sum()) for z in range(3))
    assert math.isclose(float(log_likelihood(prior, likelihoods, epsilon=0.0)), math.log(sequence), rel_tol=1e-9)


@given(SEEDS, EPSILONS)
def test_the_likelihood_sums_over_every_path_of_passages(seed: int, epsilon: float) -> None:
    prior, probs, reply = random_reply(seed, tokens=3)
    likelihoods = torch.stack([probs[step, :, token] for step, token in enumerate(reply)]).exp()
    pi, total = prior.exp(), 0.0
    for a in range(3):
        for b in range(3):
            for c in range(3):
                stay = [(1 - epsilon) * (x == y) + epsilon * float(pi[y]) for x, y in ((a, b), (b, c))]
                path = float(pi[a]) * stay[0] * stay[1]
                total += path * float(likelihoods[0, a] * likelihoods[1, b] * likelihoods[2, c])
    assert math.isclose(float(log_likelihood(prior, likelihoods.log(), epsilon)), math.log(total), rel_tol=1e-9)


@given(SEEDS)
def test_the_order_of_the_branches_does_not_matter(seed: int) -> None:
    prior, probs, _ = random_reply(seed)
    turned = torch.tensor([2, 0, 1])
    assert torch.allclose(marginalize(prior, probs[0]), marginalize(prior[turned], probs[0][turned]))


@given(SEEDS)
def test_a_passage_counted_twice_with_its_prior_shared_changes_nothing(seed: int) -> None:
    prior, probs, _ = random_reply(seed)
    shared = torch.cat([prior[:1] - math.log(2), prior[:1] - math.log(2), prior[1:]])
    assert torch.allclose(marginalize(prior, probs[0]), marginalize(shared, probs[0][[0, 0, 1, 2]]))


def test_a_branch_that_cannot_be_changes_nothing() -> None:
    prior, probs, _ = random_reply(0)
    more = torch.cat([prior, torch.tensor([-math.inf], dtype=torch.float64)])
    assert torch.allclose(marginalize(prior, probs[0]), marginalize(more, probs[0][[0, 1, 2, 2]]))


def test_at_epsilon_one_the_weights_are_the_prior_at_every_token() -> None:
    prior, probs, reply = random_reply(0)
    assert torch.equal(carry(posterior(prior, probs[0, :, reply[0]]), prior, epsilon=1.0), prior)


@given(st.lists(st.floats(-1, 1), max_size=6), st.floats(0.01, 1))
def test_the_prior_is_the_softmax_with_no_passage_competing_at_its_own_similarity(
    similarities: list[float], temperature: float
) -> None:
    exponents = [math.exp(s / temperature) for s in [*similarities, 0.25]]
    prior = log_prior(torch.tensor(similarities, dtype=torch.float64), temperature, no_passage=0.25).exp()
    assert prior.tolist() == pytest.approx([e / sum(exponents) for e in exponents])


def test_without_a_passage_all_the_mass_is_on_no_passage() -> None:
    assert log_prior(torch.tensor([]), 0.05, 0.25).exp().tolist() == [1.0]
