"""`train generator`, `train rewriter` and `train retriever`."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.cli.terminal import JUDGED, Add, bar, count, fail, print_json, settings_of, takes_json

if TYPE_CHECKING:
    from chatbot.train import commands


def add_train(add: Add) -> None:
    within = add("train", _needs_training, "train by marginal likelihood")
    kinds = within.add_subparsers(title="what to train", metavar="WHAT")
    generator = add("generator", train, "the generator, by the marginal likelihood of answers over passages", kinds)
    rewriter = add("rewriter", train, "the generator as a rewriter, on rows {history, utterance, rewrite}", kinds)
    retriever = add("retriever", train, "the embedder's query side, on gold passages or on rewrites", kinds)
    for what, made in (("generator", generator), ("rewriter", rewriter), ("retriever", retriever)):
        made.set_defaults(what=what)
        data = made.add_mutually_exclusive_group(required=True) if made is generator else made
        needed: dict[str, Any] = {} if made is generator else {"required": True}
        taken, rows = ("PATH", JUDGED) if made is generator else ("FILE.jsonl", "rows, see docs/training.md")
        data.add_argument("--data", type=Path, metavar=taken, help=rows, **needed)
        if made is generator:
            data.add_argument(
                "--from-documents", type=count, metavar="N", help="instead: N questions made of the knowledge base"
            )
        made.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where what is learned is written")
        made.add_argument("--development", type=Path, metavar=taken, help="the same, to measure on")
        made.add_argument("--held-out", type=float, default=0.05, help="else: this share of the rows (default: 0.05)")
        made.add_argument("--epochs", type=float, default=1.0, help="(default: 1)")
        made.add_argument("--batch", type=count, default=8, help="rows read together (default: 8)")
        made.add_argument("--accumulate", type=count, default=3, help="batches a step (default: 3)")
        made.add_argument("--learning-rate", type=float, default=2e-5 if made is retriever else 6e-4)
        made.add_argument("--patience", type=int, default=0, help="measurements without a better one to stop after")
        made.add_argument("--measure-every", type=int, default=0, help="steps (default: an epoch's)")
        made.add_argument("--seed", type=int, default=0)
        takes_json(made)
    retriever.add_argument(
        "--rank", type=int, default=0, help="of LoRA's matrices, for --set query_encoder=; 0: all weights (default: 0)"
    )
    retriever.add_argument("--layers", type=int, default=0, help="the last so many get matrices; 0: all (default: 0)")
    retriever.add_argument("--dropout", type=float, default=0.0, help="of LoRA's matrices (default: 0)")
    retriever.add_argument(
        "--ranking", type=float, default=0.0, help="weight of telling a rewrite from the batch's others (default: 0)"
    )
    for made in (generator, rewriter):
        made.add_argument("--rank", type=int, default=16, help="of LoRA's matrices; 0: all weights (default: 16)")
        made.add_argument("--dropout", type=float, default=0.0, help="of LoRA's matrices (default: 0)")
        made.add_argument("--from", dest="before", type=Path, metavar="ADAPTER", help="an adapter to go on from")
        made.add_argument("--smoothing", type=float, default=0.0, help="of labels (default: 0)")
        made.add_argument("--checkpointing", action="store_true", help="half the memory for a third more time")
    generator.add_argument("--loss", choices=("token", "sequence"), default="token", help="RAG-Token or RAG-Sequence")
    generator.add_argument("--alone", action="store_true", help="each row's gold passage by itself, not the mixture")
    generator.add_argument(
        "--refusing", type=float, default=0.0, help="weight of teaching branches without the answer to refuse"
    )
    generator.add_argument("--train-query-encoder", action="store_true", help="the embedder's query side learns too")
    generator.add_argument(
        "--hindsight", action="store_true", help="add the passage found with question and answer together"
    )


def train(options: argparse.Namespace) -> int:
    from chatbot.train import commands
    from chatbot.train.loop import Progress, leads

    chosen, data = settings_of(options), options.data
    command = {
        "generator": commands.train_generator,
        "rewriter": commands.train_rewriter,
        "retriever": commands.train_retriever,
    }[options.what]
    with bar() as shown:

        def report(progress: Progress) -> None:
            left = f"{progress.seconds_left / 60:.0f} min left"
            shown(
                progress.step / progress.steps,
                f"loss {progress.loss:.3f}, {progress.tokens_per_s:.0f} tokens/s, {left}",
            )

        if data is None:
            data = commands.rows_from_documents(chosen, options.from_documents, options.out / "rows.jsonl", shown)
        made = command(chosen, _given(options, data), shown, report)
    if not leads():
        return 0
    if options.json:
        print_json(
            {"steps": made.step, "loss": made.loss, "development": made.best if math.isfinite(made.best) else None}
        )
    else:
        print(f"{made.step} steps; what was learned is in {options.out}")
    return 0


def _given(options: argparse.Namespace, data: Path) -> commands.Options:
    from chatbot.train import commands
    from chatbot.train.generator import Objective
    from chatbot.train.loop import Schedule
    from chatbot.train.model import Lora

    schedule = Schedule(
        options.epochs,
        options.learning_rate,
        accumulate=options.accumulate,
        seed=options.seed,
        patience=options.patience,
        measure_every=options.measure_every,
    )
    lora = Lora(options.rank, 2 * options.rank, options.dropout)
    given = commands.Options(
        data, options.out, options.development, options.held_out, options.batch, schedule, lora=lora
    )
    if options.what == "retriever":
        return replace(given, ranking=options.ranking, layers=options.layers)
    objective = Objective(smoothing=options.smoothing)
    given = replace(given, before=options.before, checkpointing=options.checkpointing, objective=objective)
    if options.what == "rewriter":
        return given
    return replace(
        given,
        alone=options.alone,
        objective=replace(objective, sequence=options.loss == "sequence", refusing=options.refusing),
        query_encoder=options.train_query_encoder,
        hindsight=options.hindsight,
    )


def _needs_training(options: argparse.Namespace) -> int:
    return fail("say what to train: train generator, train rewriter, or train retriever")
