"""Rows made from a person's own documents: the generator asks a question of each passage, and answers it.

A question is kept where the round trip comes back (Alberti et al. 2019, arXiv 1906.05416): searching for it finds the
passage it was made of, and reading that passage alone the generator gives an answer that stands in it word for word.
What a small model asks is simple and often lame; that is what such rows can teach, and no more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from chatbot.answers import terms
from chatbot.conversation import Conversation, Query
from chatbot.errors import UnusableUtterance
from chatbot.generate import generate
from chatbot.generators.base import Generator
from chatbot.language import detect
from chatbot.passage import Hit, Passage
from chatbot.progress import Progress, silent
from chatbot.prompt import answer_prompts, question_prompt, readable
from chatbot.sampling import Sampling
from chatbot.train.examples import Search

LEAST_WORDS = 20  # a shorter passage holds little to ask about
QUESTION, ANSWER = Sampling(max_tokens=32), Sampling(max_tokens=40)


def rows(
    passages: Sequence[Passage], by: Generator, search: Search, count: int, seed: int = 0, progress: Progress = silent
) -> Iterator[dict[str, Any]]:
    """At most `count` rows, as `train generator` reads them, from passages in a random order."""
    order = random.Random(seed).sample(list(passages), len(passages))
    made = 0
    for place, passage in enumerate(order):
        if made == count:
            return
        progress(max(place / len(order), made / count), "asking questions of the documents")
        if len(passage.text.split()) < LEAST_WORDS:
            continue
        try:
            question = _said(by, [question_prompt(readable(passage), detect(passage.text))], QUESTION)
        except UnusableUtterance:  # a passage longer than what the generator reads
            continue
        question = question.partition("\n")[0].strip()
        found = list(search(Conversation(), question)) if question.endswith(("?", "？")) else []
        if passage.id not in {each.id for each in found}:
            continue
        answer = _answer(by, question, passage)
        if answer and " ".join(terms(answer)) in " ".join(terms(passage.text)):
            made += 1
            yield {
                "question": question,
                "passages": [{"id": each.id, "title": each.heading, "text": each.text} for each in found],
                "gold": [passage.id],
                "answer": answer,
                "answerable": True,
            }


def _answer(by: Generator, question: str, passage: Passage) -> str:
    query = Query(question, question, detect(question))
    prompts = answer_prompts(Conversation(), query, [Hit(passage, 1.0)])
    return _said(by, prompts[:1], ANSWER)


def _said(by: Generator, prompts: Sequence[Any], sampling: Sampling) -> str:
    return "".join(token.text for token in generate(by, prompts, [1.0], sampling)).strip()
