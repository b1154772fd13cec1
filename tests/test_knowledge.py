"""The knowledge base over its real parts. Run as a program, this module is the process that the crash test kills."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatbot.catalogue import Catalogue
from chatbot.embedders.base import Embedder
from chatbot.embedders.hashing import Hashing
from chatbot.embedders.sentence import SentenceEmbedder
from chatbot.errors import NameTaken, UnknownCollection, UnknownDocument, UnreadableDocument
from chatbot.index.base import Space
from chatbot.index.chroma import Chroma, Dense
from chatbot.index.lexical import Lexical
from chatbot.knowledge import KnowledgeBase, Outcome, Rebuilding
from chatbot.language import detect, words
from chatbot.passage import Document, Page
from chatbot.scope import Scope


class Home:
    """A knowledge base and what it is made of, as the assembly puts it together."""

    def __init__(
        self,
        folder: Path,
        embedder: Embedder | None = None,
        around: Callable[[Any], Any] = lambda part: part,
        earlier: Embedder | None = None,
        where: Path | str | None = None,
        **chosen: Any,
    ) -> None:
        self.files = folder / "files"
        self.embedder = embedder or Hashing()
        self.catalogue = Catalogue(folder / "catalogue.db")
        self.store = Chroma(where or folder / "chroma", self.embedder.fingerprint, self.catalogue.identity)
        if earlier:
            before = Chroma(where or folder / "chroma", earlier.fingerprint, self.catalogue.identity)
            chosen["earlier"] = Space(earlier, before)
        self.knowledge = KnowledgeBase(around(self.catalogue), around(self.store), self.embedder, self.files, **chosen)
        self.mended = self.knowledge.reconcile()
        self.lexical = Lexical(self.catalogue)
        self.dense = Dense(lambda: self.knowledge.space, self.catalogue)

    def close(self) -> None:
        self.knowledge.close()
        self.store.close()
        self.catalogue.close()

    def named(self, ids: list[str]) -> list[str]:
        return [passage.document for passage in self.knowledge.passages(ids).values()]

    def check(self) -> None:
        """Catalogue, vectors, lexical index and files hold the same documents, each wholly."""
        documents, known = self.knowledge.documents(), self.catalogue.places()
        for key in self.catalogue.keys_of():
            assert self.store.ids(key) == set(known.get(key, ()))
        assert set(self.store.collections()) <= set(self.catalogue.keys_of())
        for each in documents:
            ids, alone = self.catalogue.passage_ids(each.id), Scope(documents=(each.id,))
            assert ids and len(ids) == each.passages
            found = self.lexical.search(Path(each.name).stem, 10_000, alone)
            assert {id for id, _ in found} == set(self.catalogue.firsts(ids, alone).values())
            for passage in self.knowledge.passages(ids).values():
                text = self.knowledge.text(each.id, passage.page)
                assert text[passage.start : passage.end] == passage.text
        assert sorted(folder.name for folder in self.files.glob("*")) == sorted(each.id for each in documents)
        assert self.knowledge.verify() == ([], [])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def home(folder: Path) -> Iterator[Home]:
    home = Home(folder, passage_tokens=20, max_file_bytes=100_000)
    yield home
    home.close()


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    return file


def plain(path: Path, name: str, **_: object) -> Document:
    """What `parse.read` gives for plain text, without its process, whose start would be most of a test's time."""
    return Document(name, "markdown" if name.endswith(".md") else "text", (Page(path.read_text("utf-8")),))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatbot.stores.read", plain)


MANUAL = (
    "# Leave\n\nThere are thirty days of leave.\n\n# Travel\n\nTrains are preferred.\n\n# 年假\n\n每年有三十天年假。\n"
)


def test_an_added_document_is_listed_and_found_by_words_and_by_meaning(home: Home, tmp_path: Path):
    outcome = home.knowledge.add(write(tmp_path, "manual.md", MANUAL))
    (entry,) = home.knowledge.documents()
    assert outcome == Outcome("manual.md", "added", "", entry.id, 3)
    assert (entry.name, entry.kind, entry.bytes, entry.passages) == ("manual.md", "markdown", len(MANUAL.encode()), 3)
    assert (entry.pages, entry.language) == (None, "en")
    for search in (home.lexical.search, home.dense.search):
        for query, answer in (("days of leave", "thirty days"), ("trains", "preferred"), ("年假有几天", "三十天")):
            best = search(query, 1)[0][0]
            assert answer in home.knowledge.passages([best])[best].text
    (kept,) = (home.files / entry.id).iterdir()
    assert kept.read_text("utf-8") == MANUAL
    home.check()


