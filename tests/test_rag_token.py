"""The equations, each held against the formula written the slow way, in float64."""

import math
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from chatbot.rag_token import (
    carry,
    contrast,
    discount_unsure,
    excluding,
    given_an_answer,
    given_the_question,
    join,
    log_likelihood,
    log_prior,
    marginalize,
    posterior,
    prune,
    smooth,
    to_passages,
)

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


def test_a_passage_of_unknown_similarity_has_no_mass() -> None:
    known = log_prior(torch.tensor([0.5]), 0.05, 0.25).exp().tolist()
    assert log_prior(torch.tensor([0.5, -math.inf]), 0.05, 0.25).exp().tolist() == pytest.approx(
        [known[0], 0.0, known[1]]
    )


@given(SEEDS, st.sampled_from([0.0, 0.05, 0.5, 1.0]))
def test_smoothing_sums_over_every_path_of_passages(seed: int, epsilon: float) -> None:
    prior, probs, reply = random_reply(seed)
    likelihoods = torch.stack([probs[step, :, token] for step, token in enumerate(reply)])
    pi, through = prior.exp().tolist(), torch.zeros(4, 3, dtype=torch.float64)
    for path in product(range(3), repeat=4):
        mass = pi[path[0]] * math.prod(math.exp(likelihoods[i, z]) for i, z in enumerate(path))
        for before, after in pairwise(path):
            mass *= (1 - epsilon) * (before == after) + epsilon * pi[after]
        for i, z in enumerate(path):
            through[i, z] += mass
    expected = through / through.sum(dim=1, keepdim=True)
    assert torch.allclose(smooth(prior, likelihoods, epsilon).exp(), expected, atol=1e-9)


@given(SEEDS)
def test_at_epsilon_one_what_follows_a_token_says_nothing_of_its_passage(seed: int) -> None:
    prior, probs, reply = random_reply(seed)
    likelihoods = torch.stack([probs[step, :, token] for step, token in enumerate(reply)])
    filtered = torch.stack([posterior(prior, step) for step in likelihoods])
    assert torch.allclose(smooth(prior, likelihoods, epsilon=1.0), filtered)


@pytest.mark.parametrize("epsilon", [0.0, 0.2, 1.0])
def test_smoothing_leaves_a_branch_that_was_not_read_without_mass(epsilon: float) -> None:
    prior, probs, reply = random_reply(0)
    likelihoods = torch.stack([probs[step, :, token] for step, token in enumerate(reply)])
    expected = smooth(prior, likelihoods, epsilon).exp()
    more = torch.cat([prior, torch.tensor([-math.inf], dtype=torch.float64)])
    wider = torch.cat([likelihoods, torch.full((4, 1), -math.inf, dtype=torch.float64)], dim=1)
    assert torch.allclose(smooth(more, wider, epsilon).exp(), torch.cat([expected, torch.zeros(4, 1)], dim=1))


def test_a_reply_without_tokens_is_smoothed_to_nothing() -> None:
    assert smooth(torch.zeros(1), torch.empty(0, 1), 0.5).shape == (0, 1)


@given(SEEDS, st.floats(0, 1))
def test_leaving_branches_out_moves_the_next_token_by_at_most_the_dropped_mass(seed: int, least: float) -> None:
    prior, probs, _ = random_reply(seed, branches=5)
    kept, dropped = prune(prior, least)
    whole = marginalize(prior, probs[0]).exp()
    rest = marginalize(torch.log_softmax(prior[kept], 0), probs[0][kept]).exp()
    assert (whole - rest).abs().sum() / 2 <= dropped + 1e-9
    assert dropped == pytest.approx(1 - float(prior[kept].exp().sum()))
    assert all(float(prior[z].exp()) < least for z in range(5) if z not in kept)


@given(SEEDS, st.floats(0, 1))
def test_at_epsilon_zero_the_dropped_mass_bounds_the_whole_reply(seed: int, least: float) -> None:
    prior, probs, _ = random_reply(seed, tokens=3, branches=4, vocabulary=3)
    kept, dropped = prune(prior, least)
    distance = 0.0
    for reply in product(range(3), repeat=3):
        likelihoods = torch.stack([probs[step, :, token] for step, token in enumerate(reply)])
        whole = log_likelihood(prior, likelihoods, epsilon=0.0).exp()
        rest = log_likelihood(torch.log_softmax(prior[kept], 0), likelihoods[:, kept], epsilon=0.0).exp()
        distance += float((whole - rest).abs()) / 2
    assert distance <= dropped + 1e-9


