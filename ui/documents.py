"""The Documents tab: files on their way in, what became of them, and what is in the knowledge base."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from chatbot import DEFAULT_COLLECTION, MarginaliaError
from ui import render
from ui.assets import keeping, listing
from ui.guard import handed_in
from ui.i18n import Texts
from ui.toast import inform, warn

if TYPE_CHECKING:
    from chatbot import Chatbot

TICK_SECONDS = 1.0  # between looks at what goes on, while something does
LONGEST_NAME = 80  # characters of a collection's

_READ_VISITOR = keeping("_, ...others", "return [own('localStorage', 'marginalia-visitor'), ...others];")

_ASKED_SCRIPT = """
element.addEventListener('click', event => {
  const button = event.target.closest('.mg-choose');
  if (button) trigger('choose', {key: button.dataset.key, choice: button.dataset.choice});
});
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a tab shows of the documents: so that it is drawn again only where it has changed."""

    rebuilding: str = ""
    asked: str = ""
    arriving: str = ""
    collections: tuple[tuple[str, int], ...] | None = None  # names, and documents in each
    stored: tuple[str, ...] | None = None  # documents' ids
    shown: str | None = None  # the collection whose documents are listed; None: all


class Documents:
    """Laid out where it is made. `shared`: strangers use the page, so each sees only the files that it handed in."""

    def __init__(self, chatbot: Chatbot, say: Callable[[gr.Request | None], Texts], words: Texts, shared: bool) -> None:
        self._knowledge = chatbot.knowledge
        self._ingestion = chatbot.ingestion  # what an earlier process left in it goes on from here
        self._say = say
        self._shared = shared
        self._lay_out(words)

    def _lay_out(self, words: Texts) -> None:
        self._visitor = gr.Textbox(visible=False)
        self._seen = gr.State(Seen())
        self._clock = gr.Timer(TICK_SECONDS, active=False)
        self._rebuilding = gr.HTML(apply_default_css=False, elem_classes="mg-app")
        with gr.Row():
            with gr.Column(scale=3, min_width=280):
                self._files = gr.File(label=words["upload"], file_count="multiple", height=252, elem_classes="mg-files")
            with gr.Column(scale=2, min_width=260, elem_classes="mg-into"):
                self._into = gr.Dropdown(
                    label=words["into"],
                    choices=[DEFAULT_COLLECTION],
                    value=DEFAULT_COLLECTION,
                    allow_custom_value=True,
                )
                self._address = gr.Textbox(
                    label=words["address"],
                    placeholder="https://",
                    submit_btn=words["address.add"],
                    max_lines=1,
                    elem_classes="mg-correcting",
                )
                self._replace = gr.Checkbox(label=words["replace"], info=words["replace.help"], container=False)
        self._asked = gr.HTML(js_on_load=_ASKED_SCRIPT, apply_default_css=False, elem_classes="mg-app")
        self._cancel = gr.Button(words["arriving.cancel"], visible=False, size="sm", elem_classes="mg-new")
        self._arriving = gr.HTML(
            js_on_load="element.closest('.mg-arriving').tabIndex = 0;",  # it scrolls: so that the keyboard can
            apply_default_css=False,
            elem_classes="mg-app mg-arriving",
            min_height=24,
        )
        self._collections = listing()
        self._listed = listing()

    def listen(self, page: gr.Blocks, tab: gr.Tab) -> None:
        """`tab`: whose opening shows how things are."""
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        telling = quick | {"queue": True}  # gradio shows gr.Info and gr.Warning for queued events only
        watching = [self._visitor, self._seen]
        watched = self._watched
        page.load(self._watch_anew, watching, [self._visitor, *watched], js=_READ_VISITOR, **quick)
        self._files.upload(
            self._add,
            [self._files, self._replace, self._into, *watching],
            [self._files, *watched],
            preprocess=False,  # keeps each file's own name, which File's preprocessing drops
            **quick,
        )
        self._address.submit(
            self._add_address,
            [self._address, self._replace, self._into, *watching],
            [self._address, *watched],
            **telling,
        )
        for event, handler in (
            (self._clock.tick, self._watch),
            (tab.select, self._watch),
            (self._cancel.click, self._give_up),
            (self._asked.choose, self._choose),
            (self._collections.open, self._narrow),
        ):
            event(handler, watching, watched, **quick)
        for event, handler in (
            (self._listed.remove, self._delete),
            (self._collections.rename, self._rename),
            (self._collections.remove, self._delete_collection),
        ):
            event(handler, watching, watched, **telling)

    @property
    def _watched(self) -> list[gr.blocks.Block]:
        """What `_watch` gives values for."""
        return [
            self._seen,
            self._clock,
            self._rebuilding,
            self._asked,
            self._cancel,
            self._arriving,
            self._into,
            self._collections,
            self._listed,
        ]

    @property
    def translated(self) -> list[gr.blocks.Block]:
        return [self._files, self._into, self._address, self._replace, self._cancel]

    def translate(self, words: Texts) -> tuple[Any, ...]:
        return (
            gr.File(label=words["upload"]),
            gr.Dropdown(label=words["into"]),
            gr.Textbox(label=words["address"], submit_btn=words["address.add"]),
            gr.Checkbox(label=words["replace"], info=words["replace.help"]),
            gr.Button(words["arriving.cancel"]),
        )

    # -- what comes in

    def _add(
        self,
        uploaded: list[dict[str, Any]] | None,
        replacing: bool,
        into: str | None,
        visitor: str,
        seen: Seen,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        files = [
            (path, _base_name(str(file.get("orig_name") or path)))
            for file in uploaded or []
            if (path := handed_in(file["path"]))
        ]
        self._ingestion.submit(
            files, owner=visitor or "", replace=replacing, collection=collection_name(into), move=True
        )
        for path, _ in files:  # gradio gives each content a folder of its own
            with contextlib.suppress(OSError):
                path.parent.rmdir()
        return None, *self._watch(visitor, seen, request)

    def _add_address(
        self, address: str, replacing: bool, into: str | None, visitor: str, seen: Seen, request: gr.Request
    ) -> tuple[Any, ...]:
        """What is typed stays where it is no address."""
        into = collection_name(into)
        try:
            self._ingestion.submit_address(address.strip(), owner=visitor or "", replace=replacing, collection=into)
        except MarginaliaError as error:
            warn(str(error), self._say(request))
            return gr.skip(), *self._watch(visitor, seen, request)
        return "", *self._watch(visitor, seen, request)

    def _give_up(self, visitor: str, seen: Seen, request: gr.Request) -> tuple[Any, ...]:
        for batch in self._batches(visitor):
            self._ingestion.cancel(batch.id)
        return self._watch(visitor, seen, request)

    def _choose(self, visitor: str, seen: Seen, chosen: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """For a file whose name is taken."""
        if chosen.choice in ("replace", "keep", "skip"):
            self._ingestion.answer(str(chosen.key), chosen.choice, self._owner(visitor))
        return self._watch(visitor, seen, request)

    def _batches(self, visitor: str) -> tuple[Any, ...]:
        return tuple(self._ingestion.batches(self._owner(visitor)))

    def _owner(self, visitor: str | None) -> str | None:
        """Whose files the visitor may see: None is everybody's. A page that is loading has no key yet."""
        return (visitor or "") if self._shared else None

    # -- what there is

    def _watch_anew(self, visitor: str, _: Seen, request: gr.Request) -> tuple[Any, ...]:
        """For a page that shows nothing yet."""
        return visitor, *self._watch(visitor, Seen(), request)

    def _watch(self, visitor: str, seen: Seen, request: gr.Request) -> tuple[Any, ...]:
        """How things are; only what has changed is drawn again, and the clock ticks while something goes on."""
        if not visitor:  # the page is loading still: `_watch_anew` is on its way, and must not be overtaken
            return (gr.skip(),) * len(self._watched)
        words, batches, rebuilding = self._say(request), self._batches(visitor), self._knowledge.rebuilding
        running = any(not batch.done for batch in batches)
        entries, collections = self._knowledge.documents(), self._knowledge.collections()
        names = [each.name for each in collections]
        now = Seen(
            render.rebuilding(rebuilding, words),
            render.asked(batches, words),
            render.arriving(batches, words),
            tuple((each.name, each.documents) for each in collections),
            tuple(entry.id for entry in entries),
            seen.shown if seen.shown in names else None,
        )
        same_names = seen.collections is not None and names == [name for name, _ in seen.collections]
        same_list = (now.collections, now.shown) == (seen.collections, seen.shown)
        listed = [entry for entry in entries if now.shown in (None, entry.collection)]
        return (
            now,
            gr.Timer(active=running or rebuilding is not None),
            gr.skip() if now.rebuilding == seen.rebuilding else now.rebuilding,
            gr.skip() if now.asked == seen.asked else now.asked,
            gr.Button(visible=running),
            gr.skip() if now.arriving == seen.arriving else now.arriving,
            gr.skip() if same_names else gr.Dropdown(choices=names),
            gr.skip() if same_list else render.collections(collections, now.shown, words),
            gr.skip() if same_list and now.stored == seen.stored else render.documents(listed, words, len(names) > 1),
        )

    def _narrow(self, visitor: str, seen: Seen, chosen: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        return self._watch(visitor, replace(seen, collections=None, shown=str(chosen.key) or None), request)

    def _delete(self, visitor: str, seen: Seen, chosen: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        try:
            entry = self._knowledge.delete(str(chosen.key))
        except MarginaliaError as error:
            warn(str(error), self._say(request))
        else:
            inform(self._say(request)["documents.deleted"].format(name=entry.name))
        return self._watch(visitor, seen, request)

    def _delete_collection(
        self, visitor: str, seen: Seen, chosen: gr.EventData, request: gr.Request
    ) -> tuple[Any, ...]:
        name = str(chosen.key)
        try:
            count = len(self._knowledge.delete_collection(name))
        except MarginaliaError as error:
            warn(str(error), self._say(request))
        else:
            inform(self._say(request)["collections.deleted"].format(name=name, count=count))
        return self._watch(visitor, seen, request)

    def _rename(self, visitor: str, seen: Seen, chosen: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        name, new = str(chosen.key), collection_name(str(chosen.name), "")
        if new and new != name:
            try:
                self._knowledge.rename_collection(name, new)
            except MarginaliaError as error:
                warn(str(error), self._say(request))
            else:
                seen = replace(seen, shown=new, collections=None)
        return self._watch(visitor, seen, request)


def collection_name(typed: object, otherwise: str = DEFAULT_COLLECTION) -> str:
    """A name in one line, composed as names of files are. `typed`: whatever a browser sends."""
    return (
        " ".join(unicodedata.normalize("NFC", typed if isinstance(typed, str) else "").split())[:LONGEST_NAME].strip()
        or otherwise
    )


def _base_name(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]
