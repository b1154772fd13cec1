"""What an embedder is to the rest: text to unit vectors."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    fingerprint: str  # changes whenever the same text would get another vector

    def passages(self, texts: Sequence[str]) -> Vectors:
        """(N,) texts -> (N, D), rows of length 1."""

    def queries(self, texts: Sequence[str]) -> Vectors:
        """(N,) texts -> (N, D), rows of length 1."""
