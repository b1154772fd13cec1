"""Settings -> a chatbot. This module alone knows every adapter; the rest knows Protocols."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see LOG.md, 2026-11-23

import torch
from filelock import FileLock, Timeout

from chatbot import models, settings
from chatbot.answers import Outcome
from chatbot.attributions import Named
from chatbot.branches import branches
from chatbot.catalogue import Catalogue, Entry
from chatbot.conversation import Conversation
from chatbot.dialogue import Dialogue
from chatbot.embedders.base import Embedder, Metric, similarity
from chatbot.embedders.cross import CrossEncoder
from chatbot.embedders.dpr import DprEmbedder
from chatbot.embedders.hashing import Hashing
from chatbot.embedders.process import Apart
from chatbot.embedders.sentence import DEFAULT as DEFAULT_EMBEDDER
from chatbot.embedders.sentence import SentenceEmbedder
from chatbot.errors import (
    DiskFull,
    HomeDamaged,
    HomeInUse,
    InputError,
    SetupError,
    UnreadableData,
    UnusableUtterance,
    WrongSetting,
    room,
)
from chatbot.events import Answered, Event, Token
from chatbot.fetch import fetch, is_address
from chatbot.fusion import rank_fusion, score_fusion
from chatbot.generate import Mixing
from chatbot.generators import disk_cache
from chatbot.generators.base import Generator
from chatbot.generators.scripted import Scripted
from chatbot.history import History, from_messages
from chatbot.index.base import Index, Space
from chatbot.index.chroma import Chroma, Dense
from chatbot.index.lexical import Lexical, TfIdf
from chatbot.ingestion import Ingestion, check_queue
from chatbot.knowledge import KnowledgeBase
from chatbot.knowledge import Outcome as Added
from chatbot.loading import IMPORTING, trim
from chatbot.passage import Passage, embedded
from chatbot.progress import Progress, silent
from chatbot.retrieve import Finder, Given, Retriever, Shares, Shelf
from chatbot.rewrite import ByGenerator, ByTerms, Rewriter, Verbatim, Vocabulary
from chatbot.rows import Row, messages
from chatbot.sampling import Sampling
from chatbot.scope import DEFAULT, EVERYTHING, Scope
from chatbot.settings import AUTO, Auto, Settings
from chatbot.stores import embedder_of

SAMPLE = Path(__file__).parent.parent / "data"
SAMPLE_NAME = "en/getting-started.md"  # one of them
ADAPTERS = Path(__file__).parent / "adapters"  # for the default generator and embedder, by name
FUSIONS = {"scores": score_fusion, "ranks": rank_fusion}
CONTEXT = {"scores": 2.0, "ranks": 4.0}  # of the turn read with its conversation
LEXICAL = {"scores": 1.0, "ranks": 0.7}  # of the lexical ranking's weight, once there is a conversation
UTTERANCE = {("ranks", "terms"): 0.25}  # share of the raw turn; half in general
PACKAGED_SAMPLE = Path(__file__).parent / "sample"  # where an installed wheel has it
_QUEUE = "arriving"  # the folder of what is on its way in
_ROOM_S = 15.0  # after which a full disk may have room again
_CLOSING_S = 5.0

log = logging.getLogger(__name__)


class Chatbot:
    """Owns a home folder until it is closed; with a Chroma server, several processes may share it.

    Any number of threads may ask at once. `mended`: what was amiss when it was opened, a sentence each.
    """

    def __init__(self, chosen: Settings) -> None:
        """Raises HomeInUse, HomeDamaged, DiskFull, StoreUnreachable or MissingModel."""
        self.settings = chosen
        self._lock = shared(chosen.home) if chosen.chroma else lock(chosen.home)
        self._making = threading.Lock()
        self._generator: Generator | None = None
        self._rewriter: Rewriter | None = None  # it may have a generator of its own
        self._dialogue: Dialogue | None = None
        self._ingestion: Ingestion | None = None
        self._rebuild: threading.Thread | None = None
        self._following = threading.Event()  # set: the rebuild behind is no longer wanted
        try:
            check_queue(chosen.home / _QUEUE)
            self._catalogue = Catalogue(chosen.home / "catalogue.sqlite")
            self._forgotten = self._catalogue.meta("forgotten")
            self.embedder = Apart(maker(chosen))
            self._store = store(chosen, self.embedder, self._catalogue)
            self.knowledge = KnowledgeBase(
                self._catalogue,
                self._store,
                self.embedder,
                chosen.home / "files",
                max_file_bytes=chosen.max_file_mb * 1_000_000,
                passage_tokens=chosen.passage_tokens,
                passage_overlap=chosen.passage_overlap,
                forgotten=self._forget,
                embedder_name=chosen.embedder,
                earlier=earlier(chosen, self.embedder, self._catalogue),
                across=self._lock if chosen.chroma else None,
            )
            self._dense = Dense(lambda: self.knowledge.space, self._catalogue)
            self.mended = self.knowledge.reconcile()
            self.history = History(chosen.home / "conversations")
            self.mended += self.history.unread
            if not chosen.chroma:
                models.sweep(chosen.home / "models")
        except BaseException:
            self._lock.release()
            raise
        if self.knowledge.is_outdated():
            self._rebuild = threading.Thread(target=self._follow_settings, daemon=True)
            self._rebuild.start()

    def answer(
        self, conversation: Conversation, utterance: str, *, searched: str = "", scope: Scope = EVERYTHING
    ) -> Iterator[Event]:
        """One turn: Rewritten, Retrieved, Token (many), Answered. What comes next is `conversation.plus(turn)`.

        `searched`: the text to search for, in place of what would be made of the utterance. Only documents of the scope
        are searched. Raises UnusableUtterance, UnknownCollection, or MissingModel where the generator's weights cannot
        be had.
        """
        speaking = self.dialogue()
        self._hear()
        return self._turn(speaking.answer(conversation, utterance, searched=searched, scope=scope))

    def _turn(self, events: Iterator[Event]) -> Iterator[Event]:
        try:
            yield from events
            self._hear()  # what was deleted elsewhere while it was read
        finally:
            trim()

    def _hear(self) -> None:
        """Forget too where another process deleted documents."""
        if self.settings.chroma and (told := self._catalogue.meta("forgotten")) != self._forgotten:
            self._forgotten = told
            self._drop_read()

    def warm(self, progress: Progress = silent) -> None:
        """Fetch what must be fetched and load the models now, so that the first question need not wait for it."""
        self.dialogue(progress)
        for model in (self.embedder, self._generator):
            if (load := getattr(model, "warm", None)) is not None:
                load()
        trim()

    def dialogue(self, progress: Progress = silent) -> Dialogue:
        with self._making:
            if self._generator is None:
                self._generator = generator(self.settings, progress)
            if self._dialogue is None:
                by, least = self._generator, least_confidence(self.settings, self._generator)
                if self._rewriter is None:
                    self._rewriter = rewriter(self.settings, lambda: by, Lexical(self._catalogue))
                self._dialogue = dialogue(self.settings, self.retriever(), by, self._rewriter, least)
            return self._dialogue

    def retriever(self) -> Retriever:
        return retriever(self.settings, self.knowledge, lexical(self.settings, self._catalogue), self._dense)

    def add_all(
        self,
        given: Sequence[str | Path],
        *,
        replace: bool = False,
        keep: bool = False,
        collection: str = DEFAULT,
        progress: Progress = silent,
    ) -> Iterator[Added]:
        """Files, folders, zips of files and web addresses into the knowledge base: one outcome a document, as it is
        done."""
        addresses = [each for each in map(str, given) if is_address(each)]
        paths = [each for each in given if str(each) not in addresses]
        yield from self.knowledge.add_all(paths, replace=replace, keep=keep, collection=collection, progress=progress)
        for address in addresses:
            try:
                yield self.add_address(address, replace=replace, keep=keep, collection=collection, progress=progress)
            except InputError as error:
                yield Added(address, "failed", str(error))

    def add_address(
        self,
        address: str,
        *,
        replace: bool = False,
        keep: bool = False,
        collection: str = DEFAULT,
        progress: Progress = silent,
    ) -> Added:
        """What a web address holds, as a document that bears its name. Raises UnreadableDocument or NameTaken."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "fetched"
            progress(0.0, f"fetching {address}")
            name = self._fetch(address, file)
            return self.knowledge.add(
                file, name=name, replace=replace, keep=keep, collection=collection, progress=progress
            )

    def _fetch(self, address: str, into: Path) -> str:
        max_bytes, private = self.settings.max_file_mb * 1_000_000, self.settings.private_addresses
        return fetch(address, into, max_bytes=max_bytes, private_addresses=private)

    def load_sample(self) -> bool:
        """Add the sample documents, if the knowledge base is empty and they never were; whether they are there."""
        if self.settings.sample and self._catalogue.meta("sample") is None:
            if not self.knowledge.documents():
                for _ in self.knowledge.add_all([sample_folder()]):
                    pass
            self._catalogue.set_meta("sample", "loaded")
        return any(entry.name == SAMPLE_NAME for entry in self.knowledge.documents())

    @property
    def ingestion(self) -> Ingestion:
        """The queue of files; what an earlier process left in it goes on when this is first asked for."""
        with self._making:
            if self._ingestion is None:
                folder = self.settings.home / _QUEUE
                self._ingestion = Ingestion(self.knowledge, folder, self.embedder.apart, fetch=self._fetch)
            return self._ingestion

    def finish_rebuilding(self, progress: Progress = silent) -> None:
        """Wait until the knowledge base follows the settings. What goes wrong is raised here."""
        if self._rebuild is not None:
            self._following.set()
            self._rebuild.join()
            self._rebuild = None
        self.knowledge.rebuild(progress)

    def _follow_settings(self) -> None:
        try:
            while not self._following.is_set():
                try:
                    self.knowledge.rebuild(stop=self._following)
                    break
                except DiskFull as error:
                    log.warning("the knowledge base will follow the settings when there is room: %s", error)
                    self._following.wait(_ROOM_S)
        except SetupError as error:
            log.warning("the knowledge base does not follow the settings yet: %s", error)
        except Exception:
            log.exception("the knowledge base does not follow the settings")
        with self._making:
            self._dialogue = None  # its prior is for the metric of the embedder before

    def _forget(self) -> None:
        """Drop what the generator keeps of passages, some of which are gone, here and in processes beside this one."""
        disk_cache.forget(read_passages(self.settings))  # of an earlier process, too
        self._drop_read()
        if self.settings.chroma:
            self._forgotten = uuid.uuid4().hex
            self._catalogue.set_meta("forgotten", self._forgotten)

    def _drop_read(self) -> None:
        for each in (self._generator, self._rewriter):
            forget: Callable[[], None] | None = getattr(each, "forget", None)
            if forget is not None:
                forget()

    def close(self) -> None:
        self._following.set()
        if self._ingestion is not None:
            self._ingestion.close()
        if self._rebuild is not None:
            self._rebuild.join(_CLOSING_S)  # one that waits for a parser writes nothing afterwards
        self.knowledge.close()
        self.embedder.close()
        self._store.close()
        self._catalogue.close()
        self._lock.release()

    def __enter__(self) -> Chatbot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_chatbot(home: str | Path | None = None, **chosen: object) -> Chatbot:
    """A chatbot over the home folder's knowledge base; keyword arguments are settings: `open_chatbot("here", k=8)`.

    Weights are loaded at the first question, or by `.warm()`. Raises a SetupError where it cannot be opened.
    """
    return Chatbot(settings.load(home, overrides=chosen))


