"""Encoder-decoder generators (BART, T5, Flan-T5 ...) and whole RAG checkpoints, through transformers: one row a branch.

The encoder reads each branch's prompt once; the decoder then advances all rows in step, with its keys and values and
those of the encoder's states kept in one cache. A RAG checkpoint (facebook/rag-token-nq, facebook/rag-sequence-nq:
config.json has model_type "rag") gets the layout that it was trained with, `title / passage // question`, as Hugging
Face's RagRetriever writes it. Any other model gets instruction, question, passage: the encoder sees all of it at once,
so nothing is gained by the passage standing first, and models trained with their input cut at its end, as is the rule,
have only seen questions that are whole where the question stood before the passage.

A prompt is tokenised whole, so that the ids are those of training; a text's own "</s>" stays text. What is over the
encoder's window is cut by token offsets: the oldest turns, then the passage's end, never the question.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    EncoderDecoderCache,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RagTokenForGeneration,
)
from transformers.utils import logging as transformers_logging

from chatbot.errors import MissingModel, UnusableUtterance
from chatbot.generators.adapter import adapted, note_in
from chatbot.generators.base import Decoding
from chatbot.generators.packed import can_pack, pack
from chatbot.generators.reference import name_of_cache
from chatbot.loading import NOT_LOADED, from_the_hub
from chatbot.prompt import Prompt

PROMPT_ROWS, STEP_ROWS = 1024, 6  # tokens that the encoder reads together, rows that the decoder advances: about
Layout = Callable[[Prompt], tuple[str, str, str]]  # what stands before the passage, the passage, what stands after it


def is_encoder_decoder(model: str) -> bool:
    """Whether `Seq2Seq` is the adapter for this folder or hub id: by its config.json alone. Raises MissingModel."""
    return bool(_config(model).is_encoder_decoder)


class Seq2Seq:
    """A folder or hub id that `AutoModelForSeq2SeqLM` loads, or a RAG checkpoint. Weights load at the first use, once.

    Where the decoder's positions are used up, only the end token is left. Raises MissingModel where the weights are not
    found, UnusableUtterance for a question longer than the encoder's window.
    """

    def __init__(self, model: str, adapter: str | None = None) -> None:
        self._name = model
        self._adapter = adapter
        self._loading = threading.Lock()
        self._tokenizing = threading.Lock()  # all share the switch `split_special_tokens`
        self._loaded: Loaded | None = None

    def warm(self) -> None:
        """Load the weights now."""
        self._load()

    @property
    def default_epsilon(self) -> float | None:
        """What a RAG checkpoint was trained for: 1 RAG-Token, 0 RAG-Sequence. Of others, what `train` noted, if any."""
        config = _config(self._name)
        if config.model_type != "rag":
            return note_in(self._adapter or self._name).epsilon
        return 0.0 if _is_rag_sequence(config) else 1.0

    @property
    def refusal(self) -> int | None:
        return self._load().refusal

    @property
    def default_least_confidence(self) -> float | None:
        return note_in(self._adapter or self._name).least_confidence

    @property
    def end_tokens(self) -> frozenset[int]:
        return self._load().ends

    def read(self, prompts: Sequence[Prompt]) -> Decoding:
        loaded = self._load()
        with self._tokenizing:
            rows = [encode(loaded, prompt) for prompt in prompts]
        return _Reading(loaded, rows)

    def _load(self) -> Loaded:
        with self._loading:
            if self._loaded is None:
                self._loaded = load(self._name, self._adapter)
            return self._loaded


@dataclass(frozen=True, slots=True)
class Loaded:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    start: tuple[int, ...]  # what the decoder reads before the reply's first token
    ends: frozenset[int]
    window: int | None  # of the encoder; None where positions are relative, as in T5
    length: int | None  # of the decoder
    refusal: int | None


def load(name: str, adapter: str | None = None, *, packed: bool = True) -> Loaded:
    """`packed`: laid out to be run, not to be trained. Raises MissingModel."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    config = _config(name)
    try:
        with from_the_hub():
            if config.model_type == "rag":
                tokenizer = AutoTokenizer.from_pretrained(
                    name, config=config.generator, subfolder="generator_tokenizer"
                )
                rag = RagTokenForGeneration.from_pretrained(name, dtype=dtype)
                model = rag.generator
                # where Hugging Face's two classes look for the first tokens
                generation = model.generation_config if _is_rag_sequence(config) else rag.generation_config
                layout = _as_trained(config, getattr(model.config, "prefix", None) or "")
            else:
                tokenizer = AutoTokenizer.from_pretrained(name)
                model = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=dtype)
                generation, layout = model.generation_config, _instructed
    except NOT_LOADED as error:
        raise _missing(name, error) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise MissingModel(f"generator {name!r} has no tokenizer.json: save its tokenizer in the fast format")
    if 2 * len(tokenizer) < model.config.vocab_size:  # transformers makes an empty one where there is none
        raise _missing(name, ValueError(f"its tokenizer knows {len(tokenizer)} of {model.config.vocab_size} tokens"))
    if adapter is not None:
        model = adapted(model, adapter)
    model = model.to(device).eval()
    if packed and device == "cpu" and can_pack():
        pack(model.get_encoder(), rows=PROMPT_ROWS)
        pack(model, rows=STEP_ROWS)  # what is left: the decoder and the head
    places = getattr(model.config, "max_position_embeddings", None)
    return Loaded(
        model,
        tokenizer,
        layout,
        start=_start(name, generation, model.config),
        ends=_ends(tokenizer.eos_token_id, model.config.eos_token_id, generation.eos_token_id),
        window=getattr(model.config, "max_encoder_position_embeddings", places),
        length=getattr(model.config, "max_decoder_position_embeddings", places),
        refusal=note_in(adapter or name).refusal_token(tokenizer),
    )