def test_the_same_file_again_changes_nothing(home: Home, tmp_path: Path):
    file = write(tmp_path, "manual.md", MANUAL)
    first = home.knowledge.add(file)
    again = home.knowledge.add(file, replace=True)
    assert (again.status, again.document_id, again.passages) == ("unchanged", first.document_id, 3)
    home.check()


def test_other_content_under_a_name_must_be_asked_for(home: Home, tmp_path: Path):
    home.knowledge.add(write(tmp_path, "a.txt", "the first version"))
    file = write(tmp_path, "a.txt", "the second edition")
    with pytest.raises(NameTaken, match=r"'a\.txt'"):
        home.knowledge.add(file)
    assert home.lexical.search("edition", 5) == []
    assert home.knowledge.add(file, replace=True).status == "replaced"
    assert home.lexical.search("version", 5) == []
    assert home.knowledge.add(file, name="b.txt").status == "added"
    assert [each.name for each in home.knowledge.documents()] == ["b.txt", "a.txt"]
    home.check()


def test_a_deleted_document_is_nowhere(home: Home, tmp_path: Path):
    home.knowledge.add(write(tmp_path, "kept.txt", "what is kept"))
    gone = home.knowledge.add(write(tmp_path, "gone.txt", "zanzibar is gone")).document_id
    assert home.knowledge.delete(gone).name == "gone.txt"
    assert home.lexical.search("zanzibar", 5) == []
    assert home.named([id for id, _ in home.dense.search("zanzibar", 5)]) == ["kept.txt"]
    with pytest.raises(UnknownDocument, match=gone):
        home.knowledge.delete(gone)
    home.check()
    held = b"".join(file.read_bytes() for file in home.files.parent.rglob("*") if file.is_file())
    assert b"kept" in held and b"zanzibar" not in held


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"x" * 100_001, b"%PDF-1.4 damaged"])
def test_a_file_that_gives_no_text_leaves_nothing(home: Home, tmp_path: Path, content: bytes | None):
    file = tmp_path / "odd.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UnreadableDocument, match=r"odd\.txt") as error:
        home.knowledge.add(file)
    assert "\n" not in str(error.value)
    home.check()


def test_the_files_of_a_zip_are_documents_of_their_own(home: Home, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "papers.zip", "w") as packed:
        packed.writestr("in/cats.md", "Cats sleep.")
        packed.writestr("in/empty.md", " ")
    (tmp_path / "bad.zip").write_bytes((tmp_path / "papers.zip").read_bytes()[:80])
    outcomes = list(home.knowledge.add_all([tmp_path / "papers.zip", tmp_path / "bad.zip"]))
    assert [(outcome.name, outcome.status) for outcome in outcomes] == [
        ("papers.zip/in/cats.md", "added"), ("papers.zip/in/empty.md", "failed"), ("bad.zip", "failed"),
    ]  # fmt: skip
    assert [entry.name for entry in home.knowledge.documents()] == ["papers.zip/in/cats.md"]


def test_a_folder_is_walked_and_one_bad_file_stops_nothing(home: Home, tmp_path: Path):
    for name in ("b/read.txt", "a/read.txt", "c.txt", ".hidden.txt", ".git/config.txt"):
        write(tmp_path / "many", name, f"text of {name}")
    write(tmp_path / "many", "b/empty.txt", "")
    heard: list[float] = []
    outcomes = list(
        home.knowledge.add_all(
            [tmp_path / "many", tmp_path / "absent.txt"], progress=lambda done, doing: heard.append(done)
        )
    )
    assert [(each.name, each.status) for each in outcomes] == [
        ("a/read.txt", "added"),
        ("b/empty.txt", "failed"),
        ("b/read.txt", "added"),
        ("c.txt", "added"),
        ("absent.txt", "failed"),
    ]
    assert all("'b/empty.txt'" in each.message for each in outcomes if each.name == "b/empty.txt")
    assert heard == sorted(heard) and (heard[0], heard[-1]) == (0, 1)
    home.check()


def test_a_name_that_is_not_unicode_is_taken(home: Home, tmp_path: Path):
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    file.write_text("coffee")
    home.knowledge.add(file)
    assert [each.name for each in home.knowledge.documents()] == ["caf?.txt"]


