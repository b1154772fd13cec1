"""A chatbot without models or disk, for the page's tests: it streams slowly enough to watch, and fails when told to."""

from __future__ import annotations

import itertools
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from chatbot import (
    DEFAULT_COLLECTION,
    EVERYTHING,
    Answered,
    Asked,
    Citation,
    Conversation,
    Event,
    Hit,
    Passage,
    Query,
    Reply,
    Retrieved,
    Rewritten,
    Scope,
    Token,
    Turn,
)
from chatbot.catalogue import Collection, Entry
from chatbot.errors import UnknownDocument, UnreadableDocument, UnusableUtterance
from chatbot.ingestion import Ingestion
from chatbot.knowledge import Outcome, Rebuilding
from chatbot.settings import Settings

SENTENCE = re.compile(r"(?<=[.!?。！？])\s*")
K = 4


@dataclass
class Knowledge:
    stored: dict[str, tuple[Entry, tuple[Passage, ...]]] = field(default_factory=dict)
    rebuilding: Rebuilding | None = None
    around: dict[str, str] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=itertools.count)

    def add(
        self,
        file: str | Path,
        *,
        name: str | None = None,
        replace: bool = False,
        keep: bool = False,
        collection: str = DEFAULT_COLLECTION,
        progress: Callable[[float, str], None] | None = None,
        embedding: Callable[[int, int], None] | None = None,
    ) -> Outcome:
        name, text = name or Path(file).name, Path(file).read_text(encoding="utf-8")
        if progress:
            progress(0.5, "reading")
        return self.put(name, text, replace=replace, collection=collection)

    def put(
        self,
        name: str,
        *pages: str,
        heading: str = "",
        replace: bool = False,
        collection: str = DEFAULT_COLLECTION,
        around: str = "",
    ) -> Outcome:
        """Each page is a passage; `around`: what stands before and after it in its page's text."""
        if not any(page.strip() for page in pages):
            raise UnreadableDocument(f"{name!r} is empty: upload a file with text")
        if replace:
            self.stored = {key: value for key, value in self.stored.items() if value[0].name != name}
        id = f"d{next(self._ids)}"
        passages = tuple(
            Passage(
                f"{id}:{n}",
                id,
                name,
                text,
                n + 1 if len(pages) > 1 else None,
                heading,
                len(around),
                len(around) + len(text),
            )
            for n, text in enumerate(pages)
        )
        size, kind, added = (
            sum(len(page.encode()) for page in pages),
            name.rpartition(".")[2],
            "2026-11-20T09:30:00+00:00",
        )
        entry = Entry(id, name, kind, size, len(pages), len(passages), "en", added, collection=collection)
        self.around[id] = around
        self.stored[id] = (entry, passages)
        return Outcome(name, "replaced" if replace else "added", f"{len(passages)} passages", id, len(passages))

    def documents(self) -> list[Entry]:
        return [entry for entry, _ in self.stored.values()]

    def collections(self) -> list[Collection]:
        names = sorted({entry.collection for entry in self.documents()} | {DEFAULT_COLLECTION})
        return [Collection(name, sum(entry.collection == name for entry in self.documents()), 0) for name in names]

    def text(self, document_id: str, page: int | None = None) -> str:
        if document_id not in self.stored:
            raise UnknownDocument(f"no document has the id {document_id!r}")
        around = self.around[document_id]
        return next(around + p.text + around for p in self.stored[document_id][1] if p.page == page)

    def delete(self, document_id: str) -> Entry:
        if document_id not in self.stored:
            raise UnknownDocument(f"no document has the id {document_id!r}")
        return self.stored.pop(document_id)[0]

    def delete_collection(self, name: str) -> list[Entry]:
        return [self.delete(entry.id) for entry in self.documents() if entry.collection == name]


@dataclass
class History:
    kept: dict[str, Conversation] = field(default_factory=dict)
    open: dict[str, dict[str, Asked]] = field(default_factory=dict)

    def save(
        self, key: str, conversation: Conversation, since: Conversation | None = None, answered: str = ""
    ) -> Conversation:
        self.take_back(key, answered)
        self.kept.pop(key, None)
        if conversation.turns:
            self.kept[key] = conversation
        return conversation

    def load(self, key: str) -> Conversation | None:
        return self.kept.get(key)

    def list(self) -> list[tuple[str, str, str]]:
        titles = {key: asked.utterance for key in self.open for asked in self.asked(key)}
        titles |= {key: c.turns[0].utterance for key, c in self.kept.items()}
        return [(key, title, "2026-11-20T09:30:00+00:00") for key, title in reversed(titles.items())]

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)
        self.open.pop(key, None)

    def ask(self, key: str, asked: Asked, beside: Sequence[str] = ()) -> None:
        others = {id: other for id, other in self.open.get(key, {}).items() if id in beside}
        self.open[key] = others | {asked.id: asked}

    def end(self, key: str, asked: Asked) -> None:
        if asked.id in self.open.get(key, {}):
            self.open[key][asked.id] = asked

    def asked(self, key: str) -> tuple[Asked, ...]:
        return tuple(self.open.get(key, {}).values())

    def take_back(self, key: str, id: str) -> None:
        self.open.get(key, {}).pop(id, None)
        if not self.open.get(key):
            self.open.pop(key, None)


