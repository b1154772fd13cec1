"""A cross-encoder of sentence-transformers: it reads query and passage together, to order again what was found."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from chatbot.embedders.weights import locate
from chatbot.errors import MissingModel
from chatbot.loading import IMPORTING, NOT_LOADED

_BATCH = 16  # pairs


class CrossEncoder:
    """`model` is a folder or a hub id, loaded at first use; any thread may call. Never runs code that comes with it.

    Raises MissingModel where it is not there or cannot be read.
    """

    def __init__(self, model: str) -> None:
        self._given = model
        self._loading = threading.Lock()
        self._loaded: Any = None

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """One for each text, higher for a better answer; the scale is the model's own."""
        if not texts:
            return []
        found = self._model().predict([(query, text) for text in texts], batch_size=_BATCH, show_progress_bar=False)
        return [float(score) for score in found.reshape(len(texts), -1)[:, -1]]

    def _model(self) -> Any:
        with self._loading:
            if self._loaded is None:
                with IMPORTING:
                    from sentence_transformers import CrossEncoder as Model

                folder = locate(self._given)
                try:
                    self._loaded = Model(str(folder), local_files_only=True)
                except NOT_LOADED as error:
                    reason = str(error).partition("\n")[0]
                    raise MissingModel(f"{self._given!r} cannot be loaded as a reranker: {reason}") from error
            return self._loaded