def test_no_byte_of_what_was_deleted_or_replaced_is_left(folder: Path, tmp_path: Path):
    home, file = Home(folder), tmp_path / "secret.md"
    for text in ("Zanzibar holidays.", "Quetzal holidays."):
        file.write_text(text)
        home.knowledge.add(file, replace=True)
    home.knowledge.delete(home.knowledge.documents()[0].id)
    home.close()
    left = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"anzibar" not in left and b"uetzal" not in left


def test_reconciling_rebuilds_lost_vectors_and_removes_strangers(folder: Path, tmp_path: Path):
    home = Home(folder, passage_tokens=20)
    home.knowledge.add(write(tmp_path, "manual.md", MANUAL))
    home.store.upsert(["stray:0"], "stray", home.embedder.passages(["stray"]))
    write(home.files / "arriving-1", "original.txt", "half")
    write(home.files / ("0" * 16), "original.txt", "orphan")
    home.close()
    again = Home(folder)
    again.check()
    again.close()
    shutil.rmtree(folder / "chroma")
    rebuilt = Home(folder)
    rebuilt.check()
    assert "Trains" in rebuilt.knowledge.passages([best := rebuilt.dense.search("trains", 1)[0][0]])[best].text
    rebuilt.close()


def test_after_a_change_of_embedder_the_old_serves_until_the_new_is_whole(folder: Path, tmp_path: Path):
    before = Home(folder, Hashing(64))
    before.knowledge.add(write(tmp_path, "manual.md", MANUAL))
    before.close()
    after = Home(folder, Hashing(128), earlier=Hashing(64))
    heard: list[tuple[float, str]] = []

    def listen(done: float, doing: str) -> None:
        assert "Trains" in best(after, "trains")
        if "splitting" in doing:
            return
        assert after.knowledge.space.embedder.fingerprint == "hashing-64"
        assert after.knowledge.rebuilding == Rebuilding(done, doing, lexical_only=False)
        heard.append((done, doing))
        if len(heard) == 1:
            after.knowledge.add(write(tmp_path, "more.md", "Ferries leave at noon."))

    after.knowledge.rebuild(listen)
    assert heard[0] == (0.0, "computing 3 vectors with the new embedder")
    assert after.knowledge.space.embedder.fingerprint == "hashing-128"
    assert after.knowledge.rebuilding is None
    assert "Ferries" in best(after, "ferries leave")
    after.check()
    assert {each.shape for each in after.store.parts(after.catalogue.passage_ids()).values()} == {(1, 128)}
    assert Chroma(folder / "chroma", "hashing-64", after.catalogue.identity).count() == 0
    after.close()


def test_a_rebuild_that_was_stopped_is_taken_up_where_it_stood(folder: Path, tmp_path: Path):
    before = Home(folder, Hashing(64), passage_tokens=20)
    before.knowledge.add(write(tmp_path, "long.txt", "\n\n".join(f"Paragraph {n} " + "word " * 15 for n in range(80))))
    before.close()
    stopped = Home(folder, Hashing(128), earlier=Hashing(64), passage_tokens=20)
    stopped.knowledge.rebuild(lambda done, doing: stopped.knowledge.stop())
    assert stopped.knowledge.is_outdated() and stopped.store.count() == 32
    stopped.close()
    again = Home(folder, Hashing(128), earlier=Hashing(64), passage_tokens=20)
    shares: list[float] = []
    again.knowledge.rebuild(lambda done, doing: shares.append(done))
    assert shares[0] == pytest.approx(32 / 80)
    again.check()
    again.close()


def test_a_rebuild_that_is_no_longer_wanted_when_it_begins_does_nothing(folder: Path, tmp_path: Path):
    before = Home(folder, passage_tokens=60)
    before.knowledge.add(write(tmp_path, "long.txt", "\n\n".join(f"Paragraph {n} " + "word " * 15 for n in range(20))))
    before.close()
    after = Home(folder, passage_tokens=20)
    stop, heard = threading.Event(), []
    stop.set()  # before the thread that rebuilds came to begin
    after.knowledge.rebuild(lambda done, doing: heard.append(doing), stop)
    assert heard == [] and after.knowledge.is_outdated()
    after.knowledge.stop()  # of nothing, and so it stops nothing that comes after it
    after.knowledge.rebuild()
    assert not after.knowledge.is_outdated()
    after.close()
    closed = Home(folder, passage_tokens=60)
    closed.knowledge.close()
    closed.knowledge.rebuild()
    assert closed.knowledge.is_outdated()
    closed.close()


