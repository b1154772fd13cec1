import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot import Asked, Conversation
from chatbot.conversation import Turn
from chatbot.errors import DiskFull, HomeDamaged, UnreadableData
from chatbot.history import UNANSWERED, History, from_messages, merged, read, write
from tests.conftest import fill


def test_a_conversation_comes_back_as_it_was(tmp_path: Path) -> None:
    conversation = from_messages([("user", "你好 <b>"), ("assistant", "Hi"), ("user", "Next?"), ("assistant", "No.")])
    write(tmp_path / "c.json", conversation)
    assert read(tmp_path / "c.json") == conversation


def test_a_list_of_messages_is_read_as_a_conversation(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]))
    (turn,) = read(path).turns
    assert (turn.utterance, turn.reply.text) == ("Why?", "Because.")


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}", '{"turns": [{}]}', '[{"role": "ghost", "content": "boo"}]', "42"]
)
def test_anything_else_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(UnreadableData, match="holds no conversation") as error:
        read(path)
    assert "\n" not in str(error.value)


def test_conversations_are_listed_and_deleted(tmp_path: Path) -> None:
    history = History(tmp_path)
    for key in ("one", "two"):
        history.save(key, from_messages([("user", f"Question {key}?")]))
    assert {(key, title) for key, title, _ in history.list()} == {("one", "Question one?"), ("two", "Question two?")}
    history.delete("one")
    assert history.load("one") is None
    assert [key for key, _, _ in history.list()] == ["two"]


@pytest.mark.parametrize("key", ["../escape", "", "a/b", "x" * 65, "a.b"])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    history = History(tmp_path / "inside")
    with pytest.raises(UnreadableData):
        history.save(key, Conversation())
    assert history.load(key) is None
    history.delete(key)
    assert list(tmp_path.rglob("*.json")) == []


def turns(*utterances: str) -> tuple[Turn, ...]:
    return from_messages([pair for each in utterances for pair in (("user", each), ("assistant", "Yes."))]).turns


def test_two_who_go_on_with_one_conversation_lose_nothing_of_each_other(tmp_path: Path) -> None:
    one, other = History(tmp_path / "c"), History(tmp_path / "c")
    begun = one.save("k", Conversation(turns("a")))
    one.save("k", Conversation(turns("a", "b")), since=begun)
    both = other.save("k", Conversation(turns("a", "c")), since=begun)
    assert both == one.load("k") == Conversation(turns("a", "b", "c"))
    taken_back = one.save("k", begun, since=Conversation(turns("a", "b")))
    assert taken_back.turns == turns("a", "c")
    judged = begun.judged(0, "up")
    assert other.save("k", judged, since=begun).turns == (replace(turns("a")[0], rating="up"), *turns("c"))
    again = one.save("k", Conversation(turns("a2")), since=begun)
    assert again.turns == turns("a2", "c")


@given(
    st.lists(st.integers(0, 9), max_size=6, unique=True),
    st.lists(st.integers(10, 19), max_size=4, unique=True),
    st.integers(0, 6),
    st.lists(st.integers(20, 29), max_size=3, unique=True),
)
def test_what_another_added_stays_and_what_was_changed_is_as_in_the_later_one(
    before: list[int], elsewhere: list[int], kept: int, come: list[int]
) -> None:
    def made(numbers: Sequence[int]) -> tuple[Turn, ...]:
        return turns(*map(str, numbers))

    after = [*before[:kept], *come]
    stored = made([*before, *elsewhere])
    found = [turn.utterance for turn in merged(stored, made(before), made(after))]
    assert sorted(found) == sorted(map(str, [*after, *elsewhere]))
    assert [each for each in found if int(each) in after] == [str(each) for each in after]


