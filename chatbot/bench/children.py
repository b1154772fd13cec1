"""One process a system. One of them replies while the others wait."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from chatbot.bench.rag import HuggingFaceRag, OursSeq2Seq
from chatbot.bench.systems import Footprint, LlamaCpp, Naive, Ours, Stuffing, System, Timing, footprint, prompts
from chatbot.errors import MarginaliaError
from chatbot.settings import Settings

MAKERS: dict[str, Callable[[Settings, int], System]] = {
    "ours-warm": lambda chosen, k: Ours(chosen, prompts(k), warm=True),
    "ours-cold": lambda chosen, k: Ours(chosen, prompts(k), warm=False),
    "stuffing": Stuffing,
    "naive": Naive,
    "llama.cpp": LlamaCpp,
    "hf-rag": HuggingFaceRag,
    "ours-seq2seq": OursSeq2Seq,
}


class Children:
    """`given`: the settings of each system."""

    def __init__(self, given: Mapping[str, Settings], k: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ends: dict[str, Connection] = {}
        self._processes = []
        for name, chosen in given.items():
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, name, chosen, k), daemon=True)
            process.start()
            theirs.close()
            self._ends[name] = ours
            self._processes.append(process)
            self._receive(name)  # ready

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends.values():
            end.close()
        for process in self._processes:
            process.join(timeout=10)
            process.kill()

    def reply(self, name: str) -> Timing:
        self._ends[name].send("reply")
        timing = self._receive(name)
        assert isinstance(timing, Timing)
        return timing

    def footprint(self, name: str) -> Footprint:
        self._ends[name].send("footprint")
        found = self._receive(name)
        assert isinstance(found, Footprint)
        return found

    def _receive(self, name: str) -> Any:
        try:
            answer = self._ends[name].recv()
        except EOFError:
            raise MarginaliaError(f"the process that measures {name} has ended: is there enough memory?") from None
        if isinstance(answer, MarginaliaError):
            raise answer
        return answer


def _serve(end: Connection, name: str, chosen: Settings, k: int) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `assemble`; here before a baseline loads torch
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        system = MAKERS[name](chosen, k)
        system.reply()  # what is loaded or compiled at first use is no part of a reply
        end.send("ready")
        while True:
            end.send(system.reply() if end.recv() == "reply" else footprint(system))
    except MarginaliaError as error:
        end.send(error)
    except EOFError:
        return