def _config(name: str) -> PreTrainedConfig:
    try:
        with from_the_hub():
            config: PreTrainedConfig = AutoConfig.from_pretrained(name)
            return config
    except NOT_LOADED as error:
        raise _missing(name, error) from error


def _missing(name: str, error: Exception) -> MissingModel:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return MissingModel(
        f"generator {name!r} cannot be loaded ({reason}): "
        "give --set generator= a folder or hub id that holds a transformers model and its tokenizer"
    )


def _is_rag_sequence(config: PreTrainedConfig) -> bool:
    return "RagSequenceForGeneration" in (config.architectures or ())


def _start(name: str, generation: GenerationConfig, config: PreTrainedConfig) -> tuple[int, ...]:
    """The decoder's first token, and the one that some models (BART, mBART) are made to say after it."""
    configured = [getattr(config, f"{which}_token_id", None) for which in ("decoder_start", "bos")]
    known = [token for token in (generation.decoder_start_token_id, *configured) if token is not None]
    if not known:
        raise MissingModel(f"generator {name!r} names no decoder_start_token_id: add it to its generation_config.json")
    forced = generation.forced_bos_token_id
    return (known[0],) if forced is None else (known[0], forced)


def _ends(*given: int | list[int] | None) -> frozenset[int]:
    return frozenset(token for end in given if end is not None for token in ([end] if isinstance(end, int) else end))


def _instructed(prompt: Prompt) -> tuple[str, str, str]:
    said = "".join(f"Question: {utterance}\nAnswer: {reply}\n" for utterance, reply in prompt.conversation)
    before = f"{prompt.instruction}\n\n{said}Question: {prompt.query}"
    if prompt.passage is None:
        return before, "", ""
    return f"{before}\n{prompt.label}", prompt.passage, ""


def _as_trained(config: PreTrainedConfig, prefix: str) -> Layout:
    """As `RagRetriever.postprocess_docs`; "no passage", which it does not know, is the question alone.

    What was said before goes before the question.
    """

    def layout(prompt: Prompt) -> tuple[str, str, str]:
        question = "\n".join([*(text for turn in prompt.conversation for text in turn), prompt.query.strip()])
        if prompt.passage is None:
            return prefix, "", _single_spaced(question)
        title = prompt.title.removeprefix('"').removesuffix('"')
        before, after = prefix + title + config.title_sep, config.doc_sep + question
        return _single_spaced(before), _single_spaced(prompt.passage.strip()), _single_spaced(after)

    return layout


def _single_spaced(text: str) -> str:
    return text.replace("  ", " ")


class Row(NamedTuple):
    ids: list[int]
    cut: tuple[str, ...]  # what did not fit: "conversation", "passage"


