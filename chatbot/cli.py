"""The commands. Results go to standard output, the rest to standard error; an error is one line and exit 1."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from chatbot.bench import SYSTEMS
from chatbot.conversation import Conversation, Turn
from chatbot.errors import MarginaliaError, UnreadableData
from chatbot.scope import DEFAULT, Scope
from chatbot.settings import Settings, load, parse_assignment

if TYPE_CHECKING:
    from chatbot.assemble import Chatbot
    from chatbot.index.base import Ranking
    from chatbot.knowledge import Outcome

Command = Callable[[argparse.Namespace], int]
DEFAULT_COMMAND = "serve"
JUDGED = "rows (.jsonl), or conversations whose replies were judged: a file (.json) or a folder; see docs/training.md"
SAMPLE_QUESTIONS = (
    "How do I add my own files?",
    "How large may a file be?",
    "How do I delete a document?",
    "如何删除文档？",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 with one line that says why, or 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        options = parser().parse_args(_with_command(sys.argv[1:] if arguments is None else arguments))
        command: Command = options.command
        return command(options)
    except MarginaliaError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of standard output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SystemExit(_fail(f"{message} (see {self.prog} --help)"))


def parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--home", metavar="DIR", help="folder that holds all state")
    common.add_argument("--settings", metavar="FILE", help="a TOML file of settings (default: <home>/settings.toml)")
    common.add_argument("--set", metavar="KEY=VALUE", action="append", help="one setting; may be repeated")
    top = _Parser(prog="marginalia", description="Chat with your documents.", parents=[common])
    commands = top.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)

    def add(name: str, command: Command, help: str, within: Any = commands) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = within.add_parser(name, help=help, description=help, parents=[common])
        made.set_defaults(command=command)
        return made

    made = add("serve", serve, "open the chat in a browser page (what happens without a command)")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    made.add_argument("--port", type=int, default=7860, help="port to listen on (default: %(default)s)")
    made = add("ingest", ingest, "add files, folders and web addresses to the knowledge base")
    made.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder, or https://...")
    both = made.add_mutually_exclusive_group()
    both.add_argument("--replace", action="store_true", help="replace documents of the same name")
    both.add_argument("--keep", action="store_true", help="keep documents of the same name: the new one is numbered")
    made.add_argument(
        "--collection", metavar="NAME", default=DEFAULT, help="add them to this one (default: %(default)s)"
    )
    made.add_argument(
        "--workers", type=int, metavar="N", help="read and embed in N processes, for very many files (extra `bulk`)"
    )
    _json(made)
    made = add("documents", documents, "list the documents")
    made.add_argument("--collection", metavar="NAME", help="those of this one alone")
    _json(made)
    made = add("delete", delete, "delete documents, or a collection with all of its documents")
    made.add_argument("ids", nargs="*", metavar="ID")
    made.add_argument("--collection", metavar="NAME", help="delete this collection")
    _json(made)
    made = add("ask", ask, "ask one question")
    made.add_argument("question")
    made.add_argument(
        "--conversation", metavar="FILE.json", type=Path, help="read what was said before, and add this turn"
    )
    made.add_argument("--search", metavar="TEXT", default="", help="search for this instead")
    made.add_argument("--collection", metavar="NAME", nargs="+", default=(), help="search these collections alone")
    _json(made)
    _json(add("doctor", doctor, "say what is installed, where things are, what is wrong and how to mend it"))

    measures = add("eval", _needs_measure, "measure on judged data").add_subparsers(title="measures", metavar="MEASURE")
    made = add("retrieval", eval_retrieval, "rank a BEIR corpus and score the rankings", measures)
    for name in ("--corpus", "--queries", "--qrels"):
        made.add_argument(name, required=True, type=Path, metavar="FILE")
    made.add_argument("--run-out", type=Path, metavar="RUN.tsv", help="write the rankings, 100 passages a query")
    made.add_argument("--limit", type=int, metavar="N", help="take the first N queries")
    made.add_argument("--reuse-index", action="store_true", help="keep the corpus's index for the next run")
    _json(made)
    made = add("rewrite", eval_rewrite, "rewrite turns of conversations, and hold that to people's rewrites", measures)
    made.add_argument(
        "--data", required=True, type=Path, metavar="FILE.jsonl", help="rows {history, utterance, rewrite}"
    )
    made.add_argument("--limit", type=int, metavar="N", help="take the first N rows")
    _json(made)
    made = add("answers", eval_answers, "answer questions from passages that come with them, and score that", measures)
    made.add_argument("--data", required=True, type=Path, metavar="PATH", help=JUDGED)
    made.add_argument("--limit", type=int, metavar="N", help="take the first N rows")
    made.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write each reply with its figures")
    _json(made)
    _add_training(add("train", _needs_training, "train by marginal likelihood"), add)
    made = add("bench", bench, "measure speed, side by side with its baselines")
    made.add_argument(
        "what", nargs="?", choices=("replies", "ingest"), default="replies", help="what to measure (default: replies)"
    )
    made.add_argument(
        "--passages", type=int, default=100_000, metavar="N", help="of `ingest`: passages to search (default: 100000)"
    )
    made.add_argument(
        "--k", type=int, nargs="+", default=[1, 3, 5, 10], metavar="K", help="passages (default: 1 3 5 10)"
    )
    made.add_argument("--rounds", type=int, default=3, metavar="N", help="replies of each system (default: 3)")
    made.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, metavar="S", help=", ".join(SYSTEMS))
    made.add_argument("--chart", type=Path, metavar="FILE.png", help="draw the figures too (needs the extra `bench`)")
    _json(made)
    return top


def _add_training(within: argparse.ArgumentParser, add: Any) -> None:
    kinds = within.add_subparsers(title="what to train", metavar="WHAT")
    generator = add("generator", train, "the generator, by the marginal likelihood of answers over passages", kinds)
    rewriter = add("rewriter", train, "the generator as a rewriter, on rows {history, utterance, rewrite}", kinds)
    retriever = add("retriever", train, "the embedder's query side, on gold passages or on rewrites", kinds)
    for what, made in (("generator", generator), ("rewriter", rewriter), ("retriever", retriever)):
        made.set_defaults(what=what)
        data = made.add_mutually_exclusive_group(required=True) if made is generator else made
        needed = {} if made is generator else {"required": True}
        taken, rows = ("PATH", JUDGED) if made is generator else ("FILE.jsonl", "rows, see docs/training.md")
        data.add_argument("--data", type=Path, metavar=taken, help=rows, **needed)
        if made is generator:
            data.add_argument(
                "--from-documents", type=int, metavar="N", help="instead: N questions made of the knowledge base"
            )
        made.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where what is learned is written")
        made.add_argument("--development", type=Path, metavar=taken, help="the same, to measure on")
        made.add_argument("--held-out", type=float, default=0.05, help="else: this share of the rows (default: 0.05)")
        made.add_argument("--epochs", type=float, default=1.0, help="(default: 1)")
        made.add_argument("--batch", type=int, default=8, help="rows read together (default: 8)")
        made.add_argument("--accumulate", type=int, default=3, help="batches a step (default: 3)")
        made.add_argument("--learning-rate", type=float, default=2e-5 if made is retriever else 6e-4)
        made.add_argument("--patience", type=int, default=0, help="measurements without a better one to stop after")
        made.add_argument("--measure-every", type=int, default=0, help="steps (default: an epoch's)")
        made.add_argument("--seed", type=int, default=0)
        _json(made)
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


def serve(options: argparse.Namespace) -> int:
    from ui.app import listen
    from ui.app import serve as serve_app

    with listen(options.host, options.port) as listener, _open(options) as chatbot:
        with _bar() as progress:
            sample = chatbot.load_sample()
            with _said():
                chatbot.dialogue(progress)
                threading.Thread(target=_said()(chatbot.warm), daemon=True).start()  # while the page opens
        serve_app(chatbot, listener, examples=SAMPLE_QUESTIONS if sample else ())
    return 0


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """What goes wrong is one line, and the page opens all the same: asking says it there too."""
    try:
        yield
    except MarginaliaError as error:
        print(f"marginalia: {error}", file=sys.stderr)


def ingest(options: argparse.Namespace) -> int:
    outcomes = _ingested(options) if options.workers is None else _ingested_in_bulk(options)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if options.json:
        _print_json({"outcomes": [_fields(outcome) for outcome in outcomes], "failed": len(failed)})
    else:
        for outcome in outcomes:
            print(f"{outcome.status}: {outcome.name}" + (f" ({outcome.message})" if outcome.message else ""))
    if not outcomes:
        return _fail(f"no file was found in {', '.join(options.paths)}")
    return _fail(f"{len(failed)} of {len(outcomes)} files could not be added") if failed else 0


def _ingested(options: argparse.Namespace) -> list[Outcome]:
    with _open(options) as chatbot, _bar() as progress:
        added = chatbot.add_all(
            options.paths,
            replace=options.replace,
            keep=options.keep,
            collection=options.collection,
            progress=progress,
        )
        outcomes = list(added)
        chatbot.finish_rebuilding(progress)
        return outcomes


def _ingested_in_bulk(options: argparse.Namespace) -> list[Outcome]:
    from chatbot import bulk

    with _bar() as progress:
        return list(
            bulk.ingest(
                _settings(options),
                map(Path, options.paths),
                workers=options.workers,
                replace=options.replace,
                collection=options.collection,
                progress=progress,
            )
        )


def documents(options: argparse.Namespace) -> int:
    with _open(options) as chatbot:
        entries = chatbot.knowledge.documents(options.collection)
    if options.json:
        _print_json({"documents": [_fields(entry) for entry in entries]})
    else:
        for entry in entries:
            place = "" if entry.collection == DEFAULT else f"{entry.collection} › "
            print(f"{entry.id}  {entry.added[:10]}  {entry.passages:>5} passages  {entry.kind:<8}  {place}{entry.name}")
        print(f"{len(entries)} documents", file=sys.stderr)
    return 0


def delete(options: argparse.Namespace) -> int:
    if not options.ids and options.collection is None:
        return _fail("nothing to delete: give ids, which `documents` lists, or --collection NAME")
    deleted, problems = [], []
    with _open(options) as chatbot:
        if options.collection is not None:
            deleted += chatbot.knowledge.delete_collection(options.collection)
        for id in options.ids:
            try:
                deleted.append(chatbot.knowledge.delete(id))
            except MarginaliaError as error:
                problems.append(str(error))
    if options.json:
        _print_json({"deleted": [_fields(entry) for entry in deleted], "problems": problems})
    else:
        for entry in deleted:
            print(f"deleted: {entry.name}")
    return _fail("; ".join(problems)) if problems else 0


def ask(options: argparse.Namespace) -> int:
    from chatbot.events import Answered, Token
    from chatbot.history import read, write

    path: Path | None = options.conversation
    conversation = read(path) if path is not None and path.exists() else Conversation()
    with _open(options) as chatbot:
        with _bar() as progress:
            chatbot.dialogue(progress)
        turn, streamed, scope = None, "", Scope(collections=tuple(options.collection))
        for event in chatbot.answer(conversation, options.question, searched=options.search, scope=scope):
            # a pipe gets the final reply alone, since what streams may be withheld
            if isinstance(event, Token) and not options.json and sys.stdout.isatty():
                text = event.text if streamed else event.text.lstrip()
                print(text, end="", flush=True)
                streamed += text
            if isinstance(event, Answered):
                turn = event.turn
    assert turn is not None  # a dialogue ends with Answered
    if path is not None:
        write(path, conversation.plus(turn))
    if options.json:
        _print_json(turn.as_json())
    else:
        _print_turn(turn, streamed)
    return 0


def _print_turn(turn: Turn, streamed: str) -> None:
    if streamed.strip() != turn.reply.text:  # withheld, or nothing was generated
        print(("\n" if streamed else "") + turn.reply.text, end="")
    print()
    if turn.reply.notice:
        print(f"\n{turn.reply.notice}")
    if turn.query.text and turn.query.rewritten:
        print(f"\nSearched for: {turn.query.text}")
    cited = {citation.passage_id for citation in turn.reply.citations}
    for number, (hit, weight) in enumerate(zip(turn.hits, turn.reply.weights, strict=False), start=1):
        page = f", page {hit.passage.page}" if hit.passage.page else ""
        mark = "*" if hit.passage.id in cited else " "
        print(f"{mark}[{number}] {weight:4.0%}  {hit.passage.document}{page}  {hit.passage.heading}".rstrip())


def doctor(options: argparse.Namespace) -> int:
    from chatbot.doctor import examine

    findings = examine(_settings(options))
    wrong = [finding for finding in findings if not finding.well]
    if options.json:
        _print_json({"findings": [_fields(finding) for finding in findings], "well": not wrong})
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.well else 'WRONG'} {finding.what}: {finding.found}")
    return _fail(f"{len(wrong)} things are wrong: {'; '.join(finding.what for finding in wrong)}") if wrong else 0


def eval_retrieval(options: argparse.Namespace) -> int:
    from chatbot import assemble, evaluate
    from chatbot.rewrite import Verbatim

    chosen = _settings(options)
    topics = evaluate.read_topics(options.queries)[: options.limit]
    judgements = evaluate.read_judgements(options.qrels)
    with _bar() as progress, _folder_for_index(chosen.home, options) as folder:
        corpus = evaluate.read_corpus(options.corpus)
        retriever, vocabulary = assemble.collection(chosen, corpus, folder, progress)
        leaning = any(topic.conversation.turns for topic in topics)
        by = partial(assemble.generator, chosen, progress)
        rewriter = assemble.rewriter(chosen, by, vocabulary) if leaning else Verbatim()
        done = itertools.count(1)

        def rank(topic: evaluate.Topic) -> Ranking:
            progress(next(done) / len(topics), "searching")
            query = rewriter.rewrite(topic.conversation, topic.utterance)
            return retriever.rank(query, 100)

        started = time.perf_counter()
        scores, run = evaluate.retrieval(topics, judgements, rank)
        seconds = time.perf_counter() - started
    if options.run_out:
        evaluate.write_run(options.run_out, run)
    _print_json(scores | {"seconds": round(seconds, 3)})
    return 0


def eval_rewrite(options: argparse.Namespace) -> int:
    from chatbot import assemble
    from chatbot.history import from_messages
    from chatbot.rewrite import Counted
    from chatbot.rewrites import Rewrite, figures
    from chatbot.rows import messages, read_rows

    chosen = _settings(options)
    rows = read_rows(options.data)[: options.limit]
    if other := next((row for row in rows if row.kind != "rewrite"), None):
        raise UnreadableData(f"{options.data.name!r} row {other.number} has no 'rewrite' to measure against")
    told = [(from_messages(list(messages(row))), row.question) for row in rows]
    with _bar() as progress:
        said = Counted(text for row in rows for pair in row.history for text in pair)  # in place of an index
        rewriter = assemble.rewriter(chosen, partial(assemble.generator, chosen, progress), said)
        started, queries = time.perf_counter(), []
        for done, (conversation, utterance) in enumerate(told):
            progress(done / len(told), "rewriting")
            queries.append(rewriter.rewrite(conversation, utterance))
        seconds = time.perf_counter() - started
    made = [
        Rewrite(row.question, row.answers[0], query.text or row.question)
        for row, query in zip(rows, queries, strict=True)
    ]
    times = {"seconds": round(seconds, 3), "ms_per_turn": round(1000 * seconds / len(rows), 2)}
    _print_json(figures(made) | times)
    return 0


def eval_answers(options: argparse.Namespace) -> int:
    from chatbot import assemble
    from chatbot.answers import figures
    from chatbot.judged import rows_of
    from chatbot.rows import write_jsonl

    chosen = _settings(options)
    rows = rows_of(options.data)[: options.limit]
    started = time.perf_counter()
    with _bar() as progress:
        by = assemble.generator(chosen, progress)
        outcomes = list(assemble.replies(chosen, by, rows, progress))
    if options.out:
        write_jsonl(options.out, (outcome.as_json() for outcome in outcomes))
    _print_json(figures(outcomes, assemble.epsilon(chosen, by)) | {"seconds": round(time.perf_counter() - started, 3)})
    return 0


@contextlib.contextmanager
def _folder_for_index(home: Path, options: argparse.Namespace) -> Iterator[Path]:
    """Kept under home for `--reuse-index`, by the corpus's address; else a folder that goes when done."""
    if options.reuse_index:
        yield home / "eval" / hashlib.sha256(str(options.corpus.resolve()).encode()).hexdigest()[:16]
    else:
        with tempfile.TemporaryDirectory(prefix="marginalia-") as folder:
            yield Path(folder)


