"""Splitting in a process of its own: the same passages, under limits, and nothing left of it afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from chatbot.embedders.hashing import Hashing
from chatbot.errors import UnreadableDocument
from chatbot.ingestion import Ingestion
from chatbot.language import detect
from chatbot.parse import read
from chatbot.passage import Document, Heading, Page
from chatbot.split import split
from chatbot.splitter import Splitter
from tests.test_ingestion import states
from tests.test_knowledge import Home, write
from tests.test_parse import OUTLINED, pdf_of
from tests.test_split import LIMIT, TEXT, WORDS

ROOT = Path(__file__).parent.parent
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which processes there are")


def stalling() -> Tokenizer:
    """It takes an eighth of a second for each word of 23 times "x", and no time for any other."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?:x+x+)+y|\w+"), "removed", invert=True)
    return tokenizer


class Stalling(Hashing):
    @property
    def tokenizer(self) -> Tokenizer:
        return stalling()


STALLS = ("x" * 23 + " ") * 2_000
PANICS = "x" * 30  # Onig gives up after ten million steps, which `tokenizers` takes for a bug


def document(text: str, kind: str = "text", name: str = "a") -> Document:
    return Document(name, kind, (Page(text),))


@pytest.fixture(scope="module")
def words() -> Iterator[Splitter]:
    splitter = Splitter(lambda: WORDS)
    yield splitter
    splitter.close()


@pytest.fixture
def splitter() -> Iterator[Splitter]:
    splitter = Splitter(stalling)
    yield splitter
    splitter.close()


def processes(parent: int | None = None) -> set[int]:
    """That split, of this one or another."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = (place / "cmdline").read_bytes()
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if b"chatbot.splitter" in line and fields[0] != "Z" and int(fields[1]) == (parent or os.getpid()):
            found.add(int(place.name))
    return found


def until(held: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not held():
        assert time.monotonic() < deadline, f"it did not happen in {seconds} seconds"
        time.sleep(0.02)


def headings(text: str) -> tuple[Heading, ...]:
    """As of a PDF's outline."""
    places = enumerate(range(0, len(text), 40))
    return tuple(Heading(n % 3 + 1, f"T{n}", place, min(place + 3, len(text))) for n, place in places)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(TEXT, min_size=1, max_size=3),
    st.sampled_from(["markdown", "text", "pdf"]),
    st.sampled_from([(LIMIT, 0), (LIMIT, 5), (7, 2)]),
)
def test_the_passages_are_those_of_splitting_here(words: Splitter, pages: list[str], kind: str, limits):
    numbered = [(text, n) if kind == "pdf" else (text, None) for n, text in enumerate(pages, start=1)]
    made = Document("a", kind, tuple(Page(text, n, headings(text) if n else ()) for text, n in numbered))
    found, language = words.split(made, "d", max_tokens=limits[0], overlap=limits[1])
    assert found == split(made, "d", max_tokens=limits[0], tokenizer=WORDS, overlap=limits[1])
    assert language == detect("".join(pages)[:5_000])


def test_real_documents_are_split_and_told_apart_as_here(tmp_path: Path, words: Splitter):
    (tmp_path / "outlined.pdf").write_bytes(pdf_of(*OUTLINED))
    files = [*sorted((ROOT / "data").glob("*/*.md")), ROOT / "README.md", tmp_path / "outlined.pdf"]
    tokenizer = Hashing().tokenizer
    hashing = Splitter(lambda: tokenizer)
    for file in files:
        made = read(file, file.name, max_bytes=10_000_000)
        for splitter, its in ((words, WORDS), (hashing, tokenizer)):
            found, language = splitter.split(made, "d", max_tokens=160, overlap=0)
            assert found == split(made, "d", max_tokens=160, tokenizer=its)
            assert language == ("zh" if file.parent.name == "zh" else "en")
    hashing.close()


def test_control_characters_go_there_and_back_and_a_lone_surrogate_is_one_line(words: Splitter):
    made = document("a\n\n\x00\x1b[2J\r\nb \u2028\x85\ufffe", name="\udcff.txt")
    assert words.split(made, "d", max_tokens=LIMIT, overlap=0)[0] == split(made, "d", max_tokens=LIMIT, tokenizer=WORDS)
    with pytest.raises(UnreadableDocument, match=r"^'a' could not be split into passages \(UnicodeEncodeError"):
        words.split(document("a \ud800 b"), "d", max_tokens=LIMIT, overlap=0)  # parsing leaves none


@on_linux
def test_one_process_serves_one_document_after_another_and_ends_when_it_is_idle():
    others, splitter = processes(), Splitter(lambda: WORDS, idle_s=1)
    splitter.split(document("one"), "d", max_tokens=LIMIT, overlap=0)
    first = processes()
    splitter.split(document("two"), "d", max_tokens=LIMIT, overlap=3)
    assert processes() == first and len(first - others) == 1
    until(lambda: not processes() - others)
    assert splitter.split(document("three"), "d", max_tokens=LIMIT, overlap=0)[0][0].text == "three"
    splitter.close()
    assert not processes() - others


def test_a_text_that_stalls_is_given_up_and_the_next_is_split(splitter: Splitter):
    started = time.monotonic()
    with pytest.raises(UnreadableDocument) as refused:
        splitter.split(document(STALLS, name="evil.txt"), "d", max_tokens=20, overlap=0, timeout_s=1)
    assert str(refused.value) == (
        "'evil.txt' could not be split into passages within 11 seconds: split it into smaller files"
    )
    assert time.monotonic() - started < 20
    assert splitter.split(document("words"), "d", max_tokens=20, overlap=0)[0][0].text == "words"


