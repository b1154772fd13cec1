"""One turn, as a stream of events: rewrite, retrieve, generate, attribute.

A `Dialogue` holds no conversation, so one serves every browser, and stopping after any event leaves nothing to undo.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from chatbot import attribution
from chatbot.beam import beam
from chatbot.branches import Branches, branches
from chatbot.conversation import Conversation, Query, Reply, Turn
from chatbot.errors import UnusableUtterance
from chatbot.events import Answered, Event, Retrieved, Rewritten, Token
from chatbot.generate import RAG_TOKEN, Mixing, generate
from chatbot.generators.base import Generator
from chatbot.language import detect, words
from chatbot.prompt import WORDS, Prompt, answer_prompts, chat_prompt, excerpt, words_for
from chatbot.retrieve import Finder
from chatbot.rewrite import FUNCTION_WORDS, Rewriter
from chatbot.sampling import GREEDY, Sampling, ended, loops
from chatbot.scope import EVERYTHING, Scope

ALIKE = 0.8  # share of a reply's words that its copy keeps: "Hello!" before it is left out
PATIENCE = 24  # tokens that a reply gets to show that it comes from the passages


class Dialogue:
    """`reading`: which passages each branch reads, given the prior.
    `least_confidence`: a reply whose confidence is lower is withheld, and the reply says so instead.
    `unread`: languages that the generator cannot answer in; the nearest passage is shown instead.
    `beams`: with more than one, the likeliest reply that beam search finds; its tokens come all at once, at its end.
    """

    def __init__(
        self,
        rewriter: Rewriter,
        retriever: Finder,
        generator: Generator,
        *,
        sampling: Sampling = GREEDY,
        mixing: Mixing = RAG_TOKEN,
        reading: Callable[[Sequence[float]], Branches] = branches,
        beams: int = 1,
        least_confidence: float = 0.0,
        unread: Sequence[str] = (),
        max_utterance: int = 4000,
    ) -> None:
        self._rewriter = rewriter
        self._retriever = retriever
        self._generator = generator
        self._sampling = sampling
        self._mixing = mixing
        self._reading = reading
        self._beams = beams
        self._least_confidence = least_confidence
        self._unread = frozenset(unread)
        self._max_utterance = max_utterance

    def answer(
        self, conversation: Conversation, utterance: str, *, searched: str = "", scope: Scope = EVERYTHING
    ) -> Iterator[Event]:
        """`searched`: what is searched for it, as the person wrote it; empty: what the rewriter makes of it.

        Raises UnusableUtterance, before any event, for an utterance or a search that is empty or too long; after
        `Retrieved` for one that is longer than what the generator reads.
        """
        utterance = self._check(utterance)
        clock = _Clock()
        begun = getattr(self._generator, "begun", None)  # before passages are found: one may be deleted meanwhile
        by: Generator = self._generator if begun is None else begun()
        query = self._query(conversation, utterance, searched)
        clock.lap("rewrite")
        yield Rewritten(query)
        found = self._retriever.retrieve(query, scope) if query.text else Retrieved((), (1.0,))
        clock.lap("retrieve")
        yield found
        tokens: list[Token] = []
        for token in self._tokens(by, conversation, query, found):
            if not tokens:
                clock.lap("first_token")
            tokens.append(token)
            if query.text and self._hopeless(tokens):
                break
            yield token
        clock.lap("generate")
        reply = replace(self._reply(conversation, query, found, tokens), notice=self._notice(query, tokens))
        yield Answered(Turn(query, reply, found.hits, found.prior, clock.seconds))

    def _query(self, conversation: Conversation, utterance: str, searched: str) -> Query:
        if not searched:
            return self._rewriter.rewrite(conversation, utterance)
        return Query(utterance, self._check(searched), detect(utterance, conversation.language), edited=True)

    def _check(self, utterance: str) -> str:
        # half of a character, as of a text that was cut in the middle of one, becomes a mark: it cannot be read
        utterance = utterance.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
        if not utterance:
            raise UnusableUtterance("the question is empty: type one")
        if len(utterance) > self._max_utterance:
            raise UnusableUtterance(
                f"the question has {len(utterance):,} characters and the limit is {self._max_utterance:,}: "
                "shorten it, or upload the text as a document and ask about it"
            )
        return utterance

    def _tokens(self, by: Generator, conversation: Conversation, query: Query, found: Retrieved) -> Iterator[Token]:
        if query.language in self._unread:
            return iter(())
        if not query.text:  # read with what was said before, small generators say that again
            return self._say(by, [chat_prompt(Conversation(), query)], branches((1.0,)))
        if found.prior[-1] > 0.5:  # nothing near
            return iter(())
        read = self._reading(found.prior)
        return self._say(by, answer_prompts(conversation, query, found.hits, read.reads), read)

    def _say(self, by: Generator, prompts: Sequence[Prompt], read: Branches) -> Iterator[Token]:
        if self._beams == 1:
            return generate(by, prompts, read.prior, self._sampling, self._mixing, read.shares)
        best, *_ = beam(
            by,
            prompts,
            read.prior,
            self._beams,
            max_tokens=self._sampling.max_tokens,
            mixing=self._mixing,
            shares=read.shares,
        )
        return ended(best.tokens, self._sampling)

    def _hopeless(self, tokens: list[Token]) -> bool:
        """Whether the reply would be withheld however it goes on, or, after a while, as it stands."""
        if attribution.answerable(tokens) < self._least_confidence:
            return True
        return len(tokens) >= PATIENCE and attribution.confidence(tokens) < self._least_confidence

    def _reply(self, conversation: Conversation, query: Query, found: Retrieved, tokens: list[Token]) -> Reply:
        put = words_for(query.language)
        reply = attribution.reply(tokens, found.hits, self._mixing.epsilon)
        if not query.text:
            known = not reply.text or repeats(conversation, query, reply)
            return Reply(put.listening if known else reply.text, weights=reply.weights)
        if not tokens:
            if found.hits and query.language in self._unread:
                return _withheld(found, put.unsure)
            text = put.nothing_found if found.hits else put.no_documents
            return Reply(text, weights=found.prior, abstained=True)
        if reply.confidence < self._least_confidence or _is_ours(reply) or repeats(conversation, query, reply):
            return _withheld(found, put.unsure, reply.confidence)
        return reply

    def _notice(self, query: Query, tokens: list[Token]) -> str:
        """What the reply was made without, and what ended it early, in the person's language."""
        put = words_for(query.language)
        notices = [put.cut[part] for part in (tokens[0].cut if tokens else ())]
        if loops("".join(token.text for token in tokens), self._sampling.most_repeats):
            notices.append(put.looped)
        return " ".join(notices)


