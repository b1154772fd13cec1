"""p(y | x, z) of given replies, with gradients: what a generator's branches say, all tokens of a reply at once.

Branches whose prompts begin alike, up to and with the passage, share that beginning: a passage with ten questions is
read once, forwards and backwards. The questions follow one another in one row, a mask lets each see the passage and
itself, and positions go on from the passage's end in each, so each branch sees what it would see alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from chatbot.generators.causal import segments_and_question
from chatbot.generators.seq2seq import Loaded, encode
from chatbot.prompt import Prompt

ROW = 640  # tokens that a row of several questions is filled up to: attention costs their square
READ = 1200  # tokens read at a time, padding included: more at once is no quicker on a CPU, and pads more


class Trainable(Protocol):
    """What trains: a model that tells each reply's tokens from their prompts.

    Where the chat's generator of these weights has `log_question` (`generators.base.Decoding`), it may also have
    `judged(branches) -> list[tuple[Tensor, Tensor | None]]`: as `log_probs`, each with log p(question | passage), a
    token, () in nats, of the same pass and with its gradient; None for a branch that judges none.
    """

    model: Any  # a transformers model, perhaps with peft's matrices
    limit: int | None  # tokens that a prompt and its reply may have together

    def target(self, text: str) -> list[int]:
        """The tokens of a reply, its end included."""

    def length(self, prompt: Prompt) -> int:
        """Tokens of the prompt, for batches of like lengths."""

    def save(self, folder: Path, base: str) -> None:
        """The adapter; or the whole model with its tokenizer, where all of it learned. `base`: what it was made of."""

    def log_probs(self, branches: Sequence[Branch]) -> list[Tensor]:
        """(T, V) for each branch: log p(y_i | x, z, y_<i) at its T target tokens, in float32."""


@dataclass(frozen=True, slots=True)
class Branch:
    prompt: Prompt
    target: tuple[int, ...]
    judges: bool = False  # whether it tells its question's likelihood besides


@dataclass(frozen=True, slots=True)
class _Part:
    """The tokens [start, end) of a row that one branch adds; the last `targets` of them tell its reply.

    Those from `asks` on tell its question, one a token.
    """

    branch: int
    start: int
    end: int
    targets: int
    asks: int
    question: tuple[int, ...]  # none: it is not judged

    @property
    def telling(self) -> tuple[slice, slice]:
        """Of its reply, of its question."""
        return slice(self.end - self.targets, self.end), slice(self.asks, self.asks + len(self.question))


@dataclass(slots=True)
class _Row:
    """A beginning of prompts, and what follows it in some branches, one behind the other."""

    ids: list[int]
    beginning: int  # tokens that all parts see
    parts: list[_Part] = field(default_factory=list)


class TrainableCausal:
    """Any model of `AutoModelForCausalLM` that takes a mask of its own; `limit`: tokens of a prompt."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> None:
        self.model = model
        self._tokenizer = tokenizer
        self.limit = limit
        self._pieces: dict[Prompt, tuple[list[int], list[int], tuple[int, list[int]]]] = {}

    def target(self, text: str) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        return [*ids, self._tokenizer.eos_token_id]

    def length(self, prompt: Prompt) -> int:
        beginning, rest, _ = self._split(prompt)
        return len(beginning) + len(rest)

    def log_probs(self, branches: Sequence[Branch]) -> list[Tensor]:
        return [log_probs for log_probs, _ in self.judged([replace(branch, judges=False) for branch in branches])]

    def judged(self, branches: Sequence[Branch]) -> list[tuple[Tensor, Tensor | None]]:
        """See `Trainable`. The chat's: the same tokens of the question, and the mean over them."""
        found: dict[int, tuple[Tensor, Tensor | None]] = {}
        for rows in _batches(self._rows(branches)):
            states = self._states(rows)
            parts = [(number, part) for number, row in enumerate(rows) for part in row.parts]
            telling = [states[number, span] for number, part in parts for span in part.telling]
            log_probs = torch.log_softmax(self._logits(torch.cat(telling)).float(), dim=-1)
            told = torch.split(log_probs, list(map(len, telling)))
            for (_, part), replied, asked in zip(parts, told[::2], told[1::2], strict=True):
                found[part.branch] = (replied, _mean(asked, part.question))
        return [found[number] for number in range(len(branches))]

    def save(self, folder: Path, base: str) -> None:
        _save(self.model, self._tokenizer, folder, base)

    def _split(self, prompt: Prompt) -> tuple[list[int], list[int], tuple[int, list[int]]]:
        """Its tokens up to and with the passage; the rest; and in that the question, see `segments_and_question`."""
        if prompt not in self._pieces:
            pieces, question = segments_and_question(self._tokenizer, prompt, self.limit)
            first = 0 if prompt.passage is None else 2
            beginning, rest = ([id for piece in some for id in piece] for some in (pieces[:first], pieces[first:]))
            self._pieces[prompt] = (beginning, rest, question)
        return self._pieces[prompt]

    def _rows(self, branches: Sequence[Branch]) -> list[_Row]:
        rows: list[_Row] = []
        filling: dict[tuple[int, ...], _Row] = {}
        for number, branch in enumerate(branches):
            beginning, rest, (behind, question) = self._split(branch.prompt)
            follows = [*rest, *branch.target[:-1]]
            row = filling.get(tuple(beginning))
            if row is None or len(row.ids) + len(follows) > ROW:
                row = filling[tuple(beginning)] = _Row(list(beginning), len(beginning))
                rows.append(row)
            start = len(row.ids)
            row.ids += follows
            asks = start + len(rest) - behind - 1  # what stands before the question tells its first token
            asked = tuple(question) if branch.judges else ()
            row.parts.append(_Part(number, start, len(row.ids), len(branch.target), asks, asked))
        return rows

    def _states(self, rows: Sequence[_Row]) -> Tensor:
        """Of the last layer: (rows, tokens, width)."""
        width = max(len(row.ids) for row in rows)
        ids, positions = torch.zeros(2, len(rows), width, dtype=torch.long)
        owner = torch.full((len(rows), width), -1)  # the part that a token belongs to: 0 the beginning, -1 padding
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)] = torch.tensor(row.ids)
            spans = [(0, row.beginning, 0), *((part.start, part.end, row.beginning) for part in row.parts)]
            for part, (start, end, behind) in enumerate(spans):
                positions[number, start:end] = torch.arange(behind, behind + end - start)
                owner[number, start:end] = part
        seen = (owner[:, None, :] == owner[:, :, None]) | (owner[:, None, :] == 0)
        seen &= torch.ones(width, width, dtype=torch.bool).tril()  # (rows, from, to)
        inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        device = self.model.device
        low = self.model.dtype != torch.float32  # then LoRA's own matrices are in float32, and are multiplied lower
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            output = getattr(inner, inner.base_model_prefix)(
                input_ids=ids.to(device),
                attention_mask=seen.unsqueeze(1).to(device),
                position_ids=positions.to(device),
                use_cache=False,
            )
        states: Tensor = output.last_hidden_state
        return states

    def _logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self.model.get_output_embeddings()(states.to(self.model.dtype))
        return logits


