"""How fast files go in, and what a large knowledge base costs.

First the whole of the pipeline (copying, parsing, splitting, embedding, storing) against the embedder alone on the
same passages, in turn, so that a busy neighbour slows both. Then a knowledge base of many passages, filled with
hashed words in place of a model's vectors, since those would take an hour: searches, memory, disk, deleting, starting.
Texts are synthetic: words of the sample documents and made-up ones, drawn by Zipf's law.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.conversation import Query
from chatbot.passage import embedded
from chatbot.progress import Progress
from chatbot.settings import Settings

if TYPE_CHECKING:
    from chatbot.assemble import Chatbot

_WORDS = 100  # a paragraph: too long for two of them to share a passage
_PARAGRAPHS = 40  # a document of the pipeline: a report of fifteen pages
_LARGE = 500  # a document of the large knowledge base
_QUERIES = 200
_DELETED = 3  # documents
_BATCH = 32  # passages that the embedder alone gets at once, as the pipeline gives them


def bench(chosen: Settings, passages: int, rounds: int, progress: Progress) -> dict[str, Any]:
    """{"settings", "pipeline", "knowledge_base"}; the last with `passages` of them."""
    with tempfile.TemporaryDirectory(prefix="marginalia-") as folder:
        pipeline = _pipeline(chosen, Path(folder), rounds, lambda done, what: progress(0.3 * done, what))
    with tempfile.TemporaryDirectory(prefix="marginalia-") as folder:
        large = _large(chosen, Path(folder), passages, lambda done, what: progress(0.3 + 0.7 * done, what))
    return {
        "settings": {"embedder": chosen.embedder, "threads": chosen.threads, "rounds": rounds}
        | {"paragraphs_a_document": _PARAGRAPHS, "words_a_paragraph": _WORDS},
        "pipeline": pipeline,
        "knowledge_base": large,
    }


def _pipeline(chosen: Settings, folder: Path, rounds: int, progress: Progress) -> dict[str, Any]:
    from chatbot.assemble import Chatbot

    paragraph = _paragraphs()
    through, alone, count = [], [], 0
    with Chatbot(replace(chosen, home=folder / "home", sample=False, chroma="")) as chatbot:
        _ingested(chatbot, _documents(folder / "warm", 1, 2, paragraph))  # loads the model in its process
        for number in range(rounds):
            progress(number / rounds, "files going in")
            before = set(chatbot.knowledge.passages())
            files = _documents(folder / f"round{number}", 6, _PARAGRAPHS, paragraph)
            through.append(_seconds(lambda files=files: _ingested(chatbot, files)))  # type: ignore[misc]
            progress((number + 0.5) / rounds, "the embedder alone")
            new = [each for id, each in chatbot.knowledge.passages().items() if id not in before]
            texts = sorted((embedded(each) for each in new), key=len, reverse=True)
            alone.append(_seconds(lambda texts=texts: _embedded(chatbot, texts)))  # type: ignore[misc]
            count = len(texts)
    rates = [count / statistics.median(seconds) for seconds in (through, alone)]
    return {
        "passages_a_round": count,
        "passages_per_s": round(rates[0], 1),
        "embedder_alone_passages_per_s": round(rates[1], 1),
        "share_of_embedder": round(rates[0] / rates[1], 3),
    }


def _ingested(chatbot: Chatbot, files: list[Path]) -> None:
    chatbot.ingestion.submit([(file, file.name) for file in files])
    chatbot.ingestion.wait()


def _embedded(chatbot: Chatbot, texts: list[str]) -> None:
    """In the same process as the pipeline's, at the same priority."""
    embedder = chatbot.embedder
    with embedder.apart():
        for start in range(0, len(texts), _BATCH):
            embedder.parts(texts[start : start + _BATCH])


def _large(chosen: Settings, folder: Path, passages: int, progress: Progress) -> dict[str, Any]:
    from chatbot.assemble import Chatbot

    paragraph = _paragraphs()
    hashed = replace(chosen, home=folder / "home", sample=False, chroma="", embedder="hashing", generator="scripted")
    files = _documents(folder / "in", max(_DELETED, passages // _LARGE), min(_LARGE, passages), paragraph)
    started = time.perf_counter()
    with Chatbot(hashed) as chatbot:
        for _ in chatbot.knowledge.add_all(files, progress=lambda done, _: progress(0.9 * done, "filling")):
            pass
        count = sum(entry.passages for entry in chatbot.knowledge.documents())
    filling = time.perf_counter() - started
    disk = {name: round(_size(chatbot.settings.home / name), 1) for name in ("catalogue.sqlite", "chroma", "files")}
    queries = [" ".join(paragraph().split()[:8]) for _ in range(_QUERIES)]
    progress(0.9, "searching, deleting, starting")
    empty = replace(hashed, home=folder / "empty")
    # Not spawned: Linux passes the most memory that a process has had on to what it executes.
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver"), max_tasks_per_child=1) as processes:
        nothing = processes.submit(_measured, empty, []).result()
        found = processes.submit(_measured, hashed, queries).result()
    return {
        "passages": count,
        "vectors": "hashed words, 256 dimensions: not a model's",
        "filling_s": round(filling, 1),
        "query_p50_ms": found["query_p50_ms"],
        "query_p95_ms": found["query_p95_ms"],
        "delete_s": found["delete_s"],
        "passages_a_deleted_document": min(_LARGE, passages),
        "start_s": found["start_s"],
        "start_empty_s": nothing["start_s"],
        "memory_mb": found["memory_mb"],
        "memory_empty_mb": nothing["memory_mb"],
        "disk_mb": disk,
    }


def _measured(chosen: Settings, queries: list[str]) -> dict[str, Any]:
    """In a process of its own: opening, searching, and the worst of a few deletions; its memory at most."""
    from chatbot.assemble import Chatbot

    started = time.perf_counter()
    with Chatbot(chosen) as chatbot:
        start = time.perf_counter() - started
        retriever = chatbot.retriever()
        asked = [Query(text, text, "en") for text in queries]
        times = [_seconds(lambda query=query: retriever.retrieve(query)) for query in asked]  # type: ignore[misc]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        gone = [entry.id for entry in chatbot.knowledge.documents()[:_DELETED]]
        deleting = [_seconds(lambda id=id: chatbot.knowledge.delete(id)) for id in gone]  # type: ignore[misc]
    cuts = statistics.quantiles(times, n=20) if len(times) > 1 else [0.0] * 19
    return {
        "start_s": round(start, 2),
        "query_p50_ms": round(1000 * cuts[9], 1),
        "query_p95_ms": round(1000 * cuts[18], 1),
        "memory_mb": round(memory),
        "delete_s": round(max(deleting, default=0.0), 2),
    }


def _documents(folder: Path, count: int, paragraphs: int, paragraph: Callable[[], str]) -> list[Path]:
    folder.mkdir()
    files = [folder / f"{folder.name}-{number}.txt" for number in range(count)]
    for file in files:
        file.write_text("\n\n".join(paragraph() for _ in range(paragraphs)), "utf-8")
    return files


def _paragraphs() -> Callable[[], str]:
    """Gives another paragraph each time, the same ones in every run."""
    from chatbot.assemble import sample_folder

    known = {word for file in sorted((sample_folder() / "en").glob("*.md")) for word in file.read_text("utf-8").split()}
    words = sorted(known) + [f"term{number}" for number in range(20_000)]
    chance = random.Random(0)
    chance.shuffle(words)
    heaped = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    return lambda: " ".join(chance.choices(words, cum_weights=heaped, k=_WORDS)) + "."


def _seconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def _size(path: Path) -> float:
    """Megabytes."""
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
