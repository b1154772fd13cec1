"""Speed, side by side with the baselines, in one run.

Each system lives in a process of its own, so that its memory can be told, and they are measured in turn, round after
round, so that a busy neighbour slows all of them. Figures are medians over the rounds. Every system says the same
number of tokens, whatever they are: end tokens are passed over. All run on the CPU, on the same number of threads.

    ours-warm      RAG-Token over K passages and "no passage", passages read before
    ours-cold      the same, with nothing kept
    stuffing       all passages in one prompt, through transformers' `generate`
    naive          a RAG-Token loop over `model(...)` as anybody would write it, float32
    llama.cpp      stuffing's prompt through llama-cpp-python, where that is installed
    hf-rag         RAG-Token over K passages through transformers' `RagTokenForGeneration`, random weights
    ours-seq2seq   the same weights, passages and question in the product's loop
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from chatbot.bench.children import Children
from chatbot.bench.rag import BART_BASE, Shape, checkpoint
from chatbot.bench.systems import (
    CONVERSATION_TOKENS,
    PASSAGE_TOKENS,
    QUERY_TOKENS,
    REPLY_TOKENS,
    Footprint,
    Timing,
)
from chatbot.progress import Progress
from chatbot.settings import Settings

SYSTEMS = ("ours-warm", "ours-cold", "stuffing", "naive", "llama.cpp", "hf-rag", "ours-seq2seq")
WITH_RANDOM_WEIGHTS = ("hf-rag", "ours-seq2seq")


def bench(
    chosen: Settings,
    ks: Sequence[int],
    rounds: int,
    progress: Progress,
    systems: Sequence[str] = SYSTEMS,
    shape: Shape = BART_BASE,
) -> dict[str, Any]:
    """{"settings", "memory_bandwidth_gb_s", "rows"}; a row is a system at one K. `shape`: of the random weights.

    `bandwidth_share` of a row: what a step must read from memory (weights, and the keys and values of all branches),
    over what memory could have given in that time. `cache_bytes_per_passage`: what keeping a passage takes.
    Both are null where they are not known.
    """
    available = [name for name in systems if name != "llama.cpp" or importlib.util.find_spec("llama_cpp")]
    bandwidth = memory_bandwidth(chosen.threads)
    measured: list[tuple[str, int, list[Timing], Footprint]] = []
    done = 0
    with tempfile.TemporaryDirectory(prefix="marginalia-") as folder:
        given = dict.fromkeys(available, chosen)
        if random := [name for name in available if name in WITH_RANDOM_WEIGHTS]:
            progress(0.0, "writing random weights")
            checkpoint(Path(folder), shape)
            given |= dict.fromkeys(random, replace(chosen, generator=folder))
        for k in ks:
            with Children(given, k) as children:
                timings: dict[str, list[Timing]] = {name: [] for name in available}
                for _ in range(rounds):
                    for name in available:
                        progress(done / (len(ks) * rounds * len(available)), f"{name}, k = {k}")
                        timings[name].append(children.reply(name))
                        done += 1
                measured += [(name, k, timings[name], children.footprint(name)) for name in available]
    bandwidth = max(bandwidth, memory_bandwidth(chosen.threads))  # a neighbour may have slowed either
    return {
        "settings": {"generator": chosen.generator, "threads": chosen.threads, "rounds": rounds}
        | {"passage_tokens": PASSAGE_TOKENS, "conversation_tokens": CONVERSATION_TOKENS}
        | {"query_tokens": QUERY_TOKENS, "reply_tokens": REPLY_TOKENS, "random_weights": shape.name},
        "memory_bandwidth_gb_s": round(bandwidth, 2),
        "rows": [row(*each, bandwidth) for each in measured],
    }


def row(name: str, k: int, timings: Sequence[Timing], footprint: Footprint, bandwidth: float) -> dict[str, Any]:
    """`bandwidth` in gigabytes a second."""
    step = statistics.median((timing.last - timing.first) / (timing.tokens - 1) for timing in timings)
    read = footprint.step_bytes
    return {
        "system": name,
        "k": k,
        "first_token_s": round(statistics.median(timing.first for timing in timings), 4),
        "tokens_per_s": round(1 / step, 2),
        "step_ms": round(1000 * step, 2),
        "peak_memory_mb": round(footprint.peak_mb),
        "bandwidth_share": None if read is None else round(read / step / (bandwidth * 1e9), 3),
        "cache_bytes_per_passage": footprint.cache_bytes_per_passage,
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
