"""The training losses, held against the product's own equations; test_seq2seq.py holds them to Hugging Face's."""

import pytest
import torch
from torch import Tensor

from chatbot.likelihood import rag_sequence_nll, rag_token_nll
from chatbot.rag_token import log_likelihood

LENGTHS = (4, 1, 3)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log prior (B, K), log p(y | z) (B, K, T, V), targets (B, T) and mask (B, T)."""
    random = torch.Generator().manual_seed(0)
    prior = torch.randn(3, 2, generator=random, dtype=torch.float64).log_softmax(-1)
    probs = (2 * torch.randn(3, 2, 4, 7, generator=random, dtype=torch.float64)).log_softmax(-1)
    mask = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
    return prior, probs, torch.randint(7, (3, 4), generator=random).where(mask, -100), mask


@pytest.mark.parametrize(("loss", "epsilon"), [(rag_token_nll, 1.0), (rag_sequence_nll, 0.0)])
def test_the_loss_is_the_negative_log_likelihood_of_each_reply(loss, epsilon: float, batch) -> None:
    prior, probs, targets, mask = batch
    for row, length in enumerate(LENGTHS):
        likelihoods = torch.stack([probs[row, :, step, targets[row, step]] for step in range(length)])
        expected = -log_likelihood(prior[row], likelihoods, epsilon)
        assert torch.allclose(loss(prior, probs, targets, mask)[row], expected)


@pytest.mark.parametrize("loss", [rag_token_nll, rag_sequence_nll])
def test_a_reply_of_no_tokens_costs_nothing(loss, batch) -> None:
    prior, probs, targets, mask = batch
    assert torch.allclose(loss(prior, probs, targets, torch.zeros_like(mask)), torch.zeros(3, dtype=torch.float64))


def test_smoothing_adds_the_mixtures_mean_over_the_vocabulary(batch) -> None:
    prior, probs, targets, mask = batch
    mixture = torch.einsum("bk,bktv->btv", prior.exp(), probs.exp()).log()
    mean = (mixture.mean(dim=-1) * mask).sum(dim=-1)
    expected = 0.9 * rag_token_nll(prior, probs, targets, mask) - 0.1 * mean
    assert torch.allclose(rag_token_nll(prior, probs, targets, mask, smoothing=0.1), expected)


def test_what_trains_the_retriever_is_the_prior_less_the_posterior(batch) -> None:
    """d(-log p) / d score(z) = sum_i (pi(z) - w_i(z)) for RAG-Token."""
    _, probs, targets, mask = batch
    scores = torch.tensor([[0.3, -0.2], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    rag_token_nll(scores.log_softmax(-1), probs, targets, mask).sum().backward()
    prior = scores.detach().softmax(-1)
    for row, length in enumerate(LENGTHS):
        likelihoods = torch.stack([probs[row, :, step, targets[row, step]].exp() for step in range(length)])
        posteriors = prior[row] * likelihoods / (prior[row] * likelihoods).sum(dim=-1, keepdim=True)
        assert torch.allclose(scores.grad[row], (prior[row] - posteriors).sum(dim=0))
