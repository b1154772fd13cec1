"""A sentence-transformers model whose query side learns, and whose passages keep their vectors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router
from torch import Tensor, nn

from chatbot.train.model import Lora
from chatbot.train.trainable import save_adapter


class QueryEncoder(nn.Module):
    """Texts -> (N, D), rows of length 1, with gradients. All weights learn; or LoRA in the last `layers`, 0: in all."""

    def __init__(self, folder: Path, lora: Lora | None = None, layers: int = 0) -> None:
        super().__init__()
        self._documents = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self.query = copy.deepcopy(self._documents)
        self._adapter = None
        if lora is not None and lora.rank:
            inner = self.query[0].model
            depth = inner.config.num_hidden_layers
            self._adapter = get_peft_model(
                inner,
                LoraConfig(
                    r=lora.rank,
                    lora_alpha=lora.alpha,
                    lora_dropout=lora.dropout,
                    target_modules=[
                        name
                        for name, module in inner.named_modules()
                        if isinstance(module, nn.Linear)
                        and (place := next(filter(str.isdecimal, name.split(".")), ""))
                        and int(place) >= depth - (layers or depth)
                    ],
                ),
            )
            self.query[0].model = self._adapter

    def forward(self, texts: Sequence[str]) -> Tensor:
        features = self.query.preprocess(list(texts))
        vectors: Tensor = self.query(features)["sentence_embedding"]
        return nn.functional.normalize(vectors, dim=-1)

    def save(self, folder: Path) -> None:
        """LoRA matrices for `--set query_encoder=`; or, where all weights learned, one folder for `--set embedder=`,
        which encodes queries by what was learned and passages as before.
        """
        if self._adapter is not None:
            for config in self._adapter.peft_config.values():
                config.base_model_name_or_path = ""  # not the folder on this machine
            save_adapter(self._adapter, folder)
            return
        parts: dict[str, list[Any]] = {"query": list(self.query), "document": list(self._documents)}
        SentenceTransformer(modules=[Router.for_query_document(parts["query"], parts["document"])]).save(str(folder))
