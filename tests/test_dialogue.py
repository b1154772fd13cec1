"""One turn end to end, on real stores, with a generator and an embedder that need no weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from chatbot import Answered, Chatbot, Conversation, Query, Retrieved, Rewritten, Token, Turn
from chatbot.dialogue import Dialogue
from chatbot.embedders.hashing import Hashing
from chatbot.errors import HomeInUse, UnusableUtterance
from chatbot.generators.base import Decoding
from chatbot.generators.scripted import Scripted, best_sentence
from chatbot.prompt import Prompt, words_for
from chatbot.retrieve import Given
from chatbot.rewrite import ByGenerator, Verbatim, believable, leans

Open = Callable[..., Chatbot]

HANDBOOK = "Employees have thirty days of leave each year.\n\nThe canteen opens at noon and serves soup."
TRAVEL = "A train ticket is refunded within ten days.\n\nHotels in Lyon may cost ninety euros a night."


def ask(chatbot: Chatbot, utterance: str, conversation: Conversation | None = None) -> Turn:
    *_, last = chatbot.answer(conversation or Conversation(), utterance)
    assert isinstance(last, Answered)
    return last.turn


@pytest.fixture
def documents(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "handbook.txt", tmp_path / "travel.txt"]
    for path, text in zip(paths, (HANDBOOK, TRAVEL), strict=True):
        path.write_text(text)
    return paths


def test_a_turn_is_rewritten_retrieved_generated_and_answered_in_this_order(
    open_scripted: Open, documents: list[Path]
) -> None:
    chatbot = open_scripted()
    chatbot.knowledge.add(documents[0])
    kinds = [type(event) for event in chatbot.answer(Conversation(), "How many days of leave do employees have?")]
    assert kinds[:2] == [Rewritten, Retrieved]
    assert kinds[-1] is Answered
    assert set(kinds[2:-1]) == {Token}


def test_a_reply_cites_the_document_it_came_from(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted()
    list(chatbot.knowledge.add_all(documents))
    turn = ask(chatbot, "What may hotels in Lyon cost a night?")
    cited = {hit.passage.document for hit in turn.hits for c in turn.reply.citations if c.passage_id == hit.passage.id}
    assert turn.reply.text == "Hotels in Lyon may cost ninety euros a night."
    assert cited == {"travel.txt"}


def test_the_prior_and_the_weights_cover_every_hit_and_no_passage(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted(k=2)
    list(chatbot.knowledge.add_all(documents))
    turn = ask(chatbot, "What may hotels in Lyon cost a night?")
    assert len(turn.prior) == len(turn.reply.weights) == len(turn.hits) + 1
    assert sum(turn.prior) == pytest.approx(1)
    assert sum(turn.reply.weights) == pytest.approx(1)


def test_a_deleted_document_is_never_heard_of_again(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted()
    list(chatbot.knowledge.add_all(documents))
    question = "What may hotels in Lyon cost a night?"
    assert "ninety" in ask(chatbot, question).reply.text
    travel = next(entry for entry in chatbot.knowledge.documents() if entry.name == "travel.txt")
    chatbot.knowledge.delete(travel.id)
    turn = ask(chatbot, question)
    assert "ninety" not in turn.reply.text
    assert all(hit.passage.document != "travel.txt" for hit in turn.hits)
    home = chatbot.settings.home
    chatbot.close()
    for file in home.rglob("*"):
        if file.is_file():
            assert b"ninety" not in file.read_bytes(), file


def test_a_restart_keeps_everything(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted()
    list(chatbot.knowledge.add_all(documents))
    turn = ask(chatbot, "What may hotels in Lyon cost a night?")
    chatbot.history.save("first", Conversation().plus(turn))
    before = chatbot.knowledge.documents()
    chatbot.close()
    again = open_scripted()
    assert again.knowledge.documents() == before
    assert again.history.load("first") == Conversation().plus(turn)
    assert ask(again, "What may hotels in Lyon cost a night?").reply == turn.reply


def test_a_turn_stopped_early_leaves_nothing_behind(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted()
    list(chatbot.knowledge.add_all(documents))
    whole = ask(chatbot, "What may hotels in Lyon cost a night?").reply
    for stop_after in range(4):
        stream = chatbot.answer(Conversation(), "How many days of leave do employees have?")
        for _ in range(stop_after):
            next(stream)
        stream.close()
    assert ask(chatbot, "What may hotels in Lyon cost a night?").reply == whole


def test_a_question_about_nothing_in_the_documents_is_declined(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted(no_passage=0.3)
    chatbot.knowledge.add(documents[0])
    turn = ask(chatbot, "Which volcano erupted yesterday?")
    assert turn.reply.abstained
    assert turn.reply.text == "The documents don't hold an answer to this."
    assert not turn.reply.citations


def test_a_reply_that_the_passages_hardly_support_is_withheld(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted(least_confidence=0.99)
    chatbot.knowledge.add(documents[0])
    reply = ask(chatbot, "How many days of leave do employees have?").reply
    assert reply.abstained
    assert not reply.citations
    assert reply.text.startswith("I can't answer this reliably")
    assert "“Employees have thirty days of leave each year." in reply.text


class Narrow(Scripted):
    """Its window is too small for a conversation and a passage."""

    def read(self, prompts: Sequence[Prompt]) -> Decoding:
        decoding = super().read(prompts)
        decoding.cut = ("conversation", "passage")
        return decoding


@pytest.mark.parametrize(
    ("question", "language"), [("How many days of leave do employees have?", "en"), ("员工每年有多少天假期？", "zh")]
)
def test_a_reply_says_what_did_not_fit_the_window_and_a_restart_keeps_it(
    open_scripted: Open, documents: list[Path], monkeypatch: pytest.MonkeyPatch, question: str, language: str
) -> None:
    documents[0].write_text(HANDBOOK + "\n\n员工每年有三十天假期。", encoding="utf-8")
    monkeypatch.setattr("chatbot.assemble.Scripted", Narrow)
    chatbot = open_scripted()
    chatbot.knowledge.add(documents[0])
    turn = ask(chatbot, question)
    cut = words_for(language).cut
    assert turn.reply.notice == f"{cut['conversation']} {cut['passage']}"
    chatbot.history.save("first", Conversation().plus(turn))
    assert chatbot.history.load("first") == Conversation().plus(turn)


def test_a_reply_made_from_everything_has_no_notice(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted()
    chatbot.knowledge.add(documents[0])
    assert ask(chatbot, "How many days of leave do employees have?").reply.notice == ""


@pytest.mark.parametrize(("most", "times"), [(3, 3), (0, 20)])
def test_a_reply_that_repeats_itself_is_ended_and_says_so(
    open_scripted: Open, documents: list[Path], monkeypatch: pytest.MonkeyPatch, most: int, times: int
) -> None:
    monkeypatch.setattr("chatbot.assemble.Scripted", lambda: Scripted(lambda prompt: 20 * f"{best_sentence(prompt)} "))
    chatbot = open_scripted(most_repeats=most, max_reply_tokens=1000)
    chatbot.knowledge.add(documents[0])
    reply = ask(chatbot, "How many days of leave do employees have?").reply
    assert reply.text.count("Employees have thirty days of leave each year.") == times
    assert reply.notice == (words_for("en").looped if most else "")


@pytest.mark.parametrize("reading", ["apart", "apart+pair", "stuffing"])
def test_every_way_of_reading_replies_weighs_every_passage_and_says_what_did_not_fit(
    open_scripted: Open, documents: list[Path], monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    read: list[int] = []

    class Noting(Narrow):
        def read(self, prompts: Sequence[Prompt]) -> Decoding:
            read.append(len(prompts))
            return super().read(prompts)

    monkeypatch.setattr("chatbot.assemble.Scripted", Noting)
    chatbot = open_scripted(k=3, reading=reading, least_prior=0)
    (documents[0].parent / "third.txt").write_text("Boats leave Lyon at seven.")
    list(chatbot.knowledge.add_all([*documents, documents[0].parent / "third.txt"]))
    turn = ask(chatbot, "What may hotels in Lyon cost a night?")
    assert read[-1] == {"apart": 4, "apart+pair": 5, "stuffing": 2}[reading]
    assert turn.reply.text == "Hotels in Lyon may cost ninety euros a night."
    assert len(turn.hits) == 3
    assert len(turn.reply.weights) == 4
    assert sum(turn.reply.weights) == pytest.approx(1)
    assert words_for("en").cut["passage"] in turn.reply.notice


def test_beam_search_finds_the_likelier_whole_and_a_stop_string_ends_it(
    open_scripted: Open, documents: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hasty(Scripted):
        """Its likeliest first word leads nowhere: .5 x .3, against .4 x 1 for the other."""

        def read(self, prompts: Sequence[Prompt]) -> Decoding:
            return HastyReading(len(prompts))

    class HastyReading:
        words = ("", "No", " maybe", "Thirty", " days")

        def __init__(self, branches: int) -> None:
            self._branches, self._said = branches, ""

        def log_probs(self) -> Tensor:
            row = {"": (0, 0.5, 0.1, 0.4, 0), "No": (0.25, 0.25, 0.3, 0.1, 0.1), "Thirty": (0, 0, 0, 0, 1)}
            return torch.tensor([row.get(self._said, (1, 0, 0, 0, 0))] * self._branches, dtype=torch.float64).log()

        def push(self, token: int) -> str:
            self._said += self.words[token]
            return self.words[token]

        def fork(self) -> Decoding:
            return copy.copy(self)

    monkeypatch.setattr("chatbot.assemble.Scripted", Hasty)
    replies = []
    for chosen in ({}, {"beams": 3}, {"beams": 3, "stop": " days"}):
        chatbot = open_scripted(least_confidence=0, **chosen)
        chatbot.knowledge.add(documents[0])
        events = list(chatbot.answer(Conversation(), "How many days of leave do employees have?"))
        replies.append(events[-1].turn.reply.text)
        assert "".join(event.text for event in events if isinstance(event, Token)) == replies[-1]
        chatbot.close()
    assert replies == ["No maybe", "Thirty days", "Thirty"]


def test_without_documents_the_reply_says_so(open_scripted: Open) -> None:
    reply = ask(open_scripted(), "How many days of leave are there?").reply
    assert reply.abstained
    assert "no documents" in reply.text


def test_in_a_language_that_the_generator_cannot_answer_in_the_nearest_passage_is_quoted(
    open_scripted: Open, tmp_path: Path
) -> None:
    (tmp_path / "手册.md").write_text("每年有三十天年假。食堂中午开门。", "utf-8")
    chatbot = open_scripted()
    chatbot.knowledge.add(tmp_path / "手册.md")
    dialogue = Dialogue(Verbatim(), chatbot.retriever(), Scripted(), unread=("zh",))
    events = list(dialogue.answer(Conversation(), "每年有几天年假？"))
    turn = next(event.turn for event in events if isinstance(event, Answered))
    assert turn.reply.abstained and "每年有三十天年假" in turn.reply.text
    assert not any(isinstance(event, Token) for event in events)


@pytest.mark.parametrize(
    ("query", "question"),
    [
        (Query("and there?", "and there?", "en"), "and there?"),
        (Query("and there?", "hotels Lyon and there?", "en"), "and there?"),
        (Query("and there?", "What do hotels in Lyon cost?", "en"), "What do hotels in Lyon cost?"),
        (Query("and there?", "hotels Lyon", "en", edited=True), "and there?"),
        (Query("thanks", "", "en"), "thanks"),
    ],
)
def test_a_generator_is_asked_questions_and_not_words_to_search_for(query: Query, question: str) -> None:
    assert query.question == question


def test_what_the_person_writes_is_searched_and_nothing_else(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted()
    list(chatbot.knowledge.add_all(documents))
    events = list(chatbot.answer(Conversation(), "How many days of leave?", searched="hotels in Lyon"))
    (query,) = (event.query for event in events if isinstance(event, Rewritten))
    assert (query.text, query.searches, query.utterance) == (
        "hotels in Lyon", ("hotels in Lyon",), "How many days of leave?",
    )  # fmt: skip
    (found,) = (event for event in events if isinstance(event, Retrieved))
    assert found.hits[0].passage.document == "travel.txt"
    with pytest.raises(UnusableUtterance, match="empty"):
        list(chatbot.answer(Conversation(), "How many days of leave?", searched="  "))


def test_a_greeting_searches_nothing(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted()
    chatbot.knowledge.add(documents[0])
    turn = ask(chatbot, "Hello!")
    assert turn.query.text == ""
    assert not turn.hits
    assert not turn.reply.abstained


def say(chatbot: Chatbot, *utterances: str) -> list[Turn]:
    """A conversation's turns."""
    conversation = Conversation()
    for utterance in utterances:
        conversation = conversation.plus(ask(chatbot, utterance, conversation))
    return list(conversation.turns)


