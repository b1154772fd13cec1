"""Decoder-only generators (Llama, Qwen, SmolLM, GPT-2 ...) through transformers: one row of the batch a branch.

Every part of a prompt is tokenised alone, and only the chat template's own words may become special tokens,
so a passage that holds "<|im_end|>" cannot end its message. Rows are padded on the left, with a mask and explicit
positions: without positions a padded row would be read from the wrong place.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import torch
from jinja2.exceptions import TemplateError
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from chatbot.errors import MissingModel
from chatbot.generators.base import Decoding
from chatbot.prompt import Prompt

SLOT = re.compile("\ue000(\\d+)\ue001")  # private-use characters mark where a part goes in the template
PLAIN_TEMPLATE = (  # for models without a chat template
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'Answer: ' + message['content'] + '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)


class Causal:
    """A folder or hub id that `AutoModelForCausalLM` loads. Loading happens at the first use, once.

    `reserve`: tokens of the window kept free for the reply. Raises MissingModel where the weights are not found.
    """

    def __init__(self, model: str, *, reserve: int = 256) -> None:
        self._name = model
        self._reserve = reserve
        self._loading = threading.Lock()
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def warm(self) -> None:
        """Load the weights now."""
        self._load()

    @property
    def end_tokens(self) -> frozenset[int]:
        model, tokenizer = self._load()
        ends = [tokenizer.eos_token_id, model.config.eos_token_id]
        if model.generation_config is not None:
            ends.append(model.generation_config.eos_token_id)
        return frozenset(token for end in ends if end is not None for token in ([end] if isinstance(end, int) else end))

    def read(self, prompts: Sequence[Prompt]) -> Decoding:
        model, tokenizer = self._load()
        window = getattr(model.config, "max_position_embeddings", None)
        limit = None if window is None else max(1, window - self._reserve)
        return _Reading(model, tokenizer, [_encode(tokenizer, prompt, limit) for prompt in prompts])

    def _load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        with self._loading:
            if self._loaded is None:
                self._loaded = _from_pretrained(self._name)
            return self._loaded


def _from_pretrained(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MissingModel(
            f"generator {name!r} cannot be loaded ({reason}): "
            "give --set generator= a folder or hub id that holds a transformers causal model and its tokenizer"
        ) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise MissingModel(f"generator {name!r} has no tokenizer.json: save its tokenizer in the fast format")
    return model.to(device).eval(), tokenizer  # type: ignore[arg-type]


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, limit: int | None) -> list[int]:
    """The prompt's token ids. Over the limit, the oldest turns go first, then the passage's end; never the query."""
    while True:
        parts = list(_parts(tokenizer, prompt))
        excess = sum(len(ids) for _, ids in parts) - limit if limit is not None else 0
        if excess <= 0 or (prompt.passage is None and not prompt.conversation):
            return [id for _, ids in parts for id in ids]
        if prompt.conversation:
            prompt = replace(prompt, conversation=prompt.conversation[1:])
            continue
        for slot, ids in parts:
            if slot == "passage":
                del ids[max(0, len(ids) - excess) :]
        return [id for _, ids in parts for id in ids]


def _parts(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Iterator[tuple[str, list[int]]]:
    """(what it is, token ids) in reading order; "template" for the chat template's own words."""
    slots: list[tuple[str, str]] = []

    def slot(kind: str, text: str) -> str:
        slots.append((kind, text))
        return f"\ue000{len(slots) - 1}\ue001"

    system = slot("instruction", prompt.instruction)
    passage = "" if prompt.passage is None else prompt.label + slot("passage", prompt.passage) + "\n\n"
    said = [slot("conversation", text) for turn in prompt.conversation for text in turn]
    first, *rest = [*said, slot("query", prompt.query)]
    rendered = _render(tokenizer, system, [passage + first, *rest])
    for index, piece in enumerate(SLOT.split(rendered)):
        if index % 2:
            kind, text = slots[int(piece)]
            yield kind, _ids(tokenizer, text, special=False)
        elif piece:
            yield "template", _ids(tokenizer, piece, special=True)


def _render(tokenizer: PreTrainedTokenizerBase, system: str, said: list[str]) -> str:
    """The chat template with `said`: user and assistant by turns, the user first and last."""
    roles = cycle(("user", "assistant"))
    messages = [{"role": "system", "content": system}]
    messages += [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    template = None if tokenizer.chat_template else PLAIN_TEMPLATE
    try:
        return _apply(tokenizer, messages, template)
    except TemplateError as error:  # Gemma's, for one, knows no system role
        first = {"role": "user", "content": f"{system}\n\n{messages[1]['content']}"}
        try:
            return _apply(tokenizer, [first, *messages[2:]], template)
        except TemplateError:
            raise MissingModel(f"the generator's chat template cannot be used: {error}") from error


def _apply(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], template: str | None) -> str:
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, chat_template=template, enable_thinking=False
    )
    assert isinstance(text, str)
    return text


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=not special).input_ids
    return list(ids)


class _Reading:
    """K rows in one batch. `push` only notes the token; the model runs when the next probabilities are asked for."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]
    ) -> None:
        self._model = model
        self._backend = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        width = max(len(row) for row in rows)
        self._input = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=model.device)
        self._mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
        self._cache: Any = None
        self._log_probs: Tensor | None = None

    @torch.inference_mode()
    def log_probs(self) -> Tensor:
        if self._log_probs is None:
            positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -self._input.shape[1] :]
            output = self._model(
                input_ids=self._input,
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
            self._cache = output.past_key_values
            self._log_probs = torch.log_softmax(output.logits[:, -1].float(), dim=-1).cpu()
        return self._log_probs

    def push(self, token: int) -> str:
        self.log_probs()  # the rows must have been read before they go on
        self._input = self._input.new_full((self._mask.shape[0], 1), token)
        self._mask = torch.cat([self._mask, self._mask.new_ones(self._mask.shape[0], 1)], dim=1)
        self._log_probs = None
        return self._stream.step(self._backend, token) or ""

    def fork(self) -> Decoding:
        other = copy.copy(self)  # the other tensors are replaced, never written to
        other._cache, other._stream = copy.deepcopy((self._cache, self._stream))
        return other