def test_of_two_bounds_of_time_the_first_moment_is_in_the_scope_and_the_last_is_not(home: Home, tmp_path: Path):
    home.knowledge.add(write(tmp_path, "a.txt", "The harbour has cranes."))
    (entry,) = home.knowledge.documents()
    added, second = datetime.fromisoformat(entry.added), timedelta(seconds=1)
    found = {
        scope: bool(home.lexical.search("harbour", 5, scope))
        for scope in (
            Scope(added_after=added), Scope(added_after=added + second),
            Scope(added_before=added), Scope(added_before=added + second),
        )
    }  # fmt: skip
    assert list(found.values()) == [True, False, False, True]


def test_without_the_earlier_embedder_words_alone_are_searched_until_the_new_is_whole(folder: Path, tmp_path: Path):
    before = Home(folder, Hashing(64))
    before.knowledge.add(write(tmp_path, "manual.md", MANUAL))
    before.close()
    after = Home(folder, Hashing(128))
    assert after.dense.search("trains", 5) == []
    (found,) = after.lexical.search("trains", 5)
    assert after.dense.similarities("trains", [found[0]])[0] > 0.1
    after.knowledge.add(write(tmp_path, "more.md", "Ferries leave at noon."))
    assert after.dense.search("ferries", 5) == []
    after.knowledge.rebuild()
    assert "Ferries" in best(after, "ferries")
    after.check()
    after.close()


def test_documents_are_split_again_after_a_change_of_settings(folder: Path, tmp_path: Path):
    before = Home(folder, passage_tokens=20)
    text = "\n\n".join(f"Paragraph {n} " + "word " * 15 for n in range(8))
    id = before.knowledge.add(write(tmp_path, "long.txt", text)).document_id
    small = before.knowledge.add(write(tmp_path, "small.txt", "a small one")).document_id
    kept = before.catalogue.passage_ids(small)
    before.close()
    after = Home(folder, passage_tokens=60, passage_overlap=10)
    assert after.knowledge.is_outdated()
    after.knowledge.rebuild()
    assert not after.knowledge.is_outdated()
    assert len(after.catalogue.passage_ids(id)) < 8
    assert after.catalogue.passage_ids(small) == kept
    after.check()
    after.knowledge.delete(id)
    after.check()
    after.close()


def test_documents_of_an_earlier_version_get_their_pages_from_their_originals(folder: Path, tmp_path: Path):
    home = Home(folder)
    id = home.knowledge.add(write(tmp_path, "manual.md", MANUAL)).document_id
    ids = home.catalogue.passage_ids()
    home.catalogue.keep_split(id, [], "")  # as the migration leaves it
    assert home.knowledge.text(id) == ""
    home.knowledge.rebuild()
    assert home.knowledge.text(id) == MANUAL
    assert home.catalogue.passage_ids() == ids
    home.check()
    home.close()


@pytest.mark.usefixtures("quick")
def test_what_is_said_twice_is_found_once_with_the_first_document_that_lives(home: Home, tmp_path: Path):
    first = home.knowledge.add(write(tmp_path, "first.txt", "The  HARBOUR master is Ada Quayle.")).document_id
    home.knowledge.add(write(tmp_path, "second.txt", "The harbour master is Ada Quayle."))
    for number in range(20):
        home.knowledge.add(write(tmp_path, f"{number}.txt", f"The harbour has {number} cranes."))
    for search in (home.lexical.search, home.dense.search):
        found = home.named([id for id, _ in search("harbour master Ada Quayle", 10)])
        assert found[0] == "first.txt" and "second.txt" not in found and len(found) == 10
    home.knowledge.delete(first)
    for search in (home.lexical.search, home.dense.search):
        assert home.named([id for id, _ in search("harbour master Ada Quayle", 10)])[0] == "second.txt"


