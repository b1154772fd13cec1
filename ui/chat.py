"""RagChat: the chat as a component, to be constructed inside any `gr.Blocks`.

The conversation lives in `gr.State` as a `Conversation` and is never read back from the widget. Beside it lie the
asides: turns that were stopped or failed, which are shown where they happened but belong to no conversation.

Replies are made in the background (`ui.replies`); a page watches. While one comes, what it brings goes to the page
alone, without the conversation around it, and a script puts it where the reply is.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from chatbot import EVERYTHING, Conversation, MarginaliaError, Passage, Scope, Turn
from ui import render
from ui.assets import asset, keeping, stylesheet
from ui.chooser import Chooser
from ui.endpoint import offer_endpoint
from ui.guard import guard
from ui.i18n import Texts, preferred, texts
from ui.keys import OWN_KEY, new_key, usable
from ui.line import WAITING, Line
from ui.panel import panel_value, turn_value
from ui.place import Place, place
from ui.replies import Replies
from ui.run import Broken, Replied, View
from ui.searched import readable
from ui.thread import Aside, Asking, coming_value, messages, noted, passage_at, running, without_last
from ui.toast import inform

if TYPE_CHECKING:
    from chatbot import Chatbot

WATCHING = WAITING + WAITING // 2  # pages that watch a reply at once; of more, those that came last begin later


class RagChat(gr.Blocks):
    """A chat over `chatbot`, with a panel of sources beside it. Construct it inside the host's `gr.Blocks`.

    `language`: one of `ui.i18n.LANGUAGES`; None follows each visitor's browser. `concurrency_limit`: replies that are
    generated at once, over all visitors; the others wait. Endpoint `api_name`: utterance -> (reply, JSON of its
    sources), a conversation for each client. `scope`: the documents that are searched; `choose_scope`: each visitor may
    choose among them. `documents_tab`: the page has one, which a person without documents is sent to. `kept`: questions
    and turns go to `chatbot.history` as they come, under the key that the `gr.State` `key` holds (or the browser's tab,
    until that has one); `known` is what is known to be there. For the host's own events: `conversation` is the
    `gr.State` that holds the `Conversation`, `asking` the one that holds the turn in progress.
    """

    def __init__(
        self,
        chatbot: Chatbot,
        *,
        language: str | None = None,
        examples: Sequence[str] = (),
        concurrency_limit: int | None = 1,
        height: int | str = "62vh",
        api_name: str = "ask",
        scope: Scope = EVERYTHING,
        choose_scope: bool = False,
        documents_tab: bool = False,
        kept: bool = False,
    ) -> None:
        super().__init__(analytics_enabled=False)
        self._chatbot = chatbot
        self._allowed = scope
        self._language = language
        self._kept = kept
        line = Line(concurrency_limit)
        self._replies = Replies(chatbot, line, scope, documents_tab)
        with self:
            page = Context.root_block or self
            hosts = {id(function) for function in page.fns.values()}
            self._lay_out(examples, height, choose_scope)
            self._listen()
            offer_endpoint(chatbot, api_name, scope, line)
        guard(page, [function for function in page.fns.values() if id(function) not in hosts])
        page.extra_startup_events.append(self._widen)

    async def _widen(self) -> None:
        """gradio goes on with 40 events at once, over all. Those of ours that wait for a reply take no thread, and must
        take no other event's place either."""
        for page in gr.Blocks.get_instances():  # wherever this is rendered
            if self in chats(page):
                page._queue.active_jobs.extend([None] * (WATCHING + WAITING))

    # -- what is on the page

    def _lay_out(self, examples: Sequence[str], height: int | str, choose_scope: bool) -> None:
        words = texts(self._language or "en")
        self.conversation = gr.State(Conversation())
        self._asides = gr.State(())
        self.asking = gr.State(None)
        self._scope = gr.State(EVERYTHING)  # that the visitor chose
        self.key, self.known = gr.State(""), gr.State(Conversation())
        self.tab = gr.Textbox(visible=False)  # its key, on its way from the browser or to it
        self.begun = gr.State(0)  # when the latest turn began: what shows its reply waits for a change of it
        self._correcting = gr.State(None)  # the turn whose correction is being written
        with gr.Row(elem_classes="mg-chat"):
            with gr.Column(scale=5, min_width=320, elem_classes="mg-main"):
                self._notice = gr.HTML(visible=False, apply_default_css=False)
                self._messages = gr.Chatbot(
                    show_label=False,
                    container=False,
                    height=height,
                    min_height=280,
                    layout="bubble",
                    buttons=[],  # gradio's copy buttons would copy our HTML; each reply has its own
                    sanitize_html=True,
                    allow_tags=False,
                    latex_delimiters=[],
                    line_breaks=False,
                    group_consecutive_messages=False,
                    placeholder=render.welcome(words),
                    examples=[{"text": example} for example in examples] or None,
                    elem_classes="mg-messages",
                )
                self._correction = _unfolding(words["correction"], words["correction.save"])
                self._search = _unfolding(words["search.label"], words["search.again"])
                self._textbox = gr.Textbox(
                    show_label=False,
                    label=words["placeholder"],
                    placeholder=words["placeholder"],
                    submit_btn=True,
                    stop_btn=False,
                    autofocus=True,
                    lines=1,
                    max_lines=8,
                    elem_classes="mg-textbox",
                )
                with gr.Row(elem_classes="mg-under"):
                    self._new_chat = gr.Button(words["new_chat"], size="sm", variant="secondary", elem_classes="mg-new")
                    chooser = Chooser(self._chatbot, self._allowed, self._scope, words) if choose_scope else None
                    self._chooser = chooser
            with gr.Column(scale=3, min_width=280, elem_classes="mg-side"):
                self._panel = gr.HTML(
                    panel_value(),
                    html_template="${value.html || empty}",
                    js_on_load=asset("panel.js") + asset("reader.js"),
                    head=f"<style>{stylesheet()}</style>",
                    apply_default_css=False,
                    empty=render.no_sources_yet(words),
                    **_spoken(words),
                    elem_classes="mg-panel",
                )
                self._live = gr.HTML(
                    {},
                    html_template="",
                    js_on_load=asset("live.js"),
                    apply_default_css=False,
                    kept=self._kept,
                    disconnected=words["disconnected"],
                    elem_classes="mg-live",
                )
                self._place = gr.HTML(
                    {"html": ""},
                    html_template="${value.html}",
                    js_on_load=asset("place.js"),
                    apply_default_css=False,
                )

    @property
    def shown(self) -> list[gr.blocks.Block]:
        """What `show` gives values for, in that order: the outputs of a host's event that changes the conversation."""
        return [*self._drawn, self._correcting, self._correction, self._search, self.begun]

    @property
    def _drawn(self) -> list[gr.blocks.Block]:
        """What a turn redraws while it comes: a correction that is being written meanwhile stays."""
        return [self.conversation, self._asides, self.asking, self._messages, self._panel, self._textbox]

    @property
    def _judged(self) -> list[gr.blocks.Block]:
        return [self.conversation, self._messages, self._correcting, self._correction]

    @property
    def _asked(self) -> list[gr.blocks.Block]:
        """What a question changes, or taking one back: what was to be searched for the turn before is left."""
        return [*self._drawn, self._search]

    def show(
        self,
        conversation: Conversation,
        words: Texts,
        asides: tuple[Aside, ...] = (),
        leaving: Asking | None = None,
        coming: Asking | None = None,
    ) -> tuple[Any, ...]:
        """The values of `shown`. To be queued. `leaving`: what `asking` holds, for its turn is left: where it is kept,
        its reply is made all the same, else it ends. `coming`: of `coming`, a turn that this page is to watch.
        """
        if leaving is not None:
            leaving.view.leave()
            if not leaving.key:
                self._replies.stop(leaving)
        if coming is None:
            return *self._draw(conversation, words, asides), None, _correction(), _search(), gr.skip()
        coming = replace(coming, words=words, view=View())
        drawn = messages(coming.after, (), words, coming)
        shown = (conversation, (), coming, drawn, panel_value(), _busy(), None, _correction(), _search())
        return *shown, time.time_ns()

    def coming(self, key: str) -> Asking | None:
        """The turn in progress of the conversation that is kept under this key. Ask before that is loaded: a turn that
        is no longer in progress is stored."""
        return self._replies.coming(key)

    def close(self) -> None:
        """To be called before the chatbot is closed: what is in progress is cut off, and its question kept."""
        self._replies.close()

    def stop(self, asking: Asking) -> None:
        """Ends a turn in progress, on every page that watches it."""
        self._replies.stop(asking)

    def save(self, key: str, conversation: Conversation, known: Conversation) -> Conversation:
        """What is stored under this key then: see `History.save`."""
        return self._replies.save(key, conversation, known)

    def delete(self, key: str) -> None:
        """Deletes the conversation that is kept under this key, with every turn in progress of it."""
        self._replies.delete(key)

    def _draw(self, conversation: Conversation, words: Texts, asides: tuple[Aside, ...]) -> tuple[Any, ...]:
        turns = conversation.turns
        panel = turn_value(turns[-1], len(turns) - 1, words) if turns else panel_value()
        return conversation, asides, None, messages(conversation, asides, words), panel, _idle()

    def on_change(self, fn: Callable[..., Any], inputs: list[Any], outputs: list[Any], **options: Any) -> list[Any]:
        """Runs `fn` whenever the person at the page may have changed the conversation; gives the events, for `.then`.

        `conversation.change` would not do: gradio hashes a state to see whether it changed, and a `Turn` has no hash.
        """
        hidden = {"api_visibility": "private"}  # each event would be an endpoint of the host's
        return [event.then(fn, inputs, outputs, **hidden | options) for event in self._changes]

    def words(self, request: gr.Request | None) -> Texts:
        """The interface's words, for this visitor."""
        if self._language:
            return texts(self._language)
        return texts(preferred(request.headers.get("accept-language", "") if request else ""))

    # -- what happens on it

    def _listen(self) -> None:
        states = [self.conversation, self._asides, self.asking]
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        within = [*states, self._scope, self.key, self.known, self.tab]
        # queued, so that the page gets what these draw after all that the stream has drawn; and since gradio tells the
        # page of a state's change for queued events alone
        ending = quick | {"queue": True, "concurrency_limit": None}
        # what goes wrong on the way is shown where nobody looks: the page keeps what it shows, and live.js goes on
        beginning = ending | {"show_progress_on": [self._live]}
        if self._kept:
            beginning |= {"js": keeping("...given", f"given[{len(within) - 1}] = {OWN_KEY}; return given;")}
        begins = [*self._asked, self.begun]
        self._textbox.submit(self._begin, [*within, self._textbox], begins, **beginning)
        self._messages.example_select(self._begin_example, within, begins, **beginning)
        self._messages.retry(self._begin_again, [*within, gr.State("")], begins, **beginning)
        self._panel.search(self._begin_search, within, begins, **beginning)
        self._search.submit(self._begin_again, [*within, self._search], begins, **beginning)
        watching = beginning | {"js": None, "concurrency_limit": WATCHING, "trigger_mode": "multiple"}
        watching["concurrency_id"] = f"marginalia-watch-{id(self)}"
        seen = [*self._drawn, self.known, self._live]
        streamed = self.begun.change(self._watch, states, seen, **watching)
        resumed = self._live.lost(self._resume, states, seen, **watching)
        for watched in (streamed, resumed):
            watched.failure(None, js="() => window.dispatchEvent(new Event('marginalia-lost'))", **quick)
        self._textbox.stop(self._stop, states, self._drawn, **ending)
        undone = self._messages.undo(self._undo, [*states, self.key], self._asked, **quick)
        started_over = gr.on(
            [self._new_chat.click, self._messages.clear],
            self._start_over,
            [self.asking],
            [self.key, self.known, *self.shown],
            **ending,
        )
        judged = self._panel.judge(self._judge, states, self._judged, **ending)
        corrected = self._correction.submit(
            self._correct, [*states, self._correcting, self._correction], self._judged, **ending
        )
        self._changes = [streamed, resumed, undone, started_over, judged, corrected]
        self._panel.look(self._look, [self.conversation], [self._panel], **quick)
        self._panel.leave(_folded, None, [self._correcting, self._correction, self._search], **quick)
        for wanted in (self._panel.place, self._place.further):
            wanted(self._show_place, states, [self._place], **quick)
        gr.on([self.load, self._textbox.submit], self._tell, None, [self._notice], **quick)
        translated = [
            self._messages,
            self._correction,
            self._search,
            self._textbox,
            self._new_chat,
            self._panel,
            self._live,
        ]
        if self._chooser:
            self._chooser.listen(self.words)
            translated += self._chooser.translated
        self.load(self._translate, None, translated, **quick)

    def _begin(
        self,
        conversation: Conversation,
        asides: tuple[Aside, ...],
        asking: Asking | None,
        scope: Scope,
        key: str,
        known: Conversation,
        tab: str,
        utterance: str,
        request: gr.Request,
        searched: str = "",
    ) -> tuple[Any, ...]:
        """Keeps the question and shows it at once, before the model is free; does nothing for an empty one, or while
        one runs."""
        if running(asking) or not utterance.strip():
            return _unchanged([*self._asked, self.begun])
        words, key = self.words(request), (key or usable(tab)) if self._kept else ""
        asking = Asking(utterance, conversation, words, searched, scope, key, known)
        self._replies.begin(asking)
        drawn = messages(conversation, asides, words, asking)
        return gr.skip(), gr.skip(), asking, drawn, gr.skip(), _busy(""), _search(), time.time_ns()

    def _begin_example(
        self,
        conversation: Conversation,
        asides: tuple[Aside, ...],
        asking: Asking | None,
        scope: Scope,
        key: str,
        known: Conversation,
        tab: str,
        example: gr.SelectData,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        return self._begin(conversation, asides, asking, scope, key, known, tab, _text_of(example), request)

    def _begin_again(
        self,
        conversation: Conversation,
        asides: tuple[Aside, ...],
        asking: Asking | None,
        scope: Scope,
        key: str,
        known: Conversation,
        tab: str,
        searched: str,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """Asks the last question again. Until it is answered the conversation keeps what it held."""
        if running(asking):
            return _unchanged([*self._asked, self.begun])
        before, asides, utterance = without_last(conversation, asides)
        _, _, *begun = self._begin(before, asides, None, scope, key, known, tab, utterance, request, searched.strip())
        return gr.skip(), asides, *begun

    def _begin_search(
        self,
        conversation: Conversation,
        asides: tuple[Aside, ...],
        asking: Asking | None,
        scope: Scope,
        key: str,
        known: Conversation,
        tab: str,
        pressed: gr.EventData,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """Asks the last question again, searched as it was typed; or offers to write what is searched."""
        if running(asking) or not conversation.turns:
            return _unchanged([*self._asked, self.begun])
        turn = conversation.turns[-1]
        if pressed.typed:
            return self._begin_again(conversation, asides, asking, scope, key, known, tab, turn.utterance, request)
        return *_unchanged(self._drawn), _search(turn), gr.skip()

    async def _watch(
        self, conversation: Conversation, asides: tuple[Aside, ...], asking: Asking | None, request: gr.Request
    ) -> AsyncGenerator[tuple[Any, ...], None]:
        """One turn as it comes. Whatever ends it leaves the page ready for the next.

        It begins and ends by changing nothing: gradio empties every output of a generator that yields nothing, and
        sends what was yielded last once more, which may be older than what the page shows by then.
        """
        nothing, words = _unchanged([*self._drawn, self.known, self._live]), self.words(request)
        yield nothing
        if asking is not None and running(asking):
            hits, beat = None, 0
            async with aclosing(self._replies.watch(asking)) as sights:
                async for seen in sights:
                    match seen:
                        case Replied():
                            yield *self._replied(asking, asides, seen, words), gr.skip()
                        case Broken():
                            yield *self._failed(conversation, asides, asking, seen, words), gr.skip(), gr.skip()
                        case come, ahead:
                            panel, beat = gr.skip(), beat + 1
                            if come.hits is not hits and (come.hits or come.prior):
                                hits = come.hits
                                panel = panel_value(render.sources(hits, come.prior, words), len(asking.after.turns))
                            told = coming_value(asking, come, ahead, beat)
                            yield *nothing[:4], panel, gr.skip(), gr.skip(), told
        yield nothing

    async def _resume(
        self, conversation: Conversation, asides: tuple[Aside, ...], asking: Asking | None, request: gr.Request
    ) -> AsyncGenerator[tuple[Any, ...], None]:
        """For a page that has heard nothing of its reply for a while: what it missed, and how it goes on."""
        if asking is None and not conversation.turns and not asides:  # the session is gone, with all that it held
            yield *_unchanged(self._drawn[:-1]), _idle(), gr.skip(), {"gone": time.time_ns()}
            return
        if asking is None:  # it has ended
            words = self.words(request)
            _, _, _, *drawn = self._draw(conversation, words, asides)
            yield gr.skip(), gr.skip(), gr.skip(), *drawn, gr.skip(), gr.skip()
        async with aclosing(self._watch(conversation, asides, asking, request)) as watched:
            async for drawn in watched:
                yield drawn

    def _replied(self, asking: Asking, asides: tuple[Aside, ...], replied: Replied, words: Texts) -> tuple[Any, ...]:
        """Where another tab went on with the conversation, both tabs' turns are shown."""
        conversation = replied.stored or replied.conversation
        if conversation != replied.conversation:
            inform(words["conversation.elsewhere"])
        drawn = self._draw(conversation, words, asides)
        return *drawn, conversation if replied.stored else gr.skip()

    def _failed(
        self, conversation: Conversation, asides: tuple[Aside, ...], asking: Asking, broken: Broken, words: Texts
    ) -> tuple[Any, ...]:
        """The question goes back into the box, so that it can be put differently."""
        asides = (*asides, _aside(conversation, asking, broken.note, words))
        box = _idle() if broken.note == "stopped" else _idle(asking.utterance)
        return *self._draw(conversation, words, asides)[:-1], box

    def _stop(
        self, conversation: Conversation, asides: tuple[Aside, ...], asking: Asking | None, request: gr.Request
    ) -> tuple[Any, ...]:
        words = self.words(request)
        if asking is not None and running(asking):
            if not self._replies.stop(asking):  # how it ended is about to be drawn
                return _unchanged(self._drawn)
            asking.view.leave()
            asides = (*asides, _aside(conversation, asking, "stopped", words))
        drawn = messages(conversation, asides, words)
        return gr.skip(), asides, None, drawn, gr.skip(), _idle()

    def _undo(
        self,
        conversation: Conversation,
        asides: tuple[Aside, ...],
        asking: Asking | None,
        key: str,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        if running(asking) or not (conversation.turns or asides):
            return _unchanged(self._asked)
        before, (conversation, asides, utterance) = asides, without_last(conversation, asides)
        if self._kept and before != asides:
            self._replies.take_back(key, before[-1].id)
        return *self._draw(conversation, self.words(request), asides)[:-1], _idle(utterance), _search()

    def _start_over(self, asking: Asking | None, request: gr.Request) -> tuple[Any, ...]:
        """What was kept stays, under its own key."""
        key = new_key() if self._kept else ""
        return key, Conversation(), *self.show(Conversation(), self.words(request), leaving=asking)

    def _look(self, conversation: Conversation, wanted: gr.EventData, request: gr.Request) -> Any:
        """The sources of an earlier turn, whose citation was clicked."""
        number = wanted.turn
        if not isinstance(number, int) or not 0 <= number < len(conversation.turns):
            return gr.skip()
        return turn_value(conversation.turns[number], number, self.words(request))

    def _show_place(
        self,
        conversation: Conversation,
        asides: tuple[Aside, ...],
        asking: Asking | None,
        wanted: gr.EventData,
        request: gr.Request,
    ) -> Any:
        """A source in its document: the text of its page around the passage."""
        passage = passage_at(conversation, asides, asking, wanted.turn, wanted.source)
        if passage is None:
            return gr.skip()
        found = self._find(passage, getattr(wanted, "first", None), getattr(wanted, "last", None))
        return {"html": render.place(passage, found, wanted.turn, wanted.source, self.words(request))}

    def _find(self, passage: Passage, first: object, last: object) -> Place | None:
        """None where the document, or these words in it, are gone."""
        try:
            text = self._chatbot.knowledge.text(passage.document_id, passage.page)
        except MarginaliaError:
            return None
        return place(passage, text, first, last)

    def _tell(self, request: gr.Request) -> gr.HTML:
        """That passages are found by their words alone for now, where they are."""
        rebuilding = self._chatbot.knowledge.rebuilding
        lexical = rebuilding is not None and rebuilding.lexical_only
        return gr.HTML(render.notice(self.words(request)["rebuilding.lexical"]) if lexical else "", visible=lexical)

    def _judge(
        self,
        conversation: Conversation,
        asides: tuple[Aside, ...],
        asking: Asking | None,
        pressed: gr.EventData,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """A thumb under a reply. Pressed again it is taken back, unless a correction would be lost: that is shown."""
        number, rating, words = pressed.turn, pressed.rating, self.words(request)
        if not isinstance(number, int) or not 0 <= number < len(conversation.turns) or rating not in ("up", "down"):
            return _unchanged(self._judged)
        if running(asking):  # the turn in progress continues the conversation as it was
            inform(words["judge.later"])
            return _unchanged(self._judged)
        before = conversation.turns[number]
        if rating != before.rating:
            conversation = conversation.judged(number, rating)
        elif not before.correction:
            conversation = conversation.judged(number, "")
        turn = conversation.turns[number]
        correcting = turn if turn.rating == "down" else None
        return conversation, messages(conversation, asides, words), correcting, _correction(correcting)

    def _correct(
        self,
        conversation: Conversation,
        asides: tuple[Aside, ...],
        asking: Asking | None,
        turn: Turn | None,
        correction: str,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """What the reply should have said; nothing, where the field was left empty."""
        words = self.words(request)
        if running(asking):
            inform(words["judge.later"])
            return _unchanged(self._judged)
        if turn not in conversation.turns:  # taken back, or asked again
            inform(words["judge.gone"])
        else:
            conversation = conversation.judged(conversation.turns.index(turn), "down", correction or "")
        return conversation, messages(conversation, asides, words), None, _correction()

    def _translate(self, request: gr.Request) -> tuple[Any, ...]:
        words = self.words(request)
        return (
            gr.Chatbot(placeholder=render.welcome(words)),
            gr.Textbox(label=words["correction"], submit_btn=words["correction.save"]),
            gr.Textbox(label=words["search.label"], submit_btn=words["search.again"]),
            gr.Textbox(placeholder=words["placeholder"], label=words["placeholder"]),
            gr.Button(words["new_chat"]),
            gr.HTML(empty=render.no_sources_yet(words), **_spoken(words)),
            gr.HTML(disconnected=words["disconnected"]),
            *(self._chooser.translate(words) if self._chooser else ()),
        )


def chats(page: gr.Blocks) -> list[RagChat]:
    """Those that stand on a page, wherever it was rendered."""
    owners = [getattr(function.fn, "__self__", None) for function in page.fns.values()]
    return list({id(owner): owner for owner in owners if isinstance(owner, RagChat)}.values())


def _unchanged(outputs: Sequence[gr.blocks.Block]) -> tuple[Any, ...]:
    return (gr.skip(),) * len(outputs)


def _spoken(words: Texts) -> dict[str, str]:
    """The words that the scripts put on the page."""
    return {name: words[name] for name in ("copied", "send", "stop", "conversation")}


def _text_of(example: gr.SelectData) -> str:
    """What a browser says was chosen, if it says so."""
    return str(example.value.get("text") or "") if isinstance(example.value, dict) else ""


def _unfolding(label: str, button: str) -> gr.Textbox:
    """A field that is shown when it is asked for."""
    return gr.Textbox(
        label=label,
        submit_btn=button,
        visible=False,
        autofocus=True,
        lines=1,
        max_lines=8,
        elem_classes="mg-correcting",
    )


def _folded() -> tuple[Any, ...]:
    """Without the fields that unfold: what was written in them is not taken."""
    return None, _correction(), _search()


def _correction(turn: Turn | None = None) -> gr.Textbox:
    """The field for a turn's correction; without one it is not there."""
    return gr.Textbox(turn.correction if turn else "", visible=turn is not None)


def _search(turn: Turn | None = None) -> gr.Textbox:
    """The field for what is searched for a turn; without one it is not there."""
    return gr.Textbox(readable(turn.query) or turn.utterance if turn else "", visible=turn is not None)


def _aside(conversation: Conversation, asking: Asking, note: str, words: Texts) -> Aside:
    come = asking.run.progress if note == "stopped" else replace(asking.run.progress, query=None)
    return Aside(len(conversation.turns), asking.run.id, asking.utterance, noted(note, words), come)


def _busy(utterance: str | None = None) -> gr.Textbox:
    """A reply comes. `utterance`: what is in the box; None: what was."""
    busy = {"submit_btn": False, "stop_btn": True}
    return gr.Textbox(**busy) if utterance is None else gr.Textbox(utterance, **busy)


def _idle(utterance: str | None = None) -> gr.Textbox:
    """Ready for a question; whatever is being typed meanwhile stays, unless there is something to put back."""
    ready = {"submit_btn": True, "stop_btn": False}
    return gr.Textbox(**ready) if utterance is None else gr.Textbox(utterance, **ready)
