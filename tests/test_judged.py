"""Replies that a person judged, from the conversation on disk to the rows that a generator learns from."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from chatbot import Citation, Conversation, Hit, Passage, Query, Reply, Turn
from chatbot.cli import main
from chatbot.errors import UnreadableData
from chatbot.history import History, from_messages, read, write
from chatbot.judged import judged_rows, rows_of

HITS = tuple(
    Hit(Passage(id, "d", "travel.md", text, 2, "Trips"), 0.5)
    for id, text in (
        ("hotels", "Hotels in Lyon may cost ninety euros a night."),
        ("trains", "Trips go by train."),
    )
)
CITED = Reply("Ninety euros.", (Citation(0, 13, "hotels", 0.9),), confidence=0.8)


def turn(utterance: str, reply: Reply = CITED, hits: tuple[Hit, ...] = HITS, query: str | None = None) -> Turn:
    return Turn(Query(utterance, utterance if query is None else query, "en"), reply, hits, (0.5, 0.4, 0.1))


TALK = Conversation((turn("What may hotels cost?"), turn("And in Lyon?", query="What may hotels cost in Lyon?")))


def test_judging_a_turn_makes_a_new_conversation_and_is_saved_with_it(tmp_path: Path) -> None:
    judged = TALK.judged(1, "down", " Ninety euros a night. ")
    assert [each.rating for each in TALK.turns] == ["", ""]
    assert [(each.rating, each.correction) for each in judged.turns] == [("", ""), ("down", "Ninety euros a night.")]
    assert judged.judged(1, "up").turns[1].correction == ""
    write(tmp_path / "c.json", judged)
    assert read(tmp_path / "c.json") == judged


@pytest.mark.parametrize(("number", "rating", "error"), [(0, "good", ValueError), (2, "up", IndexError)])
def test_only_a_turn_that_is_there_is_judged_and_only_up_or_down(number: int, rating: str, error: type) -> None:
    with pytest.raises(error):
        TALK.judged(number, rating)
    with pytest.raises(IndexError):
        TALK.judged(-1, "up")


def test_the_json_of_a_turn_tells_a_judgement_only_where_there_is_one() -> None:
    assert not {"rating", "correction"} & set(TALK.turns[0].as_json())
    told = TALK.judged(0, "down", "Ninety.").turns[0].as_json()
    assert (told["rating"], told["correction"]) == ("down", "Ninety.")
    assert set(told) - {"rating", "correction"} == set(TALK.turns[0].as_json())


def test_a_file_from_before_replies_were_judged_still_loads(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    write(path, TALK)
    data = json.loads(path.read_text())
    for each in data["turns"]:
        del each["rating"], each["correction"]
    path.write_text(json.dumps(data))
    assert read(path) == TALK


@pytest.mark.parametrize(
    ("judged", "told"),
    [
        ({"rating": "sideways"}, "turn 2 has rating 'sideways': write 'up', 'down' or ''"),
        ({"rating": None}, "turn 2 has rating None"),
        ({"correction": 3}, "turn 2 has correction 3: write a text"),
    ],
)
def test_a_bad_judgement_is_named_in_one_line(tmp_path: Path, judged: dict[str, object], told: str) -> None:
    path = tmp_path / "c.json"
    write(path, TALK)
    data = json.loads(path.read_text())
    data["turns"][1] |= judged
    path.write_text(json.dumps(data))
    with pytest.raises(UnreadableData) as error:
        read(path)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_good_reply_is_learned_with_the_passages_it_cites() -> None:
    (row,) = judged_rows(TALK.judged(1, "up"))
    assert row.question == "What may hotels cost in Lyon?"  # stands alone
    assert row.history == (("What may hotels cost?", "Ninety euros."),)
    assert row.passages == tuple(hit.passage for hit in HITS)
    assert (row.answers, row.gold) == (("Ninety euros.",), {"hotels"})


def test_a_correction_is_learned_in_the_replys_place_whatever_its_thumb() -> None:
    for rating in ("", "up", "down"):
        (row,) = judged_rows(TALK.judged(0, rating, "At most ninety euros."))
        assert (row.answers, row.gold) == (("At most ninety euros.",), frozenset())


def test_a_refusal_marked_good_is_a_question_without_an_answer() -> None:
    refused = Conversation((turn("Who won the cup?", Reply("Not in the documents.", abstained=True)),))
    (row,) = judged_rows(refused.judged(0, "up"))
    assert not row.answerable
    (row,) = judged_rows(refused.judged(0, "down", "Nobody."))
    assert row.answers == ("Nobody.",)


def test_what_was_not_judged_or_is_only_bad_or_found_nothing_makes_no_row() -> None:
    assert list(judged_rows(TALK.judged(0, "down"))) == []
    greeted = Conversation((turn("Hello", Reply("Hi."), (), ""),))
    assert list(judged_rows(greeted.judged(0, "up"))) == []


def test_a_file_and_a_folder_of_conversations_are_read_as_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.json", TALK.judged(0, "up").judged(1, "down", "Ninety."))
    write(tmp_path / "b.json", TALK)
    write(tmp_path / "c.json", TALK.judged(1, "up"))
    assert [(row.number, row.answers) for row in rows_of(tmp_path / "a.json")] == [
        (1, ("Ninety euros.",)),
        (2, ("Ninety.",)),
    ]
    assert [row.number for row in rows_of(tmp_path)] == [1, 2, 3]


def test_conversations_without_a_judgement_are_refused_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "a.json", TALK.judged(0, "down"))
    for path in (tmp_path, tmp_path / "a.json"):
        with pytest.raises(UnreadableData, match="press the thumb up") as error:
            rows_of(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_judged_conversations_are_measured_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "talks" / "a.json", TALK.judged(0, "up"))
    command = ["--home", str(tmp_path / "home"), "--set", "generator=scripted", "--set", "embedder=hashing"]
    assert main([*command, "eval", "answers", "--data", str(tmp_path / "talks"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 1


@pytest.mark.parametrize("flags", [(), ("--alone", "--refusing", "0.3")])
def test_judged_conversations_are_trained_on(tmp_path: Path, tiny_llama: Path, flags: tuple[str, ...]) -> None:
    write(tmp_path / "talks" / "a.json", TALK.judged(0, "up").judged(1, "down", "Ninety euros a night."))
    chosen = ["--home", str(tmp_path / "home"), "--set", f"generator={tiny_llama}", "--set", "embedder=hashing"]
    told = ["--data", str(tmp_path / "talks"), "--out", str(tmp_path / "out"), "--accumulate", "1"]
    assert main([*chosen, "train", "generator", *told, *flags]) == 0
    assert (tmp_path / "out" / "marginalia.json").is_file()


def test_the_conversations_of_a_home_are_learned_from(tmp_path: Path) -> None:
    said = from_messages([("user", "Who?"), ("assistant", "He.")]).turns[0]
    passage = Passage("p", "d", "d.md", "It was he.", None, "", 0, 10)
    turn = replace(said, hits=(Hit(passage, 1.0),), rating="up")
    History(tmp_path / "conversations").save("k", Conversation((turn,)))
    for path in (tmp_path / "conversations.sqlite", tmp_path / "conversations"):
        (row,) = rows_of(path)
        assert (row.question, row.answers) == ("Who?", ("He.",))


def test_a_damaged_conversation_of_a_home_keeps_no_other_from_being_learned(tmp_path: Path) -> None:
    history = History(tmp_path / "conversations")
    for key in ("a", "b"):
        history.save(key, TALK.judged(0, "up"))
    with sqlite3.connect(tmp_path / "conversations.sqlite") as connection:
        connection.execute("UPDATE turns SET turn = '{' WHERE key = 'a'")
    assert [row.answers for row in rows_of(tmp_path / "conversations.sqlite")] == [("Ninety euros.",)]
