"""Stopping what generates a reply."""

from __future__ import annotations

import threading


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
