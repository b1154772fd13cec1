"""`train generator`, `train rewriter`, `train retriever`: rows and settings -> a trained folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chatbot import assemble
from chatbot.embedders.base import Embedder
from chatbot.embedders.sentence import SentenceEmbedder
from chatbot.errors import UnreadableData, WrongSetting
from chatbot.generators.adapter import NOTE, note_in
from chatbot.history import from_messages
from chatbot.judged import rows_of
from chatbot.passage import embedded
from chatbot.progress import Progress as Fetching
from chatbot.prompt import conversational
from chatbot.rewrite import Verbatim
from chatbot.rows import Row, messages, read_rows, write_jsonl
from chatbot.settings import AUTO, Settings
from chatbot.train import curve, documents, loop
from chatbot.train.encoder import QueryEncoder
from chatbot.train.examples import Maker, Search, Weigher
from chatbot.train.generator import Example, Losses, Objective, Prior, batches
from chatbot.train.loop import Progress, Schedule
from chatbot.train.model import REFUSAL, Lora, ready
from chatbot.train.retriever import Pair, QueryLosses
from chatbot.train.trainable import Trainable

Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What the commands share; `development`: a file, or else that share of the rows, by group."""

    data: Path
    out: Path
    development: Path | None = None
    held_out: float = 0.05
    batch: int = 8
    schedule: Schedule = field(default_factory=Schedule)
    before: Path | None = None  # an adapter to go on from
    lora: Lora = field(default_factory=Lora)
    checkpointing: bool = False
    # of `train generator`
    alone: bool = False  # each row's gold passage, or first one, by itself
    objective: Objective = field(default_factory=Objective)
    query_encoder: bool = False
    hindsight: bool = False
    # of `train retriever`
    ranking: float = 0.0
    layers: int = 0


@dataclass(slots=True)
class _Task:
    """What the loop trains: `module` on `learned`, measured on `measured`."""

    module: nn.Module
    learned: Callable[[int], Sequence[Any]]
    measured: Sequence[Any]
    keep: Callable[[Path], None]

    def epoch(self, number: int) -> Sequence[Any]:
        return self.learned(number)

    def development(self) -> Sequence[Any]:
        return self.measured

    def save(self, folder: Path) -> None:
        self.keep(folder)


def train_generator(chosen: Settings, options: Options, fetching: Fetching, report: Report) -> Progress:
    """An adapter (or, with rank 0, a whole model) for `--set adapter=` or `generator=`, in `options.out`."""
    learned, measured = _rows(options, rows_of)
    branches, folder = _branches(chosen, options, fetching)
    refusing = branches.target(REFUSAL)
    maker = Maker(branches, REFUSAL, chosen.least_prior)
    embed = assemble.embedder(chosen)
    weighing = assemble.prior(chosen, embed.metric)
    encoder = _encoder(chosen) if options.query_encoder else None
    with _knowledge(chosen, [row for row in [*learned, *measured] if row.kind == "answer"]) as search:
        weigher = Weigher(embed, chosen.k, *weighing)
        examples = _examples(maker, learned, options, weigher, search, options.hindsight)
        told = _examples(maker, measured, options, weigher, search, False)
    prior = None if encoder is None else Prior(encoder, *weighing)
    weight = _question_weight(chosen, str(options.before or assemble.generator_folder(chosen, fetching)))
    note = {"base": folder, "refusal": REFUSAL, "question_weight": weight}
    task = _Task(
        Losses(branches, refusing, options.objective, prior, question_weight=weight),
        lambda number: batches(examples, options.batch, options.schedule.seed + number),
        batches(told, options.batch, 0),
        lambda out: _keep(branches, encoder, out, note),
    )
    return _run(task, options, report)


def _question_weight(chosen: Settings, folder: str) -> float:
    """As set; `auto`: what is noted in the folder that the training goes on from, or 0. It is noted with what learned,
    so that `auto` in the chat means what was trained with.
    """
    return (note_in(folder).question_weight or 0.0) if chosen.question_weight == AUTO else chosen.question_weight


def _examples(
    maker: Maker, rows: Sequence[Row], options: Options, weigher: Weigher, search: Search | None, hindsight: bool
) -> list[Example]:
    asked = [row for row in rows if row.kind == "answer"]
    others = [maker.rewrite(row) if row.kind == "rewrite" else maker.chat(row) for row in rows if row.kind != "answer"]
    if options.alone:
        if without := next((row for row in asked if not row.passages), None):
            raise UnreadableData(f"row {without.number} has no passages to be read alone")
        return [*(maker.alone(row) for row in asked), *others]
    found = weigher.weigh(asked, search, hindsight) if asked else []
    return [*(maker.mixture(row, each) for row, each in zip(asked, found, strict=True)), *others]


