"""What an embedder is to the rest: text to unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = NDArray[np.float32]


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

    def passages(self, texts: Sequence[str]) -> Vectors:
        """(N,) texts -> (N, D), rows of length 1."""

    def queries(self, texts: Sequence[str]) -> Vectors:
        """(N,) texts -> (N, D), rows of length 1."""
