"""An embedder without weights: words hashed into a fixed number of places. For tests and for building on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from chatbot.embedders.base import Metric, Vectors
from chatbot.language import words

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Hashing:
    """Texts that share words (or, in Chinese and Japanese, characters) lie close; it knows no synonyms."""

    max_tokens = 256
    metric: Metric = "cosine"

    def __init__(self, dimensions: int = 256) -> None:
        self._dimensions = dimensions
        self.fingerprint = f"hashing-{dimensions}"

    def passages(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                digest = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
                vectors[row, digest % self._dimensions] += 1 if digest >> 63 else -1
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[lengths[:, 0] == 0, 0] = 1  # a text without words must still have a direction
        return np.asarray(vectors / np.where(lengths == 0, 1, lengths), dtype=np.float32)

    def parts(self, texts: Sequence[str]) -> list[Vectors]:
        return list(self.passages(texts)[:, None])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """A token for each word, mark, or character of a script without spaces."""
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers

        character = Regex(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}]")
        tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(character, "isolated"), pre_tokenizers.Whitespace()]
        )
        return tokenizer

    def queries(self, texts: Sequence[str]) -> Vectors:
        return self.passages(texts)