def repeats(conversation: Conversation, query: Query, reply: Reply) -> bool:
    """Whether the reply says, in the same words or all but a few of them, what another question was answered with.

    Small generators copy what they said before where a follow-up gives them too little to go by. It is no copy where
    it cites passages and the earlier one cited others, or the questions are about the same.
    """
    alike = [turn for turn in conversation.turns if _alike(_words(turn.reply.text), _words(reply.text))]
    if any(_words(turn.utterance) == _words(query.utterance) for turn in alike):
        return False
    cited = _cited(reply)
    return any(
        not (cited and (cited.isdisjoint(_cited(turn.reply) or cited) or _about_the_same(query, turn.query)))
        for turn in alike
    )


def _alike(some: frozenset[str], others: frozenset[str]) -> bool:
    """Whether they are the same but for a few that one has besides; a word in place of another tells them apart."""
    return (some <= others or others <= some) and min(len(some), len(others)) >= ALIKE * max(len(some), len(others))


def _words(text: str) -> frozenset[str]:
    """Of what has none, such as an emoji: the text."""
    return frozenset(words(text)) or frozenset((text.strip(),))


def _cited(reply: Reply) -> frozenset[str]:
    return frozenset(citation.passage_id for citation in reply.citations)


def _about_the_same(some: Query, other: Query) -> bool:
    """Whether one asks with no word of content that the other has not."""
    asked, before = (_words(query.question) - FUNCTION_WORDS for query in (some, other))
    return bool(asked and before) and (asked <= before or before <= asked)


def _is_ours(reply: Reply) -> bool:
    """Whether it is what is said in place of a reply: small generators copy that from earlier turns."""
    return any(reply.text.startswith((put.unsure.strip(), put.nothing_found)) for put in WORDS.values())


def _withheld(found: Retrieved, unsure: str, confidence: float = 0.0) -> Reply:
    """The likeliest passage is quoted in place of a reply."""
    closest = found.hits[max(range(len(found.hits)), key=found.prior.__getitem__)]
    return Reply(f"{unsure}“{excerpt(closest.passage)}”", weights=found.prior, confidence=confidence, abstained=True)


class _Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now