def test_no_passage_and_the_heaviest_branch_are_never_left_out() -> None:
    prior = torch.tensor([0.3, 0.5, 0.2, 0.0], dtype=torch.float64).log()
    assert prune(prior, least=0.9) == ([1, 3], pytest.approx(0.5))
    assert prune(torch.tensor([0.2, 0.0, 0.8]).log(), least=0.0) == ([0, 2], 0.0)
    assert prune(torch.zeros(1), least=0.5) == ([0], 0.0)


def test_where_only_so_many_can_be_read_the_lightest_are_left_out() -> None:
    prior = torch.tensor([0.1, 0.3, 0.25, 0.3, 0.05], dtype=torch.float64).log()
    assert prune(prior, 0.0, most=9) == prune(prior, 0.0, most=5) == ([0, 1, 2, 3, 4], 0.0)
    assert prune(prior, 0.0, most=3) == ([1, 3, 4], pytest.approx(0.35))
    assert prune(prior, 0.0, most=2) == ([1, 4], pytest.approx(0.65))
    assert prune(prior, 0.26, most=2) == ([1, 4], pytest.approx(0.65))
    assert prune(prior, 0.26, most=4) == ([1, 3, 4], pytest.approx(0.35))


@given(SEEDS)
def test_branches_that_read_the_same_are_one_branch_with_their_mass(seed: int) -> None:
    prior, probs, _ = random_reply(seed)
    joined = join(prior, [0, 1, 0])
    assert joined.exp().tolist() == pytest.approx([float(prior[[0, 2]].exp().sum()), float(prior[1].exp()), 0.0])
    same = probs[0][[0, 1, 0]]
    assert torch.allclose(marginalize(joined, same), marginalize(prior, same))


@given(SEEDS, st.floats(0, 2))
def test_contrast_is_its_formula_over_the_plausible_tokens(seed: int, strength: float) -> None:
    prior, probs, _ = random_reply(seed)
    mixture, nothing = marginalize(prior, probs[0]).exp().tolist(), probs[0, 2].exp().tolist()
    raised = [
        p ** (1 + strength) / q**strength if p >= 0.1 * max(mixture) else 0.0
        for p, q in zip(mixture, nothing, strict=True)
    ]
    found = contrast(torch.tensor(mixture).double().log(), torch.tensor(nothing).double().log(), strength).exp()
    assert found.tolist() == pytest.approx([p / sum(raised) for p in raised], rel=1e-6)


def test_contrast_prefers_what_only_a_passage_says_and_bears_the_impossible() -> None:
    mixture, nothing = torch.tensor([0.5, 0.45, 0.05]), torch.tensor([0.9, 0.05, 0.05])
    assert contrast(mixture.log(), nothing.log(), 0.5).argmax() == 1
    impossible = torch.tensor([0.0, 1.0, 0.0])
    assert torch.isfinite(contrast(mixture.log(), impossible.log(), 0.5).exp()).all()


@given(SEEDS, st.floats(0, 3))
def test_an_unsure_branch_loses_votes_by_its_entropy(seed: int, strength: float) -> None:
    prior, probs, _ = random_reply(seed)
    entropies = [-sum(math.exp(p) * float(p) for p in branch) for branch in probs[0]]
    votes = [math.exp(w) * math.exp(-strength * h) for w, h in zip(prior, entropies, strict=True)]
    found = discount_unsure(prior, probs[0], strength).exp().tolist()
    assert found == pytest.approx([vote / sum(votes) for vote in votes])


@given(seed=st.integers(0, 999), weight=st.floats(0, 5))
def test_the_question_counts_by_its_likelihood_relative_to_no_passage(seed: int, weight: float) -> None:
    random = torch.Generator().manual_seed(seed)
    prior = torch.rand(5, generator=random, dtype=torch.float64).log_softmax(0)
    log_question = -3 * torch.rand(5, generator=random, dtype=torch.float64)
    ratios = [math.exp(weight * float(each - log_question[-1])) for each in log_question]
    shares = [float(share.exp()) * ratio for share, ratio in zip(prior, ratios, strict=True)]
    wanted = torch.tensor([share / sum(shares) for share in shares], dtype=torch.float64)
    assert torch.allclose(given_the_question(prior, log_question, weight).exp(), wanted, atol=1e-9)


