"""The queue over a real knowledge base. Run as a program, this module is the process that a test kills."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatbot import Chatbot, open_chatbot
from chatbot.errors import HomeDamaged, PackedFiles, UnreadableDocument
from chatbot.ingestion import Batch, Ingestion
from chatbot.knowledge import Outcome
from chatbot.progress import Progress

ROOT = Path(__file__).parent.parent


def open_here(home: Path) -> Chatbot:
    return open_chatbot(home, generator="scripted", embedder="hashing", sample=False)


@pytest.fixture
def chatbot(tmp_path: Path) -> Iterator[Chatbot]:
    with open_here(tmp_path / "home") as chatbot:
        yield chatbot


def write(folder: Path, name: str, text: str = "") -> tuple[Path, str]:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text or f"What {name} says of dogs.", "utf-8")
    return folder / name, name


def long_text(paragraphs: int) -> str:
    return "\n\n".join(
        f"Paragraph {n}. " + "There are thirty days of leave in every year. " * 12 for n in range(paragraphs)
    )


def states(ingestion: Ingestion) -> dict[str, str]:
    return {file.name: file.state for batch in ingestion.batches() for file in batch.files}


class Slow:
    """A knowledge base whose files take as long as the test likes: in ten steps, each of which it must allow."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.begun: list[str] = []
        self.added: list[str] = []
        self.into: dict[str, str] = {}  # which collection

    def add(
        self,
        file: str | Path,
        *,
        name: str | None,
        replace: bool,
        keep: bool,
        collection: str,
        progress: Progress,
        embedding: Callable[[int, int], None],
    ) -> Outcome:
        assert name and Path(file).read_text("utf-8")
        self.begun.append(name)
        progress(0.0, f"reading {name}")
        for step in range(10):
            embedding(4 * step, 40)
            progress(0.1 * step, "embedding")
            assert self.allowed.acquire(timeout=20)
        progress(0.95, f"storing {name}")
        self.added.append(name)
        self.into[name] = collection
        return Outcome(name, "added", "", "d1", 40)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Slow, Ingestion]]:
    knowledge = Slow()
    ingestion = Ingestion(knowledge, tmp_path / "queue", threads=1)
    yield knowledge, ingestion
    knowledge.allowed.release(10_000)
    ingestion.close()