def test_what_an_earlier_version_kept_is_moved_in_and_what_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    for key in ("one", "two"):
        write(folder / f"{key}.json", Conversation(turns(f"Question {key}?")))
    (folder / "three.json").write_text("[" * 100_000)
    (folder / "a person's own.json").write_text("{}")
    history = History(folder)
    assert [title for _, title, _ in history.list()] in (
        ["Question one?", "Question two?"],
        ["Question two?", "Question one?"],
    )
    assert history.load("one") == Conversation(turns("Question one?"))
    (said,) = history.unread
    assert "three.json" in said and "\n" not in said
    assert sorted(each.name for each in folder.iterdir()) == ["a person's own.json", "three.json"]
    assert History(folder).unread == ()


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


SAID = '"query": {"utterance": "Why?", "text": "Why?", "language": "en"%s}, "reply": {"text": "So."%s}%s'
DAMAGED = [
    "{%s}" % (SAID % parts)
    for parts in [
        (', "context": 7', "", ""),
        (', "utterance": null', "", ""),
        (', "\\ud83d\\n": 1', "", ""),
        ("", ', "notice": {}', ""),
        ("", f', "weights": {nested(300)}', ""),
        *(("", "", f', "seconds": {{"generate": {nested(depth)}}}') for depth in (300, 600, 900, 100_000)),
        ("", "", ', "hits": [{}]'),
    ]
] + ["", "7", "{", nested(100_000)]


@pytest.mark.parametrize("turn", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_conversation_is_told_in_one_line_and_hides_no_other(tmp_path: Path, turn: str) -> None:
    folder = tmp_path / "c"
    write(folder / "whole.json", Conversation(turns("Is \ud83d half?")))
    (folder / "odd.json").write_text('{"turns": [' + turn + "]}" if turn else "")
    history = History(folder)
    (said,) = history.unread
    assert "odd.json" in said and said.isprintable()
    assert [key for key, *_ in history.list()] == ["whole"]

    history.save("odd", Conversation(turns("Odd?")))
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        connection.execute("UPDATE turns SET turn = ? WHERE key = 'odd'", (turn,))
    history = History(folder)
    assert {key for key, *_ in history.list()} == {"odd", "whole"}
    assert history.load("whole") == Conversation(turns("Is \ud83d half?"))
    for use in (history.load, lambda key: history.save(key, Conversation(turns("New?")), Conversation())):
        with pytest.raises(UnreadableData, match=r"'odd'.* is damaged") as error:
            use("odd")
        assert str(error.value).isprintable()
    history.delete("odd")
    assert [key for key, *_ in history.list()] == ["whole"]


def test_a_damaged_question_is_told_in_one_line(tmp_path: Path) -> None:
    history = History(tmp_path / "c")
    history.ask("k", Asked("id", "Why?"))
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        connection.execute("UPDATE asked SET utterance = ?", (nested(100_000),))
    with pytest.raises(UnreadableData, match="'k'") as error:
        history.asked("k")
    assert str(error.value).isprintable()


def test_a_title_that_is_no_text_hides_no_conversation(tmp_path: Path) -> None:
    history = History(tmp_path / "c")
    for key in ("odd", "whole"):
        history.save(key, Conversation(turns("Why?")))
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        connection.execute("UPDATE conversations SET title = CAST(x'ff41' AS TEXT) WHERE key = 'odd'")
    assert {key for key, *_ in history.list()} == {"odd", "whole"}


def test_a_crash_while_files_are_moved_in_loses_and_doubles_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    for number in range(12):
        write(folder / f"{number}.json", Conversation(turns(f"Question {number}?")))
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom chatbot.history import History\nremoved = 0\n"
        "def unlink(self, **options):\n    global removed\n    removed += 1\n"
        "    if removed == 5: os._exit(9)\n    os.unlink(self)\n"
        "Path.unlink = unlink\nHistory(Path(sys.argv[1]))"
    )
    assert subprocess.run([sys.executable, "-c", program, str(folder)], check=False).returncode == 9
    assert len(list(folder.iterdir())) == 8
    history = History(folder)
    assert sorted(title for _, title, _ in history.list()) == sorted(f"Question {number}?" for number in range(12))
    assert list(folder.iterdir()) == []
    assert all(len(history.load(str(number)).turns) == 1 for number in range(12))  # type: ignore[union-attr]


