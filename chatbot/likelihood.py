"""The losses that RAG models are trained with, batched. Pure: tensors in, tensors out.

Both are -log p(y | x), in nats, summed over the reply's tokens; `rag_token.log_likelihood` has the same for one reply
and any epsilon. Targets stand beside the log-probabilities that predict them: nothing is shifted here. Which ones count
is said by a mask, not by a pad id, since in many tokenizers padding and the end of the reply are one token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chatbot.rag_token import marginalize


def rag_token_nll(
    log_prior: Tensor, log_probs: Tensor, targets: Tensor, mask: Tensor, smoothing: float = 0.0
) -> Tensor:
    """-sum_i log sum_z p(z | x) p(y_i | x, z, y_<i): (B, K), (B, K, T, V), (B, T), (B, T) -> (B,).

    `smoothing`: the share of the loss that goes to the mixture's mean over the vocabulary, as in RagTokenForGeneration.
    """
    mixture = marginalize(log_prior.unsqueeze(1), log_probs.transpose(1, 2))  # (B, T, V)
    likelihoods = _sum(_at(mixture, targets, mask), mask)
    return _smoothed(likelihoods, _sum(mixture.sum(dim=-1), mask), mixture.shape[-1], smoothing)


def rag_sequence_nll(
    log_prior: Tensor, log_probs: Tensor, targets: Tensor, mask: Tensor, smoothing: float = 0.0
) -> Tensor:
    """-log sum_z p(z | x) prod_i p(y_i | x, z, y_<i): (B, K), (B, K, T, V), (B, T), (B, T) -> (B,).

    `smoothing` is RagSequenceForGeneration's, kept to compare with it: its second term adds up whole replies over the
    passages, V times the log prior included, so it is not the mixture's mean over the vocabulary.
    """
    vocabulary, mask = log_probs.shape[-1], mask.unsqueeze(1)
    likelihoods = _sum(_at(log_probs, targets.unsqueeze(1).expand(log_probs.shape[:-1]), mask), mask)  # (B, K)
    everything = _sum(log_probs.sum(dim=-1), mask)
    return _smoothed(
        torch.logsumexp(log_prior + likelihoods, dim=-1),
        torch.logsumexp(vocabulary * log_prior + everything, dim=-1),
        vocabulary,
        smoothing,
    )


def _at(log_probs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """(..., V), (...) -> (...): a target that does not count may be any number, such as -100."""
    return log_probs.gather(-1, targets.where(mask, 0).unsqueeze(-1)).squeeze(-1)


def _sum(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0.0).sum(dim=-1)


def _smoothed(likelihood: Tensor, everything: Tensor, vocabulary: int, smoothing: float) -> Tensor:
    if smoothing == 0:  # where a log-probability is -inf, 0 times `everything` would be NaN
        return -likelihood
    return -(1 - smoothing) * likelihood - smoothing / vocabulary * everything