def bench(options: argparse.Namespace) -> int:
    return _bench_ingest(options) if options.what == "ingest" else _bench_replies(options)


def _bench_ingest(options: argparse.Namespace) -> int:
    from chatbot.bench import ingest as going_in

    if options.passages < 1:
        return _fail(f"--passages is {options.passages}: give at least 1")
    with _bar() as progress:
        found = going_in.bench(_settings(options), options.passages, options.rounds, progress)
    if options.json:
        _print_json(found)
        return 0
    for part in ("pipeline", "knowledge_base"):
        print(part.replace("_", " "))
        for name, value in found[part].items():
            print(f"  {name.replace('_', ' '):<32}{value}")
    return 0


def _bench_replies(options: argparse.Namespace) -> int:
    from chatbot import bench as speed
    from chatbot.assemble import generator
    from chatbot.bench import chart

    if options.chart:
        chart.check(options.chart)
    chosen = _settings(options)
    with _bar() as progress:
        generator(chosen, progress)  # fetched before the clocks run
        found = speed.bench(chosen, options.k, options.rounds, progress, options.systems)
    if options.chart:
        chart.draw(found, options.chart)
    if options.json:
        _print_json(found)
        return 0
    print(f"memory bandwidth {found['memory_bandwidth_gb_s']} GB/s; medians of {options.rounds} replies")
    columns = ("k", "first_token_s", "tokens_per_s", "step_ms", "peak_memory_mb", "bandwidth_share")
    print(f"{'system':<12}" + "".join(f"{name:>16}" for name in columns))
    for row in found["rows"]:
        print(f"{row['system']:<12}" + "".join(f"{'' if row[name] is None else row[name]:>16}" for name in columns))
    return 0