def _mean(log_probs: Tensor, tokens: Sequence[int]) -> Tensor | None:
    """Of these tokens' log-probabilities: (N, V), N -> (); None of no token."""
    return log_probs[torch.arange(len(tokens)), torch.tensor(tokens)].mean() if tokens else None


def _batches(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Rows of like lengths together, as many as `READ` tokens hold, padding included."""
    batch: list[_Row] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        if batch and len(batch[0].ids) * (len(batch) + 1) > READ:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


class TrainableSeq2Seq:
    """Any model of `AutoModelForSeq2SeqLM`, or the generator of a RAG checkpoint: a row a branch.

    What a reply begins with, a forced first token included, is given; the loss begins behind it.
    """

    def __init__(self, model: Any, loaded: Loaded) -> None:
        self.model = model
        self.limit: int | None = None  # the encoder's prompts are cut to fit, and the decoder's window is its own
        self._loaded = loaded

    def target(self, text: str) -> list[int]:
        ids = self._loaded.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        return [*ids, min(self._loaded.ends)]

    def length(self, prompt: Prompt) -> int:
        return len(encode(self._loaded, prompt).ids)

    def save(self, folder: Path, base: str) -> None:
        _save(self.model, self._loaded.tokenizer, folder, base)

    def log_probs(self, branches: Sequence[Branch]) -> list[Tensor]:
        device, start = self.model.device, self._loaded.start
        rows = [encode(self._loaded, branch.prompt).ids for branch in branches]
        given = [[*start, *branch.target[:-1]] for branch in branches]
        output = self.model(
            input_ids=_padded(rows).to(device),
            attention_mask=_padded([[1] * len(row) for row in rows]).to(device),
            decoder_input_ids=_padded(given).to(device),
            use_cache=False,
        )
        told = torch.log_softmax(output.logits.float(), dim=-1)
        first = len(start) - 1
        return [each[first : first + len(branch.target)] for each, branch in zip(told, branches, strict=True)]


def _save(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, base: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(model, PeftModel):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return
    for config in model.peft_config.values():
        config.base_model_name_or_path = base  # not the folder on this machine
    save_adapter(model, folder)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """LoRA matrices alone."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """On the right, with 0: what stands there is masked, or comes after all that counts."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