def lock(home: Path) -> FileLock:
    """The home's lock, held. Raises HomeInUse, DiskFull, or HomeDamaged where the folder cannot be written."""
    held = FileLock(home / "lock", timeout=0, thread_local=False)
    try:
        with room(home):
            home.mkdir(parents=True, exist_ok=True)
            held.acquire()
            (home / "owner").write_text(str(os.getpid()), encoding="utf-8")
        return held
    except Timeout as error:
        raise HomeInUse(
            f"home {str(home)!r} is in use by process {_owner(home)}: close it, or choose another home with --home"
        ) from error
    except DiskFull:
        held.release()
        raise
    except OSError as error:
        raise HomeDamaged(
            f"home {str(home)!r} cannot be written ({error.strerror}): choose another with --home"
        ) from error


def shared(home: Path) -> FileLock:
    """What processes that share a home take turns to write by, not held. Raises as `lock` does."""
    lock(home).release()  # a process that owns the home alone holds it
    return FileLock(home / "writing", thread_local=False)


def _owner(home: Path) -> str:
    try:
        return (home / "owner").read_text(encoding="utf-8") or "unknown"
    except OSError:
        return "unknown"


def embedder(chosen: Settings) -> Embedder:
    return maker(chosen)()


def maker(chosen: Settings) -> Callable[[], Embedder]:
    """Makes the embedder, in this process or, pickled, in another."""
    if chosen.embedder == "hashing":
        return Hashing
    if not chosen.embedder.startswith("dpr:"):
        return partial(SentenceEmbedder, chosen.embedder, chosen.threads, query_encoder(chosen))
    question, _, context = (part.strip() for part in chosen.embedder.removeprefix("dpr:").partition(","))
    if not question or not context:
        raise WrongSetting(f"embedder is {chosen.embedder!r}: write dpr:QUESTION,CONTEXT, each a folder or a hub id")
    return partial(DprEmbedder, question, context, chosen.threads)