def test_a_title_is_one_short_line(tmp_path: Path) -> None:
    history = History(tmp_path / "c")
    history.save("k", Conversation(turns("First\n\n  second\tthird " + "x" * 5000)))
    ((_, title, _),) = history.list()
    assert title.startswith("First second third x") and len(title) == 120 and title.endswith("…")


def test_half_a_character_is_kept(tmp_path: Path) -> None:
    conversation = Conversation(turns("Is \ud83d half?"))
    history = History(tmp_path / "c")
    history.save("k", conversation)
    assert history.load("k") == conversation and "half?" in history.list()[0][1]
    write(tmp_path / "f.json", conversation)
    assert read(tmp_path / "f.json") == conversation


@pytest.mark.parametrize(
    ("pragma", "said"), [("user_version = 99", "newer"), ("application_id = 7", "another program")]
)
def test_a_later_versions_file_and_another_programs_are_refused_in_one_line(
    tmp_path: Path, pragma: str, said: str
) -> None:
    History(tmp_path / "c")
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        connection.execute(f"PRAGMA {pragma}")
    with pytest.raises(HomeDamaged, match=said):
        History(tmp_path / "c")


def test_listing_reads_no_turn(tmp_path: Path) -> None:
    history = History(tmp_path / "c")
    history.save("k", Conversation(turns("a")))
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        connection.execute("UPDATE turns SET turn = 'no JSON'")
    assert [title for _, title, _ in history.list()] == ["a"]


def test_a_full_disk_is_said_as_such_and_what_was_stored_still_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(tmp_path / "c")
    begun = history.save("k", Conversation(turns("a")))
    connect = sqlite3.connect

    def small(*given: object, **options: object) -> sqlite3.Connection:
        connection = connect(*given, **options)  # type: ignore[call-overload]
        connection.execute("PRAGMA max_page_count = 12")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", small)
        with pytest.raises(DiskFull, match="is full: make room"):
            history.save("k", Conversation(turns("a", "b" * 500_000)), since=begun)
    assert history.load("k") == begun


def test_many_that_open_a_new_home_at_once_all_have_it(tmp_path: Path) -> None:
    for number in range(60):
        together = threading.Barrier(6)

        def open_one(folder: Path = tmp_path / str(number), together: threading.Barrier = together) -> History:
            together.wait(10)
            return History(folder)

        with ThreadPoolExecutor(6) as pool:
            opened = [pool.submit(open_one) for _ in range(6)]
        assert [each.result().list() for each in opened] == [[]] * 6


def test_on_a_full_disk_what_is_kept_can_be_read_though_nothing_is_written(small_disk: Path) -> None:
    history = History(small_disk / "c")
    history.save("k", begun := Conversation(turns("a")))
    history.ask("k", asked := Asked("1", "b?"))
    filler = fill(small_disk, 0)
    for opened in (history, History(small_disk / "c")):
        assert [key for key, *_ in opened.list()] == ["k"]
        assert opened.load("k") == begun and opened.asked("k") == (asked,)
        for change in (
            lambda: history.save("k", Conversation(turns("a", "b"))),
            lambda: history.ask("k", Asked("2", "c?")),
            lambda: history.delete("k"),
        ):
            with pytest.raises(DiskFull, match="is full: make room"):
                change()
    filler.unlink()
    history.save("k", Conversation(turns("a", "b")))
    assert len(History(small_disk / "c").load("k").turns) == 2