def parroting(prompt: Prompt) -> str:
    """Says again what it said last, if that is before it, as a small model does."""
    said = prompt.conversation[-1][1].upper() if prompt.conversation else ""  # the same words, not the same characters
    if prompt.passage:
        return said or best_sentence(prompt)
    return said if said and prompt.instruction == words_for("en").chat else "Thirty days of leave, friend."


def test_a_reply_that_repeats_one_to_another_question_is_withheld(
    open_scripted: Open, documents: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatbot.assemble.Scripted", lambda: Scripted(parroting))
    chatbot = open_scripted(k=1)
    list(chatbot.knowledge.add_all(documents))
    first, then = say(chatbot, "How many days of leave do employees have?", "And what does the canteen serve?")
    assert not first.reply.abstained
    assert then.reply.abstained
    assert not then.reply.citations
    assert then.reply.text.startswith(words_for("en").unsure)
    assert "serves soup" in then.reply.text


def test_a_reply_that_leaves_out_a_word_of_one_to_another_question_is_withheld(
    open_scripted: Open, documents: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Prompt] = []

    def script(prompt: Prompt) -> str:
        heard.append(prompt)
        return (
            "What would you like to know from me?" if prompt.passage else "Hello! What would you like to know from me?"
        )

    monkeypatch.setattr("chatbot.assemble.Scripted", lambda: Scripted(script))
    chatbot = open_scripted(k=1)
    list(chatbot.knowledge.add_all(documents))
    greeted, then = say(chatbot, "Hello!", "And what does the canteen serve?")
    assert not greeted.reply.abstained
    assert then.reply.abstained
    assert all(prompt.conversation == () for prompt in heard)


def test_what_is_said_in_place_of_a_reply_is_withheld_where_a_generator_says_it(
    open_scripted: Open, documents: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = "I can't answer this reliably from the documents. The closest passage says: soup"
    monkeypatch.setattr(
        "chatbot.assemble.Scripted", lambda: Scripted(lambda prompt: copied if prompt.passage else "No idea at all.")
    )
    chatbot = open_scripted(k=1)
    list(chatbot.knowledge.add_all(documents))
    (turn,) = say(chatbot, "What does the canteen serve?")
    assert turn.reply.abstained
    assert not turn.reply.citations
    assert "serves soup" in turn.reply.text


def test_half_a_character_in_a_question_is_a_mark(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted(k=1)
    list(chatbot.knowledge.add_all(documents))
    (turn,) = say(chatbot, "What does the canteen serve? \udcff")
    assert turn.utterance == "What does the canteen serve? \ufffd"
    assert "soup" in turn.reply.text


def test_who_asks_the_same_again_is_told_the_same_again(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted(k=1)
    list(chatbot.knowledge.add_all(documents))
    question = "Which soup is there?"
    first, _, again = say(chatbot, question, "What may hotels in Lyon cost a night?", question)
    assert not first.reply.abstained
    assert again.query == first.query
    assert again.reply == first.reply


def test_the_same_words_from_another_passage_are_believed(
    open_scripted: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = lambda prompt: (prompt.passage or "").rpartition(": ")[2] or "Nobody knows."  # noqa: E731
    monkeypatch.setattr("chatbot.assemble.Scripted", lambda: Scripted(script))
    (tmp_path / "hamlet.txt").write_text("Hamlet: William Shakespeare wrote it.")
    (tmp_path / "macbeth.txt").write_text("Macbeth: William Shakespeare wrote it.")
    chatbot = open_scripted(k=1)
    list(chatbot.knowledge.add_all([tmp_path / "hamlet.txt", tmp_path / "macbeth.txt"]))
    first, then = say(chatbot, "Who wrote Hamlet?", "And who wrote Macbeth?")
    assert first.reply.text == then.reply.text == "William Shakespeare wrote it."
    assert {each.passage_id for each in first.reply.citations} != {each.passage_id for each in then.reply.citations}


def test_what_searches_nothing_is_never_answered_by_an_earlier_reply(
    open_scripted: Open, documents: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatbot.assemble.Scripted", lambda: Scripted(parroting))
    chatbot = open_scripted(k=1)
    chatbot.knowledge.add(documents[0])
    turns = say(chatbot, "How many days of leave do employees have?", "thanks", "👍", "ok", "thanks")
    said = [turn.reply.text for turn in turns]
    assert said[1] == said[4] == "Thirty days of leave, friend."
    assert said[2] == said[3] == words_for("en").listening
    assert not any(turn.reply.confidence for turn in turns[1:])


def test_a_greeting_in_a_language_that_the_generator_cannot_speak_is_answered_in_it() -> None:
    nothing = Given((), Hashing(), k=1, temperature=0.05, no_passage=0.05)
    *_, last = Dialogue(Verbatim(), nothing, Scripted(), unread=("zh",)).answer(Conversation(), "你好")
    assert isinstance(last, Answered)
    assert last.turn.reply.text == words_for("zh").listening


def test_what_is_said_without_a_source_is_told_from_what_has_one(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted(no_passage=0.3)
    chatbot.knowledge.add(documents[0])
    greeted, cited, declined = say(
        chatbot, "Hello!", "How many days of leave do employees have?", "Which volcano erupted yesterday?"
    )
    assert [turn.reply.sourced for turn in (greeted, cited, declined)] == [False, True, True]
    assert [turn.as_json().get("sourced") for turn in (greeted, cited, declined)] == [False, None, None]


@pytest.mark.parametrize("utterance", ["", "  \n", "x" * 20_000])
def test_an_unusable_question_is_refused_in_one_line(open_scripted: Open, utterance: str) -> None:
    with pytest.raises(UnusableUtterance) as error:
        list(open_scripted().answer(Conversation(), utterance))
    assert "\n" not in str(error.value)


def test_a_home_has_one_owner(open_scripted: Open) -> None:
    first = open_scripted()
    with pytest.raises(HomeInUse, match="close it"):
        open_scripted()
    first.close()
    assert open_scripted().knowledge.documents() == []


def rewriting_by(rewrite: str) -> ByGenerator:
    return ByGenerator(Scripted(lambda prompt: rewrite))


def test_follow_ups_find_what_they_mean_only_through_the_rewrite(
    open_scripted: Open, documents: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(prompt: Prompt) -> str:
        if prompt.instruction.startswith("Rewrite"):
            last = prompt.query.rpartition("Q: ")[2]
            return {"And there, what do hotels cost?": "What do hotels cost in Lyon?"}.get(
                last, "When is the train ticket refunded?"
            )
        return best_sentence(prompt)

    monkeypatch.setattr("chatbot.assemble.Scripted", lambda: Scripted(script))
    chatbot = open_scripted(k=1, rewriter="generator")
    list(chatbot.knowledge.add_all(documents))
    conversation = Conversation()
    said = []
    for utterance in (
        "Is a train ticket to Lyon refunded?",
        "And there, what do hotels cost?",
        "And when is the first one?",
    ):
        turn = ask(chatbot, utterance, conversation)
        conversation = conversation.plus(turn)
        said.append((turn.query.text, turn.reply.text))
    assert said[1] == ("What do hotels cost in Lyon?", "Hotels in Lyon may cost ninety euros a night.")
    assert said[2] == ("When is the train ticket refunded?", "A train ticket is refunded within ten days.")


def test_a_rewrite_with_words_nobody_said_leaves_the_raw_turn() -> None:
    conversation = Conversation().plus(_turn("Who wrote Hamlet?", "William Shakespeare."))
    query = rewriting_by("When was the Eiffel tower built?").rewrite(conversation, "When was he born?")
    assert query.text == "When was he born?"
    assert query.leans
    assert query.context.startswith("When was he born?")


def test_a_believable_rewrite_is_searched_with_the_raw_turn_beside_it() -> None:
    conversation = Conversation().plus(_turn("Who wrote Hamlet?", "William Shakespeare."))
    query = rewriting_by("When was William Shakespeare born?").rewrite(conversation, "When was he born?")
    assert query.searches == ("When was William Shakespeare born?", "When was he born?")


def test_chinese_rewrites_may_put_what_was_said_in_another_order() -> None:
    conversation = Conversation().plus(_turn("《哈姆雷特》是谁写的？", "莎士比亚。"))
    assert believable("莎士比亚是哪年出生的？", conversation, "他是哪年出生的？")


@pytest.mark.parametrize(
    ("utterance", "language", "expected"),
    [
        ("When was he born?", "en", True),
        ("And the second one?", "en", True),
        ("Why?", "en", True),
        ("How do I delete a document in Marginalia?", "en", False),
        ("What is the capital city of Portugal?", "en", False),
        ("它在哪里？", "zh", True),
        ("如何删除知识库中的文档？", "zh", False),
    ],
)
def test_a_turn_that_leans_on_the_conversation_is_told_from_one_that_stands_alone(
    utterance: str, language: str, expected: bool
) -> None:
    assert leans(utterance, language) is expected


def _turn(utterance: str, reply: str) -> Turn:
    from chatbot.history import from_messages

    return from_messages([("user", utterance), ("assistant", reply)]).turns[0]


def test_a_reply_that_no_passage_answers_is_not_begun(open_scripted: Open, documents: list[Path]) -> None:
    chatbot = open_scripted()
    list(chatbot.knowledge.add_all(documents))
    by = Scripted(lambda prompt: "None of it" if "moon" in prompt.query else best_sentence(prompt), 0.9, "None")
    dialogue = Dialogue(Verbatim(), chatbot.retriever(), by, least_confidence=0.3)
    events = list(dialogue.answer(Conversation(), "What may hotels in Lyon on the moon cost a night?"))
    assert isinstance(events[1], Retrieved)
    assert events[1].prior[-1] < 0.5
    assert not [event for event in events if isinstance(event, Token)]
    assert isinstance(events[-1], Answered)
    assert events[-1].turn.reply.abstained
    *_, answered = dialogue.answer(Conversation(), "What may hotels in Lyon cost a night?")
    assert isinstance(answered, Answered)
    assert answered.turn.reply.text == "Hotels in Lyon may cost ninety euros a night."