def until(held: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not held():
        assert time.monotonic() < deadline, "it did not happen in 60 seconds"
        time.sleep(0.01)


def test_several_batches_go_in_at_once_and_every_file_tells_how_it_went(chatbot: Chatbot, tmp_path: Path):
    mine = [write(tmp_path / "mine", f"{n}.md") for n in range(4)]
    theirs = [write(tmp_path / "theirs", "a.md"), write(tmp_path / "theirs", "empty.md", " ")]
    chatbot.ingestion.submit(mine, owner="me")
    chatbot.ingestion.submit([*theirs, (tmp_path / "none", "none.md")], owner="they")
    assert chatbot.ingestion.wait(30)
    assert states(chatbot.ingestion) == {
        **dict.fromkeys(("0.md", "1.md", "2.md", "3.md", "a.md"), "added"),
        **dict.fromkeys(("empty.md", "none.md"), "failed"),
    }
    (batch,) = chatbot.ingestion.batches("they")
    assert [file.message[:24] for file in batch.files] == ["", "'empty.md' holds no text", "'none.md' cannot be copi"]
    assert batch.done and batch.files[0].passages == 1
    assert len(chatbot.knowledge.documents()) == 5
    assert [path.name for path in (tmp_path / "home" / "arriving").iterdir() if path.is_dir()] == []


def test_the_knowledge_base_says_how_many_passages_are_embedded(chatbot: Chatbot, tmp_path: Path):
    seen: set[tuple[str, int, int]] = set()
    chatbot.ingestion.submit([write(tmp_path / "in", "long.md", long_text(120))])
    while not chatbot.ingestion.wait(0):
        seen |= {(f.state, f.embedded, f.passages) for batch in chatbot.ingestion.batches() for f in batch.files}
    ((file,),) = (batch.files for batch in chatbot.ingestion.batches())
    assert file.passages >= 100 and file.embedded == file.passages
    between = [embedded for state, embedded, passages in seen if state == "embedding" and passages == file.passages]
    assert any(0 < embedded < file.passages for embedded in between)
    assert all(embedded % 32 == 0 or embedded == file.passages for embedded in between)


def test_batches_take_turns(slow: tuple[Slow, Ingestion], tmp_path: Path):
    knowledge, ingestion = slow
    ingestion.submit([write(tmp_path / "in", f"many{n}.md") for n in range(4)], owner="one")
    until(lambda: knowledge.begun)
    ingestion.submit([write(tmp_path / "in", "single.md")], owner="two")
    knowledge.allowed.release(1000)
    assert ingestion.wait(15)
    assert knowledge.begun == ["many0.md", "single.md", "many1.md", "many2.md", "many3.md"]


def test_a_snapshot_tells_the_rate_and_the_time_that_is_left(slow: tuple[Slow, Ingestion], tmp_path: Path):
    knowledge, ingestion = slow
    ingestion.submit([write(tmp_path / "in", f"{n}.md", "the same text") for n in range(3)])
    for _ in range(9):
        knowledge.allowed.release()
        time.sleep(0.1)  # 4 passages each
    until(lambda: ingestion.batches()[0].files[0].embedded == 36)
    (batch,) = ingestion.batches()
    assert 20 < batch.passages_per_s < 41 and not batch.done
    assert [file.state for file in batch.files] == ["embedding", "waiting", "waiting"]
    left = 84 / batch.passages_per_s  # 4 passages of this file; the others are as long
    assert batch.seconds_left == pytest.approx(left, rel=0.2)


def test_a_cancelled_batch_leaves_nothing_of_the_file_that_was_half_in(chatbot: Chatbot, tmp_path: Path):
    home, ingestion = tmp_path / "home", chatbot.ingestion
    batch = ingestion.submit([write(tmp_path / "in", f"{n}.md", long_text(3000)) for n in range(4)], owner="me")
    until(lambda: "embedding" in states(ingestion).values())
    ingestion.cancel(batch, owner="another")
    assert "cancelled" not in states(ingestion).values()
    ingestion.cancel(batch, owner="me")
    assert ingestion.wait(30)
    assert set(states(ingestion).values()) == {"cancelled"}
    assert chatbot.knowledge.documents() == [] and chatbot._store.ids() == set()
    assert list((home / "files").iterdir()) == []
    assert [path for path in (home / "arriving").iterdir() if path.is_dir()] == []


def test_a_taken_name_is_asked_about_and_the_answer_is_done(chatbot: Chatbot, tmp_path: Path):
    chatbot.knowledge.add(*write(tmp_path / "old", "a.md", "the first edition")[:1])
    chatbot.ingestion.submit([write(tmp_path / "in", "a.md", "the second edition")], owner="me")
    assert chatbot.ingestion.wait(15)
    (batch,) = chatbot.ingestion.batches()
    (file,) = batch.files
    assert file.state == "asking" and "'a.md' is there already" in file.message and batch.done
    chatbot.ingestion.answer(file.id, "replace", owner="another")
    assert states(chatbot.ingestion) == {"a.md": "asking"}
    chatbot.ingestion.answer(file.id, "replace", owner="me")
    assert chatbot.ingestion.wait(15)
    assert states(chatbot.ingestion) == {"a.md": "replaced"}
    assert [passage.text for passage in chatbot.knowledge.passages().values()] == ["the second edition"]


def test_both_are_kept_where_that_is_the_answer(chatbot: Chatbot, tmp_path: Path):
    chatbot.knowledge.add(*write(tmp_path / "old", "a.md", "the first edition")[:1])
    chatbot.ingestion.submit([write(tmp_path / "in", "a.md", "the second edition")], keep=True)
    assert chatbot.ingestion.wait(15)
    assert states(chatbot.ingestion) == {"a.md": "added"}
    assert {entry.name for entry in chatbot.knowledge.documents()} == {"a.md", "a (2).md"}


def test_the_files_of_a_zip_take_its_place(chatbot: Chatbot, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "papers.zip", "w") as packed:
        packed.writestr("in/one.md", "Cats sleep.")
        packed.writestr("two.md", "Dogs bark.")
        packed.writestr("empty.md", " ")
    chatbot.ingestion.submit([(tmp_path / "papers.zip", "papers.zip"), write(tmp_path / "in", "three.md")], owner="me")
    assert chatbot.ingestion.wait(30)
    assert states(chatbot.ingestion) == {
        "papers.zip/in/one.md": "added", "papers.zip/two.md": "added", "papers.zip/empty.md": "failed",
        "three.md": "added",
    }  # fmt: skip
    assert len(chatbot.ingestion.batches("me")) == 1
    assert [path for path in (tmp_path / "home" / "arriving").iterdir() if path.is_dir()] == []


def test_a_skipped_file_leaves_its_copy_nowhere(tmp_path: Path, chatbot: Chatbot):
    chatbot.knowledge.add(*write(tmp_path / "old", "a.md", "the first edition")[:1])
    chatbot.ingestion.submit([write(tmp_path / "in", "a.md", "the second edition")])
    assert chatbot.ingestion.wait(15)
    ((file,),) = (batch.files for batch in chatbot.ingestion.batches())
    chatbot.ingestion.answer(file.id, "skip")
    assert states(chatbot.ingestion) == {"a.md": "cancelled"}
    assert [path for path in (tmp_path / "home" / "arriving").iterdir() if path.is_dir()] == []


def test_a_bug_fails_its_file_alone(tmp_path: Path):
    class Broken:
        def add(self, file: object, *, name: str, **_: object) -> Outcome:
            if name == "bug.md":
                raise ZeroDivisionError("a secret path")
            raise UnreadableDocument(f"{name!r} is no good")

    ingestion = Ingestion(Broken(), tmp_path / "queue", threads=1)
    ingestion.submit([write(tmp_path / "in", name) for name in ("bug.md", "bad.md")])
    assert ingestion.wait(15)
    (batch,) = ingestion.batches()
    ingestion.close()
    assert "bug of ours" in batch.files[0].message and "secret" not in batch.files[0].message
    assert batch.files[1].message == "'bad.md' is no good"


def test_closing_keeps_what_is_not_in_for_the_next_start(slow: tuple[Slow, Ingestion], tmp_path: Path):
    knowledge, ingestion = slow
    ingestion.submit([write(tmp_path / "in", f"{n}.md") for n in range(3)], owner="me", move=True)
    assert list((tmp_path / "in").iterdir()) == []
    knowledge.allowed.release(12)
    until(lambda: knowledge.added)
    threading.Timer(0.2, lambda: knowledge.allowed.release(1000)).start()
    ingestion.close()
    assert knowledge.added == ["0.md"]
    again = Slow()
    again.allowed.release(1000)
    reopened = Ingestion(again, tmp_path / "queue", threads=1)
    assert reopened.wait(15)
    assert again.added == ["1.md", "2.md"]
    assert [batch.files[0].owner for batch in reopened.batches()] == ["me"]
    reopened.close()


def test_a_queue_of_an_earlier_version_opens_and_its_files_go_into_the_default_collection(tmp_path: Path):
    (tmp_path / "queue" / "f1").mkdir(parents=True)
    write(tmp_path / "queue" / "f1", "file")
    with sqlite3.connect(tmp_path / "queue" / "queue.sqlite") as store:
        store.execute(
            "CREATE TABLE files (place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, batch TEXT NOT NULL,"
            " owner TEXT NOT NULL, name TEXT NOT NULL, bytes INTEGER NOT NULL, choice TEXT NOT NULL,"
            " state TEXT NOT NULL, message TEXT NOT NULL, passages INTEGER NOT NULL)"
        )
        store.execute("INSERT INTO files VALUES (1, 'f1', 'b', 'me', 'a.md', 9, '', 'waiting', '', 0)")
    store.close()
    knowledge = Slow()
    knowledge.allowed.release(1000)
    ingestion = Ingestion(knowledge, tmp_path / "queue", threads=1)
    ingestion.submit([write(tmp_path / "in", "b.md")], owner="other", collection="handbook")
    assert ingestion.wait(15)
    ingestion.close()
    assert knowledge.into == {"a.md": "default", "b.md": "handbook"}


def test_a_web_address_is_fetched_when_its_turn_comes(tmp_path: Path):
    fetched: list[str] = []

    def fetch(address: str, into: Path) -> str:
        fetched.append(address)
        if "nowhere" in address:
            raise UnreadableDocument(f"{address!r} cannot be reached")
        into.write_text("Dogs may come.", "utf-8")
        return "not used"

    knowledge = Slow()
    ingestion = Ingestion(knowledge, tmp_path / "queue", threads=1, fetch=fetch)
    ingestion.submit_address("https://example.org/dogs", collection="web")
    until(lambda: knowledge.begun)
    ingestion.close()  # it is in nobody's hands now, but on disk
    knowledge.allowed.release(1000)
    reopened = Ingestion(knowledge, tmp_path / "queue", threads=1, fetch=fetch)
    reopened.submit_address("https://nowhere.example", owner="other")
    assert reopened.wait(15)
    assert states(reopened) == {"example.org/dogs": "added", "nowhere.example": "failed"}
    assert knowledge.into == {"example.org/dogs": "web"}
    assert fetched == ["https://example.org/dogs", "https://nowhere.example"]  # the first only once
    with pytest.raises(UnreadableDocument, match="no web address"):
        reopened.submit_address("example")
    reopened.close()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_what_was_handed_in_goes_in_though_the_process_is_killed(tmp_path: Path):
    home, names = tmp_path / "home", [f"{n}.md" for n in range(12)]
    for name in names:
        write(tmp_path / "in", name, f"{name}: {long_text(60)}")
    program = [sys.executable, __file__, str(home), str(tmp_path / "in")]
    killed = subprocess.Popen(program, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    assert killed.stdout and killed.stdout.readline().strip() == b"submitted"
    assert killed.stdout.readline().strip() == b"some are in"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    with open_here(home) as chatbot:
        before = {entry.name for entry in chatbot.knowledge.documents()}
        assert 0 < len(before) < len(names)
        assert chatbot.ingestion.wait(60)
        assert {entry.name for entry in chatbot.knowledge.documents()} == set(names)
        assert chatbot._store.ids() == set(chatbot.knowledge.passages())
        assert set(states(chatbot.ingestion).values()) <= {"added", "unchanged"}
    assert [path for path in (home / "arriving").iterdir() if path.is_dir()] == []


def _submit_and_wait_to_be_killed(home: Path, folder: Path) -> None:
    with open_here(home) as chatbot:
        chatbot.ingestion.submit([(path, path.name) for path in sorted(folder.iterdir())], move=True)
        print("submitted", flush=True)
        while not any(state == "added" for state in states(chatbot.ingestion).values()):
            time.sleep(0.001)
        print("some are in", flush=True)
        chatbot.ingestion.wait()


def test_a_batch_is_done_only_when_nothing_happens_by_itself(slow: tuple[Slow, Ingestion], tmp_path: Path):
    knowledge, ingestion = slow
    first = ingestion.submit([write(tmp_path / "in", "a.md")], owner="me")
    until(lambda: knowledge.begun)
    second = ingestion.submit([write(tmp_path / "in", "b.md")], owner="me")
    assert [batch.id for batch in ingestion.batches()] == [first, second]  # the first is not done
    knowledge.allowed.release(1000)
    assert ingestion.wait(15)
    third = ingestion.submit([write(tmp_path / "in", "c.md")], owner="me")
    shown: tuple[Batch, ...] = ingestion.batches()
    assert [batch.id for batch in shown] == [third]


class Raising:
    """A knowledge base that raises what a file's name says, and takes every other."""

    errors: dict[str, BaseException] = {  # noqa: RUF012
        "memory.md": MemoryError(),
        "locked.md": sqlite3.OperationalError("database is locked"),
        "io.md": OSError(errno.EIO, "Input/output error"),
        "panic.md": BaseException("a panic in Rust"),
    }

    def add(self, file: object, *, name: str, **_: object) -> Outcome:
        if name in self.errors:
            raise self.errors[name]
        return Outcome(name, "added", "", "d1", 1)


def test_whatever_is_raised_ends_the_file_with_one_line_and_the_thread_goes_on(tmp_path: Path):
    ingestion = Ingestion(Raising(), tmp_path / "queue", threads=1)
    ingestion.submit([write(tmp_path / "in", name) for name in (*Raising.errors, "last.md")])
    assert ingestion.wait(15)
    (batch,) = ingestion.batches()
    ingestion.close()
    assert [file.state for file in batch.files] == ["failed"] * 4 + ["added"]
    assert all(file.message and "\n" not in file.message for file in batch.files[:4])


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "Input/output error"), MemoryError(), KeyError("x"), sqlite3.OperationalError("locked")],
    ids=lambda error: type(error).__name__,
)
def test_zips_that_cannot_be_unpacked_fail_and_the_queue_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    class Packed(Raising):
        def add(self, file: object, *, name: str, **_: object) -> Outcome:
            if name.endswith(".zip"):
                raise PackedFiles(name)
            return super().add(file, name=name)

    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("chatbot.ingestion.unpack", failing)
    ingestion = Ingestion(Packed(), tmp_path / "queue", threads=3)
    ingestion.submit([write(tmp_path / "in", name) for name in ("a.zip", "b.zip", "c.zip")])
    assert ingestion.wait(15)
    ingestion.submit([write(tmp_path / "in", "last.md")], owner="another")
    assert ingestion.wait(15)
    found = states(ingestion)
    ingestion.close()
    assert found == {"a.zip": "failed", "b.zip": "failed", "c.zip": "failed", "last.md": "added"}
    assert [path for path in (tmp_path / "queue").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_file_for_which_there_is_no_room_waits_and_goes_in_when_there_is(tmp_path: Path, code: int):
    class Full(Raising):
        tries = 0

        def add(self, file: object, *, name: str, **_: object) -> Outcome:
            self.tries += 1
            if self.tries == 1:
                raise OSError(code, os.strerror(code))
            return super().add(file, name=name)

    ingestion = Ingestion(Full(), tmp_path / "queue", threads=1)
    ingestion.submit([write(tmp_path / "in", "a.md")])
    until(lambda: "the disk is full" in ingestion.batches()[0].files[0].message)
    assert states(ingestion) == {"a.md": "waiting"}
    assert ingestion.wait(15)
    (file,) = ingestion.batches()[0].files
    ingestion.close()
    assert (file.state, file.message) == ("added", "")


def test_a_file_that_asks_and_one_that_was_answered_are_there_still_after_a_restart(tmp_path: Path):
    with open_here(tmp_path / "home") as first:
        for name in ("a.md", "b.md"):
            first.knowledge.add(*write(tmp_path / "old", name, "the first edition")[:1])
        first.ingestion.submit([write(tmp_path / "in", name, "the second") for name in ("a.md", "b.md")], owner="me")
        assert first.ingestion.wait(15)
        assert states(first.ingestion) == {"a.md": "asking", "b.md": "asking"}
    with open_here(tmp_path / "home") as again:
        assert states(again.ingestion) == {"a.md": "asking", "b.md": "asking"}
        (batch,) = again.ingestion.batches("me")
        again.ingestion._closed = True  # nothing is begun any more
        for file, choice in zip(batch.files, ("replace", "keep"), strict=True):
            again.ingestion.answer(file.id, choice, owner="me")
    with open_here(tmp_path / "home") as last:
        assert last.ingestion.wait(15)
        assert states(last.ingestion) == {"a.md": "replaced", "b.md": "added"}
        assert {entry.name for entry in last.knowledge.documents()} == {"a.md", "b.md", "b (2).md"}


def test_a_file_that_asks_outlives_the_next_files_of_its_owner(chatbot: Chatbot, tmp_path: Path):
    chatbot.knowledge.add(*write(tmp_path / "old", "a.md", "the first edition")[:1])
    chatbot.ingestion.submit([write(tmp_path / "in", "a.md", "the second edition")], owner="me")
    assert chatbot.ingestion.wait(15)
    chatbot.ingestion.submit([write(tmp_path / "in", "b.md")], owner="me")
    assert chatbot.ingestion.wait(15)
    assert states(chatbot.ingestion) == {"a.md": "asking", "b.md": "added"}


def test_a_cancelled_file_says_so_at_once_and_is_not_begun_anew_after_a_kill(
    slow: tuple[Slow, Ingestion], tmp_path: Path
):
    knowledge, ingestion = slow
    batch = ingestion.submit([write(tmp_path / "in", name) for name in ("a.md", "b.md")])
    until(lambda: "embedding" in states(ingestion).values())
    ingestion.cancel(batch)
    assert states(ingestion) == {"a.md": "cancelling", "b.md": "cancelled"}
    assert not ingestion.batches()[0].done
    with sqlite3.connect(tmp_path / "queue" / "queue.sqlite") as beside:  # what a kill would leave
        assert {state for (state,) in beside.execute("SELECT state FROM files")} == {"cancelled"}
    beside.close()
    knowledge.allowed.release(1000)
    assert ingestion.wait(15)
    assert states(ingestion) == {"a.md": "cancelled", "b.md": "cancelled"} and knowledge.added == []


def test_a_queue_of_a_later_version_is_refused_in_one_line_and_left_as_it_is(tmp_path: Path):
    with open_here(tmp_path / "home") as chatbot:
        chatbot.ingestion.submit([write(tmp_path / "in", "a.md")])
        assert chatbot.ingestion.wait(15)
    queue = tmp_path / "home" / "arriving" / "queue.sqlite"
    with sqlite3.connect(queue) as later:
        later.execute("PRAGMA user_version = 7")
    later.close()
    before = contents(tmp_path / "home")
    with pytest.raises(HomeDamaged, match=r"queue\.sqlite' is of version 7.*update it") as error:
        open_here(tmp_path / "home")
    assert "\n" not in str(error.value)
    assert contents(tmp_path / "home") == before


def contents(folder: Path) -> dict[str, bytes]:
    """Of every file but those that tell which process has the home."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in ("lock", "owner"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


if __name__ == "__main__":
    _submit_and_wait_to_be_killed(Path(sys.argv[1]), Path(sys.argv[2]))


def test_a_file_that_waits_for_an_answer_waits_after_a_restart_too(chatbot: Chatbot, tmp_path: Path):
    chatbot.knowledge.add(*write(tmp_path / "old", "a.md", "the first edition")[:1])
    one = Ingestion(chatbot.knowledge, tmp_path / "queue", threads=1)
    one.submit([write(tmp_path / "in", "a.md", "the second edition")])
    assert one.wait(15)
    one.close()
    for answer, text in (("", "the first edition"), ("replace", "the second edition")):
        again = Ingestion(chatbot.knowledge, tmp_path / "queue", threads=1)
        assert states(again) == {"a.md": "asking"}
        if answer:
            again.answer(again.batches()[0].files[0].id, "replace")
        assert again.wait(15)
        again.close()
        assert [passage.text for passage in chatbot.knowledge.passages().values()] == [text]