def rows_from_documents(chosen: Settings, count: int, file: Path, fetching: Fetching) -> Path:
    """Questions that the generator made from the knowledge base, as rows in this file."""
    with assemble.Chatbot(chosen) as chatbot:
        passages, by = list(chatbot.knowledge.passages().values()), assemble.generator(chosen, fetching)
        made = list(documents.rows(passages, by, _search(chatbot), count, progress=fetching))
    if not made:
        raise UnreadableData(
            f"no question could be made of the {len(passages)} passages of the knowledge base: add documents to it"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(file, made)
    return file


def train_rewriter(chosen: Settings, options: Options, fetching: Fetching, report: Report) -> Progress:
    """An adapter that writes standalone questions, from rows {history, utterance, rewrite}."""
    learned, measured = _rows(options, read_rows)
    branches, folder = _branches(chosen, options, fetching)
    maker = Maker(branches, REFUSAL)
    examples, told = ([maker.rewrite(row, worked=False) for row in rows] for rows in (learned, measured))
    task = _Task(
        Losses(branches, (), Objective(smoothing=options.objective.smoothing)),
        lambda number: batches(examples, options.batch, options.schedule.seed + number),
        batches(told, options.batch, 0),
        lambda out: _keep(branches, None, out, {"base": folder, "refusal": None}),
    )
    return _run(task, options, report)


def train_retriever(chosen: Settings, options: Options, fetching: Fetching, report: Report) -> Progress:
    """An embedder for `--set embedder=`, whose query side has learned. Rows with `gold` passages, or with a rewrite."""
    learned, measured = _rows(options, read_rows)
    encoder = _encoder(chosen, options.lora, options.layers)
    temperature, _ = assemble.prior(chosen, "cosine")
    embed = assemble.embedder(chosen)  # loads its weights once
    pairs, told = (_pairs(rows, embed) for rows in (learned, measured))

    def shuffled(number: int) -> Sequence[Sequence[Pair]]:
        chance = random.Random(options.schedule.seed + number)
        order = chance.sample(pairs, len(pairs))
        near = 16 * options.batch  # of which those of like lengths go together, for less padding
        batches = [
            batch
            for some in _cut(order, near)
            for batch in _cut(sorted(some, key=lambda pair: len(pair.query)), options.batch)
        ]
        return chance.sample(batches, len(batches))

    task = _Task(QueryLosses(encoder, temperature, options.ranking), shuffled, _cut(told, options.batch), encoder.save)
    return _run(task, options, report)


def _run(task: _Task, options: Options, report: Report) -> Progress:
    """Train, and leave the curve beside what was learned."""
    progress = loop.run(task, options.schedule, options.out, report)
    if loop.leads():
        curve.write(progress, options.out)
    return progress


def _rows(options: Options, read: Callable[[Path], list[Row]]) -> tuple[list[Row], list[Row]]:
    """(to learn from, to measure on). A document's questions, or a conversation's turns, stay on one side."""
    rows = read(options.data)
    if options.development is not None:
        return rows, read(options.development)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_group(row), []).append(row)
    order = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())
    held = set(order[: round(options.held_out * len(order))])
    learned = [row for group in order if group not in held for row in groups[group]]
    return learned, [row for group in order if group in held for row in groups[group]]


def _group(row: Row) -> str:
    if row.passages:
        return row.passages[0].document
    return row.history[0][0] if row.history else row.question


def _branches(chosen: Settings, options: Options, fetching: Fetching) -> tuple[Trainable, str]:
    folder = assemble.generator_folder(chosen, fetching)
    torch.manual_seed(options.schedule.seed)  # LoRA's matrices begin at random
    return ready(folder, options.lora, options.before, options.checkpointing), chosen.generator


def _encoder(chosen: Settings, lora: Lora | None = None, layers: int = 0) -> QueryEncoder:
    embed = assemble.embedder(chosen)
    if not isinstance(embed, SentenceEmbedder):
        raise WrongSetting(
            f"embedder is {chosen.embedder!r}: a query encoder is trained of sentence-transformers models"
        )
    return QueryEncoder(embed.folder, lora, layers)


@contextlib.contextmanager
def _knowledge(chosen: Settings, rows: Sequence[Row]) -> Iterator[Search | None]:
    """The knowledge base's search, where a row comes without passages."""
    if all(row.passages for row in rows):
        yield None
        return
    with assemble.Chatbot(chosen) as chatbot:
        yield _search(chatbot)


def _search(chatbot: assemble.Chatbot) -> Search:
    """By the question as it was asked."""
    retriever, rewriter = chatbot.retriever(), Verbatim()
    return lambda conversation, text: [
        hit.passage for hit in retriever.retrieve(rewriter.rewrite(conversation, text)).hits
    ]


def _pairs(rows: Sequence[Row], embed: Embedder) -> list[Pair]:
    """A row's question with its gold passage, or, where it has none, with its answer: a rewrite."""
    queries, texts, ids = [], [], []
    for row in rows:
        gold = [passage for passage in row.passages if passage.id in row.gold]
        if not gold and not row.answerable:
            raise UnreadableData(
                f"row {row.number} has neither gold passages nor a rewrite: a retriever learns from these"
            )
        queries.append(row.question if gold else conversational(from_messages(list(messages(row))), row.question))
        texts.append(embedded(gold[0]) if gold else row.answers[0])
        ids.append(gold[0].id if gold else "")
    passages = embed.passages([text for text, id in zip(texts, ids, strict=True) if id])
    rewrites = embed.queries([text for text, id in zip(texts, ids, strict=True) if not id])
    at = {True: iter(passages), False: iter(rewrites)}
    return [Pair(query, torch.from_numpy(next(at[bool(id)])), id) for query, id in zip(queries, ids, strict=True)]


def _cut(pairs: Sequence[Pair], size: int) -> list[Sequence[Pair]]:
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def _keep(branches: Trainable, encoder: QueryEncoder | None, out: Path, note: dict[str, object]) -> None:
    branches.save(out, str(note["base"]))
    (out / NOTE).write_text(json.dumps(note, ensure_ascii=False, indent=1), encoding="utf-8")
    if encoder is not None:
        encoder.save(out / "embedder")
