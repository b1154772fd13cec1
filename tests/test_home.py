"""A home as a whole: one of version 0.1.0, as its code wrote it; and one whose disk is full. Run as a program, this
module is the process that is killed while it takes over the first.

`home-0.1.0` holds the two databases as SQL; the vectors are left out, which are computed again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from chatbot import Chatbot, open_chatbot
from chatbot.catalogue import Catalogue
from chatbot.errors import DiskFull, HomeDamaged
from chatbot.ingestion import Ingestion
from tests.conftest import fill

OLD = Path(__file__).parent / "home-0.1.0"
ROOT = Path(__file__).parent.parent


@pytest.fixture
def old(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    shutil.copytree(OLD, home)
    for sql, database in (("catalogue.sql", "catalogue.sqlite"), ("queue.sql", "arriving/queue.sqlite")):
        store = sqlite3.connect(home / database)
        store.executescript((home / sql).read_text("utf-8"))
        store.close()
        (home / sql).unlink()
    return home


def open_here(home: Path, **chosen: Any) -> Chatbot:
    return open_chatbot(home, **{"generator": "scripted", "embedder": "hashing", "sample": False} | chosen)


def headings(chatbot: Chatbot, name: str) -> list[str]:
    entry = chatbot.knowledge.find(name)
    assert entry is not None
    return [passage.heading for passage in chatbot._catalogue.passages_of(entry.id)]


def test_everything_of_a_home_of_0_1_0_is_found_in_it(old: Path):
    with open_here(old) as chatbot:
        assert {(each.collection, each.name) for each in chatbot.knowledge.documents()} == {
            ("default", "travel.pdf"), ("default", "manual.md"), ("handbook", "notes.txt"),
        }  # fmt: skip
        assert headings(chatbot, "manual.md") == ["Leave", "Travel"]
        assert headings(chatbot, "travel.pdf") == ["", "Not on the page"]
        assert [title for _, title, _ in chatbot.history.list()] and len(chatbot.history.list()) == 2
        first = chatbot.history.load("first")
        assert first is not None and len(first.turns) == 2
        assert chatbot.ingestion.wait(30)
        found = {file.name: file for batch in chatbot.ingestion.batches() for file in batch.files}
        assert {name: file.state for name, file in found.items()} == {"manual.md": "asking", "later.md": "added"}
        chatbot.ingestion.answer(found["manual.md"].id, "replace")
        assert chatbot.ingestion.wait(30)
        manual = chatbot.knowledge.find("manual.md")
        assert manual is not None and "forty days" in chatbot.knowledge.text(manual.id)
        assert [entry.name for entry in chatbot.knowledge.documents("handbook")] == ["later.md", "notes.txt"]
        assert chatbot.knowledge.verify() == ([], [])


@pytest.mark.parametrize("lost", [False, True], ids=["headings there", "headings lost already"])
def test_a_pdf_of_0_1_0_has_its_headings_after_a_change_of_settings(old: Path, lost: bool):
    if lost:
        store = sqlite3.connect(old / "catalogue.sqlite")
        with store:
            store.execute("UPDATE passages SET heading = '' WHERE document_id LIKE '4ca8%'")
        store.close()
    for tokens in (160, 20, 40):  # the second change finds them in the catalogue
        with open_here(old, passage_tokens=tokens) as chatbot:
            chatbot.finish_rebuilding()
            found = headings(chatbot, "travel.pdf")
            assert found == (
                ["", "Leave › Unused days", "Not on the page"] if tokens == 20 else ["", "Not on the page"]
            )
        for original in (old / "files").glob("4ca8*/original.pdf"):
            if tokens == 20:
                original.write_bytes(b"no longer needed")


def test_where_the_original_is_gone_a_pdf_of_0_1_0_stays_split_as_it_is(old: Path):
    next((old / "files").glob("4ca8*/original.pdf")).unlink()
    with open_here(old, passage_tokens=20) as chatbot:
        chatbot.finish_rebuilding()
        assert not chatbot.knowledge.is_outdated()
        assert headings(chatbot, "travel.pdf") == ["", "Not on the page"]
        entry = chatbot.knowledge.find("travel.pdf")
        assert entry is not None and "Thirty days." in chatbot.knowledge.text(entry.id, 1)


def test_a_catalogue_of_a_later_version_is_refused_in_one_line_and_left_as_it_is(old: Path):
    open_here(old).close()
    store = sqlite3.connect(old / "catalogue.sqlite")
    store.execute("PRAGMA user_version = 99")
    store.close()
    before = contents(old)
    with pytest.raises(HomeDamaged, match=r"catalogue\.sqlite' is of version 99.*update it") as error:
        open_here(old)
    assert "\n" not in str(error.value) and contents(old) == before


def contents(folder: Path) -> dict[str, bytes]:
    """Of every file but those that tell which process has the home."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in ("lock", "owner"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_killed_at_any_statement_of_being_taken_over_a_home_of_0_1_0_opens(old: Path, tmp_path: Path):
    command = [sys.executable, "-m", "tests.test_home"]
    dying = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for database in ("catalogue", "queue"):
        for statement in range(1, 100):
            shutil.copytree(old, home := tmp_path / f"{database}-{statement}")
            print(database, statement, home, file=dying.stdin, flush=True)
            ended = int(dying.stdout.readline())
            assert ended in (0, -signal.SIGKILL)
            catalogue = Catalogue(home / "catalogue.sqlite")
            assert len(catalogue.documents()) == 3 and catalogue.faults() == []
            catalogue.close()
            take_over("queue", home)
            if ended == 0:
                break
        assert statement > 5
    dying.communicate()


