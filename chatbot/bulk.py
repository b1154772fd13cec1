"""Very many files at once: read and embedded by workers of Ray Data, on this machine or a cluster, written by one.

A task is `KnowledgeBase.add` itself, over stores that keep what they are given instead of writing it; the one writer
puts that into the real stores in large batches, in the same order as `KnowledgeBase` does: files and vectors first,
then the catalogue. So a kill leaves no more than `reconcile` removes, and beginning again skips what is in. On a
cluster the files and the home folder must lie where every worker reaches them. Needs the extra `bulk`.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from chatbot import assemble
from chatbot.catalogue import Catalogue, Entry
from chatbot.embedders.base import Vectors
from chatbot.errors import InputError, SetupError, WrongSetting
from chatbot.index.chroma import Chroma
from chatbot.knowledge import KnowledgeBase, Outcome, walk
from chatbot.passage import Page, Passage
from chatbot.progress import Progress, silent
from chatbot.scope import DEFAULT
from chatbot.settings import Settings
from chatbot.stores import embedder_of

_FLUSH = 5_000  # passages written at once: what one call of Chroma takes
_FILES_A_TASK = 8
_PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Made:
    """A document that is ready to be written; its file is in its place already."""

    entry: Entry
    pages: tuple[Page, ...]
    passages: tuple[Passage, ...]
    splitter: str
    ids: tuple[str, ...]
    vectors: tuple[Vectors, ...]  # of the ids, each (P, D)


class Kept:
    """What a knowledge base would have written, in place of its catalogue and of its vectors."""

    def __init__(self, known: Mapping[str, Entry], key: str, embedder: str | None) -> None:
        self._known = known  # documents of the collection, by name
        self._key = key  # of the collection
        self._embedder = embedder

    def meta(self, _: str) -> str | None:
        return self._embedder

    def set_meta(self, _: str, value: str) -> None:
        self._embedder = value

    def key_for(self, _: str) -> str:
        return self._key

    def find(self, name: str, _: str) -> Entry | None:
        return self._known.get(name)

    def upsert(self, ids: Sequence[str], document_id: str, vectors: Sequence[Vectors], _: str) -> None:
        self._ids, self._vectors = tuple(ids), tuple(vectors)

    def add(
        self, entry: Entry, passages: Sequence[Passage], *, replacing: str | None, pages: Sequence[Page], splitter: str
    ) -> None:
        self.made = Made(entry, tuple(pages), tuple(passages), splitter, self._ids, self._vectors)


class Reader:
    """One worker: makes documents of files. `known`: what is in the collection already, by name; `key`: its key."""

    def __init__(
        self, chosen: Settings, known: Mapping[str, Entry], collection: str = DEFAULT, key: str = "",
        embedder: str | None = None,
    ) -> None:  # fmt: skip
        self._collection = collection
        kept: Any = Kept(known, key, embedder)
        self._kept: Kept = kept
        self._knowledge = KnowledgeBase(
            kept,
            kept,
            assemble.embedder(chosen),
            chosen.home / "files",
            max_file_bytes=chosen.max_file_mb * 1_000_000,
            passage_tokens=chosen.passage_tokens,
            passage_overlap=chosen.passage_overlap,
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        """{"path", "name"} -> {"made"}: a pickled Made, or the Outcome where there is nothing to write."""
        try:
            outcome = self._knowledge.add(row["path"], name=row["name"], collection=self._collection)
        except InputError as error:
            outcome = Outcome(row["name"], "failed", str(error))
        return {"made": pickle.dumps(self._kept.made if outcome.status == "added" else outcome)}


class Writer:
    """The only one that writes to the stores."""

    def __init__(self, chosen: Settings, catalogue: Catalogue, store: Chroma, replace: bool) -> None:
        self._chosen, self._catalogue, self._store, self._replace = chosen, catalogue, store, replace
        self._waiting: dict[str, Made] = {}

    def write(self, made: Made) -> Iterator[Outcome]:
        """The outcomes of what had to be written to make room."""
        if made.entry.name in self._waiting or sum(len(each.ids) for each in self._waiting.values()) >= _FLUSH:
            yield from self.flush()
        there = self._catalogue.find(made.entry.name, made.entry.collection)
        if there is not None and there.id == made.entry.id:
            yield _outcome(made, "unchanged")
        elif there is not None and not self._replace:
            shutil.rmtree(self._chosen.home / "files" / made.entry.id, ignore_errors=True)
            yield replace(_outcome(made, "failed"), message=f"{made.entry.name!r} is there already: give --replace")
        else:
            self._waiting[made.entry.name] = made

    def flush(self) -> Iterator[Outcome]:
        waiting, self._waiting = list(self._waiting.values()), {}
        if not waiting:
            return
        ids = [id for made in waiting for id in made.ids]
        documents = [made.entry.id for made in waiting for _ in made.ids]
        key = self._catalogue.key_for(waiting[0].entry.collection)  # all are of one
        self._store.upsert(ids, documents, [each for made in waiting for each in made.vectors], key)
        for made in waiting:
            old = self._catalogue.find(made.entry.name, made.entry.collection)
            gone = self._catalogue.passage_ids(old.id) if old else []
            self._catalogue.add(
                made.entry, made.passages, replacing=old.id if old else None, pages=made.pages, splitter=made.splitter
            )
            if old:
                shutil.rmtree(assemble.read_passages(self._chosen), ignore_errors=True)
                self._store.delete_ids(gone, key)
                shutil.rmtree(self._chosen.home / "files" / old.id, ignore_errors=True)
            yield _outcome(made, "replaced" if old else "added")


def ingest(
    chosen: Settings,
    paths: Iterable[Path],
    *,
    workers: int,
    replace: bool = False,
    collection: str = DEFAULT,
    progress: Progress = silent,
) -> Iterator[Outcome]:
    """One outcome a file, in no order. `workers`: processes, each with an embedder of its own on one core.

    With RAY_ADDRESS in the environment they run on that cluster. Raises SetupError where Ray is not installed, or the
    vectors are still of another embedder.
    """
    if importlib.util.find_spec("ray") is None:
        raise SetupError("--workers needs Ray, which is not installed: pip install 'marginalia-chat[bulk]'")
    if workers < 1:
        raise WrongSetting(f"--workers is {workers}: give at least 1")
    files = [{"path": str(path.resolve()), "name": name} for given in paths for path, name in walk(given)]
    if not files:
        return
    held = assemble.lock(chosen.home)
    try:
        catalogue, embedder = Catalogue(chosen.home / "catalogue.sqlite"), assemble.embedder(chosen)
        told = embedder_of(catalogue)
        if told is not None and told[0] != embedder.fingerprint:
            raise SetupError("the vectors are still of another embedder: run `ingest` without --workers first")
        store = assemble.store(chosen, embedder, catalogue)
        writer = Writer(chosen, catalogue, store, replace)
        known = {} if replace else _known(catalogue, collection)
        reading = (chosen, known, collection, catalogue.key_for(collection), catalogue.meta("embedder"))
        for done, made in enumerate(_made(reading, files, workers), start=1):
            progress(done / len(files), f"{done} of {len(files)} files")
            yield from writer.write(made) if isinstance(made, Made) else [made]
        yield from writer.flush()
        store.close()
        catalogue.close()
    finally:
        held.release()


def _known(catalogue: Catalogue, collection: str) -> dict[str, Entry]:
    return {entry.name: entry for entry in catalogue.documents() if entry.collection == collection}


def _made(reading: tuple[Any, ...], files: list[dict[str, str]], workers: int) -> Iterator[Made | Outcome]:
    """`reading`: what a `Reader` is made of."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would tell its makers
    import ray.data
    import ray.exceptions

    try:
        _connect(ray, workers)
        ray.data.DataContext.get_current().enable_progress_bars = False
        tasks = -(-len(files) // _FILES_A_TASK)
        made = ray.data.from_items(files, override_num_blocks=tasks).map(
            Reader, fn_constructor_args=reading, compute=ray.data.ActorPoolStrategy(size=workers), num_cpus=1
        )
        for row in made.iter_rows():
            yield cast(Made | Outcome, pickle.loads(row["made"]))
    except (ray.exceptions.RayError, ConnectionError) as error:
        cause = getattr(error, "cause", None) or error  # what the task raised
        reason = str(cause).strip().rpartition("\n")[2]
        raise SetupError(f"a worker of Ray failed ({reason}): begin again, what is in is skipped") from error
    finally:
        ray.shutdown()


def _connect(ray: Any, workers: int) -> None:
    """To the cluster that RAY_ADDRESS names; else to workers here, which find this package where we found it."""
    quiet = {"log_to_driver": False, "logging_level": "error", "include_dashboard": False}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level="error")
    else:
        path = os.pathsep.join(filter(None, [str(_PACKAGE), os.environ.get("PYTHONPATH", "")]))
        ray.init(num_cpus=workers, runtime_env={"env_vars": {"PYTHONPATH": path}}, **quiet)


def _outcome(made: Made, status: Any) -> Outcome:
    entry = made.entry
    return Outcome(entry.name, status, entry.notice, "" if status == "failed" else entry.id, entry.passages)
