"""Decoder-only generators (Llama, Qwen, SmolLM, GPT-2 ...) : one row of the batch a branch.

Every part of a prompt is tokenised alone, and only the chat template's own words may become special tokens,
so a passage that holds "<|im_end|>" cannot end its message. A prompt is read in segments: the instruction, the passage,
what was said up to each reply, the query. What the model makes of a segment depends on nothing after it, so it is kept
and used again.
"""

from __future__ import annotations

import copy
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import torch
from jinja2.exceptions import TemplateError
from tokenizers.decoders import DecodeStream
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from chatbot.errors import MissingModel, UnusableUtterance
from chatbot.generators import lean, openvino
from chatbot.generators.adapter import Note, adapted, note_in
from chatbot.generators.base import Decoding, Generator
from chatbot.generators.disk_cache import DiskCache
from chatbot.generators.engine import Engine, Rows
from chatbot.generators.passage_cache import PassageCache, Since, keys_of, packed
from chatbot.generators.reference import Reference
from chatbot.loading import NOT_LOADED, from_the_hub, has_openvino
from chatbot.prompt import Prompt

SLOT = re.compile("\ue000(\\d+)\ue001")  # private-use characters mark where a part goes in the template
MOST_READ = 6_144  # tokens in all prompts together: each takes 23 kB in SmolLM2-135M, some three times over
MOST_JUDGED = 64  # tokens of a question: each costs logits of the whole vocabulary in every branch
PLAIN_TEMPLATE = (  # for models without a chat template
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'Answer: ' + message['content'] + '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)


class Causal:
    """A folder or hub id that `AutoModelForCausalLM` loads. Loading happens at the first use, once.

    `reserve`: tokens of the window kept free for the reply. `cache_bytes`: how much of what was read is kept, in
    16 bits a number; 0 keeps nothing and rounds nothing. `disk`: where what was made of passages outlives the process.
    `adapter`: a folder with LoRA matrices (peft's format), which are added to the weights. A folder of a model or an
    adapter that `train generator` made also says what a refusal is.
    `engine`: "transformers", "openvino", "lean", "lean-float32", or "auto", the fastest that runs the model here.
    `judges_questions`: where several prompts are read, what is read has `log_question`. None: where its training found
    a weight for that.
    Raises MissingModel where the weights are not found or the engine does not fit them, UnusableUtterance for a
    question longer than what the reply leaves of the window.
    """

    def __init__(
        self,
        model: str,
        *,
        adapter: str | None = None,
        reserve: int = 256,
        cache_bytes: int = 0,
        engine: str = "transformers",
        disk: DiskCache | None = None,
        judges_questions: bool | None = None,
    ) -> None:
        self._name = model
        self._adapter = adapter
        self._engine = engine
        self._reserve = reserve
        self._judges_questions = judges_questions
        self._loading = threading.Lock()
        self._tokenizing = threading.Lock()  # all share the switch `split_special_tokens`
        self._loaded: _Loaded | None = None
        self.cache = PassageCache(cache_bytes, disk)

    def warm(self) -> None:
        """Load the weights now."""
        self._load()

    def forget(self) -> None:
        """Drop what is kept of every passage: call it when a document is deleted or replaced."""
        self.cache.clear()

    def begun(self) -> Generator:
        """The same generator for one turn, to be taken before passages are looked up: where `forget` is called after,
        it keeps nothing of what it reads."""
        return _Begun(self, self.cache.begun())

    @property
    def end_tokens(self) -> frozenset[int]:
        return self._load().end_tokens

    @property
    def refusal(self) -> int | None:
        """The token that a refusal begins with, for a model that was trained to refuse."""
        return self._load().refusal

    @property
    def default_epsilon(self) -> float | None:
        """What its training found best; None where that is not known."""
        return self._note.epsilon

    @property
    def default_least_confidence(self) -> float | None:
        return self._note.least_confidence

    @property
    def default_question_weight(self) -> float | None:
        return self._note.question_weight

    @property
    def unread(self) -> tuple[str, ...]:
        return self._note.unread

    @property
    def _note(self) -> Note:
        """Read from its file, for these must be known before the weights are loaded."""
        return note_in(self._adapter or self._name)

    @property
    def weight_bytes(self) -> int:
        """Of the weights that a step reads, as they are stored."""
        return self._load().engine.weight_bytes

    @property
    def number_bytes(self) -> int:
        """Of one number of the keys and values that a step reads."""
        return self._load().engine.number_bytes

    def read(self, prompts: Sequence[Prompt], since: Since | None = None) -> Decoding:
        """`since`: see `PassageCache.begun`; None: now."""
        since = self.cache.begun() if since is None else since
        loaded = self._load()
        limit = loaded.limit(self._reserve)
        with self._tokenizing:
            fitted = [_fit(loaded.tokenizer, prompt, limit) for prompt in prompts]
        pieces = [_pieces(parts) for parts, _ in fitted]
        asked = [_asked(parts) for parts, _ in fitted] if loaded.judges and len(prompts) > 1 else []
        tail = 1 + max((end for end, _ in asked), default=0)
        rows = _read(loaded.engine, self.cache, pieces, [_lasting(parts) for parts, _ in fitted], tail, since)
        reading = _Reading(rows, loaded.tokenizer, tuple(sorted({what for _, cut in fitted for what in cut})))
        if asked and all(tokens for _, tokens in asked):
            reading.log_question = torch.stack(list(map(_log_question, rows.tail(), asked)))
        return reading

    def at_once(self, prompts: Sequence[Prompt]) -> int:
        """How many of these are read together: at most MOST_READ tokens, but two prompts whatever their length."""
        loaded = self._load()
        longest = max(prompts, key=_length)
        with self._tokenizing:
            parts, _ = _fit(loaded.tokenizer, longest, loaded.limit(self._reserve))
        return max(2, MOST_READ // sum(len(ids) for _, ids in parts))

    def _load(self) -> _Loaded:
        with self._loading:
            if self._loaded is None:
                model, tokenizer = _from_pretrained(self._name)
                if self._adapter is not None:
                    model = adapted(model, self._adapter)
                self._loaded = _Loaded(
                    _engine(model, self._engine),
                    tokenizer,
                    _end_tokens(model, tokenizer),
                    getattr(model.config, "max_position_embeddings", None),
                    self._note.refusal_token(tokenizer),
                    bool(self._note.question_weight) if self._judges_questions is None else self._judges_questions,
                )
                if self.cache.disk is not None and self._loaded.engine.fingerprint is not None:
                    self.cache.disk.open(self._loaded.engine.fingerprint)
            return self._loaded


@dataclass(frozen=True, slots=True)
class _Begun:
    """See `Causal.begun`."""

    _by: Causal
    _since: Since

    @property
    def end_tokens(self) -> frozenset[int]:
        return self._by.end_tokens

    @property
    def refusal(self) -> int | None:
        return self._by.refusal

    def at_once(self, prompts: Sequence[Prompt]) -> int:
        return self._by.at_once(prompts)

    def read(self, prompts: Sequence[Prompt]) -> Decoding:
        return self._by.read(prompts, self._since)


@dataclass(frozen=True, slots=True)
class _Loaded:
    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    end_tokens: frozenset[int]
    window: int | None  # tokens
    refusal: int | None
    judges: bool  # whether branches judge the question

    def limit(self, reserve: int) -> int | None:
        """Tokens of a prompt, where so many are kept free for the reply."""
        return None if self.window is None else self.window - reserve


def engine_of(name: str, engine: str = "auto") -> str:
    """What would run this folder or hub id, told from its configuration: no weights are read, nothing is fetched.

    Raises MissingModel where the configuration is not on this machine, or the engine does not fit it.
    """
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=True)
        if config.is_encoder_decoder:  # `Seq2Seq` has one engine
            return "transformers"
        with FakeTensorMode(), torch.device(_device()):  # its parameters have shapes, and no memory
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except NOT_LOADED as error:
        raise _not_loaded(name, error) from error
    return _choice(model, engine)


def _engine(model: PreTrainedModel, name: str) -> Engine:
    choice = _choice(model, name)
    if choice == "transformers":
        return Reference(model)
    if choice == "openvino int8":
        return openvino.OpenVino(model)
    return lean.Lean(model, int8=choice == "lean int8")


def _choice(model: PreTrainedModel, name: str) -> str:
    if name == "transformers" or (name == "auto" and not _is_quick(model)):
        return "transformers"
    if not lean.fits(model):
        kind = name.removesuffix("-float32")
        raise MissingModel(f"the {kind} engine does not run {type(model).__name__} on {model.device}: set engine=auto")
    if name == "openvino" or (name == "auto" and has_openvino()):
        if not has_openvino():
            raise MissingModel("engine=openvino needs OpenVINO: pip install openvino, or set engine=auto")
        return "openvino int8"
    return "lean int8" if name != "lean-float32" and lean.has_int8() else "lean float32"


def _is_quick(model: PreTrainedModel) -> bool:
    """Whether an engine of this project runs the model faster than transformers does."""
    return lean.fits(model) and (has_openvino() or lean.has_int8())


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    ends = [tokenizer.eos_token_id, model.config.eos_token_id]
    if model.generation_config is not None:
        ends.append(model.generation_config.eos_token_id)
    return frozenset(token for end in ends if end is not None for token in ([end] if isinstance(end, int) else end))


def _read(
    engine: Engine,
    cache: PassageCache,
    prompts: Sequence[Sequence[list[int]]],
    lasting: Sequence[int] = (),
    tail: int = 1,
    since: Since | None = None,
) -> Rows:
    """Read prompts, each a list of segments, of which as many as are held but the last one are not read again.

    `lasting`: for each prompt, of how many segments what was read may be kept on disk. `tail`: see `Engine.read`.

    What is missing is read in three passes: beginnings that several prompts share, once; then each prompt up to its
    last segment; then the last segments.
    """
    if engine.fingerprint is None or not (cache.budget or cache.disk):
        return engine.read(
            [[id for segment in segments for id in segment] for segments in prompts], [[]] * len(prompts), tail
        )
    keys = [keys_of(engine.fingerprint, segments) for segments in prompts]
    held = [cache.held(row[:-1], since) for row in keys]

    def read(rows: Sequence[int], ends: Sequence[int], tail: int = 1) -> Rows:
        """Bring each of these prompts from what is held of it up to its segment `end`."""
        missing = [prompts[row][len(held[row]) : end] for row, end in zip(rows, ends, strict=True)]
        ids = [[id for segment in each for id in segment] for each in missing]
        memories = engine.read(ids, [held[row] for row in rows], tail)
        for place, (row, segments) in enumerate(zip(rows, missing, strict=True)):
            lengths = [len(segment) for segment in segments]
            parts = torch.split(memories.memory(place), lengths, dim=3)
            held[row] = held[row] + [packed(part) for part in parts]
            cache.keep(keys[row][: len(held[row])], held[row], lasting[row] if lasting else 0, since)
        return memories

    fresh = [row for row in range(len(prompts)) if not held[row] and len(prompts[row]) > 1]
    firsts = Counter(keys[row][0] for row in fresh)
    if shared := list({keys[row][0]: row for row in fresh if firsts[keys[row][0]] > 1}.values()):
        read(shared, [1] * len(shared))
        found = {keys[row][0]: held[row] for row in shared}
        for row in fresh:
            held[row] = found.get(keys[row][0], held[row])
    if rows := [row for row in range(len(prompts)) if len(held[row]) < len(prompts[row]) - 1]:
        read(rows, [len(prompts[row]) - 1 for row in rows])
    return read(range(len(prompts)), [len(segments) for segments in prompts], tail)


def _length(prompt: Prompt) -> int:
    """Bytes."""
    said = [text for turn in prompt.conversation for text in turn]
    return sum(
        len(text.encode(errors="replace")) for text in (prompt.instruction, prompt.passage or "", *said, prompt.query)
    )


def _from_pretrained(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = _device()
    dtype = torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    try:
        with from_the_hub():
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except NOT_LOADED as error:
        raise _not_loaded(name, error) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise MissingModel(f"generator {name!r} has no tokenizer.json: save its tokenizer in the fast format")
    return model.to(device).eval(), tokenizer  # type: ignore[arg-type]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _not_loaded(name: str, error: Exception) -> MissingModel:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return MissingModel(
        f"generator {name!r} cannot be loaded ({reason}): "
        "give --set generator= a folder or hub id that holds a transformers causal model and its tokenizer"
    )


def segments(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, limit: int | None = None) -> list[list[int]]:
    """The prompt's token ids within the limit, in pieces that other prompts may begin with too."""
    return segments_and_question(tokenizer, prompt, limit)[0]


def segments_and_question(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, limit: int | None = None
) -> tuple[list[list[int]], tuple[int, list[int]]]:
    """`segments`, and (tokens from the question's first one to the prompt's end, the tokens that are judged of it)."""
    parts, _ = _fit(tokenizer, prompt, limit)
    return _pieces(parts), _asked(parts)


def _fit(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, limit: int | None
) -> tuple[list[tuple[str, list[int]]], set[str]]:
    """The prompt's parts (see `_parts`) within the limit, and what was cut of it: "conversation", "passage".

    The oldest turns go first, then the passage's end; never the query. Raises UnusableUtterance where that leaves too
    much.
    """
    cut: set[str] = set()
    while True:
        parts = list(_parts(tokenizer, prompt))
        excess = sum(len(ids) for _, ids in parts) - limit if limit is not None else 0
        if excess <= 0:
            return parts, cut
        if not prompt.conversation:
            break
        prompt = replace(prompt, conversation=prompt.conversation[1:])
        cut.add("conversation")
    for slot, ids in parts:
        if slot == "passage" and ids:
            left = max(0, len(ids) - excess)
            excess -= len(ids) - left
            del ids[left:]
            cut.add("passage")
    if excess > 0:
        needed = sum(len(ids) for _, ids in parts)
        raise UnusableUtterance(
            f"the question and its instruction have {needed:,} tokens, and beside its reply the generator reads at "
            f"most {max(0, needed - excess):,}: shorten the question, lower max_reply_tokens, or choose a generator "
            "of a larger window with --set generator="
        )
    return parts, cut


def _pieces(parts: Sequence[tuple[str, list[int]]]) -> list[list[int]]:
    """Token ids in pieces that other prompts may begin with too.

    A new one begins with the passage, behind it, and with each reply: there an earlier turn's prompt ended.
    """
    segments: list[list[int]] = [[]]
    behind = False
    for slot, ids in parts:
        if behind or slot in ("passage", "reply"):
            segments.append([])
        segments[-1] += ids
        behind = slot == "passage"
    return [segment for segment in segments if segment]


def _asked(parts: Sequence[tuple[str, list[int]]]) -> tuple[int, list[int]]:
    """(tokens from the question's first one to the prompt's end, the question's tokens); of a long one, the last.

    Something of the prompt always stands before the question in the segment that both end in.
    """
    place = next(place for place, (slot, _) in enumerate(parts) if slot == "query")
    tokens = parts[place][1][-MOST_JUDGED:]
    return len(tokens) + sum(len(ids) for _, ids in parts[place + 1 :]), tokens


def _log_question(tail: Tensor, asked: tuple[int, list[int]]) -> Tensor:
    """log p(question | what stands before it), the mean over its tokens: (n, V) -> ()."""
    end, tokens = asked
    start = len(tail) - 1 - end  # after the token before it
    told = tail[start : start + len(tokens)].log_softmax(dim=-1).cpu()
    return told[torch.arange(len(tokens)), torch.tensor(tokens)].mean()


def _lasting(parts: Sequence[tuple[str, list[int]]]) -> int:
    """The number of pieces up to the passage's end. What follows, or stands for no passage, is what people said."""
    return 2 if any(slot == "passage" and ids for slot, ids in parts) else 0


def _parts(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Iterator[tuple[str, list[int]]]:
    """(what it is, token ids) in reading order; "template" for the chat template's own words."""
    slots: list[tuple[str, str]] = []

    def slot(kind: str, text: str) -> str:
        slots.append((kind, text))
        return f"\ue000{len(slots) - 1}\ue001"

    system = slot("instruction", prompt.instruction)
    passage = "" if prompt.passage is None else prompt.label + slot("passage", prompt.passage) + "\n\n"
    said = [
        slot(kind, text)
        for turn in prompt.conversation
        for kind, text in zip(("utterance", "reply"), turn, strict=True)
    ]
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
    """`log_question`: log p(question | passage) of each branch, a token, (K,) in nats; None where it was not judged.

    `push` only notes the token; the engine runs when the next probabilities are asked for."""

    def __init__(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, cut: tuple[str, ...]) -> None:
        self.cut = cut
        self.log_question: Tensor | None = None
        self._rows = rows
        self._backend = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._pushed: int | None = None
        self._log_probs: Tensor | None = None

    def log_probs(self) -> Tensor:
        if self._pushed is not None:
            self._rows.step(self._pushed)
            self._pushed = self._log_probs = None
        if self._log_probs is None:
            self._log_probs = torch.log_softmax(self._rows.logits(), dim=-1).cpu()
        return self._log_probs

    def push(self, token: int) -> str:
        if self._pushed is not None:  # nobody asked for its probabilities
            self._rows.step(self._pushed)
        self._pushed = token
        return self._stream.step(self._backend, token) or ""

    def fork(self) -> Decoding:
        other = copy.copy(self)
        other._rows, other._stream = self._rows.fork(), copy.deepcopy(self._stream)
        return other
