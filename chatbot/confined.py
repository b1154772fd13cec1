"""Work on what strangers' files hold, in a process of its own: limited in time and memory, and gone when we are.

`Confined` is this side of it, `serve` the other. Requests and answers are JSON, a line each.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MAX_MEMORY = 2 * 1024**3  # bytes of address space
_LOOKS_S = 0.2  # between two calls of `check`
_ENDING_S = 1.0  # for a process that has said its last to end by itself
_FOLDER_OF_PACKAGE = Path(__file__).parents[1]

Check = Callable[[], None]  # raises what ends the work that calls it


def unhindered() -> None:
    """A `Check` that ends nothing."""


class Late(Exception):
    """No answer came in time."""


class Broken(Exception):
    """The process ended before it answered: native code ran out of memory, or crashed, or somebody killed it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"exit {status}")
        self.status = status

    @property
    def killed(self) -> bool:
        """By the system for want of memory, or by a person: it may be no fault of what it was asked."""
        return self.status == -getattr(signal, "SIGKILL", 9)


class Confined:
    """A process; one thread at a time may use it."""

    def __init__(self, module: str) -> None:
        """`module`: which of ours it runs; that calls `serve`."""
        # Not multiprocessing: its children run the parent's main module again.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows would show a console
        )

    def ask(
        self, request: dict[str, Any], *, timeout_s: float, memory: int = MAX_MEMORY, check: Check = unhindered
    ) -> dict[str, Any]:
        """`check` is called every so often. Raises Late, Broken or what that raises; the process is gone then."""
        line = _line(request | {"timeout_s": timeout_s, "memory": memory})
        answers: list[bytes] = []
        talking = threading.Thread(target=self._talk, args=(line, answers), daemon=True)
        end = time.monotonic() + timeout_s
        try:
            talking.start()
            while talking.is_alive():
                check()
                if (left := end - time.monotonic()) <= 0:
                    raise Late
                talking.join(min(left, _LOOKS_S))
            if not answers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_ENDING_S)
                raise Broken(self._process.poll() or 0)
            return json.loads(answers[0])  # type: ignore[no-any-return]
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """At once, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what was not sent is not wanted any more
                pipe.close()

    def _talk(self, line: bytes, answers: list[bytes]) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended, or was ended
            stdin.write(line)
            stdin.flush()
            if (answer := stdout.readline()).endswith(b"\n"):
                answers.append(answer)


def serve(answer: Callable[[dict[str, Any]], bytes]) -> None:
    """Answers one request after the other until the parent closes its end, or is gone; `answer`: JSON in one line."""
    out = os.dup(sys.stdout.fileno())  # a library that prints must not spoil the answers
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with os.fdopen(out, "wb") as answers:
        for line in sys.stdin.buffer:
            request = json.loads(line)
            _limit(request["memory"], request["timeout_s"])
            with _wanted():
                done = answer(request)
            answers.write(done + b"\n")
            answers.flush()


def packed(value: object) -> bytes:
    """As JSON, in one line."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")  # as `json.loads` reads it


def _line(request: dict[str, Any]) -> bytes:
    return packed(request) + b"\n"


@contextlib.contextmanager
def _wanted() -> Iterator[None]:
    """The system ends this process inside, whatever native code it is in, once the parent's end of stdin is closed."""
    try:
        import fcntl

        stdin = sys.stdin.fileno()
        flags = fcntl.fcntl(stdin, fcntl.F_GETFL)
        fcntl.fcntl(stdin, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(stdin, fcntl.F_SETFL, flags | fcntl.FASYNC)  # SIGIO at any change, which by default ends it
    except (ImportError, OSError):  # Windows, or a system that has this for terminals only: the limits hold it
        yield
        return
    try:
        yield
    finally:
        fcntl.fcntl(stdin, fcntl.F_SETFL, flags)


def _limit(memory: int, seconds: float) -> None:
    try:
        import resource
    except ImportError:  # Windows: the parent's clock alone holds us
        return
    # Processor time too, so that we end even if the parent is killed before its clock runs out.
    used = resource.getrusage(resource.RUSAGE_SELF)
    busy = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    for what, wanted in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, busy)):
        _, hard = resource.getrlimit(what)
        ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(what, (ceiling, hard))
        except (ValueError, OSError):  # macOS refuses RLIMIT_AS
            continue


def _environment() -> dict[str, str]:
    """Ours, with this package importable: the parent may have found it through its own sys.path."""
    paths = [str(_FOLDER_OF_PACKAGE), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
