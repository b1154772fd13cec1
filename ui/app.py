"""The whole application: the chat, the documents, earlier conversations.

A tab keeps its conversation's key in `sessionStorage`: two tabs are two conversations, and a reload continues its own.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.state_holder import SessionState

from chatbot import Conversation, MarginaliaError
from ui import render
from ui.assets import asset, keeping, listing, stylesheet
from ui.chat import RagChat
from ui.documents import Documents
from ui.guard import guard
from ui.i18n import Texts, texts
from ui.thread import Asking, running

if TYPE_CHECKING:
    from chatbot import Chatbot

WAITING = 64  # visitors' turns that wait for the model; more are told that the page is busy
SESSIONS = 1000  # tabs and programs whose state is kept; of more, those that were heard of longest ago lose theirs
UNTAKEN_S = (600, 3600)  # how often is looked, and how old is an upload that no event will take any more
UNTOLD = ("home", "chroma")  # settings that are not for visitors: an address can hold a password

_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what History takes

_MINE = "'localStorage', 'marginalia-begun'"
_READ_KEYS = keeping("_, __, ...others", f"return [own('sessionStorage', 'marginalia'), read({_MINE}), ...others];")
_READ_MINE = keeping(
    "key, _, ...others", f"return [key, read({_MINE}), ...others];"
)  # which another tab may have changed
_WRITE_KEY = keeping("key", "write('sessionStorage', 'marginalia', key); return [];")
_WRITE_KEYS = keeping("key, mine", f"write('sessionStorage', 'marginalia', key); write({_MINE}, mine); return [];")


def build_app(
    chatbot: Chatbot,
    *,
    language: str | None = None,
    examples: Sequence[str] = (),
    concurrency_limit: int | None = 1,
    shared: bool = False,
) -> gr.Blocks:
    """`shared`: strangers use this page, so each browser lists only the conversations it began. Else as RagChat."""
    return App(chatbot, language, examples, concurrency_limit, shared)


class App(gr.Blocks):
    def __init__(
        self,
        chatbot: Chatbot,
        language: str | None,
        examples: Sequence[str],
        concurrency_limit: int | None,
        shared: bool,
    ) -> None:
        super().__init__(title="Marginalia", analytics_enabled=False, fill_width=True, delete_cache=UNTAKEN_S)
        self._chatbot = chatbot
        self._shared = shared
        self.state_session_capacity = SESSIONS
        with self:
            self._lay_out(language, examples, concurrency_limit)
            self._listen()
        guard(self, self.fns.values())
        self.queue(max_size=WAITING, default_concurrency_limit=None)

    async def process_api(self, *given: Any, state: SessionState | None = None, **more: Any) -> dict[str, Any]:
        """gradio keeps all components' configuration for each session, 0.12 MB: for links that this page has not."""
        if state is not None:
            state.config_values = _Nothing()
        return await super().process_api(*given, state=state, **more)

    def _lay_out(self, language: str | None, examples: Sequence[str], concurrency_limit: int | None) -> None:
        words = texts(language or "en")
        self._key = gr.Textbox(visible=False)
        self._known = gr.State(Conversation())  # as this tab last had it stored, or found it
        self._mine = gr.Textbox(visible=False)  # keys of the conversations that this browser began
        with gr.Sidebar(open=False, width=280, elem_classes="mg-app mg-sidebar"):
            self._conversations = listing()
        self._header = gr.HTML(
            render.header(words),
            js_on_load=asset("lang.js"),
            head=f"<style>{stylesheet()}</style>",
            apply_default_css=False,
            elem_classes="mg-app",
        )
        with gr.Tabs(elem_classes="mg-app mg-tabs"):
            with gr.Tab(words["tab.chat"]) as self._chat_tab:
                self.chat = RagChat(
                    self._chatbot,
                    language=language,
                    examples=examples,
                    concurrency_limit=concurrency_limit,
                    height="max(300px, calc(100vh - 296px))",  # what is above and below it fits the window
                    choose_scope=True,
                    documents_tab=True,
                )
            with gr.Tab(words["tab.documents"]) as self._documents_tab:
                self._documents = Documents(self._chatbot, self.chat.words, words, self._shared)
            with gr.Tab(words["tab.about"]) as self._about_tab:
                self._about = gr.HTML(apply_default_css=False, elem_classes="mg-app")

    def _listen(self) -> None:
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        telling = quick | {"queue": True}  # gradio shows gr.Info and gr.Warning for queued events only
        own = [self._key, self._mine]
        opened = [self._key, self._known, self._conversations, *self.chat.shown]
        self.load(self._translate, None, self._translated, **quick)
        self.load(
            self._restore,
            [*own, self.chat.asking],
            opened,
            js=_READ_KEYS,
            **telling,
        ).then(None, [self._key], js=_WRITE_KEY, **quick)
        for saved in self.chat.on_change(
            self._save,
            [*own, self._known, self.chat.asking, self.chat.conversation],
            [*own, self._known, self._conversations, *self.chat.shown],
            js=_READ_MINE,
            **telling,
        ):
            saved.then(None, own, js=_WRITE_KEYS, **quick)
        for event, handler in ((self._conversations.open, self._open), (self._conversations.remove, self._forget)):
            event(
                handler,
                [*own, self.chat.asking],
                opened,
                js=_READ_MINE,
                **telling,
            ).then(None, [self._key], js=_WRITE_KEY, **quick)
        self._documents.listen(self, self._documents_tab)
        gr.on([self.load, self._about_tab.select], self._tell_about, None, [self._about], **quick)

    # -- conversations

    def _restore(self, key: str, mine: str, asking: Asking | None, request: gr.Request) -> tuple[Any, ...]:
        """What the tab showed before it was reloaded; whoever has asked already begins a new conversation."""
        key = key if asking is None and _KEY.fullmatch(key or "") else _new_key()
        if (conversation := self._kept(key)).turns:
            return self._showing(key, conversation, mine, request)
        # nothing is drawn: the first question may be asked while this runs, and would be wiped away
        return key, gr.skip(), self._list_conversations(key, mine, request), *(gr.skip(),) * len(self.chat.shown)

    def _save(
        self,
        key: str,
        mine: str,
        known: Conversation,
        asking: Asking | None,
        conversation: Conversation,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """An emptied conversation is a new one: what was saved stays, under its own key.

        Where another tab went on with it, both tabs' turns are stored, and shown unless a reply is on its way.
        """
        stored: Conversation | None = conversation
        if not conversation.turns:
            key = _new_key() if known.turns else key
        elif conversation != known:
            stored = self._keep(key, conversation, known)
            mine = " ".join([key, *(other for other in _keys(mine) if other != key)])
        listed, unchanged = self._list_conversations(key, mine, request), (gr.skip(),) * len(self.chat.shown)
        if stored is None:  # what this tab knows to be stored is what it was
            return key, mine, gr.skip(), listed, *unchanged
        if stored == conversation or running(asking):
            return key, mine, conversation, listed, *unchanged
        words = self.chat.words(request)
        gr.Info(words["conversation.elsewhere"])
        return key, mine, stored, listed, *self.chat.show(stored, words)

    def _open(
        self, _: str, mine: str, asking: Asking | None, chosen: gr.EventData, request: gr.Request
    ) -> tuple[Any, ...]:
        key = str(chosen.key)
        conversation = self._kept(key)
        if not conversation.turns:
            gr.Warning(self.chat.words(request)["conversation.gone"])
        return self._showing(key if conversation.turns else _new_key(), conversation, mine, request, asking)

    def _forget(
        self, key: str, mine: str, asking: Asking | None, chosen: gr.EventData, request: gr.Request
    ) -> tuple[Any, ...]:
        gone = str(chosen.key)
        self._chatbot.history.delete(gone)
        if gone == key:
            return self._showing(_new_key(), Conversation(), mine, request, asking)
        unchanged = (gr.skip(),) * len(self.chat.shown)
        return key, gr.skip(), self._list_conversations(key, mine, request), *unchanged

    def _kept(self, key: str) -> Conversation:
        try:
            return self._chatbot.history.load(key) or Conversation()
        except MarginaliaError as error:
            gr.Warning(render.escape(str(error)))
            return Conversation()

    def _keep(self, key: str, conversation: Conversation, known: Conversation) -> Conversation | None:
        """What is stored then; None where it cannot be: it stays on the page, and the next turn tries again."""
        try:
            return self._chatbot.history.save(key, conversation, known)
        except MarginaliaError as error:
            gr.Warning(render.escape(str(error)))
            return None

    def _showing(
        self,
        key: str,
        conversation: Conversation,
        mine: str,
        request: gr.Request,
        leaving: Asking | None = None,
    ) -> tuple[Any, ...]:
        listed = self._list_conversations(key, mine, request)
        return key, conversation, listed, *self.chat.show(conversation, self.chat.words(request), leaving=leaving)

    def _list_conversations(self, key: str, mine: str, request: gr.Request) -> str:
        own = set(_keys(mine))
        rows = [row for row in self._chatbot.history.list() if row[0] in own or not self._shared]
        return render.conversations(rows, key, self.chat.words(request))

    def _tell_about(self, request: gr.Request) -> str:
        words, chosen = self.chat.words(request), self._chatbot.settings
        named = [(field.name, getattr(chosen, field.name)) for field in dataclasses.fields(chosen)]
        running = [(name, value) for name, value in named if name not in UNTOLD and value != ""]
        running.append((words["about.documents"], len(self._chatbot.knowledge.documents())))
        return render.settings(running, words)

    # -- words

    @property
    def _translated(self) -> list[gr.blocks.Block]:
        return [
            self._header,
            self._chat_tab,
            self._documents_tab,
            self._about_tab,
            *self._documents.translated,
        ]

    def _translate(self, request: gr.Request) -> tuple[Any, ...]:
        words: Texts = self.chat.words(request)
        return (
            render.header(words),
            gr.Tab(words["tab.chat"]),
            gr.Tab(words["tab.documents"]),
            gr.Tab(words["tab.about"]),
            *self._documents.translate(words),
        )


def _new_key() -> str:
    return secrets.token_hex(16)


def _keys(mine: str) -> list[str]:
    return [key for key in (mine or "").split() if _KEY.fullmatch(key)]


class _Nothing(dict[int, Any]):
    """Keeps nothing of what it is given."""

    def __setitem__(self, key: int, value: object) -> None: ...

    def __missing__(self, key: int) -> dict[str, Any]:
        return {}
