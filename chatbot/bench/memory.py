"""What a server takes in memory while it is used for long.

One visitor at a time asks questions of 1 to 4,000 characters, in several conversations at once, through the page's
endpoint for programs, so the page and its sessions count too. Meanwhile documents may be added and deleted.

All figures are megabytes that are resident (VmRSS): of this process, and of the processes that it has started as well.
"""

from __future__ import annotations

import json
import random
import statistics
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.errors import SetupError
from chatbot.progress import Progress

if TYPE_CHECKING:
    from chatbot.assemble import Chatbot

LONGEST = 4_000  # characters
CONVERSATIONS = 20
EARLY = 100  # questions, after which nothing should grow
_BATCH = 100  # documents that come, and go, together
_EVERY_S = 0.05
_STATUS = Path("/proc/self/status")

Ask = Callable[[str, str], None]  # utterance, conversation


def bench(
    chatbot: Chatbot, ask: Ask, questions: int, documents: int, folder: Path, progress: Progress
) -> dict[str, Any]:
    """{"resident_mb": {questions asked: megabytes}, "median_mb", "peak_mb", "peak_with_processes_mb", ...}.

    `folder`: where documents may be written. Raises SetupError where the system has no /proc.
    """
    if not _STATUS.exists():
        raise SetupError("`bench memory` reads /proc, which this system does not have: run it on Linux")
    chance, after = random.Random(0), {}
    asked = list(utterances(questions, chance))
    with _Watch() as watch:
        start = resident()
        for number, utterance in enumerate(asked):
            progress(number / questions, f"{len(utterance):,} characters")
            if documents and number % max(1, questions * _BATCH // documents) == 0:
                _come_and_go(chatbot, folder / str(number), min(documents, _BATCH), chance)
            ask(utterance, str(chance.randrange(CONVERSATIONS)))
            after[number + 1] = resident()
    median = statistics.median(after.values())
    early = min(EARLY, questions)
    return {
        "settings": {"generator": chatbot.settings.generator, "questions": questions, "documents": documents}
        | {"conversations": CONVERSATIONS},
        "start_mb": start,
        "early_mb": after[early],
        "end_mb": after[questions],
        "growth": round(after[questions] / after[early] - 1, 4),
        "median_mb": median,
        "peak_mb": watch.peak,
        "peak_over_median": round(watch.peak / median, 3),
        "peak_with_processes_mb": watch.peak_of_all,
        "resident_mb": {count: after[count] for count in sorted({*range(10, questions, 10), questions})},
    }


def utterances(count: int, chance: random.Random) -> Iterator[str]:
    """As many short ones as long ones, by order of magnitude: questions, pasted text, other scripts, and noise."""
    from chatbot.assemble import sample_folder

    english, chinese = (
        " ".join(file.read_text("utf-8") for file in sorted((sample_folder() / language).glob("*.md"))).split()
        for language in ("en", "zh")
    )
    for _ in range(count):
        length = round(LONGEST ** chance.random())
        kind = chance.random()
        if kind < 0.7:
            text = " ".join(chance.choices(english, k=length))
        elif kind < 0.8:
            text = "".join(chance.choices(chinese, k=length))
        elif kind < 0.9:
            text = "".join(chance.choices("éüñßčłøabc🙂 ", k=length))
        else:
            text = chance.choice("x ?中\n") * length
        yield f"{text[: length - 1].strip()}?"


def by_http(port: int, wait_s: float = 900) -> Ask:
    """Asks the page on this machine as programs do."""
    root = f"http://127.0.0.1:{port}/gradio_api/call/ask"

    def ask(utterance: str, conversation: str) -> None:
        body = json.dumps({"data": [utterance], "session_hash": f"memory{conversation}"}).encode()
        request = urllib.request.Request(root, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=wait_s) as reply:
            event = json.load(reply)["event_id"]
        with urllib.request.urlopen(f"{root}/{event}", timeout=wait_s) as reply:
            reply.read()  # until it is complete, or refused

    return ask


def resident(process: str = "self") -> int:
    """Megabytes; 0: it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1000 for line in lines if line.startswith("VmRSS")), 0)


def _children() -> Iterator[str]:
    waiting = ["self"]
    while waiting:
        for threads in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            try:
                found = threads.read_text("ascii").split()
            except OSError:  # ended
                continue
            waiting += found
            yield from found


class _Watch:
    """Looks again and again, until it is left."""

    def __init__(self) -> None:
        self.peak = self.peak_of_all = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._done.wait(_EVERY_S):
            own = resident()
            self.peak = max(self.peak, own)
            self.peak_of_all = max(self.peak_of_all, own + sum(map(resident, _children())))

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def _come_and_go(chatbot: Chatbot, folder: Path, count: int, chance: random.Random) -> None:
    folder.mkdir(parents=True)
    files = [folder / f"{folder.name}-{number}.txt" for number in range(count)]
    for file in files:
        file.write_text(" ".join(f"term{chance.randrange(5_000)}" for _ in range(300)), "utf-8")
    before = {entry.id for entry in chatbot.knowledge.documents()}
    chatbot.ingestion.submit([(file, file.name) for file in files])
    chatbot.ingestion.wait()
    for entry in chatbot.knowledge.documents():
        if entry.id not in before:
            chatbot.knowledge.delete(entry.id)
