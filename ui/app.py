"""The whole application: the chat, the documents, earlier conversations.

A tab keeps its conversation's key in `sessionStorage`: two tabs are two conversations, and a reload continues its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.state_holder import SessionState

from chatbot import Asked, Conversation, MarginaliaError
from ui import render
from ui.assets import asset, keeping, listing, stylesheet
from ui.chat import RagChat
from ui.documents import Documents
from ui.guard import guard
from ui.i18n import Texts, said, texts
from ui.keys import OWN_KEY, new_key, usable
from ui.run import Progress
from ui.thread import Aside, Asking, noted, running
from ui.toast import inform, warn

if TYPE_CHECKING:
    from chatbot import Chatbot

SESSIONS = 1000  # tabs and programs whose state is kept; of more, those that were heard of longest ago lose theirs
QUEUED = 1000  # events that gradio holds: none waits there for a reply, see `ui.line`
UNTAKEN_S = (600, 3600)  # how often is looked, and how old is an upload that no event will take any more
UNTOLD = ("home", "chroma")  # settings that are not for visitors: an address can hold a password

_MINE = "'localStorage', 'marginalia-begun'"
_READ_KEYS = keeping("_, __, ...others", f"return [{OWN_KEY}, read({_MINE}), ...others];")
_READ_MINE = keeping(
    "key, _, ...others", f"return [key, read({_MINE}), ...others];"
)  # which another tab may have changed
_WRITE_KEYS = keeping("key, mine", f"write('sessionStorage', 'marginalia', key); write({_MINE}, mine); return [];")


def build_app(
    chatbot: Chatbot,
    *,
    language: str | None = None,
    examples: Sequence[str] = (),
    concurrency_limit: int | None = 1,
    shared: bool = False,
) -> App:
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
        self.queue(max_size=QUEUED, default_concurrency_limit=None)

    async def process_api(self, *given: Any, state: SessionState | None = None, **more: Any) -> dict[str, Any]:
        """gradio keeps all components' configuration for each session, 0.12 MB: for links that this page has not."""
        if state is not None:
            state.config_values = _Nothing()
        return await super().process_api(*given, state=state, **more)

    def _lay_out(self, language: str | None, examples: Sequence[str], concurrency_limit: int | None) -> None:
        words = texts(language or "en")
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
                    kept=True,
                )
            with gr.Tab(words["tab.documents"]) as self._documents_tab:
                self._documents = Documents(self._chatbot, self.chat.words, words, self._shared)
            with gr.Tab(words["tab.about"]) as self._about_tab:
                self._about = gr.HTML(apply_default_css=False, elem_classes="mg-app")

    def _listen(self) -> None:
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        telling = quick | {"queue": True}  # gradio shows gr.Info and gr.Warning for queued events only
        own = [self.chat.tab, self._mine]
        listed = [*own, self._conversations]
        opened = [*listed, self.chat.key, self.chat.known, *self.chat.shown]
        self.load(self._translate, None, self._translated, **quick)
        write = {"fn": None, "inputs": own, "js": _WRITE_KEYS, **quick}
        self.load(self._restore, [*own, self.chat.asking], opened, js=_READ_KEYS, **telling).then(**write)
        self.chat.begun.change(
            self._list_begun, [*own, self.chat.key, self.chat.asking], listed, js=_READ_MINE, **telling
        ).then(**write)
        for saved in self.chat.on_change(
            self._save,
            [*own, self.chat.key, self.chat.known, self.chat.asking, self.chat.conversation],
            opened,
            js=_READ_MINE,
            **telling,
        ):
            saved.then(**write)
        for event, handler in ((self._conversations.open, self._open), (self._conversations.remove, self._forget)):
            event(
                handler,
                [*own, self.chat.key, self.chat.known, self.chat.asking],
                opened,
                js=_READ_MINE,
                **telling,
            ).then(**write)
        self._documents.listen(self, self._documents_tab)
        gr.on([self.load, self._about_tab.select], self._tell_about, None, [self._about], **quick)

    # -- conversations

    def _restore(self, key: str, mine: str, asking: Asking | None, request: gr.Request) -> tuple[Any, ...]:
        """What the tab showed before it was reloaded, with a reply that is still coming."""
        if asking is not None:  # and a question that was asked while this was on its way
            unchanged = (gr.skip(),) * len(self.chat.shown)
            return *self._listed(asking.key, _with(mine, asking.key), request), asking.key, gr.skip(), *unchanged
        key = usable(key) or new_key()
        if self.chat.coming(key) is None and self._kept(key, request) == (Conversation(), ()):
            # nothing is drawn: the first question may be asked while this runs, and would be wiped away
            return *self._listed(key, mine, request), key, gr.skip(), *(gr.skip(),) * len(self.chat.shown)
        return self._showing(key, mine, request)

    def _list_begun(self, tab: str, mine: str, key: str, asking: Asking | None, request: gr.Request) -> tuple[Any, ...]:
        key = asking.key if asking is not None else key or tab
        return self._listed(key, _with(mine, key), request)

    def _save(
        self,
        tab: str,
        mine: str,
        key: str,
        known: Conversation,
        asking: Asking | None,
        conversation: Conversation,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """What was not kept as it came: turns judged or taken back, and those that found no room.

        An emptied conversation is a new one: what was kept stays, under its own key.

        Where another tab went on with it, both tabs' turns are stored, and shown unless a reply is on its way.
        """
        key = key or usable(tab)  # a session that was dropped knows none
        stored: Conversation | None = conversation
        if not conversation.turns:
            key = new_key() if known.turns else key
        elif conversation != known:
            stored = self._keep(key, conversation, known, request)
        if conversation.turns:
            mine = _with(mine, key)
        listed, unchanged = self._listed(key, mine, request), (gr.skip(),) * len(self.chat.shown)
        if stored is None:  # what this tab knows to be stored is what it was
            return *listed, key, gr.skip(), *unchanged
        if stored == conversation or running(asking):
            return *listed, key, conversation, *unchanged
        words = self.chat.words(request)
        inform(words["conversation.elsewhere"])
        return *listed, key, stored, *self.chat.show(stored, words)

    def _open(
        self,
        _: str,
        mine: str,
        __: str,
        ___: Conversation,
        asking: Asking | None,
        chosen: gr.EventData,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        key = str(chosen.key)
        if self.chat.coming(key) is None and self._kept(key, request) == (Conversation(), ()):
            warn(self.chat.words(request)["conversation.gone"], self.chat.words(request))
            key = new_key()
        return self._showing(key, mine, request, asking)

    def _forget(
        self,
        _: str,
        mine: str,
        key: str,
        known: Conversation,
        asking: Asking | None,
        chosen: gr.EventData,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        gone = str(chosen.key)
        try:
            self.chat.delete(gone)
        except MarginaliaError as error:
            warn(str(error), self.chat.words(request))
        else:
            if gone == key:
                return self._showing(new_key(), mine, request, asking)
        unchanged = (gr.skip(),) * len(self.chat.shown)
        return *self._listed(key, mine, request), gr.skip(), gr.skip(), *unchanged

    def _kept(self, key: str, request: gr.Request) -> tuple[Conversation, tuple[Asked, ...]]:
        """With the questions that have no reply, those that are being answered too."""
        try:
            return self._chatbot.history.load(key) or Conversation(), self._chatbot.history.asked(key)
        except MarginaliaError as error:
            warn(str(error), self.chat.words(request))
            return Conversation(), ()

    def _keep(
        self, key: str, conversation: Conversation, known: Conversation, request: gr.Request
    ) -> Conversation | None:
        """What is stored then; None where it cannot be: it stays on the page, and the next turn tries again."""
        try:
            return self.chat.save(key, conversation, known)
        except MarginaliaError as error:
            warn(str(error), self.chat.words(request))
            return None

    def _showing(self, key: str, mine: str, request: gr.Request, leaving: Asking | None = None) -> tuple[Any, ...]:
        words, coming = self.chat.words(request), self.chat.coming(key)
        conversation, asked = self._kept(key, request)
        asides = () if coming is not None else tuple(_unanswered(each, conversation, words) for each in asked)
        shown = self.chat.show(conversation, words, asides, leaving, coming)
        mine = _with(mine, key) if coming or asked or conversation.turns else mine
        return *self._listed(key, mine, request), key, conversation, *shown

    def _listed(self, key: str, mine: str, request: gr.Request) -> tuple[Any, ...]:
        """Where they cannot be listed, why stands in their place."""
        own, words = set(_keys(mine)), self.chat.words(request)
        try:
            rows = [row for row in self._chatbot.history.list() if row[0] in own or not self._shared]
        except MarginaliaError as error:
            return key, mine, render.notice(said(str(error), words))
        return key, mine, render.conversations(rows, key, words)

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


def _keys(mine: str) -> list[str]:
    return [key for key in (mine or "").split() if usable(key)]


def _with(mine: str, key: str) -> str:
    """The latest first."""
    return " ".join([key, *(other for other in _keys(mine) if other != key)])


def _unanswered(asked: Asked, conversation: Conversation, words: Texts) -> Aside:
    note = noted(asked.note or "cut_off", words)
    return Aside(len(conversation.turns), asked.id, asked.utterance, note, Progress(text=asked.text))


class _Nothing(dict[int, Any]):
    """Keeps nothing of what it is given."""

    def __setitem__(self, key: int, value: object) -> None: ...

    def __missing__(self, key: int) -> dict[str, Any]:
        return {}
