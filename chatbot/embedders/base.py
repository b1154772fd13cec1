"""What an embedder is to the rest: text to vectors, and how to compare them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = NDArray[np.float32]
Metric = Literal["cosine", "ip"]  # "ip": the inner product, of vectors of any length


def similarity(parts: Vectors, query: Vectors) -> float:
    """How well a query (D,) matches a passage (P, D), see `Embedder.parts`: as a whole, and its best window, halved.

    A passage is about one thing or about several; either half alone is worse: docs/retrieval.md.
    """
    return float(joined(parts @ query))


def joined(products: Any) -> Any:
    """The query's products with a passage's parts, (P,), an array or a tensor, to one number."""
    return products[0] if len(products) == 1 else (products[0] + products[1:].max()) / 2


class Embedder(Protocol):
    @property
    def fingerprint(self) -> str:
        """Changes whenever the same text would get another vector."""

    @property
    def tokenizer(self) -> Tokenizer:
        """How it counts tokens, without truncation or padding, so that passages can be cut to fit."""

    @property
    def max_tokens(self) -> int:
        """Its window; what lies beyond is not read."""

    @property
    def metric(self) -> Metric:
        """What says how well a query's vector matches a passage's."""

    def passages(self, texts: Sequence[str]) -> Vectors:
        """(N,) texts -> (N, D); rows of length 1 where the metric is the cosine."""

    def parts(self, texts: Sequence[str]) -> list[Vectors]:
        """(N,) texts -> N of (P, D): first the row of `passages`; below it those of the text's windows, if it has
        several."""

    def queries(self, texts: Sequence[str]) -> Vectors:
        """(N,) texts -> (N, D); rows of length 1 where the metric is the cosine."""
