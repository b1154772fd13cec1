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

import torch
from torch import Tensor


def log_prior(similarities: Tensor, temperature: float, no_passage: float) -> Tensor:
    """log p(z | x) from cosine similarities: (K,) -> (K + 1,), "no passage" last.

    A softmax of similarity / temperature, in which having no passage competes as if it were a passage of
    similarity `no_passage`: where nothing retrieved is that similar, the prior itself says so.
    """
    scores = torch.cat([similarities.double(), similarities.new_tensor([no_passage], dtype=torch.float64)])
    return torch.log_softmax(scores / temperature, dim=-1)


def marginalize(log_weights: Tensor, log_probs: Tensor) -> Tensor:
    """log p(y_i | x, y_<i) for every token of the vocabulary: (..., K), (..., K, V) -> (..., V)."""
    return torch.logsumexp(log_weights.unsqueeze(-1) + log_probs, dim=-2)


def posterior(log_weights: Tensor, log_likelihoods: Tensor) -> Tensor:
    """log w_i(z), by Bayes' rule, once token i is known: (..., K), (..., K) -> (..., K)."""
    return torch.log_softmax(log_weights + log_likelihoods, dim=-1)


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
