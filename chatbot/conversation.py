"""A conversation and what it is made of. Values: each step takes one and returns a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from chatbot.passage import Hit

RATINGS = ("", "up", "down")  # not judged, good, bad


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for a turn: `text` stands alone; empty means that nothing is searched (a greeting)."""

    utterance: str  # as typed
    text: str  # equal to the utterance where it stands alone already
    language: str  # ISO 639-1
    edited: bool = False  # the person wrote `text`
    context: str = ""  # the utterance with its conversation, as `prompt.conversational` puts it; empty: a first turn
    leans: bool = False  # whether the conversation is needed to understand it

    @property
    def rewritten(self) -> bool:
        return self.text != self.utterance

    @property
    def question(self) -> str:
        """What a generator is asked. Words for searching alone, before the utterance or instead of it, are left out."""
        aside = self.edited or not self.text or self.text.endswith(self.utterance)
        return self.utterance if aside else self.text

    @property
    def searches(self) -> tuple[str, ...]:
        """The texts to search: the query, and the raw utterance beside it, so that a bad rewrite loses nothing.

        What the person wrote is searched as it is, and nothing else.
        """
        if self.edited:
            return (self.text,)
        return tuple(dict.fromkeys(text for text in (self.text, self.utterance) if text)) if self.text else ()


@dataclass(frozen=True, slots=True)
class Citation:
    """Characters [start, end) of a reply, and the passage that the generator's posterior names for them."""

    start: int
    end: int
    passage_id: str
    weight: float  # how much of the span this passage explains, in [0, 1]: see `attribution`


@dataclass(frozen=True, slots=True)
class Reply:
    """`abstained`: the documents do not hold the answer; the text then says so and cites nothing."""

    text: str
    citations: tuple[Citation, ...] = ()
    weights: tuple[float, ...] = ()  # (K + 1,): mean posterior over the reply, "no passage" last
    confidence: float = 0.0  # in [0, 1]
    abstained: bool = False
    notice: str = ""  # what the person should know of how it was made: that something did not fit the window

    @property
    def sourced(self) -> bool:
        """Whether some of it comes from a passage, or it says that the documents hold no answer."""
        return self.abstained or bool(self.citations)


@dataclass(frozen=True, slots=True)
class Turn:
    query: Query
    reply: Reply
    hits: tuple[Hit, ...] = ()
    prior: tuple[float, ...] = ()  # (K + 1,), "no passage" last
    seconds: Mapping[str, float] = field(default_factory=dict)  # by step: rewrite, retrieve, first_token, generate
    rating: str = ""  # one of RATINGS: what the person said of the reply
    correction: str = ""  # what the reply should have been, by that person; empty: not said

    @property
    def utterance(self) -> str:
        return self.query.utterance

    def advised(self, how: str) -> Turn:
        """Where there was no document to search, the turn with this said besides: how one is added there."""
        if not self.query.text or self.hits or not self.reply.abstained:
            return self
        return replace(self, reply=replace(self.reply, text=f"{self.reply.text} {how}"))

    def as_json(self) -> dict[str, Any]:
        """What `ask --json` prints and the page's `/ask` returns.

        `rating` and `correction` only where there is one, and `"sourced": false` only where nothing of it has a source.
        """
        judged = {"rating": self.rating, "correction": self.correction}
        unsourced = {} if self.reply.sourced else {"sourced": False}
        return {
            "query": self.query.text,
            "language": self.query.language,
            "reply": self.reply.text,
            "abstained": self.reply.abstained,
            "confidence": self.reply.confidence,
            "citations": [asdict(citation) for citation in self.reply.citations],
            "passages": [
                {
                    "id": hit.passage.id,
                    "document": hit.passage.document,
                    "page": hit.passage.page,
                    "text": hit.passage.text,
                    "score": hit.score,
                    "prior": prior,
                }
                for hit, prior in zip(self.hits, self.prior, strict=False)  # the prior has "no passage" besides
            ],
            "timings": dict(self.seconds),
            **unsourced,
            **{name: value for name, value in judged.items() if value},
        }


@dataclass(frozen=True, slots=True)
class Conversation:
    turns: tuple[Turn, ...] = ()

    def plus(self, turn: Turn) -> Conversation:
        return Conversation((*self.turns, turn))

    def judged(self, number: int, rating: str, correction: str = "") -> Conversation:
        """With this said of turn `number`, from 0, in place of what was said of it before. `rating`: one of RATINGS.

        Raises ValueError for another rating, IndexError where there is no such turn.
        """
        if rating not in RATINGS:
            raise ValueError(f"rating {rating!r} is none of {RATINGS}")
        if not 0 <= number < len(self.turns):
            raise IndexError(f"there is no turn {number} among {len(self.turns)}")
        turn = replace(self.turns[number], rating=rating, correction=correction.strip())
        return Conversation((*self.turns[:number], turn, *self.turns[number + 1 :]))

    @property
    def language(self) -> str | None:
        """The latest turn's language; None before the first turn."""
        return self.turns[-1].query.language if self.turns else None


@dataclass(frozen=True, slots=True)
class Asked:
    """The latest question of a conversation while it has no reply: one is on its way, or none will come any more.

    `note`: why none will come, for people; empty where none was given: a reply is on its way, or the program that was
    at it ended. `text`: what there was of the reply then.
    """

    id: str  # of this asking: the same question may be asked again
    utterance: str
    text: str = ""
    note: str = ""
