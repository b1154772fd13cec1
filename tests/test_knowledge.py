"""The knowledge base over its real parts. Run as a program, this module is the process that the crash test kills."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.catalogue import Catalogue
from chatbot.embedders.base import Embedder
from chatbot.embedders.hashing import Hashing
from chatbot.embedders.sentence import SentenceEmbedder
from chatbot.errors import NameTaken, UnknownDocument, UnreadableDocument
from chatbot.index.chroma import Chroma, Dense
from chatbot.index.lexical import Lexical
from chatbot.knowledge import KnowledgeBase, Outcome


class Home:
    """A knowledge base and what it is made of, as the assembly puts it together."""

    def __init__(
        self,
        folder: Path,
        embedder: Embedder | None = None,
        around: Callable[[Any], Any] = lambda part: part,
        **sizes: int,
    ) -> None:
        self.files = folder / "files"
        self.embedder = embedder or Hashing()
        self.catalogue = Catalogue(folder / "catalogue.db")
        self.store = Chroma(folder / "chroma", self.embedder.fingerprint, self.catalogue.identity)
        self.knowledge = KnowledgeBase(around(self.catalogue), around(self.store), self.embedder, self.files, **sizes)
        self.knowledge.reconcile()
        self.lexical = Lexical(self.catalogue)
        self.dense = Dense(self.embedder, self.store)

    def close(self) -> None:
        self.store.close()
        self.catalogue.close()

    def named(self, ids: list[str]) -> list[str]:
        return [passage.document for passage in self.knowledge.passages(ids).values()]

    def check(self) -> None:
        """Catalogue, vectors, lexical index and files hold the same documents, each wholly."""
        documents = self.knowledge.documents()
        ids = self.catalogue.passage_ids()
        assert len(ids) == sum(each.passages for each in documents)
        assert self.store.ids() == set(ids)
        assert {id for id, _ in self.lexical.search(" ".join(each.name for each in documents), 10_000)} == set(ids)
        assert sorted(folder.name for folder in self.files.glob("*")) == sorted(each.id for each in documents)
        assert all(len(list((self.files / each.id).iterdir())) == 1 for each in documents)


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
        for query, words in (("days of leave", "thirty days"), ("trains", "preferred"), ("年假有几天", "三十天")):
            best = search(query, 1)[0][0]
            assert words in home.knowledge.passages([best])[best].text
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


def test_after_a_change_of_embedder_every_passage_is_embedded_anew(folder: Path, tmp_path: Path):
    before = Home(folder, Hashing(64))
    before.knowledge.add(write(tmp_path, "manual.md", MANUAL))
    before.close()
    after = Home(folder, Hashing(128))
    after.check()
    assert after.store.vectors(after.catalogue.passage_ids()).shape[1] == 128
    after.close()


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


NAMES, WORDS = ("a.txt", "b.txt", "c.txt"), ("alpha", "beta", "gamma", "漢字")
OPERATIONS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(NAMES), st.sampled_from(WORDS), st.booleans()),
    st.tuples(st.just("delete"), st.sampled_from(NAMES)),
    st.tuples(st.just("restart")),
)


@settings(max_examples=10, deadline=None)
@given(operations=st.lists(OPERATIONS, min_size=3, max_size=8))
def test_whatever_is_done_the_knowledge_base_is_a_dictionary(tmp_path_factory, operations: list[tuple[Any, ...]]):
    folder = tmp_path_factory.mktemp("home")
    home, model = Home(folder), dict[str, str]()
    for operation in operations:
        match operation:
            case ("add", name, word, replace):
                file = write(folder / "incoming", name, f"{word} and what is common")
                if model.get(name, word) != word and not replace:
                    with pytest.raises(NameTaken):
                        home.knowledge.add(file)
                else:
                    home.knowledge.add(file, replace=replace)
                    model[name] = word
            case ("delete", name):
                for entry in [each for each in home.knowledge.documents() if each.name == name]:
                    home.knowledge.delete(entry.id)
                model.pop(name, None)
            case ("restart",):
                home.close()
                home = Home(folder)
        home.check()
        assert {each.name for each in home.knowledge.documents()} == set(model)
        for word in WORDS:
            holding = {name for name in model if model[name] == word}
            assert set(home.named([id for id, _ in home.lexical.search(word, 10)])) == holding
            assert set(home.named([id for id, _ in home.dense.search(word, len(holding))])) == holding
    home.close()


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
                if name not in ("upsert", "add", "delete", "scrub"):
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
        "replace: old old old old new new new new",
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
    for operation in ("add", "replace", "delete"):
        crash(Path(sys.argv[1]), operation)
