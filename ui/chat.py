"""RagChat: the chat as a component, to be constructed inside any `gr.Blocks`.

The conversation lives in `gr.State` as a `Conversation` and is never read back from the widget. Beside it lie the
asides: turns that were stopped or failed, which are shown where they happened but belong to no conversation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, assert_never

import gradio as gr
from gradio.context import Context

from chatbot import (
    EVERYTHING,
    Answered,
    Conversation,
    MarginaliaError,
    Passage,
    Retrieved,
    Rewritten,
    Scope,
    Token,
    Turn,
)
from ui import render
from ui.assets import asset, stylesheet
from ui.chooser import Chooser
from ui.endpoint import offer_endpoint
from ui.guard import guard
from ui.i18n import Texts, preferred, said, texts
from ui.panel import Shares, panel_value, turn_value
from ui.place import Place, place
from ui.run import Turns
from ui.scope import gone, narrowed
from ui.searched import readable
from ui.thread import Aside, Asking, messages, passage_at, running, without_last

if TYPE_CHECKING:
    from chatbot import Chatbot

log = logging.getLogger(__name__)

REDRAW_SECONDS = 0.08  # between redraws while a reply streams: twelve a second read as fluid


class RagChat(gr.Blocks):
    """A chat over `chatbot`, with a panel of sources beside it. Construct it inside the host's `gr.Blocks`.

    `language`: one of `ui.i18n.LANGUAGES`; None follows each visitor's browser. `concurrency_limit`: replies that are
    generated at once, over all visitors; the others wait. Endpoint `api_name`: utterance -> (reply, JSON of its
    sources), a conversation for each client. `scope`: the documents that are searched; `choose_scope`: each visitor may
    choose among them. `documents_tab`: the page has one, which a person without documents is sent to. For the host's
    own events: `conversation` is the `gr.State` that holds the `Conversation`, `asking` the one that holds the turn in
    progress.
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
    ) -> None:
        super().__init__(analytics_enabled=False)
        self._chatbot = chatbot
        self._allowed = scope
        self._language = language
        self._documents_tab = documents_tab
        self._limits = {"concurrency_limit": concurrency_limit, "concurrency_id": f"marginalia-{id(chatbot)}"}
        self._turns = Turns(concurrency_limit)
        with self:
            page = Context.root_block or self
            hosts = {id(function) for function in page.fns.values()}
            self._lay_out(examples, height, choose_scope)
            self._listen()
            offer_endpoint(chatbot, api_name, scope, self._limits, self._turns)
        guard(page, [function for function in page.fns.values() if id(function) not in hosts])

    # -- what is on the page

    def _lay_out(self, examples: Sequence[str], height: int | str, choose_scope: bool) -> None:
        words = texts(self._language or "en")
        self.conversation = gr.State(Conversation())
        self._asides = gr.State(())
        self.asking = gr.State(None)
        self._scope = gr.State(EVERYTHING)  # that the visitor chose
        self._begun = gr.State(0)  # when the latest turn began: what shows its reply waits for a change of it
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
                self._place = gr.HTML(
                    {"html": ""},
                    html_template="${value.html}",
                    js_on_load=asset("place.js"),
                    apply_default_css=False,
                )

    @property
    def shown(self) -> list[gr.blocks.Block]:
        """What `show` gives values for, in that order: the outputs of a host's event that changes the conversation."""
        return [*self._drawn, self._correcting, self._correction, self._search]

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
    ) -> tuple[Any, ...]:
        """The values of `shown`. `leaving`: what `asking` holds, for a turn in progress ends. To be queued."""
        if leaving is not None:
            leaving.run.stop()
        return *self._draw(conversation, words, asides), None, _correction(), _search()

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
        within = [*states, self._scope]
        # queued, so that the page gets what these draw after all that the stream has drawn; and since gradio tells the
        # page of a state's change for queued events alone
        ending = quick | {"queue": True, "concurrency_limit": None}
        begins = [*self._asked, self._begun]
        self._textbox.submit(self._begin, [*within, self._textbox], begins, **ending)
        self._messages.example_select(self._begin_example, within, begins, **ending)
        self._messages.retry(self._begin_again, [*within, gr.State("")], begins, **ending)
        self._panel.search(self._begin_search, within, begins, **ending)
        self._search.submit(self._begin_again, [*within, self._search], begins, **ending)
        streamed = self._begun.change(
            self._stream,
            states,
            self._drawn,
            show_progress="hidden",
            trigger_mode="multiple",  # one that was stopped may not have ended yet
            api_visibility="private",
            **self._limits,
        )
        self._textbox.stop(self._stop, states, self._drawn, **ending)
        undone = self._messages.undo(self._undo, states, self._asked, **quick)
        started_over = gr.on(
            [self._new_chat.click, self._messages.clear],
            self._start_over,
            [self.asking],
            self.shown,
            **ending,
        )
        judged = self._panel.judge(self._judge, states, self._judged, **ending)
        corrected = self._correction.submit(
            self._correct, [*states, self._correcting, self._correction], self._judged, **ending
        )
        self._changes = [streamed, undone, started_over, judged, corrected]
        self._panel.look(self._look, [self.conversation], [self._panel], **quick)
        self._panel.leave(_folded, None, [self._correcting, self._correction, self._search], **quick)
        for wanted in (self._panel.place, self._place.further):
            wanted(self._show_place, states, [self._place], **quick)
        gr.on([self.load, self._textbox.submit], self._tell, None, [self._notice], **quick)
        translated = [self._messages, self._correction, self._search, self._textbox, self._new_chat, self._panel]
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
        utterance: str,
        request: gr.Request,
        searched: str = "",
    ) -> tuple[Any, ...]:
        """Shows the question at once, before the model is free; does nothing for an empty one, or while one runs."""
        if running(asking) or not utterance.strip():
            return _unchanged([*self._asked, self._begun])
        words, asking = self.words(request), Asking(utterance, conversation, searched, scope)
        drawn = messages(conversation, asides, words, asking, words["thinking"])
        return gr.skip(), gr.skip(), asking, drawn, gr.skip(), _busy(), _search(), time.time_ns()

    def _begin_example(
        self,
        conversation: Conversation,
        asides: tuple[Aside, ...],
        asking: Asking | None,
        scope: Scope,
        example: gr.SelectData,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        return self._begin(conversation, asides, asking, scope, _text_of(example), request)

    def _begin_again(
        self,
        conversation: Conversation,
        asides: tuple[Aside, ...],
        asking: Asking | None,
        scope: Scope,
        searched: str,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """Asks the last question again. Until it is answered the conversation keeps what it held."""
        if running(asking):
            return _unchanged([*self._asked, self._begun])
        before, asides, utterance = without_last(conversation, asides)
        _, _, *begun = self._begin(before, asides, None, scope, utterance, request, searched.strip())
        return gr.skip(), asides, *begun

    def _begin_search(
        self,
        conversation: Conversation,
        asides: tuple[Aside, ...],
        asking: Asking | None,
        scope: Scope,
        pressed: gr.EventData,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """Asks the last question again, searched as it was typed; or offers to write what is searched."""
        if running(asking) or not conversation.turns:
            return _unchanged([*self._asked, self._begun])
        turn = conversation.turns[-1]
        if pressed.typed:
            return self._begin_again(conversation, asides, asking, scope, turn.utterance, request)
        return *_unchanged(self._drawn), _search(turn), gr.skip()

    def _stream(
        self, conversation: Conversation, asides: tuple[Aside, ...], asking: Asking | None, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """One turn, redrawn as it comes. Whatever ends it leaves the page ready for the next.

        It begins and ends by changing nothing: gradio empties every output of a generator that yields nothing, and
        sends what was yielded last once more, which may be older than what the page shows by then.
        """
        yield _unchanged(self._drawn)
        if asking is not None and asking.run.claim():
            with self._turns.one(queued=True):
                yield from self._turn(conversation, asides, asking, request)
        yield _unchanged(self._drawn)

    def _turn(
        self, conversation: Conversation, asides: tuple[Aside, ...], asking: Asking, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        words = self.words(request)
        try:
            if gone(asking.scope, self._chatbot.knowledge):
                yield self._failed(conversation, asides, asking, words["scope.gone"], words)
            else:
                yield from self._events(asides, asking, words)
        except MarginaliaError as error:
            yield self._failed(conversation, asides, asking, said(str(error), words), words)
        except Exception:
            log.exception("a turn failed")
            yield self._failed(conversation, asides, asking, words["failed"], words)
        finally:
            asking.run.end()

    def _events(self, asides: tuple[Aside, ...], asking: Asking, words: Texts) -> Iterator[tuple[Any, ...]]:
        conversation, panel, waiting = asking.after, panel_value(), "thinking"
        shares, drawn_at = Shares(), 0.0
        scope = narrowed(self._allowed, asking.scope)
        for event in self._chatbot.answer(conversation, asking.utterance, searched=asking.searched, scope=scope):
            if asking.run.stopped:
                return
            match event:
                case Rewritten(query):
                    asking = replace(asking, query=query)
                case Retrieved(hits, prior):
                    asking, waiting = replace(asking, hits=tuple(hits)), "reading"
                    panel = panel_value(render.sources(hits, prior, words), len(conversation.turns))
                case Token(text, _, posterior, _):
                    asking, shares = replace(asking, text=asking.text + text), shares.plus(posterior)
                    if time.monotonic() - drawn_at < REDRAW_SECONDS:
                        continue
                    drawn_at, panel = time.monotonic(), panel | {"weights": shares.mean}
                case Answered(turn):
                    if self._documents_tab and scope == EVERYTHING:
                        turn = turn.advised(words["documents.none"])
                    yield self._draw(conversation.plus(turn), words, asides)
                    return
                case _:
                    assert_never(event)
            drawn = messages(conversation, asides, words, asking, words[waiting])
            yield gr.skip(), gr.skip(), asking, drawn, panel, gr.skip()

    def _failed(
        self, conversation: Conversation, asides: tuple[Aside, ...], asking: Asking, note: str, words: Texts
    ) -> tuple[Any, ...]:
        """The question goes back into the box, so that it can be put differently."""
        asides = (*asides, Aside(len(conversation.turns), replace(asking, query=None), note))
        return *self._draw(conversation, words, asides)[:-1], _idle(asking.utterance)

    def _stop(
        self, conversation: Conversation, asides: tuple[Aside, ...], asking: Asking | None, request: gr.Request
    ) -> tuple[Any, ...]:
        words = self.words(request)
        if asking is not None and running(asking):
            asking.run.stop()
            asides = (*asides, Aside(len(conversation.turns), asking, words["stopped"]))
        drawn = messages(conversation, asides, words)
        return gr.skip(), asides, None, drawn, gr.skip(), _idle()

    def _undo(
        self, conversation: Conversation, asides: tuple[Aside, ...], asking: Asking | None, request: gr.Request
    ) -> tuple[Any, ...]:
        if running(asking) or not (conversation.turns or asides):
            return _unchanged(self._asked)
        conversation, asides, utterance = without_last(conversation, asides)
        return *self._draw(conversation, self.words(request), asides)[:-1], _idle(utterance), _search()

    def _start_over(self, asking: Asking | None, request: gr.Request) -> tuple[Any, ...]:
        return self.show(Conversation(), self.words(request), leaving=asking)

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
            gr.Info(words["judge.later"])
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
            gr.Info(words["judge.later"])
            return _unchanged(self._judged)
        if turn not in conversation.turns:  # taken back, or asked again
            gr.Info(words["judge.gone"])
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
            *(self._chooser.translate(words) if self._chooser else ()),
        )


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


def _busy() -> gr.Textbox:
    return gr.Textbox("", submit_btn=False, stop_btn=True)


def _idle(utterance: str | None = None) -> gr.Textbox:
    """Ready for a question; whatever is being typed meanwhile stays, unless there is something to put back."""
    ready = {"submit_btn": True, "stop_btn": False}
    return gr.Textbox(**ready) if utterance is None else gr.Textbox(utterance, **ready)
