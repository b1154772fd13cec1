"""What runs a decoder's weights: it reads rows of token ids, each after what it read before, and steps them together.

A memory is what reading left behind for later tokens to look at: the keys and values of n tokens,
(layers, 2, key heads, n, head size). It depends on those tokens and the ones before them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Rows(Protocol):
    """B rows of different lengths, one sequence each."""

    def logits(self) -> Tensor:
        """After each row's last token: (B, V), float32."""

    def tail(self) -> Tensor:
        """After each of the last tokens of what `read` was given, as many as it was asked for: (B, n, V), float32.

        Where a row had fewer, what stands before them means nothing. Not to be asked for after a step.
        """

    def memory(self, row: int) -> Tensor:
        """Of the tokens that `read` was given for this row. Not to be asked for after a step."""

    def step(self, token: int) -> None:
        """Go on with this token in every row."""

    def fork(self) -> Rows:
        """A copy that goes its own way."""


class Engine(Protocol):
    @property
    def fingerprint(self) -> str | None:
        """Names the weights and the arithmetic, so that a memory is never given to another model.

        None: what this model keeps cannot be cut into memories (recurrent ones, sliding windows).
        """

    @property
    def weight_bytes(self) -> int:
        """Of the weights that a step reads, as they are stored."""

    @property
    def number_bytes(self) -> int:
        """Of one number of the keys and values that a step reads."""

    def read(self, rows: Sequence[Sequence[int]], before: Sequence[Sequence[Tensor]], tail: int = 1) -> Rows:
        """Read B rows of at least one token, each after its memories, which stand one behind the other.

        `tail`: after how many of the last tokens logits are wanted.
        """
