"""Who waits for the model. The only line there is: gradio's queue is passed through at once, so that nothing else of a
page waits behind a reply, and a line that is full is told of in words."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

IDLE_S = 60.0  # how long a thread is kept for the next reply: the engines keep something for each thread
WAITING = 64  # of each kind; more are told that too many are asking

_Work = tuple[Callable[[], Any], "Future[Any]"]


class Full(Exception):
    """Too many wait."""


class Closed(Exception):
    """Nothing is done any more: the server ends."""


class Line:
    """Does work in threads of its own, `width` at once (None: as many as come), of each kind in turn."""

    def __init__(self, width: int | None, most: int = WAITING) -> None:
        self._width, self._most = width, most
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[_Work]] = {}  # the kind whose turn it is comes first
        self._running: set[Future[Any]] = set()
        self._threads = self._idle = 0
        self._closed = False

    def put(self, kind: str, work: Callable[[], Any]) -> Future[Any]:
        """Its result; cancelled before its turn it is not done. Raises Full where `most` of this kind wait, or
        where the system starts no thread for it; Closed after `close`."""
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise Closed
            kept = deque(each for each in self._waiting.get(kind, ()) if not each[1].cancelled())
            if len(kept) >= self._most:
                raise Full
            kept.append((work, future))
            self._waiting[kind] = kept
            if self._idle < sum(map(len, self._waiting.values())) and (
                self._width is None or self._threads < self._width
            ):
                self._start(future)
            self._changed.notify()
        return future

    def _start(self, future: Future[Any]) -> None:
        """Where the system has no thread left, those that there are go on with what waits."""
        try:
            threading.Thread(target=self._serve, daemon=True, name="marginalia-reply").start()
        except RuntimeError as error:
            if not self._threads:
                future.cancel()
                raise Full from error
        else:
            self._threads += 1

    def ahead(self, future: Future[Any]) -> int:
        """How many of its kind wait before it; 0 too where it waits no more."""
        with self._changed:
            for waiting in self._waiting.values():
                futures = [each for _, each in waiting if not each.cancelled()]
                if future in futures:
                    return futures.index(future)
        return 0

    def close(self, seconds: float) -> None:
        """What waits is not done any more; what is being done has so long to end."""
        with self._changed:
            self._closed = True
            waiting, running = [each for kind in self._waiting.values() for _, each in kind], set(self._running)
        for each in waiting:
            each.cancel()
        wait(running, seconds)

    def _serve(self) -> None:
        while (taken := self._next()) is not None:
            work, future = taken
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            with self._changed:
                self._running.discard(future)
            del taken, work, future  # what was done is not held while there is nothing to do

    def _next(self) -> _Work | None:
        """None: nothing came for a while, and the thread that asks may end."""
        with self._changed:
            self._idle += 1
            came = True
            while (taken := self._take()) is None and came:
                came = self._changed.wait(IDLE_S)
            self._idle -= 1
            self._threads -= taken is None
            return taken

    def _take(self) -> _Work | None:
        for kind in list(self._waiting):
            waiting = self._waiting.pop(kind)
            while waiting:
                work, future = waiting.popleft()
                if future.set_running_or_notify_cancel():
                    self._running.add(future)
                    if waiting:
                        self._waiting[kind] = waiting  # behind the other kinds
                    return work, future
        return None
