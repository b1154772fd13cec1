"""`serve`, `ask` and `doctor`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from chatbot.cli.terminal import Add, bar, fail, fields, opened, print_json, settings_of, takes_json, text
from chatbot.conversation import Conversation, Turn
from chatbot.errors import MarginaliaError
from chatbot.prompt import words_for
from chatbot.scope import Scope

SAMPLE_QUESTIONS = (
    "How do I add my own files?",
    "How large may a file be?",
    "How do I delete a document?",
    "如何删除文档？",
)


def add_serve(add: Add) -> None:
    made = add("serve", serve, "open the chat in a browser page (what happens without a command)")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    made.add_argument("--port", type=int, default=7860, help="port to listen on (default: %(default)s)")
    made.add_argument("--name", nargs="+", default=(), help="answer under these host names too (behind a proxy)")
    made.add_argument(
        "--root-path",
        metavar="PREFIX",
        default="",
        help="where a proxy shows the page: a prefix that it takes off (/chat), or the whole address",
    )
    made.add_argument(
        "--frame", metavar="SITE", nargs="+", default=(), help="let pages of these sites show this one (https://...)"
    )


def add_ask(add: Add) -> None:
    made = add("ask", ask, "ask one question")
    made.add_argument("question")
    made.add_argument(
        "--conversation", metavar="FILE.json", type=Path, help="read what was said before, and add this turn"
    )
    made.add_argument("--search", metavar="TEXT", help="search for this instead")
    made.add_argument(
        "--collection", metavar="NAME", type=text, nargs="+", default=(), help="search these collections alone"
    )
    takes_json(made)
    takes_json(add("doctor", doctor, "say what is installed, where things are, what is wrong and how to mend it"))


def serve(options: argparse.Namespace) -> int:
    from ui import without_proxies

    with without_proxies():
        from ui.server import listen
        from ui.server import serve as serve_app

    with listen(options.host, options.port) as listener, opened(options) as chatbot:
        with bar() as progress:
            sample = chatbot.load_sample()
            with _said():
                chatbot.dialogue(progress)
                threading.Thread(target=_said()(chatbot.warm), daemon=True).start()  # while the page opens
        serve_app(
            chatbot,
            listener,
            examples=SAMPLE_QUESTIONS if sample else (),
            names=options.name,
            frames=options.frame,
            root_path=options.root_path,
        )
    return 0


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """What goes wrong is one line, and the page opens all the same: asking says it there too."""
    try:
        yield
    except MarginaliaError as error:
        print(f"marginalia: {error}", file=sys.stderr)


def ask(options: argparse.Namespace) -> int:
    from chatbot.events import Answered, Token
    from chatbot.history import read, write

    if options.search is not None and not options.search.strip():
        return fail("--search is empty: say what to search for, or leave it out")
    path: Path | None = options.conversation
    conversation = read(path) if path is not None and path.exists() else Conversation()
    with opened(options) as chatbot:
        with bar() as progress:
            chatbot.load_sample()
            chatbot.dialogue(progress)
        turn, streamed, scope = None, "", Scope(collections=tuple(options.collection))
        for event in chatbot.answer(conversation, options.question, searched=options.search or "", scope=scope):
            # a pipe gets the final reply alone, since what streams may be withheld
            if isinstance(event, Token) and not options.json and sys.stdout.isatty():
                text = event.text if streamed else event.text.lstrip()
                print(text, end="", flush=True)
                streamed += text
            if isinstance(event, Answered):
                turn = event.turn.advised(words_for(event.turn.query.language).add_by_command)
    assert turn is not None  # a dialogue ends with Answered
    if path is not None:
        write(path, conversation.plus(turn))
    if options.json:
        print_json(turn.as_json())
    else:
        _print_turn(turn, streamed)
    return 0


def _print_turn(turn: Turn, streamed: str) -> None:
    if streamed.strip() != turn.reply.text:  # withheld, or nothing was generated
        print(("\n" if streamed else "") + turn.reply.text, end="")
    print()
    if not turn.reply.sourced:
        print(f"\n{words_for(turn.query.language).unsourced}")
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

    findings = examine(settings_of(options))
    wrong = [finding for finding in findings if not finding.well]
    if options.json:
        print_json({"findings": [fields(finding) for finding in findings], "well": not wrong})
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.well else 'WRONG'} {finding.what}: {finding.found}")
    return fail(f"{len(wrong)} things are wrong: {'; '.join(finding.what for finding in wrong)}") if wrong else 0
