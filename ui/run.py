"""A turn's reply while it comes: the thread that generates it writes here, whoever watches or stops it reads."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from chatbot import Conversation, Hit, Query
from ui.panel import Shares

WATCHING = 4  # pages that watch one reply: a page that is reloaded again and again may not have left yet


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reply has come."""

    query: Query | None = None
    hits: tuple[Hit, ...] = ()
    prior: tuple[float, ...] = ()  # (K + 1,), "no passage" last
    text: str = ""
    shares: Shares = field(default_factory=Shares)


@dataclass(frozen=True, slots=True)
class Replied:
    """`stored`: what is kept then, another tab's turns too; None where nothing is, or no room was found."""

    conversation: Conversation
    stored: Conversation | None


@dataclass(frozen=True, slots=True)
class Broken:
    """No reply comes. `note`: the name of one of the page's texts, or what the library said."""

    note: str


class Run:
    """One turn's generation, which goes on whether a page watches it or not. It ends once: by a reply, or without one.

    gradio's own `cancels` is not used: it breaks the connection that the other events share, about one time in six the
    page then shows an error, and what was on its way may still overwrite what the stop has drawn.
    """

    def __init__(self) -> None:
        self.id = secrets.token_hex(16)
        self.progress = Progress()
        self.ended: Replied | Broken | None = None
        self.future: Future[Any] | None = None
        self.unwanted = False  # its conversation is deleted: nothing of it is kept
        self._lock, self._decided = threading.Lock(), False
        self._views: list[View] = []

    @property
    def decided(self) -> bool:
        return self._decided

    def decide(self, ended: Broken | None = None) -> bool:
        """True for the first who asks: how it ends is theirs to say, now or as soon as they know."""
        with self._lock:
            first, self._decided = not self._decided, True
            if first and ended is not None:
                self.ended = ended
        return first

    def watched(self, view: View) -> bool:
        """Whether somebody else watches."""
        with self._lock:
            return any(other is not view and other.token is not None for other in self._views)

    def watch(self, view: View) -> None:
        """Who watched longest gives way where too many do."""
        with self._lock:
            self._views = [*(other for other in self._views if other is not view and other.token is not None), view]
            for other in self._views[:-WATCHING]:
                other.token = None


class View:
    """One session's watching of a run. The latest who watches draws, until the session turns to something else."""

    def __init__(self) -> None:
        self.token: object | None = None
        self.left = False

    def leave(self) -> None:
        """From now on nothing is drawn of it."""
        self.token, self.left = None, True
