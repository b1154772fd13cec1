"""Replies that are made in the background: a page that is reloaded or closed loses nothing, and stops nothing.

What is kept of them lies in `chatbot.history` under the key of their conversation: the question as soon as it is asked,
then the turn, or why there is none.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from chatbot import EVERYTHING, Answered, Asked, Conversation, MarginaliaError, Retrieved, Rewritten, Scope, Token, Turn
from ui.line import Closed, Full, Line
from ui.run import Broken, Progress, Replied
from ui.scope import gone, narrowed
from ui.thread import Asking

if TYPE_CHECKING:
    from chatbot import Chatbot

log = logging.getLogger(__name__)

REDRAW_SECONDS = 0.08  # between redraws while a reply streams: twelve a second read as fluid
CLOSING_SECONDS = 5.0  # that a reply gets to notice that it is cut off: a step of the generator may be long
BEAT_SECONDS = 5.0  # at least so often a page hears that its reply is still coming: see live.js


class Replies:
    """`allowed`: what is searched at most. `documents_tab`: a person without documents is sent there."""

    def __init__(self, chatbot: Chatbot, line: Line, allowed: Scope, documents_tab: bool) -> None:
        self._chatbot, self._line = chatbot, line
        self._allowed, self._documents_tab = allowed, documents_tab
        self._coming: dict[str, Asking] = {}  # by run, the latest last
        self._keeping = threading.Lock()  # what is deleted meanwhile is not kept any more
        self._unkept: dict[str, Asking] = {}  # by run, whose turns found no room: their questions may have

    def begin(self, asking: Asking) -> None:
        """Keeps the question, and has it answered. It ends at once, without a reply, where too many wait."""
        self._coming[asking.run.id] = asking
        if asking.key and len(asking.utterance) <= self._chatbot.settings.max_utterance:  # a longer one is refused
            self._keep_question(asking)
        try:
            asking.run.future = self._line.put("page", lambda: self._reply(asking))
        except Full:
            self._break(asking, "full")
        except Closed:
            self._break(asking, "cut_off")

    def _keep_question(self, asking: Asking) -> None:
        beside = [other.run.id for other in _of(asking.key, self._coming)]
        try:
            with self._keeping:
                if not asking.run.unwanted:
                    self._chatbot.history.ask(asking.key, Asked(asking.run.id, asking.utterance), beside)
        except MarginaliaError:  # the page says so of the turn, unless there is room by then
            log.warning("a question was not kept", exc_info=True)

    def coming(self, key: str) -> Asking | None:
        """What is being answered in the conversation of this key."""
        return next(reversed(_of(key, self._coming)), None) if key else None

    async def watch(self, asking: Asking) -> AsyncGenerator[tuple[Progress, int] | Replied | Broken, None]:
        """What comes of it, with how many wait before it, when that changes and every few seconds; at last how it
        ended. Nothing more once the session has turned to something else, or watches anew.

        What is kept nowhere is not made for nobody: it stops when the last who watched is gone.
        """
        run, view = asking.run, asking.view
        mine = view.token = object()
        run.watch(view)
        told, told_at = None, 0.0
        try:
            while view.token is mine:
                if run.ended is not None:
                    view.token = None
                    yield run.ended
                    return
                sight = run.progress, self._ahead(asking)
                if told is None or changed(told, sight) or time.monotonic() - told_at > BEAT_SECONDS:
                    told, told_at = sight, time.monotonic()
                    yield sight
                await asyncio.sleep(REDRAW_SECONDS)
        finally:
            if view.token is mine and not asking.key and not run.watched(view):
                self.stop(asking)

    def _ahead(self, asking: Asking) -> int:
        future = asking.run.future
        return self._line.ahead(future) if future and not asking.run.progress.query else 0

    def stop(self, asking: Asking) -> bool:
        """False where its reply was there already."""
        stopped = self._break(asking, "stopped")
        if stopped and asking.run.future:
            asking.run.future.cancel()
        return stopped

    def save(self, key: str, conversation: Conversation, known: Conversation) -> Conversation:
        """What is stored then, see `History.save`: turns that were judged or taken back, and those that had found no
        room, whose questions have their replies now. Raises what that raises."""
        stored = self._chatbot.history.save(key, conversation, known)
        self._settle(key, stored)
        return stored

    def delete(self, key: str) -> None:
        """Deletes the conversation of this key for good: several tabs may be asking in it. Raises what
        `History.delete` raises."""
        for asking in _of(key, self._coming):
            asking.run.unwanted = True
            self.stop(asking)
        with self._keeping:
            self._chatbot.history.delete(key)
        for asking in _of(key, self._unkept):
            self._unkept.pop(asking.run.id, None)

    def take_back(self, key: str, id: str) -> None:
        """Forgets a question that got no reply."""
        try:
            self._chatbot.history.take_back(key, id)
        except MarginaliaError:
            log.warning("a question was not taken back", exc_info=True)

    def close(self) -> None:
        """Marks what is in progress as cut off, as it will be told of after the next start, and waits for its end."""
        for asking in list(self._coming.values()):
            self._break(asking, "cut_off")
        self._line.close(CLOSING_SECONDS)

    def _reply(self, asking: Asking) -> None:
        try:
            if gone(asking.scope, self._chatbot.knowledge):
                self._break(asking, "scope.gone")
            elif (turn := self._turn(asking)) and asking.run.decide():
                conversation = asking.after.plus(turn)
                asking.run.ended = Replied(conversation, self._keep(asking, conversation))
        except MarginaliaError as error:
            self._break(asking, str(error))
        except Exception:
            log.exception("a turn failed")
            self._break(asking, "failed")
        finally:
            if asking.run.ended is None:  # what failed is the keeping of its end
                asking.run.ended = Broken("failed")
            self._forget(asking)

    def _turn(self, asking: Asking) -> Turn | None:
        """None where it was stopped."""
        run, scope = asking.run, narrowed(self._allowed, asking.scope)
        for event in self._chatbot.answer(asking.after, asking.utterance, searched=asking.searched, scope=scope):
            if run.decided:
                return None
            come = run.progress
            match event:
                case Rewritten(query):
                    run.progress = replace(come, query=query)
                case Retrieved(hits, prior):
                    run.progress = replace(come, hits=tuple(hits), prior=tuple(prior))
                case Token(text, _, posterior, _):
                    run.progress = replace(come, text=come.text + text, shares=come.shares.plus(posterior))
                case Answered(turn):
                    advised = self._documents_tab and scope == EVERYTHING
                    return turn.advised(asking.words["documents.none"]) if advised else turn
                case _:
                    assert_never(event)
        raise RuntimeError("a turn ended without an answer")

    def _keep(self, asking: Asking, conversation: Conversation) -> Conversation | None:
        """What is stored then. Where nothing can be, the page still has it, and says so."""
        if not asking.key:
            return None
        try:
            with self._keeping:
                if asking.run.unwanted:
                    return None
                stored = self._chatbot.history.save(asking.key, conversation, asking.known, answered=asking.run.id)
        except MarginaliaError:
            log.warning("a turn was not kept", exc_info=True)
            self._unkept[asking.run.id] = asking
            return None
        self._settle(asking.key, stored)
        return stored

    def _settle(self, key: str, stored: Conversation) -> None:
        """Questions whose turns are stored now, after all, wait for no reply."""
        said = {turn.utterance for turn in stored.turns}
        for asking in _of(key, self._unkept):
            if asking.utterance in said:
                self.take_back(key, asking.run.id)
                self._unkept.pop(asking.run.id, None)

    def _break(self, asking: Asking, note: str) -> bool:
        if not asking.run.decide(Broken(note)):
            return False
        if asking.key:
            try:
                asked = Asked(asking.run.id, asking.utterance, asking.run.progress.text, note)
                self._chatbot.history.end(asking.key, asked)
            except MarginaliaError:
                log.warning("what became of a question was not kept", exc_info=True)
        self._forget(asking)
        return True

    def _forget(self, asking: Asking) -> None:
        self._coming.pop(asking.run.id, None)


def _of(key: str, askings: Mapping[str, Asking]) -> list[Asking]:
    """Those of the conversation of this key, the latest last."""
    return [asking for asking in list(askings.values()) if asking.key == key]


def changed(before: tuple[Progress, int], now: tuple[Progress, int]) -> bool:
    return before[0] is not now[0] or before[1] != now[1]