@pytest.mark.usefixtures("quick")
def test_a_scope_lets_through_what_is_in_it_and_as_much_as_there_is(home: Home, tmp_path: Path):
    for number in range(30):
        kind, where = ("md", "txt")[number % 2], ("default", "other")[number % 3 == 0]
        file = write(tmp_path, f"{number}.{kind}", f"The harbour has {number} cranes.")
        home.knowledge.add(file, collection=where)
    entries = home.knowledge.documents()
    moment = datetime.now(UTC)
    expected = {
        Scope(): entries,
        Scope(collections=("other",)): [each for each in entries if each.collection == "other"],
        Scope(kinds=("markdown",)): [each for each in entries if each.kind == "markdown"],
        Scope(collections=("other",), kinds=("text",)): [
            each for each in entries if each.collection == "other" and each.kind == "text"
        ],
        Scope(documents=(entries[4].id, entries[9].id)): [entries[4], entries[9]],
        Scope(languages=("en",)): entries,
        Scope(languages=("zh",)): [],
        Scope(added_after=moment + timedelta(hours=1)): [],
        Scope(added_before=moment + timedelta(hours=1), added_after=moment - timedelta(hours=1)): entries,
    }
    for scope, those in expected.items():
        for search in (home.lexical.search, home.dense.search):
            ranking = search("harbour cranes", 100, scope)
            assert {each.document_id for each in home.knowledge.passages([id for id, _ in ranking]).values()} == {
                each.id for each in those
            }
            assert [score for _, score in ranking] == sorted((score for _, score in ranking), reverse=True)
            assert len(search("harbour cranes", 3, scope)) == min(3, len(those))
    for search in (home.lexical.search, home.dense.search):
        with pytest.raises(UnknownCollection, match="nowhere"):
            search("harbour", 5, Scope(collections=("nowhere",)))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("shelf", ["default", "red"])
def test_a_collection_that_was_renamed_leaves_its_name_to_a_new_one(home: Home, tmp_path: Path, shelf: str):
    file = write(tmp_path, "a.txt", "The harbour has 3 cranes.")
    ids = set()
    for name in ("first", "second", "third"):
        assert home.knowledge.add(file, collection=shelf).status == "added"
        ids.add(home.knowledge.documents(shelf)[0].id)
        home.knowledge.rename_collection(shelf, name)
    assert len(ids) == 3
    assert home.knowledge.add(file, collection="second").status == "unchanged"
    home.check()


def best(home: Home, query: str) -> str:
    (passage,) = home.knowledge.passages([home.dense.search(query, 1)[0][0]]).values()
    return passage.text


def test_many_threads_add_replace_and_delete_at_once(home: Home, tmp_path: Path):
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            shared = write(tmp_path / str(number), "shared.txt", f"shared by {number}")
            own = home.knowledge.add(write(tmp_path, f"own-{number}.txt", f"owned by {number}"))
            home.knowledge.add(shared, replace=True)
            if number % 2:
                home.knowledge.delete(own.document_id)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {each.name for each in home.knowledge.documents()} == {"shared.txt", "own-0.txt", "own-2.txt", "own-4.txt"}
    home.check()


def test_the_default_embedder_finds_a_passage_by_its_meaning(folder: Path, tmp_path: Path):
    home = Home(folder, SentenceEmbedder(threads=1))
    home.knowledge.add(write(tmp_path, "manual.md", MANUAL))
    best = home.dense.search("How much vacation do employees get?", 1)[0][0]
    assert "thirty days" in home.knowledge.passages([best])[best].text
    home.close()


NAMES, WORDS, SHELVES = ("a.txt", "b.txt"), ("alpha", "beta", "gamma", "漢字"), ("default", "red", "blue")
SIZES = (64, 128)


