"""DPR (Karpukhin et al. 2020, arXiv 2004.04906), the retriever of RAG: one encoder for questions, another for passages.

How well they match is the inner product of their vectors, which are not of length 1, and the softmax of it at
temperature 1 is the p(z | x) that RAG checkpoints were trained with. A RAG checkpoint brings its own question encoder,
trained further with the generator; the encoder of passages stayed as it was, so it is a folder or hub id of its own.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chatbot.embedders.base import Metric, Vectors
from chatbot.embedders.weights import digest, locate
from chatbot.errors import MissingModel
from chatbot.loading import IMPORTING, NOT_LOADED

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_BATCH = 16  # texts


class DprEmbedder:
    """`question`: a RAG checkpoint or a DPRQuestionEncoder; `context`: a DPRContextEncoder; folders or hub ids.

    Any thread may call. Raises MissingModel where one is not there or cannot be read.
    """

    metric: Metric = "ip"

    def __init__(self, question: str, context: str, threads: int = 0) -> None:
        self._question = question
        self._context = context
        self._threads = threads  # 0: as torch likes
        self._loading = threading.Lock()
        self._loaded: tuple[_Encoder, _Encoder] | None = None

    def passages(self, texts: Sequence[str]) -> Vectors:
        return _vectors(self._encoders()[1], texts)

    def parts(self, texts: Sequence[str]) -> list[Vectors]:
        return list(self.passages(texts)[:, None])

    def queries(self, texts: Sequence[str]) -> Vectors:
        return _vectors(self._encoders()[0], texts)

    def warm(self) -> None:
        """Load now what would load at first use."""
        self._encoders()

    @cached_property
    def fingerprint(self) -> str:
        """By what the files of both hold, wherever they lie."""
        return f"dpr-{digest(locate(self._question))}-{digest(locate(self._context))}"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """A copy of the passages' that neither cuts nor pads."""
        from tokenizers import Tokenizer

        file = locate(self._context) / "tokenizer.json"
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        else:
            tokenizer = Tokenizer.from_str(self._encoders()[1].tokenizer.backend_tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def max_tokens(self) -> int:
        """What a text may have, its special tokens included, before it is cut."""
        return int(_configuration(locate(self._context)).get("max_position_embeddings", 512))

    def _encoders(self) -> tuple[_Encoder, _Encoder]:
        """Of questions, of passages."""
        with self._loading:
            if self._loaded is None:
                import torch

                if self._threads:
                    torch.set_num_threads(self._threads)
                with IMPORTING:
                    self._loaded = _load(self._question, _question_encoder), _load(self._context, _context_encoder)
            return self._loaded


class _Encoder(NamedTuple):
    model: Any
    tokenizer: PreTrainedTokenizerBase


def _load(model: str, read: Callable[[Path], _Encoder]) -> _Encoder:
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    folder = locate(model)
    try:
        return read(folder)
    except NOT_LOADED as error:
        reason = str(error).strip().partition("\n")[0]
        raise MissingModel(f"{str(folder)!r} cannot be loaded as a DPR encoder: {reason}") from error


def _question_encoder(folder: Path) -> _Encoder:
    from transformers import AutoTokenizer, DPRQuestionEncoder, RagModel

    if _configuration(folder).get("model_type") != "rag":
        return _Encoder(_whole(DPRQuestionEncoder, folder), AutoTokenizer.from_pretrained(folder))
    rag = _whole(RagModel, folder)
    tokenizer = AutoTokenizer.from_pretrained(
        folder, config=rag.config.question_encoder, subfolder="question_encoder_tokenizer"
    )
    return _Encoder(rag.question_encoder, tokenizer)


def _context_encoder(folder: Path) -> _Encoder:
    from transformers import AutoTokenizer, DPRContextEncoder

    return _Encoder(_whole(DPRContextEncoder, folder), AutoTokenizer.from_pretrained(folder))


def _whole(kind: Any, folder: Path) -> Any:
    """transformers fills in at random what it does not find: here, where one encoder is given for the other."""
    import torch

    model, report = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if report["missing_keys"]:
        raise ValueError(f"its weights are not those of a {kind.__name__}: {min(report['missing_keys'])} is missing")
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _vectors(encoder: _Encoder, texts: Sequence[str]) -> Vectors:
    """(N,) -> (N, D), in batches of like length."""
    import torch

    config = encoder.model.config
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]), reverse=True)
    vectors = np.zeros((len(texts), config.projection_dim or config.hidden_size), dtype=np.float32)
    for start in range(0, len(texts), _BATCH):
        places = order[start : start + _BATCH]
        batch = encoder.tokenizer(
            [texts[place] for place in places],
            split_special_tokens=True,  # "[SEP]" in a text is text
            truncation=True,
            max_length=config.max_position_embeddings,
            padding=True,
            return_tensors="pt",
        ).to(encoder.model.device)
        with torch.inference_mode():
            pooled = encoder.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
        vectors[places] = pooled.cpu().numpy()
    return vectors


def _configuration(folder: Path) -> dict[str, Any]:
    try:
        read = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise MissingModel(f"{str(folder)!r} holds no model: it has no config.json that can be read") from error
    return dict(read)