def train(options: argparse.Namespace) -> int:
    from chatbot.train import commands
    from chatbot.train.generator import Objective
    from chatbot.train.loop import Progress, Schedule, leads
    from chatbot.train.model import Lora

    schedule = Schedule(
        options.epochs,
        options.learning_rate,
        accumulate=options.accumulate,
        seed=options.seed,
        patience=options.patience,
        measure_every=options.measure_every,
    )
    chosen, data = _settings(options), options.data
    if data is None:
        with _bar() as bar:
            data = commands.rows_from_documents(chosen, options.from_documents, options.out / "rows.jsonl", bar)
    given = commands.Options(
        data,
        options.out,
        options.development,
        options.held_out,
        options.batch,
        schedule,
    )
    given = replace(given, lora=Lora(options.rank, 2 * options.rank, options.dropout))
    if options.what == "retriever":
        given = replace(given, ranking=options.ranking, layers=options.layers)
    else:
        given = replace(
            given,
            before=options.before,
            checkpointing=options.checkpointing,
            objective=Objective(smoothing=options.smoothing),
        )
    if options.what == "generator":
        given = replace(
            given,
            alone=options.alone,
            objective=Objective(options.loss == "sequence", options.smoothing, options.refusing),
            query_encoder=options.train_query_encoder,
            hindsight=options.hindsight,
        )
    command = {
        "generator": commands.train_generator,
        "rewriter": commands.train_rewriter,
        "retriever": commands.train_retriever,
    }[options.what]
    with _bar() as bar:

        def report(progress: Progress) -> None:
            left = f"{progress.seconds_left / 60:.0f} min left"
            bar(
                progress.step / progress.steps,
                f"loss {progress.loss:.3f}, {progress.tokens_per_s:.0f} tokens/s, {left}",
            )

        made = command(chosen, given, bar, report)
    if not leads():
        return 0
    if options.json:
        _print_json(
            {"steps": made.step, "loss": made.loss, "development": made.best if math.isfinite(made.best) else None}
        )
    else:
        print(f"{made.step} steps; what was learned is in {options.out}")
    return 0