class Dictionary(RuleBasedStateMachine):
    """The knowledge base is a dictionary: (collection, name) -> text, in the order of adding."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("chatbot.stores.read", plain)
        self.temporary = TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.texts: dict[tuple[str, str], str] = {}
        self.embedders = [Hashing(size) for size in SIZES]
        self.home = Home(self.folder, self.embedders[0])

    def teardown(self) -> None:
        self.home.close()
        self.patch.undo()
        self.temporary.cleanup()

    @rule(shelf=st.sampled_from(SHELVES), name=st.sampled_from(NAMES), word=st.sampled_from(WORDS))
    def add(self, shelf: str, name: str, word: str) -> None:
        file, there = self.write(name, word), self.texts.get((shelf, name))
        assert self.home.knowledge.compare(file, collection=shelf) == (
            "new" if there is None else "unchanged" if there == word else "taken"
        )
        if there in (None, word):
            outcome = self.home.knowledge.add(file, collection=shelf)
            assert outcome.status == ("added" if there is None else "unchanged")
            self.texts[shelf, name] = word
        else:
            with pytest.raises(NameTaken):
                self.home.knowledge.add(file, collection=shelf)

    @rule(shelf=st.sampled_from(SHELVES), name=st.sampled_from(NAMES), word=st.sampled_from(WORDS))
    def replace(self, shelf: str, name: str, word: str) -> None:
        there = self.texts.get((shelf, name))
        outcome = self.home.knowledge.add(self.write(name, word), collection=shelf, replace=True)
        assert outcome.status == ("added" if there is None else "unchanged" if there == word else "replaced")
        if there != word:
            self.texts.pop((shelf, name), None)
            self.texts[shelf, name] = word

    @rule(shelf=st.sampled_from(SHELVES), name=st.sampled_from(NAMES), word=st.sampled_from(WORDS))
    def keep(self, shelf: str, name: str, word: str) -> None:
        names = [name, *(f"{name[0]} ({n}).txt" for n in range(2, 99))]
        expected = next(each for each in names if self.texts.get((shelf, each), word) == word)
        outcome = self.home.knowledge.add(self.write(name, word), collection=shelf, keep=True)
        assert (outcome.name, outcome.status == "unchanged") == (expected, (shelf, expected) in self.texts)
        self.texts[shelf, expected] = word

    @precondition(lambda self: self.texts)
    @rule(choice=st.randoms(use_true_random=False))
    def delete(self, choice: Random) -> None:
        shelf, name = choice.choice(list(self.texts))
        entry = self.home.knowledge.find(name, shelf)
        assert entry is not None and self.home.knowledge.delete(entry.id) == entry
        del self.texts[shelf, name]

    @rule(shelf=st.sampled_from(SHELVES))
    def delete_collection(self, shelf: str) -> None:
        if shelf not in [each.name for each in self.home.knowledge.collections()]:
            with pytest.raises(UnknownCollection, match=shelf):
                self.home.knowledge.delete_collection(shelf)
            return
        gone = {key for key in self.texts if key[0] == shelf}
        assert {(each.collection, each.name) for each in self.home.knowledge.delete_collection(shelf)} == gone
        self.texts = {key: text for key, text in self.texts.items() if key not in gone}

    @rule(shelf=st.sampled_from(SHELVES), new=st.sampled_from(SHELVES))
    def rename_collection(self, shelf: str, new: str) -> None:
        names = [each.name for each in self.home.knowledge.collections()]
        if shelf in names and new not in names:
            self.home.knowledge.rename_collection(shelf, new)
            self.texts = {(new if key[0] == shelf else key[0], key[1]): text for key, text in self.texts.items()}
        elif shelf in names and new != shelf:
            with pytest.raises(NameTaken, match=new):
                self.home.knowledge.rename_collection(shelf, new)

    @rule()
    def restart(self) -> None:
        self.home.close()
        self.home = Home(self.folder, self.embedders[0], earlier=self.embedders[1])
        assert self.home.mended == []

    @rule()
    def change_the_embedder(self) -> None:
        """What the other embedder has made goes on serving, until `rebuild`."""
        self.embedders.reverse()
        self.restart()

    @rule()
    def rebuild(self) -> None:
        self.home.knowledge.rebuild()
        assert not self.home.knowledge.is_outdated()
        self.home.check()

    @invariant()
    def holds_what_the_dictionary_holds(self) -> None:
        held = {(each.collection, each.name) for each in self.home.knowledge.documents()}
        assert held == set(self.texts)
        assert {each.name: each.documents for each in self.home.knowledge.collections() if each.documents} == Counter(
            shelf for shelf, _ in self.texts
        )
        there = [each.name for each in self.home.knowledge.collections()]
        for scope in (Scope(), Scope(collections=tuple(there[:1])), Scope(collections=tuple(there[1:]))):
            self.finds(scope)

    def finds(self, scope: Scope) -> None:
        """Each text once, with the first document in the scope that has it."""
        first: dict[str, tuple[str, str]] = {}
        for (shelf, name), word in self.texts.items():
            if not scope.collections or shelf in scope.collections:
                first.setdefault(word, (shelf, name))
        for search in (self.home.lexical.search, self.home.dense.search):
            for word, query in (*((word, word) for word in WORDS), *((word, "common") for word in first)):
                k = 10 if query == "common" or search == self.home.lexical.search else 1
                passages = self.home.knowledge.passages([id for id, _ in search(query, k, scope)]).values()
                found = [self.home.catalogue.get(each.document_id) for each in passages]
                expected = set(first.values()) if query == "common" else {first[word]} if word in first else set()
                if k == 10 or word in first:
                    assert {(each.collection, each.name) for each in found} == expected
                    assert len(found) == len(expected)

    def write(self, name: str, word: str) -> Path:
        return write(self.folder / "incoming", name, f"{word} and what is common")


Dictionary.TestCase.settings = settings(max_examples=10, stateful_step_count=15, deadline=None)
TestDictionary = Dictionary.TestCase


class Fatal:
    """Ends this process without warning before the n-th step of writing: before or after a call, or half-way."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def around(self, part: Any) -> Any:
        fatal = self

        class Around:
            def __getattr__(self, name: str) -> Any:
                method = getattr(part, name)
                if name not in ("upsert", "add", "delete", "delete_ids", "scrub"):
                    return method

                def call(*values: Any, **named: Any) -> Any:
                    fatal.step()
                    done = method(*map(fatal.halting, values), **named)
                    fatal.step()
                    return done

                return call

        return Around()

    def halting(self, value: Any) -> Any:
        """A list of passages ends the process when its middle is reached: inside the transaction."""
        return Halting(self, value) if isinstance(value, list) and hasattr(value[0], "heading") else value