def test_a_question_is_kept_before_its_reply_and_goes_as_that_comes(tmp_path: Path) -> None:
    history = History(tmp_path / "c")
    history.ask("k", Asked("1", "Is \ud83d half?"))
    assert history.asked("k") == (Asked("1", "Is \ud83d half?"),) and history.load("k") is None
    assert [key for key, *_ in history.list()] == ["k"]
    stopped = Asked("1", "Is \ud83d half?", "It", "stopped")
    history.end("k", stopped)
    assert History(tmp_path / "c").asked("k") == (stopped,)
    history.ask("k", Asked("2", "Again?"))
    history.end("k", stopped)  # too late
    assert history.asked("k") == (Asked("2", "Again?"),)
    history.save("k", Conversation(turns("Other?")), answered="1")  # another tab's
    assert history.asked("k") == (Asked("2", "Again?"),)
    history.save("k", Conversation(turns("Other?", "Again?")), answered="2")
    assert history.asked("k") == () and history.load("k") == Conversation(turns("Other?", "Again?"))


def test_a_question_that_is_taken_back_takes_the_conversation_along_which_it_began(tmp_path: Path) -> None:
    history = History(tmp_path / "c")
    history.save("k", Conversation(turns("Before?")))
    for key in ("k", "new"):
        history.ask(key, Asked("1", "Why?"))
        history.take_back(key, "another")
        assert history.asked(key) == (Asked("1", "Why?"),)
        history.take_back(key, "1")
        assert history.asked(key) == ()
    assert [title for _, title, _ in history.list()] == ["Before?"]
    history.ask("k", Asked("2", "Why?"))
    history.delete("k")
    assert history.asked("k") == () and history.list() == []


@pytest.mark.parametrize("key", ["../escape", "", "x" * 65])
def test_a_question_is_kept_under_a_usable_key_alone(tmp_path: Path, key: str) -> None:
    history = History(tmp_path / "c")
    with pytest.raises(UnreadableData):
        history.ask(key, Asked("1", "Why?"))
    history.end(key, Asked("1", "Why?"))
    history.take_back(key, "1")
    assert history.asked(key) == ()


def test_questions_that_are_asked_in_one_conversation_at_once_are_all_kept(tmp_path: Path) -> None:
    history = History(tmp_path / "c")
    first, second, third = (Asked(id, f"{id}?") for id in "213")
    history.ask("k", first)
    history.ask("k", second, beside=["2"])
    assert history.asked("k") == (first, second)
    history.save("k", Conversation(turns("1?")), answered="1")
    assert history.asked("k") == (first,)
    history.ask("k", third)  # the one before was cut off
    assert history.asked("k") == (third,)


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_an_earlier_version_keeps_its_conversations_and_takes_questions(
    tmp_path: Path, version: int
) -> None:
    History(tmp_path / "c").save("k", Conversation(turns("a")))
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        connection.execute("DROP TABLE asked")
        if version == 2:
            connection.execute("CREATE TABLE asked (key PRIMARY KEY, id TEXT, utterance TEXT, text TEXT, note TEXT)")
            connection.execute("""INSERT INTO asked VALUES ('k', 'i', '"Why?"', '"It"', '"stopped"')""")
        connection.execute(f"PRAGMA user_version = {version}")
    history = History(tmp_path / "c")
    assert history.asked("k") == (Asked("i", "Why?", "It", "stopped"),) * (version == 2)
    history.ask("k", Asked("1", "b"))
    assert history.load("k") == Conversation(turns("a")) and history.asked("k") == (Asked("1", "b"),)


def test_of_questions_that_never_got_a_reply_the_latest_are_kept(tmp_path: Path) -> None:
    history = History(tmp_path)
    answered = Conversation(turns("a"))
    history.save("answered", answered)
    history.ask("answered", Asked("a", "And then?"))
    for n in range(UNANSWERED):
        history.ask(f"k{n}", Asked(str(n), "Is anybody there?"))
    assert history.asked("answered") == () and history.load("answered") == answered
    assert history.asked("k0") == (Asked("0", "Is anybody there?"),)
    history.ask("one-more", Asked("b", "Is anybody there?"))
    keys = [key for key, *_ in history.list()]
    assert len(keys) == UNANSWERED + 1 and "k0" not in keys and {"answered", "k1", "one-more"} <= set(keys)
