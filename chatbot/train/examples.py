"""Rows -> examples: the prompts of their branches, the prior over them, the tokens to learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from chatbot.conversation import Conversation, Query
from chatbot.embedders.base import Embedder, Vectors, similarity
from chatbot.errors import UnreadableData, UnusableUtterance
from chatbot.history import from_messages
from chatbot.language import detect
from chatbot.passage import Hit, Passage, embedded
from chatbot.prompt import Prompt, answer_prompts, chat_prompt, rewrite_prompt
from chatbot.rag_token import join, prune
from chatbot.retrieve import weighed
from chatbot.rows import Row, messages
from chatbot.train.generator import Example
from chatbot.train.trainable import Trainable

Search = Callable[[Conversation, str], Sequence[Passage]]  # best first


@dataclass(frozen=True, slots=True)
class Maker:
    branches: Trainable
    refusal: str
    least_prior: float = 0.0  # as in the chat, see settings.least_prior

    def alone(self, row: Row) -> Example:
        """One passage with all of the prior, the gold one where it is named: plain fine-tuning."""
        held = [passage for passage in row.passages if passage.id in row.gold] or list(row.passages)
        return self._example(row, _prompts(row, held[:1])[:1], [0.0], group=held[0].id)

    def mixture(self, row: Row, found: Found) -> Example:
        """The branches that the chat would read, and their prior; besides, gold passages, however small their prior.

        The chat reads fewer where they would be more tokens than it reads at once; training reads them all.
        """
        log_prior = torch.tensor(found.log_prior, dtype=torch.float64)
        every = _prompts(row, found.passages)
        first = [every.index(prompt) for prompt in every]  # passages that read the same are weighed together
        read, _ = prune(join(log_prior, first), self.least_prior)
        gold = {first[index] for index, passage in enumerate(found.passages) if passage.id in row.gold}
        kept = [index for index in range(len(every)) if first[index] in {*read, *gold}]
        prompts, prior = [every[index] for index in kept], torch.log_softmax(log_prior[kept], dim=-1).tolist()
        places = kept[:-1]  # of the passages
        lacking = tuple(branch for branch, place in enumerate(places) if gold and first[place] not in gold)
        vectors = tuple(torch.from_numpy(found.vectors[place]) for place in places)
        made = self._example(row, prompts, prior, group=found.passages[0].document)
        return replace(made, lacking=lacking, query=row.question, vectors=vectors)

    def chat(self, row: Row) -> Example:
        """One branch without a passage, as the chat replies to a greeting."""
        query = Query(row.question, "", detect(row.question))
        return self._example(row, [chat_prompt(_conversation(row), query)], [0.0], group=str(row.number))

    def rewrite(self, row: Row, worked: bool = True) -> Example:
        """One branch: the question as it was asked, to the question that stands alone."""
        prompt = rewrite_prompt(_conversation(row), row.question, detect(row.question), worked)
        return self._example(row, [prompt], [0.0], group=str(row.number))

    def _example(self, row: Row, prompts: Sequence[Prompt], prior: Sequence[float], group: str) -> Example:
        targets = self.branches.target(row.answers[0] if row.answerable else self.refusal)
        limit = self.branches.limit
        try:
            longest = max(map(self.branches.length, prompts))
        except UnusableUtterance as error:
            raise UnreadableData(f"row {row.number}: {error}") from error
        if limit is not None and longest + len(targets) > limit:
            raise UnreadableData(
                f"row {row.number} has a prompt of {longest:,} tokens and an answer of {len(targets):,}, and the model "
                f"reads {limit:,}: shorten it or leave it out"
            )
        return Example(row.number, tuple(prompts), tuple(prior), tuple(targets), group=group)


@dataclass(frozen=True, slots=True)
class Found:
    """A row's passages, most similar first, with what makes their prior."""

    passages: tuple[Passage, ...]
    log_prior: tuple[float, ...]  # (K + 1,), "no passage" last
    vectors: Sequence[Vectors]  # K of (P, D), see `Embedder.parts`


class Weigher:
    """Gives rows their passages, K at most, and the prior that the chat would give them for a first question.

    Unlike the chat, it takes gold passages before more similar ones, and a row's question as it stands.
    """

    def __init__(self, embedder: Embedder, k: int, temperature: float, no_passage: float) -> None:
        self._embedder = embedder
        self._k = k
        self._temperature = temperature
        self._no_passage = no_passage

    def weigh(self, rows: Sequence[Row], search: Search | None = None, hindsight: bool = False) -> list[Found]:
        """`search`: for rows that came without passages. `hindsight`: the passage that is found with question and
        answer together is among them, so that a question whose passage was missed does not teach to ignore passages.
        """
        passages = [list(row.passages) or self._found(row, search, hindsight) for row in rows]
        every = list(dict.fromkeys(passage for each in passages for passage in each))
        parts = dict(zip(every, self._embedder.parts([embedded(each) for each in every]), strict=True))
        queries = self._embedder.queries([row.question for row in rows])
        return [
            self._weighed(row, [(passage, parts[passage]) for passage in each], query)
            for row, each, query in zip(rows, passages, queries, strict=True)
        ]

    def _found(self, row: Row, search: Search | None, hindsight: bool) -> list[Passage]:
        if search is None:
            raise UnreadableData(f"row {row.number} has no passages, and there is no knowledge base to find some in")
        found = list(search(_conversation(row), row.question))[: self._k]
        if hindsight and row.answerable:
            best = list(search(Conversation(), f"{row.question} {row.answers[0]}"))[:1]
            found = [*found[: self._k - len(best)], *(each for each in best if each not in found[: self._k - 1])]
        if not found:
            raise UnreadableData(f"row {row.number} finds no passage: is the knowledge base empty?")
        return found

    def _weighed(self, row: Row, pairs: Sequence[tuple[Passage, Vectors]], query: Vectors) -> Found:
        scored = [(Hit(passage, similarity(parts, query)), parts) for passage, parts in pairs]
        scored.sort(key=lambda pair: (pair[0].passage.id not in row.gold, -pair[0].score))
        best = sorted(scored[: self._k], key=lambda pair: -pair[0].score)
        found = weighed([hit for hit, _ in best], self._temperature, self._no_passage)
        prior = torch.tensor(found.prior, dtype=torch.float64).log()
        return Found(tuple(hit.passage for hit in found.hits), tuple(prior.tolist()), [parts for _, parts in best])


def _conversation(row: Row) -> Conversation:
    return from_messages(list(messages(row)))


def _prompts(row: Row, passages: Sequence[Passage]) -> list[Prompt]:
    """As the chat puts them for a question that needed no rewriting, "no passage" last."""
    query = Query(row.question, row.question, detect(row.question))
    return answer_prompts(_conversation(row), query, [Hit(passage, 0.0) for passage in passages])
