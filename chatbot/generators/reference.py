"""Any causal model as transformers runs it: on a GPU, for every architecture, and the oracle for the lean engine.

Rows are padded on the left, with a mask and explicit positions: a slot of the cache is not a position. Recurrent models
would read the padding, so their rows are read and stepped one by one.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from chatbot.generators.engine import Rows

ROPES_OF_FIXED_ANGLES = ("default", "linear", "llama3", "yarn")  # the others turn a key by the length of what follows


class Reference:
    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._recurrent = bool(getattr(model, "_is_stateful", False))
        self.fingerprint = f"transformers {weights(model)}" if self._can_be_cut() else None
        self.weight_bytes, self.number_bytes = weight_bytes(model), model.dtype.itemsize

    @torch.inference_mode()
    def read(self, rows: Sequence[Sequence[int]], before: Sequence[Sequence[Tensor]], tail: int = 1) -> Rows:
        if self._recurrent:
            return _Apart([_Recurrent(self._model, row, tail) for row in rows])
        return _Batch(self._model, rows, before, tail)

    @torch.inference_mode()
    def _can_be_cut(self) -> bool:
        ropes = getattr(self._model.config, "rope_parameters", None) or {}
        if self._recurrent or ropes.get("rope_type", "default") not in ROPES_OF_FIXED_ANGLES:
            return False
        output = self._model(torch.zeros(1, 1, dtype=torch.long, device=self._model.device), use_cache=True)
        layers: list[Any] = getattr(output.get(name_of_cache(self._model)), "layers", [])
        if any(type(layer) is not DynamicLayer for layer in layers):
            return False
        return len({kept.shape for layer in layers for kept in (layer.keys, layer.values)}) == 1


def name_of_cache(model: PreTrainedModel) -> str:
    """What the model calls what it keeps of the tokens it read, given and taken: `cache` from transformers 5.24 on."""
    takes = inspect.signature(model.forward).parameters
    return next(name for name in ("cache", "past_key_values", "cache_params", "state") if name in takes)


def weight_bytes(model: PreTrainedModel) -> int:
    """Of a step: all but the table that tokens are looked up in, unless it is the head's too."""
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    table: Any = model.get_input_embeddings()
    looked_up = 0 if head is not None and head.weight is table.weight else table.weight.nbytes
    return sum(weight.nbytes for weight in model.parameters()) - looked_up


def weights(model: PreTrainedModel) -> str:
    """Tells weights apart by the first values of each."""
    digest = hashlib.sha256(repr(sorted(model.config.to_dict().items(), key=lambda each: each[0])).encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().flatten()[:16].double().cpu().numpy().tobytes())
    return digest.hexdigest()


class _Batch:
    @torch.inference_mode()
    def __init__(
        self, model: PreTrainedModel, rows: Sequence[Sequence[int]], before: Sequence[Sequence[Tensor]], tail: int
    ) -> None:
        self._model, self._name = model, name_of_cache(model)
        self._lengths = [len(row) for row in rows]
        read = [sum(memory.shape[3] for memory in memories) for memories in before]
        past, width = max(read), max(self._lengths)
        self._cache: Any = _joined(model, before, past) if past else None
        self._mask = torch.zeros(len(rows), past + width, dtype=torch.long, device=model.device)
        ids = torch.zeros(len(rows), width, dtype=torch.long, device=model.device)
        for row, (tokens, behind) in enumerate(zip(rows, read, strict=True)):
            self._mask[row, past - behind : past] = 1
            self._mask[row, past + width - len(tokens) :] = 1
            ids[row, width - len(tokens) :] = torch.tensor(tokens)
        self._end = past + width
        self._tail = _of_width(self._run(ids, tail), tail)

    def tail(self) -> Tensor:
        return self._tail

    def logits(self) -> Tensor:
        return self._logits

    def memory(self, row: int) -> Tensor:
        own = slice(self._end - self._lengths[row], self._end)
        return torch.stack([
            torch.stack([layer.keys[row, :, own], layer.values[row, :, own]]) for layer in self._cache.layers
        ])  # fmt: skip

    @torch.inference_mode()
    def step(self, token: int) -> None:
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        self._run(self._mask.new_full((len(self._mask), 1), token))

    def fork(self) -> Rows:
        other = copy.copy(self)
        other._cache = copy.deepcopy(self._cache)
        return other

    def _run(self, ids: Tensor, tail: int = 1) -> Tensor:
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=(self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :],
            use_cache=True,
            logits_to_keep=tail,
            **{self._name: self._cache},
        )
        self._cache = output[self._name]
        logits: Tensor = output.logits[:, -tail:].float()
        self._logits = logits[:, -1]
        return logits


def _of_width(logits: Tensor, tail: int) -> Tensor:
    """Padded on the left: (B, n, V) -> (B, tail, V)."""
    return F.pad(logits, (0, 0, tail - logits.shape[1], 0))


def _joined(model: PreTrainedModel, before: Sequence[Sequence[Tensor]], past: int) -> DynamicCache:
    """Each row's memories, one behind the other, padded on the left to `past` slots."""
    like = next(memory for memories in before for memory in memories)
    layers, _, heads, _, size = like.shape
    slots = torch.zeros(layers, 2, len(before), heads, past, size, dtype=model.dtype, device=model.device)
    for row, memories in enumerate(before):
        end = past
        for memory in reversed(memories):
            slots[:, :, row, :, end - memory.shape[3] : end] = memory
            end -= memory.shape[3]
    return DynamicCache([(layer[0], layer[1]) for layer in slots])


class _Recurrent:
    """One row of a model whose memory is a state."""

    def __init__(self, model: PreTrainedModel, row: Sequence[int], tail: int) -> None:
        self._model, self._name = model, name_of_cache(model)
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._read = 0
        self._state: Any = None
        self.tail = _of_width(self._run(row, tail), tail)

    def step(self, token: int) -> None:
        self._run([token])

    def fork(self) -> _Recurrent:
        other = copy.copy(self)
        other._state = copy.deepcopy(self._state)
        return other

    @torch.inference_mode()
    def _run(self, tokens: Sequence[int], tail: int = 1) -> Tensor:
        ids = torch.tensor([list(tokens)], device=self._model.device)
        keep = {"logits_to_keep": tail} if self._keeps else {}
        output = self._model(input_ids=ids, use_cache=True, **{self._name: self._state}, **keep)
        self._state = output[self._name]
        self._read += len(tokens)
        logits: Tensor = output.logits[:, -tail:].float()
        self.logits = logits[:, -1]
        return logits


class _Apart:
    """Rows that are not read as one batch."""

    def __init__(self, rows: list[_Recurrent]) -> None:
        self._rows = rows

    def logits(self) -> Tensor:
        return torch.cat([row.logits for row in self._rows])

    def tail(self) -> Tensor:
        return torch.cat([row.tail for row in self._rows])

    def memory(self, row: int) -> Tensor:
        raise NotImplementedError("a recurrent model's state is of all that it read, and cannot be cut")

    def step(self, token: int) -> None:
        for row in self._rows:
            row.step(token)

    def fork(self) -> Rows:
        return _Apart([row.fork() for row in self._rows])