def take_over(database: str, home: Path) -> None:
    if database == "catalogue":
        Catalogue(home / "catalogue.sqlite").close()
        return
    queue = Ingestion(None, home / "arriving", threads=0)  # type: ignore[arg-type]
    assert {file.state for batch in queue.batches() for file in batch.files} == {"asking", "waiting"}
    queue.close()


@pytest.mark.parametrize("leave", [0, 50_000, 150_000, 300_000])
def test_on_a_full_disk_nothing_is_lost_and_files_go_in_when_there_is_room(
    small_disk: Path, tmp_path: Path, leave: int
):
    names = [f"{n}.txt" for n in range(4)]
    for name in ("before.txt", *names):
        text = "\n\n".join(f"{name} {n} " + "word " * 60 for n in range(60))
        (tmp_path / name).write_text(text, "utf-8")
    with open_here(small_disk / "home") as chatbot:
        chatbot.knowledge.add(tmp_path / "before.txt")
        chatbot.ingestion.submit([])  # the queue is there
        filler = fill(small_disk, leave)
        for name in names:
            try:
                chatbot.knowledge.add(tmp_path / name)
            except DiskFull as error:
                assert "is full: make room" in str(error) and "\n" not in str(error)
        chatbot.ingestion.submit([(tmp_path / name, name) for name in names], owner="full")
        time.sleep(2)
        files = [file for batch in chatbot.ingestion.batches() for file in batch.files]
        assert all("full" in f.message for f in files if f.state in ("waiting", "failed")), files
        assert chatbot.knowledge.find("before.txt")
        filler.unlink()
        assert chatbot.ingestion.wait(60)
        chatbot.ingestion.submit([(tmp_path / name, name) for name in names], owner="again")  # those not taken in
        assert chatbot.ingestion.wait(60)
        assert {entry.name for entry in chatbot.knowledge.documents()} == {"before.txt", *names}
        assert chatbot.knowledge.verify() == ([], [])


class Dying(sqlite3.Connection):
    """Ends the process before its so many-th statement."""

    left = 0

    def execute(self, *values: Any) -> sqlite3.Cursor:
        Dying.left -= 1
        if Dying.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*values)


def die(database: str, statement: int, home: Path) -> int:
    """How a process ended that took a home over until then. It is forked, which spares it the loading of all this."""
    process = os.fork()
    if process == 0:
        connect = sqlite3.connect
        sqlite3.connect = lambda *values, **named: connect(*values, factory=Dying, **named)  # type: ignore[assignment, misc]
        Dying.left = statement
        try:
            take_over(database, home)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        name, number, place = line.rstrip("\n").split(" ", 2)
        print(die(name, int(number), Path(place)), flush=True)