def store(chosen: Settings, by: Embedder, catalogue: Catalogue) -> Chroma:
    return Chroma(chosen.chroma or chosen.home / "chroma", by.fingerprint, catalogue.identity, by.metric)


def earlier(chosen: Settings, now: Embedder, catalogue: Catalogue) -> Space | None:
    """The embedder that the vectors are of, where it is not the one that is set; None also where it is gone."""
    told = embedder_of(catalogue)
    if told is None or told[0] == now.fingerprint:
        return None
    fingerprint, name = told
    try:
        before = embedder(replace(chosen, embedder=name))
        if before.fingerprint == fingerprint:
            return Space(before, store(chosen, before, catalogue))
        reason = "its files have changed"
    except SetupError as error:
        reason = str(error)
    log.warning("passages are found by their words alone until the new vectors are there: %s (%s)", name, reason)
    return None


def query_encoder(chosen: Settings) -> str | None:
    """The folder of LoRA matrices with which the embedder reads conversations."""
    if chosen.query_encoder == "auto":
        shipped = ADAPTERS / DEFAULT_EMBEDDER
        return str(shipped) if chosen.embedder == DEFAULT_EMBEDDER and shipped.is_dir() else None
    if chosen.query_encoder == "none":
        return None
    if chosen.embedder == "hashing" or chosen.embedder.startswith("dpr:"):
        raise WrongSetting(
            f"query_encoder is {chosen.query_encoder!r} and embedder {chosen.embedder!r}: only an embedder of "
            "sentence-transformers takes one, set query_encoder=none"
        )
    return _adapter_folder("query_encoder", chosen.query_encoder)


