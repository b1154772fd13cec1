"""What is measured on the chat's generator: our own loop, and what people would use instead."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from chatbot.errors import WrongSetting
from chatbot.settings import Settings

if TYPE_CHECKING:
    from chatbot.generators.base import Decoding, Generator
    from chatbot.prompt import Prompt

PASSAGE_TOKENS, CONVERSATION_TOKENS, QUERY_TOKENS, REPLY_TOKENS = 256, 64, 20, 64
TEXT = (
    "the harbour of the old town was built by sailors who came from the islands in the north and sold salt fish rope "
    "timber wool and amber to merchants of the plain every autumn before the river froze over and the roads closed"
)
NUMBER = 4  # bytes: transformers keeps keys and values in float32 on a CPU


@dataclass(frozen=True, slots=True)
class Timing:
    """One reply: seconds to its first token, and to its last."""

    first: float
    last: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a system takes: None where that is not known."""

    peak_mb: float  # of its process
    step_bytes: int | None
    cache_bytes_per_passage: int | None


class System(Protocol):
    def reply(self) -> Timing: ...

    def step_bytes(self) -> int | None:
        """What a step half-way through the reply must read: weights, and the keys and values of all branches."""


def footprint(system: System) -> Footprint:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    per_passage: Callable[[], int | None] = getattr(system, "cache_bytes_per_passage", lambda: None)
    return Footprint(peak, system.step_bytes(), per_passage())


class Ours:
    """The product's own loop: prompts, mixture, posteriors, text."""

    def __init__(self, chosen: Settings, prompts: Sequence[Prompt], warm: bool) -> None:
        from chatbot.assemble import generator

        self._generator: Generator = generator(chosen)
        self._chosen, self._prompts, self._warm = chosen, prompts, warm

    def reply(self) -> Timing:
        from chatbot.generate import generate
        from chatbot.sampling import Sampling

        if not self._warm and (forget := getattr(self._generator, "forget", None)) is not None:
            forget()
        prior = [1 / len(self._prompts)] * len(self._prompts)
        endless = _Endless(self._generator)
        return timed(lambda: generate(endless, self._prompts, prior, Sampling(max_tokens=REPLY_TOKENS)))

    def step_bytes(self) -> int | None:
        weights: int | None = getattr(self._generator, "weight_bytes", None)
        if weights is None:
            return None
        number: int = getattr(self._generator, "number_bytes", NUMBER)
        return read_in_a_step(weights, *_tokenized(self._chosen, self._prompts), number)

    def cache_bytes_per_passage(self) -> int | None:
        """Of a passage alone: what is kept of a prompt, less what is kept of the same without its passage."""
        cache = getattr(self._generator, "cache", None)
        if not self._warm or cache is None or not cache.budget:
            return None
        kept = []
        for prompt in (self._prompts[0], self._prompts[-1]):
            cache.clear()
            self._generator.read([prompt])
            kept.append(cache.size)
        return int(kept[0] - kept[1])


class _Endless:
    """A generator whose end tokens are ordinary ones."""

    end_tokens: frozenset[int] = frozenset()

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def read(self, prompts: Sequence[Prompt]) -> Decoding:
        return self._generator.read(prompts)


class Stuffing:
    """transformers' own `generate` on one prompt with every passage in it, float32."""

    def __init__(self, chosen: Settings, k: int) -> None:
        self._model, self._ids = _transformers(chosen, [stuffed(k)])

    def step_bytes(self) -> int | None:
        return _of_transformers(self._model, self._ids)

    def reply(self) -> Timing:
        import torch
        from transformers.generation.streamers import BaseStreamer

        times: list[float] = []

        class Clock(BaseStreamer):
            def put(self, value: object) -> None:
                times.append(time.perf_counter())

            def end(self) -> None:
                pass

        started = time.perf_counter()
        ids = torch.tensor(self._ids)
        self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=REPLY_TOKENS,
            min_new_tokens=REPLY_TOKENS,
            do_sample=False,
            streamer=Clock(),
        )
        _, first, *_, last = times  # the first is the prompt's
        return Timing(first - started, last - started, len(times) - 1)


