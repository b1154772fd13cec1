"""A sentence-transformers model whose query side learns, and whose passages keep their vectors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router
from torch import Tensor, nn


class QueryEncoder(nn.Module):
    """Texts -> (N, D), rows of length 1, with gradients."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._documents = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self.query = copy.deepcopy(self._documents)

    def forward(self, texts: Sequence[str]) -> Tensor:
        features = self.query.preprocess(list(texts))
        vectors: Tensor = self.query(features)["sentence_embedding"]
        return nn.functional.normalize(vectors, dim=-1)

    def save(self, folder: Path) -> None:
        """One folder for `--set embedder=`, which encodes queries by what was learned and passages as before."""
        parts: dict[str, list[Any]] = {"query": list(self.query), "document": list(self._documents)}
        SentenceTransformer(modules=[Router.for_query_document(parts["query"], parts["document"])]).save(str(folder))
