"""Any embedder, with passages embedded in a process of its own, at the lowest priority: nothing waits for it.

Inside `apart()` a thread's `parts` go to that process; everybody else's, and every query, stay here. It starts at
the first passage, reads on stdin and answers on stdout, and ends with us, or when it has been idle for a while: it
holds the model a second time.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from chatbot.embedders.base import Embedder, Metric, Vectors
from chatbot.errors import MarginaliaError, SetupError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NICE = 19  # a process that has the processor to itself loses nothing by it: see LOG.md, 2026-11-23
_FOLDER_OF_PACKAGE = Path(__file__).parents[2]


class Apart:
    """`make`: the embedder, made here and again there, so it must be picklable: a class, or a `partial` of one.

    `idle_s`: seconds without work after which the process ends. Any thread may call; passages are embedded in turn.
    """

    def __init__(self, make: Callable[[], Embedder], idle_s: float = 60) -> None:
        self._make = make
        self._here = make()
        self._idle_s = idle_s
        self._asking = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = threading.Event()
        self._ending: threading.Timer | None = None
        self._of_thread = threading.local()

    @property
    def fingerprint(self) -> str:
        return self._here.fingerprint

    @property
    def tokenizer(self) -> Tokenizer:
        return self._here.tokenizer

    @property
    def max_tokens(self) -> int:
        return self._here.max_tokens

    @property
    def metric(self) -> Metric:
        return self._here.metric

    def queries(self, texts: Sequence[str]) -> Vectors:
        return self._here.queries(texts)

    def passages(self, texts: Sequence[str]) -> Vectors:
        return self._here.passages(texts)

    def parts(self, texts: Sequence[str]) -> list[Vectors]:
        """Raises SetupError once closed, and where the process ends again after a new start: memory is short."""
        if not getattr(self._of_thread, "apart", False):
            return self._here.parts(texts)
        with self._asking:
            self._keep()
            try:
                return self._ask(texts)
            finally:
                self._end_later()

    def warm(self) -> None:
        """Load now what would load at the first query."""
        if (load := getattr(self._here, "warm", None)) is not None:
            load()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What this thread embeds inside goes to the process."""
        self._of_thread.apart = True
        try:
            yield
        finally:
            self._of_thread.apart = False

    @property
    def process_id(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def close(self) -> None:
        """For good. What is being embedded in the process is given up, whatever it does."""
        self._closed.set()
        if (process := self._process) is not None:
            process.kill()
        self._rest()

    def _rest(self) -> None:
        with self._asking:
            self._keep()
            self._end()

    def _ask(self, texts: Sequence[str]) -> list[Vectors]:
        try:
            answer = self._answer(texts)
        except (EOFError, OSError, pickle.UnpicklingError):
            self._end()  # the system may have ended it, for want of memory
            if self._closed.is_set():
                raise SetupError("the embedder is closed") from None
            try:
                answer = self._answer(texts)
            except (EOFError, OSError, pickle.UnpicklingError) as error:
                self._end()
                raise SetupError(
                    "the process that embeds passages has ended twice: is there enough memory for the embedder?"
                ) from error
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]

    def _answer(self, texts: Sequence[str]) -> Any:
        if self._process is None:
            self._process = _start()
            if self._closed.is_set():  # after it was looked for, to be killed
                self._process.kill()
            _send(self._process.stdin, self._make)
        _send(self._process.stdin, list(texts))
        assert self._process.stdout is not None
        return pickle.load(self._process.stdout)

    def _keep(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _end_later(self) -> None:
        self._ending = threading.Timer(self._idle_s, self._rest)
        self._ending.daemon = True
        self._ending.start()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            for end in (self._process.stdin, self._process.stdout):
                if end is not None:
                    with contextlib.suppress(OSError):  # what was not sent is not wanted any more
                        end.close()
            self._process.wait()
            self._process = None


def _start() -> subprocess.Popen[bytes]:
    """Not multiprocessing: its children run the parent's main module again."""
    paths = [str(_FOLDER_OF_PACKAGE), os.environ.get("PYTHONPATH", "")]
    environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "chatbot.embedders.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(subprocess, "IDLE_PRIORITY_CLASS", 0),
    )


def _send(to: Any, value: object) -> None:
    pickle.dump(value, to, pickle.HIGHEST_PROTOCOL)
    to.flush()


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    embedder: Embedder = pickle.load(requests)()
    while True:
        texts = pickle.load(requests)
        try:
            answer: object = embedder.parts(texts)
        except MarginaliaError as error:
            answer = error
        _send(answers, answer)


def main() -> None:
    out = os.dup(sys.stdout.fileno())  # a library that prints must not spoil the answers
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if hasattr(os, "nice"):
        os.nice(_NICE)
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt), os.fdopen(out, "wb") as answers:
        _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