class Naive:
    """Left padding, one batch, the cache of transformers, softmax over the prior, float32."""

    def __init__(self, chosen: Settings, k: int) -> None:
        self._model, self._rows = _transformers(chosen, prompts(k))

    def step_bytes(self) -> int | None:
        return _of_transformers(self._model, self._rows)

    def reply(self) -> Timing:
        return timed(self._tokens)

    def _tokens(self) -> Iterator[int]:
        import torch

        from chatbot.generators.reference import name_of_cache

        width = max(map(len, self._rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in self._rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in self._rows])
        cache: Any = None
        name = name_of_cache(self._model)
        with torch.inference_mode():
            for _ in range(REPLY_TOKENS):
                positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                output = self._model(
                    input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **{name: cache}
                )
                cache = output[name]
                token = int(output.logits[:, -1].softmax(-1).mean(0).argmax())
                yield token
                ids = torch.full((len(self._rows), 1), token)
                mask = torch.cat([mask, torch.ones_like(ids)], 1)


class LlamaCpp:
    """llama-cpp-python on stuffing's prompt, from a GGUF file that a person laid into the home's folder of models."""

    def __init__(self, chosen: Settings, k: int) -> None:
        from llama_cpp import Llama

        files = sorted((chosen.home / "models").glob("*.gguf"))
        if not files:
            raise WrongSetting(
                f"llama.cpp needs a .gguf file in {str(chosen.home / 'models')!r}: lay the model's there"
            )
        self._llama = Llama(str(files[0]), n_ctx=8192, n_threads=chosen.threads or None, verbose=False)
        self._text = "\n\n".join([stuffed(k).passage or "", stuffed(k).query])

    def step_bytes(self) -> None:
        """It does not say."""

    def reply(self) -> Timing:
        self._llama.reset()
        ids = self._llama.tokenize(self._text.encode())
        return timed(
            lambda: (token for token, _ in zip(self._llama.generate(ids, temp=0), range(REPLY_TOKENS), strict=False))
        )


def timed(tokens: Callable[[], Iterator[object]]) -> Timing:
    started = time.perf_counter()
    times = [time.perf_counter() - started for _ in tokens()]
    return Timing(times[0], times[-1], len(times))


def prompts(k: int) -> list[Prompt]:
    """K passages and "no passage", with an earlier turn: about as many tokens as the constants say."""
    from chatbot.prompt import Prompt

    said = ((_text(1, CONVERSATION_TOKENS // 2), _text(2, CONVERSATION_TOKENS // 2)),)
    passages = [*(_text(10 + number, PASSAGE_TOKENS) for number in range(k)), None]
    return [Prompt("Answer the question.", passage, said, _text(3, QUERY_TOKENS)) for passage in passages]


def stuffed(k: int) -> Prompt:
    """The same in one prompt."""
    from dataclasses import replace

    every = prompts(k)
    return replace(every[-1], passage="\n\n".join(prompt.passage for prompt in every if prompt.passage))


def _text(seed: int, words: int) -> str:
    """Common words, nearly each one token, in an order of their own."""
    words_of = TEXT.split()
    return " ".join(words_of[(seed * 7 + index * (seed % 5 + 1)) % len(words_of)] for index in range(words))


def read_in_a_step(weights: int, config: Any, rows: Sequence[Sequence[int]], number: int = NUMBER) -> int | None:
    """Bytes, with half of the reply said behind each row of a decoder of this configuration."""
    try:
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        a_token = int(config.num_hidden_layers * 2 * heads * size * number)
    except AttributeError:
        return None
    return weights + a_token * sum(len(row) + REPLY_TOKENS // 2 for row in rows)


def _of_transformers(model: Any, rows: Sequence[Sequence[int]]) -> int | None:
    from chatbot.generators.reference import weight_bytes

    return read_in_a_step(weight_bytes(model), model.config, rows)


def _transformers(chosen: Settings, wanted: Sequence[Prompt]) -> tuple[Any, list[list[int]]]:
    import torch
    from transformers import AutoModelForCausalLM

    from chatbot.assemble import cores

    torch.set_num_threads(min(chosen.threads or cores(), cores()))
    _, rows = _tokenized(chosen, wanted)
    folder = _folder(chosen)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), rows  # type: ignore[no-untyped-call]


def _tokenized(chosen: Settings, wanted: Sequence[Prompt]) -> tuple[Any, list[list[int]]]:
    """The generator's configuration, and the prompts' ids."""
    from transformers import AutoConfig, AutoTokenizer

    from chatbot.generators.causal import segments

    folder = _folder(chosen)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [[id for piece in segments(tokenizer, prompt) for id in piece] for prompt in wanted]
    return AutoConfig.from_pretrained(folder), ids


def _folder(chosen: Settings) -> str:
    from chatbot.models import locate

    folder = locate(chosen.generator, chosen.home / "models")
    if folder is None:
        raise WrongSetting(f"generator {chosen.generator!r} is not here yet: start the chat once, then measure")
    return str(folder)
