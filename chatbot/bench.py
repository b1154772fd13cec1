"""Speed, side by side with the baselines, in one run.

Each system lives in a process of its own, so that its memory can be told, and they are measured in turn, round after
round, so that a busy neighbour slows all of them. Figures are medians over the rounds. Every system says the same
number of tokens, whatever they are: end tokens are passed over.

    ours-warm   RAG-Token over K passages and "no passage", passages read before
    ours-cold   the same, with nothing kept
    stuffing    all passages in one prompt, through transformers' `generate`
    naive       a RAG-Token loop over `model(...)` as anybody would write it, float32
    llama.cpp   stuffing's prompt through llama-cpp-python, where that is installed
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Protocol

from chatbot.errors import MarginaliaError, WrongSetting
from chatbot.progress import Progress
from chatbot.settings import Settings

if TYPE_CHECKING:
    from chatbot.generators.base import Decoding, Generator
    from chatbot.prompt import Prompt

PASSAGE_TOKENS, CONVERSATION_TOKENS, QUERY_TOKENS, REPLY_TOKENS = 256, 64, 20, 64
SYSTEMS = ("ours-warm", "ours-cold", "stuffing", "naive", "llama.cpp")
TEXT = (
    "the harbour of the old town was built by sailors who came from the islands in the north and sold salt fish rope "
    "timber wool and amber to merchants of the plain every autumn before the river froze over and the roads closed"
)


@dataclass(frozen=True, slots=True)
class Timing:
    """One reply: seconds to its first token, and to its last."""

    first: float
    last: float
    tokens: int


class System(Protocol):
    def reply(self) -> Timing: ...


def bench(
    chosen: Settings, ks: Sequence[int], rounds: int, progress: Progress, systems: Sequence[str] = SYSTEMS
) -> dict[str, Any]:
    """{"settings", "memory_bandwidth_gb_s", "rows"}; a row is a system at one K."""
    available = [name for name in systems if name != "llama.cpp" or importlib.util.find_spec("llama_cpp")]
    bandwidth = memory_bandwidth(chosen.threads)
    rows, done = [], 0
    for k in ks:
        with _Children(chosen, available, k) as children:
            timings: dict[str, list[Timing]] = {name: [] for name in available}
            for _ in range(rounds):
                for name in available:
                    progress(done / (len(ks) * rounds * len(available)), f"{name}, k = {k}")
                    timings[name].append(children.ask(name))
                    done += 1
            rows += [_row(name, k, timings[name], children.peak(name)) for name in available]
    return {
        "settings": {"generator": chosen.generator, "threads": chosen.threads, "rounds": rounds}
        | {"passage_tokens": PASSAGE_TOKENS, "conversation_tokens": CONVERSATION_TOKENS}
        | {"query_tokens": QUERY_TOKENS, "reply_tokens": REPLY_TOKENS},
        "memory_bandwidth_gb_s": round(bandwidth, 2),
        "rows": rows,
    }


def _row(name: str, k: int, timings: Sequence[Timing], peak: float) -> dict[str, Any]:
    step = statistics.median((timing.last - timing.first) / (timing.tokens - 1) for timing in timings)
    return {
        "system": name,
        "k": k,
        "first_token_s": round(statistics.median(timing.first for timing in timings), 4),
        "tokens_per_s": round(1 / step, 2),
        "step_ms": round(1000 * step, 2),
        "peak_memory_mb": round(peak),
    }


def memory_bandwidth(threads: int) -> float:
    """Gigabytes read a second: the best of five sums over 512 MB."""
    import torch

    from chatbot.assemble import cores

    torch.set_num_threads(min(threads or cores(), cores()))
    numbers = torch.ones(128 << 20, dtype=torch.float32)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        numbers.sum()
        best = max(best, numbers.nbytes / 1e9 / (time.perf_counter() - started))
    return best


class _Children:
    """One process a system. `ask` has one of them reply while the others wait."""

    def __init__(self, chosen: Settings, systems: Sequence[str], k: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ends: dict[str, Connection] = {}
        self._processes = []
        for name in systems:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, name, chosen, k), daemon=True)
            process.start()
            theirs.close()
            self._ends[name] = ours
            self._processes.append(process)
            self._receive(name)  # ready

    def __enter__(self) -> _Children:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends.values():
            end.close()
        for process in self._processes:
            process.join(timeout=10)
            process.kill()

    def ask(self, name: str) -> Timing:
        self._ends[name].send("reply")
        timing = self._receive(name)
        assert isinstance(timing, Timing)
        return timing

    def peak(self, name: str) -> float:
        """Megabytes that the process has had at most."""
        self._ends[name].send("peak")
        return float(self._receive(name))

    def _receive(self, name: str) -> Any:
        try:
            answer = self._ends[name].recv()
        except EOFError:
            raise MarginaliaError(f"the process that measures {name} has ended: is there enough memory?") from None
        if isinstance(answer, MarginaliaError):
            raise answer
        return answer


def _serve(end: Connection, name: str, chosen: Settings, k: int) -> None:
    try:
        system = _MAKERS[name](chosen, k)
        system.reply()  # what is loaded or compiled at first use is no part of a reply
        end.send("ready")
        while True:
            if end.recv() == "reply":
                end.send(system.reply())
            else:
                end.send(
                    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
                )
    except MarginaliaError as error:
        end.send(error)
    except EOFError:
        return


class Ours:
    """The product's own loop: prompts, mixture, posteriors, text."""

    def __init__(self, chosen: Settings, k: int, warm: bool) -> None:
        from chatbot.assemble import generator

        self._generator: Generator = generator(chosen)
        self._prompts, self._warm = prompts(k), warm

    def reply(self) -> Timing:
        from chatbot.generate import generate
        from chatbot.sampling import Sampling

        if not self._warm and (forget := getattr(self._generator, "forget", None)) is not None:
            forget()
        prior = [1 / len(self._prompts)] * len(self._prompts)
        endless = _Endless(self._generator)
        return timed(lambda: generate(endless, self._prompts, prior, Sampling(max_tokens=REPLY_TOKENS)))


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

    def reply(self) -> Timing:
        return timed(self._tokens)

    def _tokens(self) -> Iterator[int]:
        import torch

        width = max(map(len, self._rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in self._rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in self._rows])
        cache: Any = None
        with torch.inference_mode():
            for _ in range(REPLY_TOKENS):
                positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                output = self._model(
                    input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
                )
                cache = output.past_key_values
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

    def reply(self) -> Timing:
        self._llama.reset()
        ids = self._llama.tokenize(self._text.encode())
        return timed(
            lambda: (token for token, _ in zip(self._llama.generate(ids, temp=0), range(REPLY_TOKENS), strict=False))
        )


_MAKERS: dict[str, Callable[[Settings, int], System]] = {
    "ours-warm": lambda chosen, k: Ours(chosen, k, warm=True),
    "ours-cold": lambda chosen, k: Ours(chosen, k, warm=False),
    "stuffing": Stuffing,
    "naive": Naive,
    "llama.cpp": LlamaCpp,
}


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


def _transformers(chosen: Settings, wanted: Sequence[Prompt]) -> tuple[Any, list[list[int]]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from chatbot.assemble import cores
    from chatbot.generators.causal import segments
    from chatbot.models import locate

    torch.set_num_threads(min(chosen.threads or cores(), cores()))
    folder = locate(chosen.generator, chosen.home / "models")
    if folder is None:
        raise WrongSetting(f"generator {chosen.generator!r} is not here yet: start the chat once, then measure")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
    return model, [[id for piece in segments(tokenizer, prompt) for id in piece] for prompt in wanted]
