"""`ingest`, `documents` and `delete`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.cli.terminal import Add, bar, fail, fields, opened, print_json, settings_of, takes_json, text
from chatbot.errors import MarginaliaError
from chatbot.scope import DEFAULT

if TYPE_CHECKING:
    from chatbot.knowledge import Outcome


def add_documents(add: Add) -> None:
    made = add("ingest", ingest, "add files, folders and web addresses to the knowledge base")
    made.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder, or https://...")
    both = made.add_mutually_exclusive_group()
    both.add_argument("--replace", action="store_true", help="replace documents of the same name")
    both.add_argument("--keep", action="store_true", help="keep documents of the same name: the new one is numbered")
    made.add_argument(
        "--collection", metavar="NAME", type=text, default=DEFAULT, help="add them to this one (default: %(default)s)"
    )
    made.add_argument(
        "--workers", type=int, metavar="N", help="read and embed in N processes, for very many files (extra `bulk`)"
    )
    takes_json(made)
    made = add("documents", documents, "list the documents")
    made.add_argument("--collection", metavar="NAME", type=text, help="those of this one alone")
    takes_json(made)
    made = add("delete", delete, "delete documents, or a collection with all of its documents")
    made.add_argument("ids", nargs="*", metavar="ID", type=text)
    made.add_argument("--collection", metavar="NAME", type=text, help="delete this collection")
    takes_json(made)


def ingest(options: argparse.Namespace) -> int:
    if not all(options.paths):  # as of a variable that is not set: it would be the folder that we are in
        return fail("one of the paths is empty: name a file or a folder")
    outcomes = _ingested(options) if options.workers is None else _ingested_in_bulk(options)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if options.json:
        print_json({"outcomes": [fields(outcome) for outcome in outcomes], "failed": len(failed)})
    else:
        for outcome in outcomes:
            print(f"{outcome.status}: {outcome.name}" + (f" ({outcome.message})" if outcome.message else ""))
    if not outcomes:
        return fail(f"no file was found in {', '.join(options.paths)}")
    return fail(f"{len(failed)} of {len(outcomes)} files could not be added") if failed else 0


def _ingested(options: argparse.Namespace) -> list[Outcome]:
    with opened(options) as chatbot, bar() as progress:
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

    with bar() as progress:
        return list(
            bulk.ingest(
                settings_of(options),
                map(Path, options.paths),
                workers=options.workers,
                replace=options.replace,
                collection=options.collection,
                progress=progress,
            )
        )


def documents(options: argparse.Namespace) -> int:
    with opened(options) as chatbot:
        entries = chatbot.knowledge.documents(options.collection)
    if options.json:
        print_json({"documents": [fields(entry) for entry in entries]})
    else:
        for entry in entries:
            place = "" if entry.collection == DEFAULT else f"{entry.collection} › "
            print(f"{entry.id}  {entry.added[:10]}  {entry.passages:>5} passages  {entry.kind:<8}  {place}{entry.name}")
        print(f"{len(entries)} documents", file=sys.stderr)
    return 0


def delete(options: argparse.Namespace) -> int:
    if not options.ids and options.collection is None:
        return fail("nothing to delete: give ids, which `documents` lists, or --collection NAME")
    deleted, problems = [], []
    with opened(options) as chatbot:
        if options.collection is not None:
            deleted += chatbot.knowledge.delete_collection(options.collection)
        for id in options.ids:
            try:
                deleted.append(chatbot.knowledge.delete(id))
            except MarginaliaError as error:
                problems.append(str(error))
    if options.json:
        print_json({"deleted": [fields(entry) for entry in deleted], "problems": problems})
    else:
        for entry in deleted:
            print(f"deleted: {entry.name}")
    return fail("; ".join(problems)) if problems else 0
