"""What is searched, as a visitor chooses it: a line under the question box, which unfolds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from chatbot import EVERYTHING, Scope
from ui import render
from ui.i18n import Texts
from ui.scope import FIELDS, holds, midnight, said

if TYPE_CHECKING:
    from chatbot import Chatbot

OFFERED = 2000  # documents, the newest: a list of more is no help

_DAYS_SCRIPT = """
const days = () => Object.fromEntries([...element.querySelectorAll('input')].map(each => [each.name, each.value]));
element.addEventListener('change', () => trigger('days', days()));
element.addEventListener('click', event => {
  if (!event.target.closest('.mg-choose')) return;
  element.querySelectorAll('input').forEach(each => { each.value = ''; });
  trigger('everything', {});
});
"""

# it unfolds below the window, whose height the conversation takes
_INTO_VIEW = """() => {
  const fold = document.activeElement?.closest('.mg-scope');
  setTimeout(() => fold?.scrollIntoView({block: 'nearest', behavior: 'smooth'}), 250);
}"""


class Chooser:
    """A line that unfolds into what can be searched. Laid out where it is made; `scope` is the tab's own."""

    def __init__(self, chatbot: Chatbot, allowed: Scope, scope: gr.State, words: Texts) -> None:
        self._knowledge, self._allowed, self._scope = chatbot.knowledge, allowed, scope
        with gr.Accordion(said(EVERYTHING, words), open=False, elem_classes="mg-scope") as self._fold:
            with gr.Row():
                self._collections, self._documents = _field(words, "collections"), _field(words, "documents")
            with gr.Row():
                self._kinds, self._languages = _field(words, "kinds"), _field(words, "languages")
            self._days = gr.HTML(
                render.days(words), js_on_load=_DAYS_SCRIPT, apply_default_css=False, elem_classes="mg-app"
            )

    def listen(self, say: Callable[[gr.Request | None], Texts]) -> None:
        self._say = say
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        fields = [self._collections, self._documents, self._kinds, self._languages]
        offered = [self._scope, self._fold, *fields]
        chosen = [self._scope, *fields]
        self._fold.expand(self._offer, [self._scope], offered, **quick)
        self._fold.expand(None, js=_INTO_VIEW, **quick)
        self._collections.input(self._choose_collections, chosen, offered, **quick)
        gr.on([each.input for each in fields[1:]], self._choose, chosen, [self._scope, self._fold], **quick)
        self._days.days(self._choose_days, [self._scope], [self._scope, self._fold], **quick)
        self._days.everything(self._offer, [gr.State(EVERYTHING)], offered, **quick)

    @property
    def translated(self) -> list[gr.blocks.Block]:
        return [self._fold, self._collections, self._documents, self._kinds, self._languages, self._days]

    def translate(self, words: Texts) -> tuple[Any, ...]:
        fields = [gr.Dropdown(label=words[f"scope.{name}"]) for name in FIELDS]
        return gr.Accordion(label=said(EVERYTHING, words)), *fields, render.days(words)

    def _offer(self, scope: Scope, request: gr.Request) -> tuple[Any, ...]:
        """What is there to choose from now; of what was chosen, that which is still there."""
        entries = [each for each in self._knowledge.documents() if holds(self._allowed, each)]
        names = [each.name for each in self._knowledge.collections() if _allows(self._allowed.collections, each.name)]
        scope = replace(scope, collections=_kept(scope.collections, names))
        listed = [each for each in entries if _allows(scope.collections, each.collection)]
        kinds, languages = sorted({each.kind for each in listed}), sorted({each.language for each in listed})
        scope = replace(
            scope,
            documents=_kept(scope.documents, [each.id for each in listed]),
            kinds=_kept(scope.kinds, kinds),
            languages=_kept(scope.languages, languages),
        )
        several = len({each.collection for each in listed}) > 1
        documents = [
            (f"{each.name} · {each.collection}" if several else each.name, each.id)
            for number, each in enumerate(listed)
            if number < OFFERED or each.id in scope.documents
        ]
        return (
            scope,
            self._line(scope, request),
            gr.Dropdown(choices=names, value=list(scope.collections), visible=len(names) > 1),
            gr.Dropdown(choices=documents, value=list(scope.documents), info=self._more(len(listed), request)),
            gr.Dropdown(choices=kinds, value=list(scope.kinds)),
            gr.Dropdown(choices=languages, value=list(scope.languages)),
        )

    def _choose_collections(
        self,
        scope: Scope,
        collections: Sequence[str],
        documents: Sequence[str],
        kinds: Sequence[str],
        languages: Sequence[str],
        request: gr.Request,
    ) -> tuple[Any, ...]:
        return self._offer(_chosen(scope, collections, documents, kinds, languages), request)

    def _choose(
        self,
        scope: Scope,
        collections: Sequence[str],
        documents: Sequence[str],
        kinds: Sequence[str],
        languages: Sequence[str],
        request: gr.Request,
    ) -> tuple[Any, ...]:
        scope = _chosen(scope, collections, documents, kinds, languages)
        return scope, self._line(scope, request)

    def _choose_days(self, scope: Scope, days: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        scope = replace(scope, added_after=midnight(days.since), added_before=midnight(days.until, later=1))
        return scope, self._line(scope, request)

    def _line(self, scope: Scope, request: gr.Request) -> gr.Accordion:
        return gr.Accordion(label=said(scope, self._say(request)))

    def _more(self, count: int, request: gr.Request) -> str | None:
        return self._say(request)["scope.newest"].format(shown=OFFERED, count=count) if count > OFFERED else None


def _field(words: Texts, name: str) -> gr.Dropdown:
    return gr.Dropdown(label=words[f"scope.{name}"], multiselect=True, choices=[], value=[])


def _chosen(
    scope: Scope, collections: Sequence[str], documents: Sequence[str], kinds: Sequence[str], languages: Sequence[str]
) -> Scope:
    """The days are kept."""
    return replace(
        scope,
        collections=tuple(collections or ()),
        documents=tuple(documents or ()),
        kinds=tuple(kinds or ()),
        languages=tuple(languages or ()),
    )


def _kept(chosen: tuple[str, ...], there: Iterable[str]) -> tuple[str, ...]:
    there = set(there)
    return tuple(each for each in chosen if each in there)


def _allows(asked: tuple[str, ...], value: str) -> bool:
    return not asked or value in asked
