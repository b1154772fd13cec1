import json
from pathlib import Path

import pytest

from chatbot import Conversation
from chatbot.errors import UnreadableData
from chatbot.history import History, from_messages, read, write


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