def words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z]{4,}|[\u4e00-\u9fff]", text.lower()) if word not in ("what", "does")}


@dataclass
class StandIn:
    """Replies with the sentences of the passages that share most words with the question."""

    knowledge: Knowledge = field(default_factory=Knowledge)
    history: History = field(default_factory=History)
    settings: Settings = field(default_factory=Settings)
    delay: float = 0.01
    reply: str = ""  # said instead, where not empty
    closed: int = 0
    utterances: list[str] = field(default_factory=list)  # as they were begun

    @cached_property
    def ingestion(self) -> Ingestion:
        return Ingestion(self.knowledge, Path(tempfile.mkdtemp(prefix="marginalia-")))

    def answer(
        self, conversation: Conversation, utterance: str, *, searched: str = "", scope: Scope = EVERYTHING
    ) -> Iterator[Event]:
        self.utterances.append(utterance)
        try:
            yield from self._events(conversation, utterance, searched, scope)
        finally:
            self.closed += 1

    def close(self) -> None: ...

    def _events(self, conversation: Conversation, utterance: str, searched: str, scope: Scope) -> Iterator[Event]:
        if "too long" in utterance:
            raise UnusableUtterance("the question has 5,000 characters, at most 4,000 can be read: shorten it")
        if "explode" in utterance:
            raise ZeroDivisionError("a secret path")
        previous = f" ({conversation.turns[-1].utterance})" if conversation.turns and "it" in utterance.split() else ""
        language = "zh" if re.search("[\u4e00-\u9fff]", utterance) else "en"
        query = Query(utterance, searched or utterance + previous, language, bool(searched))
        yield Rewritten(query)
        time.sleep(self.delay)
        hits = self._hits(query.text, scope)
        prior = (*(0.9 * 0.5 ** (n + 1) / (1 - 0.5 ** len(hits)) for n in range(len(hits))), 0.1) if hits else (1.0,)
        yield Retrieved(hits, prior)
        pieces = self._pieces(query.text, hits)
        yield from self._tokens(pieces, prior)
        yield Answered(Turn(query, self._reply(pieces, hits), hits, prior, {"retrieve": 0.01}))

    def _hits(self, text: str, scope: Scope) -> tuple[Hit, ...]:
        found = [
            passages
            for entry, passages in self.knowledge.stored.values()
            if (entry.collection in scope.collections or not scope.collections)
            and (entry.id in scope.documents or not scope.documents)
        ]
        passages = [p for each in found for p in each]
        scored = [Hit(p, len(words(text) & words(p.text + p.document))) for p in passages]
        return tuple(sorted((h for h in scored if h.score), key=lambda h: -h.score)[:K])

    def _pieces(self, text: str, hits: tuple[Hit, ...]) -> list[tuple[str, int]]:
        """The reply's sentences, and the source of each (the number of hits: none)."""
        if self.reply or not hits:
            return [(self.reply or "I could not find this in the documents.", 0 if self.reply else len(hits))]
        said = [("According to the documents: ", len(hits))]
        for source, hit in enumerate(hits[:2]):
            best = max(SENTENCE.split(hit.passage.text), key=lambda s: len(words(s) & words(text)))
            said += [(best.strip(), source), (" ", len(hits))]
        return said

    def _tokens(self, pieces: list[tuple[str, int]], prior: tuple[float, ...]) -> Iterator[Event]:
        for text, source in pieces:
            posterior = tuple(0.2 * p + 0.8 * (n == source) for n, p in enumerate(prior))
            for word in re.findall(r"\s*[\u4e00-\u9fff]|\s*[^\s\u4e00-\u9fff]+|\s+$", text):
                time.sleep(self.delay)
                yield Token(word, prior, posterior, tuple(0.0 for _ in prior))

    def _reply(self, pieces: list[tuple[str, int]], hits: tuple[Hit, ...]) -> Reply:
        text, citations, counts = "", [], [0.0] * (len(hits) + 1)
        for piece, source in pieces:
            if source < len(hits):
                citations.append(Citation(len(text), len(text) + len(piece), hits[source].passage.id, 0.87))
            counts[source] += len(piece)
            text += piece
        weights = tuple(0.9 * count / sum(counts) + 0.1 / len(counts) for count in counts)
        return Reply(text, tuple(citations), weights, 0.82 if citations else 0.2, not citations)


def stocked(**options: object) -> StandIn:
    """A stand-in that knows a small company's papers."""
    chatbot = StandIn(**options)  # type: ignore[arg-type]
    put = chatbot.knowledge.put
    put(
        "Employee handbook.pdf",
        "Welcome to Fjord & Sons. This handbook explains how we work.",
        "Every employee has 28 days of paid leave a year. Leave that is not taken by March lapses, unless illness or "
        "parental leave stood in its way. Requests go to your lead at least two weeks ahead, and are answered within "
        "three working days. Public holidays do not count as leave.",
        heading="Working here › Leave",
    )
    put("Leave FAQ.md", "Up to five days of leave can be carried over, if your lead agrees in writing.")
    put("Travel policy.docx", "Trips under six hours go by train. Hotels are booked through the office.")
    put("员工手册.md", "每位员工每年有二十八天带薪年假。未休的年假在三月底作废。", heading="休假")
    return chatbot