def encode(loaded: Loaded, prompt: Prompt) -> Row:
    """The prompt's token ids. Over the window, the oldest turns go first, then the passage's end; no question does."""
    told = prompt.conversation
    while True:
        before, passage, after = loaded.layout(prompt)
        pieces = _pieces(loaded.tokenizer, before + passage + after)
        excess = 0 if loaded.window is None else len(pieces) - loaded.window
        if excess <= 0 or not prompt.conversation:
            break
        prompt = replace(prompt, conversation=prompt.conversation[1:])
    start, stop = len(before), len(before) + len(passage)
    inside = [place for place, piece in enumerate(pieces) if start <= piece.start < piece.end <= stop]
    if len(inside) < excess:
        raise UnusableUtterance(
            f"the question and its instruction have {len(pieces) - len(inside):,} tokens, and the generator reads at "
            f"most {loaded.window:,}: shorten the question, or choose a generator of a larger window with "
            "--set generator="
        )
    left_out = set(inside[len(inside) - excess :]) if excess > 0 else set()
    parts = (("conversation", prompt.conversation != told), ("passage", bool(left_out)))
    return Row(
        [piece.id for place, piece in enumerate(pieces) if place not in left_out],
        tuple(part for part, shortened in parts if shortened),
    )


class _Piece(NamedTuple):
    """A token and the characters that it stands for; none, where the tokenizer adds it."""

    id: int
    start: int
    end: int


def _pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[_Piece]:
    """A text's tokens, with those that the tokenizer adds around it, and none that the text itself spells.

    In a Unigram vocabulary such as T5's, "</s>" is an entry like any other, which `split_special_tokens` does not stop
    a text from matching: it is spelled by its characters instead.
    """
    encoded = tokenizer(
        text, split_special_tokens=True, verbose=False, return_offsets_mapping=True, return_special_tokens_mask=True
    )
    special = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    pieces: list[_Piece] = []
    for id, (start, end), added in zip(
        encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True
    ):
        if added:
            pieces.append(_Piece(id, 0, 0))
        elif id in special:
            characters = tokenizer.convert_tokens_to_ids(list(text[start:end]))
            assert isinstance(characters, list)
            pieces += [_Piece(part, place, place + 1) for place, part in enumerate(characters, start)]
        else:
            pieces.append(_Piece(id, start, end))
    return pieces


class _Reading:
    """K rows in one batch. `push` only notes the token; the model runs when the next probabilities are asked for."""

    def __init__(self, loaded: Loaded, read: Sequence[Row]) -> None:
        model, tokenizer, rows = loaded.model, loaded.tokenizer, [row.ids for row in read]
        self.cut = tuple(sorted({part for row in read for part in row.cut}))
        self._model, self._backend = model, tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ends, self._length = sorted(loaded.ends), loaded.length
        width, pad = max(len(row) for row in rows), tokenizer.pad_token_id or 0
        self._read = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=model.device)
        self._mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
        self._input = torch.tensor([loaded.start] * len(rows), device=model.device)
        self._taken = len(loaded.start)  # of the decoder's positions
        self._states: Any = None  # of the encoder
        self._cache: Any = None
        self._name = name_of_cache(self._model)
        self._log_probs: Tensor | None = None
        self._vocabulary = 0

    @torch.inference_mode()
    def log_probs(self) -> Tensor:
        if self._log_probs is None:
            if self._length is not None and self._taken > self._length:
                self._log_probs = self._only_the_end()
                return self._log_probs
            if self._states is None:
                encoder: Any = self._model.get_encoder()
                self._states = encoder(input_ids=self._read, attention_mask=self._mask, return_dict=True)
            output = self._model(
                encoder_outputs=self._states,
                attention_mask=self._mask,
                decoder_input_ids=self._input,
                use_cache=True,
                **{self._name: self._cache},
            )
            self._cache = output[self._name]
            self._log_probs = torch.log_softmax(output.logits[:, -1].float(), dim=-1).cpu()
            self._vocabulary = self._log_probs.shape[1]
        return self._log_probs

    def push(self, token: int) -> str:
        self.log_probs()  # the rows must have been read before they go on
        self._input = self._input.new_full((self._mask.shape[0], 1), token)
        self._taken += 1
        self._log_probs = None
        return self._stream.step(self._backend, token) or ""

    def fork(self) -> Decoding:
        """The encoder's states, and their keys and values, are never written to: both share them."""
        other = copy.copy(self)
        other._stream = copy.deepcopy(self._stream)
        if self._cache is not None:
            own = copy.deepcopy(self._cache.self_attention_cache)
            other._cache = EncoderDecoderCache(own, self._cache.cross_attention_cache)
        return other

    def _only_the_end(self) -> Tensor:
        log_probs = torch.full((self._mask.shape[0], self._vocabulary), -torch.inf)
        log_probs[:, self._ends[0]] = 0.0
        return log_probs
