"""Processes that are killed, and processes that write at once. Run as a program, this module is what is killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from chatbot import Chatbot, Conversation, Retrieved, open_chatbot
from chatbot.embedders.hashing import Hashing
from chatbot.errors import HomeInUse
from chatbot.language import detect, words
from chatbot.scope import Scope
from tests.test_chroma import start_server
from tests.test_knowledge import Home, in_child, plain, write

KILLS = 100
NAMES, SHELVES = ("a.md", "b.md", "c.md"), ("default", "other")
Model = dict[str, str]  # "collection/name" -> its text's first word

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")


@needs_fork
def test_killed_at_any_moment_nothing_acknowledged_is_lost_and_nothing_is_there_by_halves(tmp_path: Path):
    out = run("killed", str(tmp_path), str(KILLS))
    told = json.loads(out.splitlines()[-1])
    assert told["kills"] == KILLS
    assert told["done"] >= KILLS / 10  # the children got somewhere, on a busy machine too
    assert told["mended"] > 0  # some kill left something to put right


@needs_fork
def test_of_what_two_processes_write_at_once_nothing_is_lost_and_nothing_is_left_over(tmp_path: Path):
    server, url = start_server(tmp_path / "server")
    try:
        run("beside", str(tmp_path / "home"), url)
    finally:
        server.kill()
        server.wait()


def test_chatbots_share_a_home_beside_a_server_and_forget_what_the_other_deletes(tmp_path: Path):
    server, url = start_server(tmp_path / "server")
    chosen = {"generator": "scripted", "embedder": "hashing", "no_passage": 0.05, "chroma": url}
    try:
        with open_chatbot(tmp_path / "home", **chosen) as one, open_chatbot(tmp_path / "home", **chosen) as other:
            file = write(tmp_path, "notes.txt", "The harbour master is called Ada Quayle.")
            id = one.knowledge.add(file).document_id
            assert found(other, "harbour master") == ["notes.txt"]
            forgets = []
            other._generator.forget = lambda: forgets.append(1)
            one.knowledge.delete(id)
            assert found(other, "harbour master") == [] and forgets == [1]
            assert found(other, "harbour master") == [] and forgets == [1]
        with open_chatbot(tmp_path / "home", **(chosen | {"chroma": ""})), pytest.raises(HomeInUse):
            open_chatbot(tmp_path / "home", **chosen)
    finally:
        server.kill()
        server.wait()


def found(chatbot: Chatbot, utterance: str) -> list[str]:
    (retrieved,) = [each for each in chatbot.answer(Conversation(), utterance) if isinstance(each, Retrieved)]
    return [hit.passage.document for hit in retrieved.hits]


def run(*arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.test_crash", *arguments],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


class Opened(Home):
    """Beside it a folder that stands for what the generator keeps of passages: a file for each document."""

    def __init__(self, folder: Path, **chosen: Any) -> None:
        self.cache = folder / "cache"
        super().__init__(folder, Hashing(32), passage_tokens=20, forgotten=self.forget, **chosen)

    def forget(self) -> None:
        shutil.rmtree(self.cache, ignore_errors=True)

    def state(self) -> Model:
        """What is there, each document wholly."""
        self.check()
        entries = self.knowledge.documents()
        cached = {file.name for file in self.cache.glob("*")}
        assert cached <= {each.id for each in entries}
        return {f"{each.collection}/{each.name}": self.word(each.id) for each in entries}

    def word(self, document_id: str) -> str:
        texts = [each.text for each in self.catalogue.passages_of(document_id)]
        (word,) = {text.split()[0] for text in texts}
        assert len(texts) == 6
        found = self.lexical.search(word, 20, Scope(documents=(document_id,)))
        assert len(found) == 6
        return word


def text_of(word: str) -> str:
    return "\n\n".join(f"{word} paragraph {n} " + f"filler{n} " * 15 for n in range(6))


def do(home: Opened, operation: list[str], folder: Path) -> None:
    match operation:
        case ["put", place, word]:
            shelf, name = place.split("/")
            file = write(folder / "incoming", f"{word}-{name}", text_of(word))
            outcome = home.knowledge.add(file, name=name, replace=True, collection=shelf)
            home.cache.mkdir(exist_ok=True)
            (home.cache / outcome.document_id).touch()
        case ["delete", place]:
            shelf, name = place.split("/")
            if entry := home.knowledge.find(name, shelf):
                home.knowledge.delete(entry.id)
        case ["clear", shelf]:
            if shelf in [each.name for each in home.knowledge.collections()]:
                home.knowledge.delete_collection(shelf)


def after(model: Model, operation: list[str]) -> Model:
    match operation:
        case ["put", place, word]:
            return model | {place: word}
        case ["delete", place]:
            return {key: word for key, word in model.items() if key != place}
        case ["clear", shelf]:
            return {key: word for key, word in model.items() if not key.startswith(f"{shelf}/")}
    raise AssertionError(operation)


def operations(seed: int) -> Iterator[list[str]]:
    chance = random.Random(seed)
    while True:
        place = f"{chance.choice(SHELVES)}/{chance.choice(NAMES)}"
        kind = chance.choices(("put", "delete", "clear"), (6, 3, 1))[0]
        if kind == "put":
            yield ["put", place, f"word{chance.randrange(4)}"]
        else:
            yield [kind, place if kind == "delete" else chance.choice(SHELVES)]


def live(folder: Path, journal: Path, seed: int) -> None:
    """Opens what a kill left, checks it against the journal, and goes on until it is killed itself."""
    home = Opened(folder)
    found = home.state()
    allowed, _ = expected(journal)
    assert found in allowed, (found, allowed)
    with journal.open("a") as file:

        def tell(*line: Any) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        tell("found", found, len(home.mended))
        for operation in operations(seed):
            tell("begin", operation)
            do(home, operation, folder)
            tell("end")


def expected(journal: Path) -> tuple[list[Model], int]:
    """(what may be there after the last line, operations that ended)."""
    model, pending, done = {}, None, 0
    for line in journal.read_text().splitlines():
        match json.loads(line):
            case ["found", found, _]:
                model, pending = found, None
            case ["begin", operation]:
                pending = operation
            case ["end"]:
                model, pending, done = after(model, pending), None, done + 1
    return [model, after(model, pending)] if pending else [model], done


def killed(folder: Path, kills: int) -> None:
    journal = folder / "journal"
    journal.touch()
    chance = random.Random(0)
    for number in range(kills):
        before = journal.stat().st_size
        child = os.fork()
        if not child:
            in_this(lambda number=number: live(folder, journal, number))
        if chance.random() < 0.8:  # else it may be killed while it opens, too
            while journal.stat().st_size == before and os.waitpid(child, os.WNOHANG) == (0, 0):
                time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.12))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert in_child(lambda: last(folder, journal)) == 0
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    mended = sum(line[2] for line in lines if line[0] == "found")
    print(json.dumps({"kills": kills, "done": expected(journal)[1], "mended": mended}))


ROUNDS = 12


def beside(folder: Path, url: str) -> None:
    folder.mkdir()
    children = []
    for number in range(2):
        if not (child := os.fork()):
            in_this(lambda number=number: write_beside(folder, url, number))
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    home = sharing(folder, url)
    assert home.mended == []
    state = home.state()
    shared = {state.pop("default/shared.md"), state.pop("other/shared.md")}
    assert shared <= {f"shared{number}{turn}" for number in range(2) for turn in range(ROUNDS)}
    assert state == {
        f"default/{number}-{turn}.md": f"own{number}{turn}" for number in range(2) for turn in range(ROUNDS) if turn % 3
    }
    assert len(home.lexical.search("paragraph", 1000)) == 6 * (len(state) + len(shared))


def sharing(folder: Path, url: str) -> Opened:
    return Opened(folder, where=url, across=FileLock(folder / "writing", thread_local=False))


def write_beside(folder: Path, url: str, number: int) -> None:
    """Adds and deletes documents of its own, and one that both replace; half-way it opens anew."""
    home = sharing(folder, url)
    for turn in range(ROUNDS):
        incoming = folder / f"incoming-{number}"
        do(home, ["put", f"default/{number}-{turn}.md", f"own{number}{turn}"], incoming)
        do(home, ["put", f"{SHELVES[turn % 2]}/shared.md", f"shared{number}{turn}"], incoming)
        if turn % 3 == 0:
            do(home, ["delete", f"default/{number}-{turn}.md"], incoming)
        if turn == ROUNDS // 2:
            home.close()
            home = sharing(folder, url)
            assert home.mended == []


def last(folder: Path, journal: Path) -> None:
    home = Opened(folder)
    assert home.state() in expected(journal)[0]


def in_this(do: Callable[[], None]) -> None:
    """Ends the process."""
    try:
        do()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    words("loads what each child would"), detect("load itself, once more and in English")
    pytest.MonkeyPatch().setattr("chatbot.stores.read", plain)
    match sys.argv[1:]:
        case ["killed", folder, kills]:
            killed(Path(folder), int(kills))
        case ["beside", folder, url]:
            beside(Path(folder), url)