def _adapter_folder(name: str, folder: str) -> str:
    if not (Path(folder) / "adapter_config.json").is_file():
        raise WrongSetting(f"{name} {folder!r} is no folder of an adapter: it has no adapter_config.json")
    return folder


def generator(chosen: Settings, progress: Progress = silent, keeping: bool = True) -> Generator:
    """Fetches the default's weights where they are not there yet. Raises MissingModel.

    `keeping`: what it reads, for later, within the settings' budgets.
    """
    if chosen.generator == "scripted":
        return Scripted()
    with IMPORTING:
        from chatbot.generators.causal import Causal  # transformers takes seconds to import
        from chatbot.generators.seq2seq import Seq2Seq, is_encoder_decoder

    model = generator_folder(chosen, progress)
    if is_encoder_decoder(model):
        return Seq2Seq(model, adapter(chosen))
    if not keeping:
        chosen = replace(chosen, passage_cache_mb=0)
    disk = disk_cache.DiskCache(read_passages(chosen), chosen.passage_cache_disk_mb * 1_000_000)
    if not disk.budget:
        shutil.rmtree(read_passages(chosen), ignore_errors=True)
    return Causal(
        model,
        adapter=adapter(chosen),
        reserve=chosen.max_reply_tokens,
        cache_bytes=chosen.passage_cache_mb * 1_000_000,
        engine=chosen.engine,
        disk=disk if disk.budget and keeping else None,
        judges_questions=None if chosen.question_weight == AUTO else chosen.question_weight > 0,
    )


