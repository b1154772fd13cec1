"""The equations of RAG-Token (Lewis et al. 2020, arXiv 2005.11401), in log space. Pure: tensors in, tensors out.

    p(y | x) = prod_i  sum_z  p(z | x) p(y_i | x, z, y_<i)                         z: K passages and "no passage"

The passage behind token i is a hidden state z_i. It stays what it was with probability 1 - epsilon and is
drawn anew from the prior pi with probability epsilon:

    a_i = (1 - epsilon) w_{i-1} + epsilon pi          the weights that the branches vote with
    p(y_i | x, y_<i) = sum_z a_i(z) l_i(z)            l_i(z) = p(y_i | x, z, y_<i)
    w_i(z) = a_i(z) l_i(z) / p(y_i | x, y_<i)         the posterior; w_0 = pi

At epsilon = 1 this is RAG-Token and nothing else; at epsilon = 0 it is RAG-Sequence, decoded left to right.

Weights and likelihoods are natural logarithms throughout. Branches are the last axis but one of (..., K, V)
and the last of (..., K); -inf stands for a branch that cannot be. No model, sampling or text is known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def log_prior(similarities: Tensor, temperature: float, no_passage: float) -> Tensor:
    """log p(z | x) from cosine similarities: (K,) -> (K + 1,), "no passage" last.

    A softmax of similarity / temperature, in which having no passage competes as if it were a passage of
    similarity `no_passage`: where nothing retrieved is that similar, the prior itself says so. A passage whose
    similarity is not known has -inf, and no mass; 0 would give it some.
    """
    scores = torch.cat([similarities.double(), similarities.new_tensor([no_passage], dtype=torch.float64)])
    return torch.log_softmax(scores / temperature, dim=-1)


def join(log_weights: Tensor, first: Sequence[int]) -> Tensor:
    """The mass of branches that read the same, all on the first of them: (K,) -> (K,).

    `first[z]`: the first branch that reads what z reads. The others are left with -inf, and need not be read.
    """
    joined = torch.full_like(log_weights, -math.inf)
    for branch, to in enumerate(first):
        joined[to] = torch.logaddexp(joined[to], log_weights[branch])
    return joined


def prune(log_weights: Tensor, least: float, most: int | None = None) -> tuple[list[int], float]:
    """The branches worth reading, and the mass of the others: (K,) -> their places, in [0, 1).

    Left out are those of a weight under `least` or of none, and the lightest where more than `most` are left; the
    heaviest and the last, "no passage", never are. The
    next token's distribution under the others, renormalised, is at most the dropped mass away in total variation:
    p = (1 - d) p_kept + d p_dropped, so TV(p, p_kept) = d TV(p_dropped, p_kept) <= d.

    At epsilon = 1 that holds at every token. At epsilon = 0 it holds for the reply as a whole. A posterior is no
    reason to leave a branch out at epsilon = 1: the next token is voted on with the prior again.
    """
    weights = log_weights.exp()
    kept = (weights >= least) & (weights > 0)
    kept[weights.argmax()] = kept[-1] = True
    if most is not None and kept.sum() > most:
        others = weights[:-1].masked_fill(~kept[:-1], -1)
        kept[:-1] = False
        kept[others.argsort(descending=True, stable=True)[: max(1, most - 1)]] = True
    return kept.nonzero().flatten().tolist(), float(weights[~kept].sum())


def marginalize(log_weights: Tensor, log_probs: Tensor) -> Tensor:
    """log p(y_i | x, y_<i) for every token of the vocabulary: (..., K), (..., K, V) -> (..., V).

    In the precision of `log_probs`. Nothing can overflow, all being probabilities, so the largest is not taken out
    first as in logsumexp, which costs 1.7 times as much (LOG.md, 2026-11-23); a token less likely than the
    smallest number (1e-45 in float32) becomes impossible.
    """
    weights = log_weights.exp().to(log_probs.dtype)
    return (weights.unsqueeze(-2) @ log_probs.exp()).squeeze(-2).log()


def contrast(mixture: Tensor, no_passage: Tensor, strength: float, plausible: float = 0.1) -> Tensor:
    """The mixture with what "no passage" would have said anyway taken off: (V,), (V,) -> (V,), normalised.

    softmax of (1 + strength) log p - strength log p_no_passage (context-aware decoding, Shi et al. 2023, arXiv
    2305.14739), over the tokens at least `plausible` times as likely as the likeliest (Li et al. 2022, arXiv
    2210.15097): without that bound, a word that is unlikely in both is raised by a rounding error.
    """
    least = mixture.max() + math.log(plausible)
    known = no_passage.clamp(min=-100)  # an impossible word is no infinite evidence
    raised = torch.where(mixture >= least, (1 + strength) * mixture - strength * known, -math.inf)
    return torch.log_softmax(raised, dim=-1)


def discount_unsure(log_weights: Tensor, log_probs: Tensor, strength: float) -> Tensor:
    """log of a(z) exp(-strength H_z), normalised; H_z: branch z's entropy, in nats: (K,), (K, V) -> (K,).

    A branch that knows what comes next then outvotes those that guess (after Qiu et al. 2024, arXiv 2406.17519).
    """
    entropies = torch.special.entr(log_probs.exp()).sum(dim=-1)
    return torch.log_softmax(log_weights - strength * entropies, dim=-1)


def given_the_question(log_weights: Tensor, log_question: Tensor, weight: float) -> Tensor:
    """log of pi(z) p(q | z)^(weight / |q|), normalised: (..., K), (..., K) -> (..., K).

    `log_question`: log p(q | z), a token of the question, of a generator that reads the passage before the question
    (UPR, Sachan et al. 2022, arXiv 2204.07496). Relative to p(q | no passage), which is the same for all.
    """
    return torch.log_softmax(log_weights + weight * log_question, dim=-1)


def given_an_answer(log_weights: Tensor, log_refusal: Tensor) -> Tensor:
    """log p(z | x, z's branch does not refuse): (..., K), (..., K) -> (..., K), normalised.

    `log_refusal`: log p(refusal | x, z), of a generator that was trained to refuse where its passage does not hold the
    answer. Where every branch refuses for certain, the weights stay as they are.
    """
    answering = torch.log1p(-log_refusal.exp().clamp(max=1 - 1e-12))
    return torch.log_softmax(log_weights + answering, dim=-1)


def excluding(log_probs: Tensor, token: int) -> Tensor:
    """The distributions without one token, normalised again: (K, V) -> (K, V)."""
    others = log_probs.clone()
    others[:, token] = -math.inf
    return torch.log_softmax(others, dim=-1)


def posterior(log_weights: Tensor, log_likelihoods: Tensor) -> Tensor:
    """log w_i(z), by Bayes' rule, once token i is known: (..., K), (..., K) -> (..., K)."""
    return torch.log_softmax(log_weights + log_likelihoods, dim=-1)


def to_passages(log_weights: Tensor, log_shares: Tensor) -> Tensor:
    """log of sum_b w(b) p(z | b), where a branch may read several passages: (B,), (B, Z) -> (Z,). See `branches`."""
    return torch.logsumexp(log_weights.unsqueeze(-1) + log_shares, dim=0)


def carry(log_posterior: Tensor, log_prior: Tensor, epsilon: float) -> Tensor:
    """log a_{i+1}(z), the weights for the next token: (..., K), (..., K) -> (..., K).

    `epsilon` in [0, 1]: the probability that the passage is drawn anew.
    """
    if epsilon == 1:  # exactly the prior, not the prior up to rounding
        return log_prior
    if epsilon == 0:
        return log_posterior
    return torch.logaddexp(log_posterior + math.log1p(-epsilon), log_prior + math.log(epsilon))


def log_likelihood(log_prior: Tensor, log_likelihoods: Tensor, epsilon: float = 1.0) -> Tensor:
    """log p(y | x) of a whole reply: (K,), (T, K) -> ()."""
    log_weights, total = log_prior, log_likelihoods.new_zeros(())
    for step in log_likelihoods:
        total = total + torch.logsumexp(log_weights + step, dim=-1)
        log_weights = carry(posterior(log_weights, step), log_prior, epsilon)
    return total


def smooth(log_prior: Tensor, log_likelihoods: Tensor, epsilon: float = 1.0) -> Tensor:
    """log p(z_i | x, y) of each token, given the whole reply: (K,), (T, K) -> (T, K). Forward-backward.

    At epsilon = 1 this is `posterior`: what follows a token then says nothing about its passage.
    """
    filtered, log_weights = [], log_prior
    for step in log_likelihoods:
        filtered.append(posterior(log_weights, step))
        log_weights = carry(filtered[-1], log_prior, epsilon)
    smoothed = torch.empty_like(log_likelihoods)
    later = torch.zeros_like(log_prior)  # log p(y_>i | x, z_i)
    for i in reversed(range(len(filtered))):
        smoothed[i] = torch.log_softmax(filtered[i] + later, dim=-1)
        seen = log_likelihoods[i] + later
        later = carry(seen, torch.logsumexp(log_prior + seen, dim=-1).expand_as(seen), epsilon)
    return smoothed
