"""What a generator is to the rest: something that reads prompts, one a branch, and then decodes them in step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from chatbot.prompt import Prompt

if TYPE_CHECKING:
    from torch import Tensor


class Decoding(Protocol):
    """K branches that have read the same tokens of the reply, each after its own prompt.

    It may also have `cut: tuple[str, ...]`, the parts of prompts ("conversation", "passage") that were shortened to
    fit the window: the reply then says so; and `log_question: Tensor | None`, log p(question | passage) in each branch,
    a token of the question, (K,) in nats: see `rag_token.given_the_question`.
    """

    def log_probs(self) -> Tensor:
        """log p(y_i | x, z, y_<i) for each branch: (K, V), in nats, each row normalised."""

    def push(self, token: int) -> str:
        """Advance every branch by this token; return the text completed by it ("" inside a character)."""

    def fork(self) -> Decoding:
        """A second decoding that has read the same; what is pushed to either leaves the other as it is."""


class Generator(Protocol):
    """It may also have `refusal: int | None`, the token that a refusal begins with, where it was trained to refuse.

    Where it keeps what it read it has `forget()`, and `begun() -> Generator`: itself, keeping nothing after a `forget`.
    Where its memory has a bound it has `at_once(prompts) -> int`, how many of these it reads together: the passages of
    least prior are then left out.
    """

    @property
    def end_tokens(self) -> frozenset[int]:
        """Any of these ends the reply."""

    def read(self, prompts: Sequence[Prompt]) -> Decoding:
        """Read K prompts. A passage too long for the window is cut at its end; the query never is.

        Raises UnusableUtterance where the query alone is too long.
        """
