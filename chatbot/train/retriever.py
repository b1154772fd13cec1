"""A query encoder's training, the passages' vectors staying as they are.

Rows with passages: -log of the share that the gold passage gets among all passages of the batch (in-batch negatives,
Karpukhin et al. 2020, arXiv 2004.04906). Rows with a rewrite: the vector of conversation and utterance goes where that
of the rewrite, which a person made, lies: 1 - cosine (ConvDR's distillation, Yu et al. 2021, arXiv 2105.04166), and
with `ranking` nearer to it than to the batch's other rewrites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Pair:
    """What is encoded, and the vector where it should lie."""

    query: str
    vector: Tensor  # (D,), of length 1
    passage: str = ""  # the id of the gold passage; "": the vector is that of a rewrite


class QueryLosses(nn.Module):
    """`encode`: a module that takes texts and gives (N, D), rows of length 1. `ranking`: weight, for rewrites."""

    def __init__(self, encode: nn.Module, temperature: float, ranking: float = 0.0) -> None:
        super().__init__()
        self.encode = encode
        self._temperature = temperature
        self._ranking = ranking

    def forward(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """(the sum of the losses, the number of pairs)."""
        vectors = self.encode([pair.query for pair in pairs])
        wanted = torch.stack([pair.vector for pair in pairs]).to(vectors)
        told = torch.tensor([not pair.passage for pair in pairs])
        loss = (1 - (vectors * wanted).sum(dim=-1))[told].sum()
        if self._ranking and bool(told.any()):
            loss = loss + self._ranking * self._between(vectors[told], wanted[told])
        if not bool(told.all()):
            loss = loss + self._contrast(vectors[~told], wanted[~told], [pair for pair in pairs if pair.passage])
        return loss, torch.tensor(float(len(pairs)))

    def _between(self, vectors: Tensor, wanted: Tensor) -> Tensor:
        """-log of the share that a pair's own rewrite gets; equal rewrites share it."""
        own = (wanted @ wanted.T > 0.999).float()
        log_shares = torch.log_softmax(vectors @ wanted.T / self._temperature, dim=-1)
        return -(log_shares * own / own.sum(dim=-1, keepdim=True)).sum()

    def _contrast(self, vectors: Tensor, wanted: Tensor, pairs: Sequence[Pair]) -> Tensor:
        places = {passage: place for place, passage in enumerate(dict.fromkeys(pair.passage for pair in pairs))}
        mine = torch.tensor([places[pair.passage] for pair in pairs], device=vectors.device)
        passages = wanted.new_zeros(len(places), wanted.shape[-1])
        passages[mine] = wanted
        return nn.functional.cross_entropy(vectors @ passages.T / self._temperature, mine, reduction="sum")