@on_linux
def test_what_the_check_raises_ends_the_splitting_at_once(splitter: Splitter):
    class Enough(Exception):
        pass

    others, started = processes(), time.monotonic()

    def check() -> None:
        if time.monotonic() - started > 1:
            raise Enough

    with pytest.raises(Enough):
        splitter.split(document(STALLS), "d", max_tokens=20, overlap=0, check=check)
    assert time.monotonic() - started < 5
    assert not processes() - others


@on_linux
def test_a_process_that_is_killed_is_started_anew_once(splitter: Splitter):
    others = processes()
    splitter.split(document("words"), "d", max_tokens=20, overlap=0)
    (idle,) = processes() - others
    os.kill(idle, signal.SIGKILL)
    assert splitter.split(document("words"), "d", max_tokens=20, overlap=0)[1] == "en"
    killed: set[int] = set()

    def check() -> None:
        for process in processes() - others - killed:
            killed.add(process)
            os.kill(process, signal.SIGKILL)

    with pytest.raises(UnreadableDocument, match=r"^'a' could not be split into passages, its process ended \(exit -9"):
        splitter.split(document(STALLS), "d", max_tokens=20, overlap=0, check=check)
    assert len(killed) == 2


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the system has no limit on memory to set")
def test_a_text_that_takes_too_much_memory_is_given_up():
    splitter = Splitter(lambda: WORDS, max_memory_bytes=120_000_000)
    with pytest.raises(UnreadableDocument, match=r"^'a' (needs too much memory|could not be split into passages, its)"):
        splitter.split(document("word\n" * 6_000_000, "markdown"), "d", max_tokens=20, overlap=0)
    splitter.close()


def test_headings_many_times_as_long_as_the_text_are_refused(words: Splitter):
    deep = "".join(f"{'#' * level} {'long ' * 90}\n\n" for level in range(1, 6))
    text = deep + "".join(f"###### {n}\n\nb\n\n" for n in range(1_000))
    with pytest.raises(UnreadableDocument, match="'a' has too many long headings for its text: shorten them"):
        words.split(document(text, "markdown"), "d", max_tokens=LIMIT, overlap=0)


PROGRAM = """
from tests.test_splitter import STALLS, Splitter, document, stalling
Splitter(stalling).split(document(STALLS), "d", max_tokens=20, overlap=0)
"""


@on_linux
def test_the_process_ends_with_its_parent_whatever_it_does():
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT)
    until(lambda: processes(parent.pid), 60)
    (at_work,) = processes(parent.pid)
    time.sleep(2)  # it has the text by then, and is in native code
    parent.kill()
    parent.wait()
    until(lambda: not Path(f"/proc/{at_work}").exists(), 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_a_file_that_stalls_holds_up_no_other_and_is_given_up_at_once_when_it_is_cancelled(folder: Path):
    home = Home(folder, Stalling())
    ingestion = Ingestion(home.knowledge, folder / "queue")
    evil = ingestion.submit([(write(folder / "in", "evil.txt", STALLS), "evil.txt")], owner="they")
    until(lambda: states(ingestion) == {"evil.txt": "reading"})
    for n in range(5):
        ingestion.submit([(write(folder / "in", f"{n}.txt", f"words {n}"), f"{n}.txt")], owner=f"{n}")
    until(lambda: [*states(ingestion).values()].count("added") == 5)
    assert states(ingestion)["evil.txt"] == "reading"
    ingestion.cancel(evil)
    assert ingestion.wait(3) and states(ingestion)["evil.txt"] == "cancelled"
    ingestion.close()
    home.check()
    home.close()


def test_a_file_that_cannot_be_split_leaves_one_line_and_nothing_else(folder: Path, tmp_path: Path):
    home = Home(folder, Stalling())
    with pytest.raises(UnreadableDocument, match=r"^'evil.txt' could not be split into passages, its proc"):
        home.knowledge.add(write(tmp_path, "evil.txt", PANICS))
    assert home.knowledge.add(write(tmp_path, "good.txt", "words")).status == "added"
    home.check()
    home.close()


def test_a_document_that_cannot_be_split_again_stays_as_it_is_and_is_not_tried_at_each_start(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    before = Home(folder, passage_tokens=20)
    before.knowledge.add(write(tmp_path, "evil.txt", PANICS + " word" * 100))
    good = before.knowledge.add(write(tmp_path, "good.txt", "word " * 100)).document_id
    kept = set(before.catalogue.passage_ids()) - set(before.catalogue.passage_ids(good))
    before.close()
    after = Home(folder, Stalling(), passage_tokens=60)
    assert after.knowledge.is_outdated()
    after.knowledge.rebuild()
    assert "'evil.txt' stays split as it is: 'evil.txt' could not be split into passages, its proc" in caplog.text
    assert kept <= set(after.catalogue.passage_ids()) and len(after.catalogue.passage_ids(good)) < len(kept)
    assert not after.knowledge.is_outdated()
    after.check()
    after.close()


@on_linux
def test_a_document_whose_process_was_killed_is_split_again_at_the_next_start(folder: Path, tmp_path: Path):
    before = Home(folder, passage_tokens=20)
    before.knowledge.add(write(tmp_path, "slow.txt", STALLS))
    kept = set(before.catalogue.passage_ids())
    before.close()
    others, ended = processes(), threading.Event()

    def kill() -> None:
        while not ended.wait(0.2):
            for process in processes() - others:
                os.kill(process, signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    after = Home(folder, Stalling(), passage_tokens=60)
    after.knowledge.rebuild()
    ended.set()
    killing.join()
    assert set(after.catalogue.passage_ids()) == kept and after.knowledge.is_outdated()
    after.close()
    later = Home(folder, passage_tokens=60)
    later.knowledge.rebuild()
    assert not later.knowledge.is_outdated() and len(later.catalogue.passage_ids()) < len(kept)
    later.check()
    later.close()
