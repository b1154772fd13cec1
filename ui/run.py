"""How many replies are generated at once, and stopping one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

WAITING = 8  # requests past gradio's queue that wait: each holds one of the 40 threads that serve everything


class Run:
    """One turn's generation, for the thread that runs it and the one that stops it.

    gradio's own `cancels` is not used: it breaks the connection that the other events share, about one time in six the
    page then shows an error, and what was on its way may still overwrite what the stop has drawn.
    """

    def __init__(self) -> None:
        self._claimed, self._stopped, self._ended = threading.Lock(), threading.Event(), threading.Event()

    def claim(self) -> bool:
        """True for the first who asks."""
        return self._claimed.acquire(blocking=False)

    def end(self) -> None:
        self._ended.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """Returns when nothing more will be drawn: it has ended, will never begin, or is inside one long step."""
        self._stopped.set()
        if not self.claim():
            self._ended.wait(0.5)


class Busy(Exception):
    """Too many wait for the model."""


class Turns:
    """At most `limit` at once, whichever way they come: gradio's limit is its queue's, which a request can pass."""

    def __init__(self, limit: int | None) -> None:
        self._free = threading.Semaphore(limit) if limit else None
        self._lock, self._waiting = threading.Lock(), 0

    @contextlib.contextmanager
    def one(self, *, queued: bool) -> Iterator[None]:
        """Waits for a turn. Raises Busy where too many wait, unless gradio's queue has bounded them (`queued`)."""
        if self._free is None:
            yield
            return
        with self._lock:
            if self._waiting >= WAITING and not queued:
                raise Busy
            self._waiting += 1
        try:
            self._free.acquire()
        finally:
            with self._lock:
                self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