def _needs_training(options: argparse.Namespace) -> int:
    return _fail("say what to train: train generator, train rewriter, or train retriever")


def _needs_measure(options: argparse.Namespace) -> int:
    return _fail("say what to measure: eval retrieval, or eval answers")


def _with_command(arguments: Sequence[str]) -> list[str]:
    """`run.py --port 8000` serves: the command may be left out."""
    given = list(arguments)
    index = 0
    while index < len(given) and given[index] in ("--home", "--settings", "--set"):
        index += 2
    if index < len(given) and (not given[index].startswith("-") or given[index] in ("-h", "--help")):
        return given
    if index < len(given) and given[index].startswith(("--home=", "--settings=", "--set=")):
        rest = _with_command(given[index + 1 :])
        return [*given[: index + 1], *rest]
    return [*given[:index], DEFAULT_COMMAND, *given[index:]]


def _settings(options: argparse.Namespace) -> Settings:
    chosen = dict(parse_assignment(text) for text in getattr(options, "set", []))
    return load(getattr(options, "home", None), getattr(options, "settings", None), chosen)


def _open(options: argparse.Namespace) -> Chatbot:
    chosen = _settings(options)
    from chatbot.assemble import Chatbot  # loads torch

    return Chatbot(chosen)


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[float, str], None]]:
    """A progress bar on standard error, shown from the first report on."""
    from tqdm import tqdm

    bar: Any = None

    def report(share: float, what: str) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(
                total=100, unit="%", file=sys.stderr, bar_format="{l_bar}{bar}| {elapsed}<{remaining}", leave=False
            )
        bar.set_description_str(what, refresh=False)
        bar.n = min(100, round(share * 100))
        bar.refresh()

    try:
        yield report
    finally:
        if bar is not None:
            bar.close()


def _json(made: argparse.ArgumentParser) -> None:
    made.add_argument("--json", action="store_true", help="print one JSON object on standard output and nothing else")


def _fields(value: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(value)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


def _fail(line: str) -> int:
    print(f"marginalia: {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