def test_the_marginal_in_single_precision_is_that_in_double() -> None:
    prior, probs, _ = random_reply(0, tokens=1, branches=6, vocabulary=20_000)
    single = marginalize(prior, probs[0].float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), marginalize(prior, probs[0]), atol=1e-5)


def test_the_marginal_takes_any_number_of_axes_before_the_branches() -> None:
    prior, probs, _ = random_reply(0)
    batch = marginalize(prior.expand(4, 3), probs)
    assert torch.allclose(batch, torch.stack([marginalize(prior, step) for step in probs]))


# The formulas that no test above writes the slow way


@given(st.integers(0, 10_000))
def test_the_weights_given_an_answer_are_bayes_rule(seed: int) -> None:
    prior, _, _ = random_reply(seed)
    refusing = torch.rand(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights = torch.stack([prior, prior.flip(0)])
    for row, refused, mine in zip(weights.exp(), refusing, given_an_answer(weights, refusing.log()).exp(), strict=True):
        slow = [float(weight * (1 - p)) for weight, p in zip(row, refused, strict=True)]
        assert mine.tolist() == pytest.approx([each / sum(slow) for each in slow])


def test_a_branch_that_refuses_for_certain_has_no_weight_unless_all_do() -> None:
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    one = given_an_answer(weights, torch.tensor([0.0, -math.inf, -math.inf], dtype=torch.float64)).exp()
    assert one.tolist() == pytest.approx([0, 0.6, 0.4], abs=1e-9)
    assert given_an_answer(weights, torch.zeros(3, dtype=torch.float64)).exp().tolist() == pytest.approx(
        [0.5, 0.3, 0.2]
    )


@given(st.integers(0, 10_000), st.integers(0, 6))
def test_without_a_token_the_others_keep_their_odds(seed: int, token: int) -> None:
    _, log_probs, _ = random_reply(seed)
    rows = log_probs[0]
    before = rows.clone()
    for row, mine in zip(rows.exp().tolist(), excluding(rows, token).exp().tolist(), strict=True):
        left = 1 - row[token]
        assert mine == pytest.approx([0 if place == token else each / left for place, each in enumerate(row)])
    assert torch.equal(rows, before)


@given(st.integers(0, 10_000))
def test_the_branches_weight_is_given_to_passages_by_their_shares(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    weights = torch.rand(2, generator=random, dtype=torch.float64)
    shares = torch.rand(2, 3, generator=random, dtype=torch.float64)
    slow = [sum(float(weights[b] * shares[b, z]) for b in range(2)) for z in range(3)]
    assert to_passages(weights.log(), shares.log()).exp().tolist() == pytest.approx(slow)


def test_what_is_just_as_likely_as_the_bound_is_kept() -> None:
    weights = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64).log()
    least = float(weights.exp()[0])
    assert prune(weights, least) == ([0, 1, 2], 0.0)
    assert prune(weights, math.nextafter(least, 1))[0] == [1, 2]
    mixture = torch.tensor([-1.0, -1.0 + math.log(0.1), -9.0], dtype=torch.float64)
    raised = contrast(mixture, torch.full((3,), -1.0, dtype=torch.float64), 0.5)
    assert raised[1] > -math.inf and raised[2] == -math.inf


def test_the_prior_is_computed_in_double_precision_throughout() -> None:
    (first, last) = log_prior(torch.tensor([0.5]), 0.05, 0.1).exp().tolist()
    assert last == pytest.approx(1 / (1 + math.exp(8)), rel=1e-12) and first == pytest.approx(1 - last, rel=1e-12)


@given(st.integers(0, 10_000))
def test_unless_told_otherwise_a_passage_is_drawn_anew_for_each_token(seed: int) -> None:
    prior, probs, reply = random_reply(seed)
    likelihoods = torch.stack([step[:, token] for step, token in zip(probs, reply, strict=True)])
    assert torch.equal(log_likelihood(prior, likelihoods), log_likelihood(prior, likelihoods, 1.0))
    assert torch.equal(smooth(prior, likelihoods), smooth(prior, likelihoods, 1.0))