class Halting(list[Any]):
    def __init__(self, fatal: Fatal, values: list[Any]) -> None:
        super().__init__(values)
        self._fatal = fatal

    def __iter__(self) -> Iterator[Any]:
        for number, value in enumerate(super().__iter__()):
            if number == len(self) // 2:
                self._fatal.step()
            yield value


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_at_any_step_each_document_is_wholly_there_or_wholly_absent(tmp_path: Path):
    run = subprocess.run(
        [sys.executable, "-m", "tests.test_knowledge", str(tmp_path)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    # The version that is there after a kill before each step that writes, and after none.
    assert run.stdout.splitlines() == [
        "add: none none none none old old",
        "replace: old old old old new new new new new new",
        "delete: old none none none none none none",
    ]


def text_of(version: str) -> str:
    return f"# {version}\n\n" + "\n\n".join(f"{version} {n} " + "word " * 15 for n in range(8))


VERSIONS = ("old", "new")


def crash(folder: Path, operation: str) -> None:
    print(f"{operation}:", end="", flush=True)
    first, home = folder / operation, folder / "home"
    assert in_child(lambda: prepare(first, operation)) == 0
    for step in range(100):
        shutil.copytree(first, home)
        ended = in_child(lambda step=step: work(home, operation, step))
        assert in_child(lambda: print(f" {state(home)}", end="", flush=True)) == 0
        shutil.rmtree(home)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    print()


def prepare(folder: Path, operation: str) -> None:
    for version in VERSIONS:
        write(folder / version, "the.md", text_of(version))
    home = Home(folder, passage_tokens=20)
    home.knowledge.add(write(folder, "bystander.txt", "a bystander"))
    if operation != "add":
        home.knowledge.add(folder / "old" / "the.md")
    home.close()


def work(folder: Path, operation: str, steps: int) -> None:
    home = Home(folder, around=(fatal := Fatal(sys.maxsize)).around, passage_tokens=20)
    fatal.left = steps
    if operation == "delete":
        (the,) = [each for each in home.knowledge.documents() if each.name == "the.md"]
        home.knowledge.delete(the.id)
    else:
        home.knowledge.add(folder / ("old" if operation == "add" else "new") / "the.md", replace=True)
    home.knowledge.close()


def state(folder: Path) -> str:
    home = Home(folder)
    home.check()
    assert home.catalogue.find("bystander.txt")
    found = [name for name in VERSIONS if home.lexical.search(name, 100)]
    assert len(found) == len([each for each in home.knowledge.documents() if each.name == "the.md"]) <= 1
    if found:
        texts = home.knowledge.passages(home.catalogue.passage_ids(home.catalogue.find("the.md").id)).values()
        assert sum(f"{found[0]} {n} " in passage.text for n in range(8) for passage in texts) == 8
    return found[0] if found else "none"


def in_child(do: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        do()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    words("loads what each child would"), detect("load itself, once more and in English")
    pytest.MonkeyPatch().setattr("chatbot.stores.read", plain)
    for operation in ("add", "replace", "delete"):
        crash(Path(sys.argv[1]), operation)