def generator_folder(chosen: Settings, progress: Progress = silent) -> str:
    """What transformers loads, fetched where it must be; torch is told its threads. Raises MissingModel, DiskFull."""
    torch.set_num_threads(min(chosen.threads or cores(), cores()))
    folder = chosen.home / "models"
    if found := models.locate(chosen.generator, folder):
        return found
    with room(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # processes that share the home fetch once
            return models.locate(chosen.generator, folder) or models.fetch(chosen.generator, folder, progress)


def adapter(chosen: Settings) -> str | None:
    """The folder of the LoRA matrices to add to the generator."""
    if chosen.adapter == "none":
        return None
    if chosen.adapter != "auto":
        return _adapter_folder("adapter", chosen.adapter)
    shipped = ADAPTERS / chosen.generator
    return str(shipped) if chosen.generator in models.WHEELS and shipped.is_dir() else None


def engine(chosen: Settings, model: str) -> str:
    """What would run this folder or hub id; its weights are not loaded. Raises MissingModel where nothing would."""
    from chatbot.generators.causal import engine_of

    return engine_of(model, chosen.engine)


def read_passages(chosen: Settings) -> Path:
    """Where the generator keeps what it made of passages."""
    return chosen.home / "cache" / "passages"


def epsilon(chosen: Settings, by: Generator) -> float:
    return _fitted(chosen.epsilon, getattr(by, "default_epsilon", None), 1.0)


def least_confidence(chosen: Settings, by: Generator) -> float:
    return _fitted(chosen.least_confidence, getattr(by, "default_least_confidence", None), 0.25)


def question_weight(chosen: Settings, by: Generator) -> float:
    return _fitted(chosen.question_weight, getattr(by, "default_question_weight", None), 0.0)


def _fitted(given: float | Auto, trained: float | None, otherwise: float) -> float:
    """As set; `auto`: what the generator's training found best, or, where that is not known, `otherwise`."""
    if given != AUTO:
        return given
    return otherwise if trained is None else trained


def sampling(chosen: Settings) -> Sampling:
    return Sampling(
        chosen.max_reply_tokens,
        chosen.temperature,
        chosen.repetition_penalty,
        chosen.seed,
        chosen.top_p,
        chosen.min_p,
        chosen.stop,
        chosen.most_repeats,
    )


def mixing(chosen: Settings, by: Generator) -> Mixing:
    return Mixing(
        epsilon(chosen, by),
        chosen.least_prior,
        chosen.contrast,
        chosen.entropy_weight,
        question_weight(chosen, by),
    )


def cores() -> int:
    """Physical cores that this process may use: two threads of one core would wait for each other."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    topology = Path("/sys/devices/system/cpu")
    usable = os.sched_getaffinity(0)
    siblings = [topology / f"cpu{number}" / "topology" / "thread_siblings_list" for number in usable]
    return len({path.read_text() for path in siblings if path.exists()}) or len(usable)


def rewriter(chosen: Settings, by: Callable[[], Generator], vocabulary: Vocabulary | None = None) -> Rewriter:
    """`by`: what answers, asked for only where it also rewrites. Raises WrongSetting or MissingModel."""
    match chosen.rewriter:
        case "none":
            return Verbatim()
        case "terms":
            return ByTerms(vocabulary)
        case "generator":
            return ByGenerator(by())
        case "trained":
            chosen = replace(chosen, generator=models.DEFAULT)
            folder = str(ADAPTERS / f"{models.DEFAULT}-rewriter")
        case folder:
            folder = _adapter_folder("rewriter", folder)
    # an adapter is merged into the weights; a prompt without examples is one piece, which no other one begins with
    own = generator(replace(chosen, adapter=folder), keeping=False)
    return ByGenerator(own, worked=False)


def prior(chosen: Settings, metric: Metric) -> tuple[float, float]:
    """(temperature, what "no passage" weighs) of p(z | x).

    `auto` over inner products is RAG's own prior: their softmax, over passages.
    """
    temperature, no_passage = (0.05, 0.25) if metric == "cosine" else (1.0, -math.inf)
    return _fitted(chosen.temperature_of_prior, None, temperature), _fitted(chosen.no_passage, None, no_passage)


def dialogue(
    chosen: Settings, finder: Finder, by: Generator, rewriter: Rewriter, least_confidence: float = 0.0
) -> Dialogue:
    return Dialogue(
        rewriter,
        finder,
        by,
        sampling=sampling(chosen),
        mixing=mixing(chosen, by),
        reading=partial(branches, reading=chosen.reading, pair_prior=chosen.pair_prior),
        beams=chosen.beams,
        least_confidence=least_confidence,
        unread=getattr(by, "unread", ()),
        max_utterance=chosen.max_utterance,
    )


def replies(chosen: Settings, by: Generator, rows: Sequence[Row], progress: Progress = silent) -> Iterator[Outcome]:
    """What the product says to each row's question, with the row's passages in place of the knowledge base's."""
    if without := next((row for row in rows if not row.passages), None):
        raise UnreadableData(f"row {without.number} has no passages: give the question some to be answered from")
    embed, least, rewrites = embedder(chosen), least_confidence(chosen, by), rewriter(chosen, lambda: by)
    temperature, no_passage = prior(chosen, embed.metric)
    for done, row in enumerate(rows):
        progress(done / len(rows), "answering")
        given = Given(row.passages, embed, k=chosen.k, temperature=temperature, no_passage=no_passage)
        try:
            events = list(
                dialogue(chosen, given, by, rewrites).answer(from_messages(list(messages(row))), row.question)
            )
        except UnusableUtterance as error:
            raise UnreadableData(f"row {row.number}: {error}") from error
        turn = next(event.turn for event in events if isinstance(event, Answered))
        withheld = turn.reply.abstained or (bool(turn.query.text) and turn.reply.confidence < least)
        tokens = tuple(event for event in events if isinstance(event, Token))
        yield Outcome(row, turn.reply, withheld, tokens, turn.hits)


def named(by: Embedder, outcome: Outcome) -> Named:
    """The passages that each way of attributing a reply names as its sources. Of a reply that was read from some."""
    ids = [hit.passage.id for hit in outcome.hits]
    (said,) = by.queries([outcome.reply.text])
    scores = [similarity(parts, said) for parts in by.parts([embedded(hit.passage) for hit in outcome.hits])]
    return {
        "posterior": frozenset(citation.passage_id for citation in outcome.reply.citations),
        "similarity": frozenset([ids[scores.index(max(scores))]]),
        "top1": frozenset(ids[:1]),
        "all": frozenset(ids),
    }


def lexical(chosen: Settings, catalogue: Catalogue) -> Index:
    return TfIdf(catalogue) if chosen.lexical == "tfidf" else Lexical(catalogue)


def shares(chosen: Settings) -> Shares:
    """Fitted on QReCC and MTRAG-S: see docs/retrieval.md."""
    utterance = UTTERANCE.get((chosen.fusion, chosen.rewriter), 0.5)
    reads = CONTEXT[chosen.fusion] if query_encoder(chosen) else 0.0
    return Shares(utterance, context=reads, background=reads, lexical=LEXICAL[chosen.fusion])


def retriever(chosen: Settings, shelf: Shelf, by_words: Index, dense: Dense) -> Retriever:
    weighted: dict[str, list[tuple[Index, float]]] = {
        "hybrid": [(dense, 1.0), (by_words, chosen.lexical_weight)],
        "dense": [(dense, 1.0)],
        "lexical": [(by_words, 1.0)],
    }
    indexes, weights = zip(*weighted[chosen.retriever], strict=True)
    temperature, no_passage = prior(chosen, dense.metric)
    return Retriever(
        shelf,
        indexes,
        dense,
        weights=weights,
        shares=shares(chosen),
        fusion=FUSIONS[chosen.fusion],
        reranker=CrossEncoder(chosen.reranker) if chosen.reranker else None,
        k=chosen.k,
        temperature=temperature,
        no_passage=no_passage,
    )


def collection(
    chosen: Settings, corpus: Iterable[Passage], folder: Path, progress: Progress = silent
) -> tuple[Retriever, Vocabulary]:
    """The product's retriever over a corpus of its own in `folder`; an index of the same corpus is used again."""
    passages = list({passage.id: passage for passage in corpus}.values())
    digest = hashlib.sha256(repr(passages).encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    catalogue, embed = Catalogue(folder / "catalogue.sqlite"), embedder(chosen)
    if catalogue.meta("corpus") != digest:
        for entry in catalogue.documents():
            catalogue.delete(entry.id)
        entry = Entry("corpus", "", "corpus", 0, None, len(passages), "en", datetime.now(UTC).isoformat())
        catalogue.add(entry, passages, distinct=False)  # each is judged by its id
        catalogue.set_meta("corpus", digest)
    vectors = Chroma(folder / "chroma", embed.fingerprint, catalogue.identity, embed.metric)
    knowledge = KnowledgeBase(catalogue, vectors, embed, folder / "files")
    knowledge.adopt()
    if chosen.retriever != "lexical":
        knowledge.reconcile(progress)
    dense = Dense(lambda: knowledge.space, catalogue)
    return retriever(chosen, knowledge, lexical(chosen, catalogue), dense), Lexical(catalogue)


def sample_folder() -> Path:
    return SAMPLE if SAMPLE.is_dir() else PACKAGED_SAMPLE
