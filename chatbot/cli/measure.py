"""`eval` and `bench`."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.bench import SYSTEMS
from chatbot.cli.terminal import JUDGED, Add, bar, count, fail, opened, print_json, settings_of, takes_json
from chatbot.errors import UnreadableData

if TYPE_CHECKING:
    from chatbot.index.base import Ranking


def add_eval(add: Add) -> None:
    measures = add("eval", _needs_measure, "measure on judged data").add_subparsers(title="measures", metavar="MEASURE")
    made = add("retrieval", eval_retrieval, "rank a BEIR corpus and score the rankings", measures)
    for name in ("--corpus", "--queries", "--qrels"):
        made.add_argument(name, required=True, type=Path, metavar="FILE")
    made.add_argument("--run-out", type=Path, metavar="RUN.tsv", help="write the rankings, 100 passages a query")
    made.add_argument("--limit", type=count, metavar="N", help="take the first N queries")
    made.add_argument("--reuse-index", action="store_true", help="keep the corpus's index for the next run")
    takes_json(made)
    made = add("rewrite", eval_rewrite, "rewrite turns of conversations, and hold that to people's rewrites", measures)
    made.add_argument(
        "--data", required=True, type=Path, metavar="FILE.jsonl", help="rows {history, utterance, rewrite}"
    )
    made.add_argument("--limit", type=count, metavar="N", help="take the first N rows")
    takes_json(made)
    made = add("answers", eval_answers, "answer questions from passages that come with them, and score that", measures)
    made.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write each reply with its figures")
    _takes_rows(made)
    made = add("attribution", eval_attribution, "hold the sources of replies to those that were judged", measures)
    _takes_rows(made)


def _takes_rows(made: argparse.ArgumentParser) -> None:
    made.add_argument("--data", required=True, type=Path, metavar="PATH", help=JUDGED)
    made.add_argument("--limit", type=count, metavar="N", help="take the first N rows")
    takes_json(made)


def add_bench(add: Add) -> None:
    made = add("bench", bench, "measure speed, side by side with its baselines")
    made.add_argument(
        "what",
        nargs="?",
        choices=("replies", "ingest", "memory"),
        default="replies",
        help="what to measure (default: replies)",
    )
    made.add_argument(
        "--passages", type=int, default=100_000, metavar="N", help="of `ingest`: passages to search (default: 100000)"
    )
    made.add_argument("--questions", type=count, default=500, metavar="N", help="of `memory` (default: 500)")
    made.add_argument(
        "--documents", type=int, default=0, metavar="N", help="of `memory`: added and deleted meanwhile (default: 0)"
    )
    made.add_argument(
        "--k", type=count, nargs="+", default=[1, 3, 5, 10], metavar="K", help="passages (default: 1 3 5 10)"
    )
    made.add_argument("--rounds", type=count, default=3, metavar="N", help="replies of each system (default: 3)")
    made.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, metavar="S", help=", ".join(SYSTEMS))
    made.add_argument("--chart", type=Path, metavar="FILE.png", help="draw the figures too (needs the extra `bench`)")
    takes_json(made)


def eval_retrieval(options: argparse.Namespace) -> int:
    from chatbot import assemble, evaluate
    from chatbot.rewrite import Verbatim

    chosen = settings_of(options)
    asked, judgements = evaluate.read_topics(options.queries), evaluate.read_judgements(options.qrels)
    topics = evaluate.judged(asked, judgements)[: options.limit]
    with bar() as progress, _folder_for_index(chosen.home, options) as folder:
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
    print_json(scores | {"seconds": round(seconds, 3)})
    return 0


def eval_rewrite(options: argparse.Namespace) -> int:
    from chatbot import assemble
    from chatbot.history import from_messages
    from chatbot.rewrite import Counted
    from chatbot.rewrites import Rewrite, figures
    from chatbot.rows import messages, read_rows

    chosen = settings_of(options)
    rows = read_rows(options.data)[: options.limit]
    if other := next((row for row in rows if row.kind != "rewrite"), None):
        raise UnreadableData(f"{options.data.name!r} row {other.number} has no 'rewrite' to measure against")
    told = [(from_messages(list(messages(row))), row.question) for row in rows]
    with bar() as progress:
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
    print_json(figures(made) | times)
    return 0


def eval_answers(options: argparse.Namespace) -> int:
    from chatbot import assemble
    from chatbot.answers import figures
    from chatbot.judged import rows_of
    from chatbot.rows import write_jsonl

    chosen = settings_of(options)
    rows = rows_of(options.data)[: options.limit]
    started = time.perf_counter()
    with bar() as progress:
        by = assemble.generator(chosen, progress)
        outcomes = list(assemble.replies(chosen, by, rows, progress))
    if options.out:
        write_jsonl(options.out, (outcome.as_json() for outcome in outcomes))
    print_json(figures(outcomes, assemble.epsilon(chosen, by)) | {"seconds": round(time.perf_counter() - started, 3)})
    return 0


def eval_attribution(options: argparse.Namespace) -> int:
    from chatbot import assemble
    from chatbot.attributions import figures
    from chatbot.judged import rows_of

    chosen = settings_of(options)
    rows = [row for row in rows_of(options.data) if row.gold][: options.limit]
    if not rows:
        raise UnreadableData(
            f"no row of {options.data.name!r} has 'gold': name the ids of the passages with the answer"
        )
    with bar() as progress:
        by, embed = assemble.generator(chosen, progress), assemble.embedder(chosen)
        outcomes = list(assemble.replies(chosen, by, rows, progress))
        replies = [(each.row.gold, assemble.named(embed, each)) for each in outcomes if not each.abstained]
    if not replies:
        raise UnreadableData(f"all {len(rows)} replies were withheld: set least_confidence=0 to measure them")
    print_json({**figures(replies), "questions": len(rows), "replies": len(replies)})
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
    return {"ingest": _bench_ingest, "memory": _bench_memory, "replies": _bench_replies}[options.what](options)


def _bench_ingest(options: argparse.Namespace) -> int:
    from chatbot.bench import ingest as going_in

    if options.passages < 1:
        return fail(f"--passages is {options.passages}: give at least 1")
    with bar() as progress:
        found = going_in.bench(settings_of(options), options.passages, options.rounds, progress)
    if options.json:
        print_json(found)
        return 0
    for part in ("pipeline", "knowledge_base"):
        print(part.replace("_", " "))
        for name, value in found[part].items():
            print(f"  {name.replace('_', ' '):<32}{value}")
    return 0


def _bench_memory(options: argparse.Namespace) -> int:
    from chatbot.bench import memory
    from ui.server import listen, serve

    if options.documents < 0:
        return fail(f"--documents is {options.documents}: give at least 0")
    with (
        tempfile.TemporaryDirectory(prefix="marginalia-") as scratch,
        listen("127.0.0.1", 0) as listener,
        bar() as told,
    ):
        models, options.home = settings_of(options).home / "models", Path(scratch) / "home"
        options.home.mkdir()
        models.mkdir(parents=True, exist_ok=True)
        (options.home / "models").symlink_to(models.resolve(), target_is_directory=True)
        with contextlib.redirect_stdout(sys.stderr), opened(options) as chatbot:  # the page says where it is
            chatbot.load_sample()
            chatbot.dialogue(told)
            threading.Thread(target=serve, args=(chatbot, listener), daemon=True).start()
            ask = memory.by_http(listener.getsockname()[1])
            found = memory.bench(chatbot, ask, options.questions, options.documents, Path(scratch) / "files", told)
    if options.json:
        print_json(found)
        return 0
    for name, value in found.items():
        if not isinstance(value, dict):
            print(f"{name.replace('_', ' '):<32}{value}")
    return 0


def _bench_replies(options: argparse.Namespace) -> int:
    from chatbot import bench as speed
    from chatbot.assemble import generator
    from chatbot.bench import chart

    if options.chart:
        chart.check(options.chart)
    chosen = settings_of(options)
    with bar() as progress:
        generator(chosen, progress)  # fetched before the clocks run
        found = speed.bench(chosen, options.k, options.rounds, progress, options.systems)
    if options.chart:
        chart.draw(found, options.chart)
    if options.json:
        print_json(found)
        return 0
    print(f"memory bandwidth {found['memory_bandwidth_gb_s']} GB/s; medians of {options.rounds} replies")
    columns = ("k", "first_token_s", "tokens_per_s", "step_ms", "peak_memory_mb", "bandwidth_share")
    print(f"{'system':<12}" + "".join(f"{name:>16}" for name in columns))
    for row in found["rows"]:
        print(f"{row['system']:<12}" + "".join(f"{'' if row[name] is None else row[name]:>16}" for name in columns))
    return 0


def _needs_measure(options: argparse.Namespace) -> int:
    return fail("say what to measure: eval retrieval, rewrite, answers or attribution")
