"""What is searched for a turn, whatever a person types and a rewriter answers."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import pytest

from chatbot.conversation import Conversation, Query, Reply, Turn
from chatbot.generators.scripted import Scripted
from chatbot.history import from_messages
from chatbot.prompt import BETWEEN, ENCODED_LENGTH, Prompt, conversational
from chatbot.rewrite import ByGenerator, ByTerms, Counted, Rewriter, Verbatim, believable, leans

TALK = [("Who wrote Hamlet?", "William Shakespeare."), ("Which theatre staged the play?", "The Globe in London.")]


class Rare:
    """A vocabulary that knows how rare a few stems are."""

    def __init__(self, **importance: float) -> None:
        self._importance = importance

    def importance(self, words: Sequence[str]) -> dict[str, float]:
        return {word: self._importance[word] for word in words if word in self._importance}


def talk(turns: Sequence[tuple[str, str]] = TALK) -> Conversation:
    return from_messages([message for said, replied in turns for message in (("user", said), ("assistant", replied))])


def rewriters(said: str = "") -> list[Rewriter]:
    return [Verbatim(), ByTerms(), ByTerms(Rare(hamlet=3.0)), ByGenerator(Scripted(lambda prompt: said))]


def test_history_terms_are_those_that_the_index_finds_rarest_before_the_turn_as_it_was_typed() -> None:
    by = ByTerms(Rare(hamlet=3.0, theatr=2.0, wrote=0.1, stage=0.2, play=0.3, globe=9.0))
    assert by.rewrite(talk(), "When was it opened?").text == "Hamlet theatre staged play When was it opened?"


def test_words_that_no_passage_holds_are_no_history_terms() -> None:
    assert ByTerms(Rare(theatr=2.0)).rewrite(talk(), "When was it opened?").text == "theatre When was it opened?"


def test_chinese_history_terms_are_the_rarest_pairs_of_characters() -> None:
    by = ByTerms(Rare(莎士=5.0, 雷特=4.0, 写=0.1))
    assert by.rewrite(talk([("莎士比亚写了哈姆雷特吗？", "是的。")]), "他是哪年出生的？").text.endswith(
        "他是哪年出生的？"
    )
    assert "莎士" in by.rewrite(talk([("莎士比亚写了哈姆雷特吗？", "是的。")]), "他是哪年出生的？").text


@pytest.mark.parametrize(
    "said",
    [
        "",
        "\n\n",
        "Who wrote Hamlet?",  # repeats an earlier turn
        "He was born in Stratford in 1564.",  # answers
        "when when when " * 40,
        "Sure! Here is the question rewritten for you:",
    ],
)
def test_where_the_generator_does_not_rewrite_the_raw_turn_is_searched(said: str) -> None:
    query = ByGenerator(Scripted(lambda prompt: said)).rewrite(talk(), "When was he born?")
    assert query.searches == ("When was he born?",)
    assert query.leans


def test_a_rewrite_that_asks_for_something_else_is_not_searched() -> None:
    asked = "When was he crowned king of Denmark?"
    for said, searched in (("Who wrote the play Hamlet?", asked), ("When was Hamlet crowned king of Denmark?", "")):
        query = ByGenerator(Scripted(lambda prompt, said=said: said)).rewrite(talk(), asked)
        assert query.text == (searched or said)


@pytest.mark.parametrize("greeting", ["thanks!", "Thank you very much", "ok", "谢谢"])
def test_thanks_search_nothing(greeting: str) -> None:
    assert {rewriter.rewrite(talk(), greeting).searches for rewriter in rewriters()} == {()}


@pytest.mark.parametrize(
    "utterance", ["Thanks, and what about Macbeth?", "ok, who played the king", "你好，它在哪里？"]
)
def test_thanks_with_a_question_behind_them_search(utterance: str) -> None:
    for rewriter in rewriters():
        query = rewriter.rewrite(talk(), utterance)
        assert query.text.endswith(utterance)


@pytest.mark.parametrize("utterance", ["🙂", "?", "...", "\u200b"])
def test_a_turn_without_a_word_searches_nothing(utterance: str) -> None:
    for rewriter in rewriters("🙂"):
        for conversation in (Conversation(), talk()):
            assert rewriter.rewrite(conversation, utterance).searches == ()


@pytest.mark.parametrize("utterance", ["🙂🙂 why", "C++?", "42", "x" * 10_000, "what is it " * 900])
def test_whatever_is_typed_is_searched_as_it_stands_beside_what_is_made_of_it(utterance: str) -> None:
    for rewriter in rewriters("🙂"):
        for conversation in (Conversation(), talk()):
            query = rewriter.rewrite(conversation, utterance)
            assert query.searches[-1] == utterance
            assert len(query.context) <= ENCODED_LENGTH + 100


def test_the_language_may_change_midway() -> None:
    conversation = talk([("Who wrote Hamlet?", "William Shakespeare.")])
    query = ByTerms(Rare(hamlet=3.0)).rewrite(conversation, "他是哪年出生的？")
    assert (query.language, query.text) == ("zh", "Hamlet 他是哪年出生的？")
    back = ByTerms(Rare(哪年=3.0)).rewrite(talk([("他是哪年出生的？", "1564年。")]), "And when did he die?")
    assert back.language == "en"
    assert back.text.endswith("And when did he die?")


def test_two_hundred_turns_cost_no_more_than_a_few() -> None:
    conversation = talk([(f"What is the length of bridge number {n}?", "Long. " * 300) for n in range(200)])
    started = time.process_time()
    query = ByTerms(Rare(**{str(n): float(n) for n in range(200)})).rewrite(conversation, "And its height?")
    assert time.process_time() - started < 1
    assert query.text == "196 197 198 199 And its height?"
    assert len(query.context) <= ENCODED_LENGTH + 100


def test_a_query_encoder_reads_the_turn_first_then_the_last_reply_and_what_was_said_latest_first() -> None:
    assert conversational(talk(), "When was it opened?").split(BETWEEN) == [
        "When was it opened?",
        "The Globe in London.",
        "Which theatre staged the play?",
        "Who wrote Hamlet?",
        "William Shakespeare.",
    ]


def test_pasted_text_stands_alone_though_it_says_it() -> None:
    query = ByTerms(Rare(hamlet=3.0)).rewrite(talk(), "Is it true? " + "The play was staged again and again. " * 30)
    assert not query.leans


def test_a_trained_rewriter_gets_no_worked_examples() -> None:
    seen = []

    def script(prompt: Prompt) -> str:
        seen.append(prompt)
        return "When was William Shakespeare born?"

    for worked in (True, False):
        query = ByGenerator(Scripted(script), worked).rewrite(talk(TALK[:1]), "When was he born?")
        assert query.searches == ("When was William Shakespeare born?", "When was he born?")
    assert [bool(prompt.conversation) for prompt in seen] == [True, False]
    assert seen[0].query == seen[1].query


def test_a_turn_that_stands_alone_is_not_rewritten_but_may_be_read_with_its_conversation() -> None:
    asked = "What is the capital city of the state of Victoria?"
    query = ByTerms().rewrite(talk(), asked)
    assert not query.leans
    assert query.searches == (asked,)
    assert query.context.startswith(asked)
    assert ByTerms().rewrite(Conversation(), asked).context == ""


def test_a_words_importance_is_its_idf_over_the_texts_at_hand() -> None:
    counted = Counted(["A cat sat.", "The cat, the cat!", "Dogs."]).importance(["cat", "dog", "bird"])
    assert counted == {"cat": pytest.approx(math.log(1 + 3 / 2)), "dog": pytest.approx(math.log(1 + 3 / 1))}


@pytest.mark.parametrize(
    ("utterance", "language", "leaning"),
    [
        ("Macbeth and Banquo Scottish nobles", "en", True),
        ("Macbeth and Banquo the Scottish nobles", "en", False),
        ("Macbeth und Banquo Schottlands Adel", "de", True),
        ("Macbeth und Banquo der Schottlands Adel", "de", False),
        ("环球剧院几点开门", "zh", True),
        ("环球剧院星期几开门", "zh", False),
        ("伦敦环球剧院星期几开门，它多大", "zh", True),
        ("环球剧院星期几上午开门呢？", "zh", True),
        ("Is it " + "x" * 394, "en", True),
        ("Is it " + "x" * 395, "en", False),
    ],
)
def test_a_short_turn_leans_and_a_long_one_only_by_its_words(utterance: str, language: str, leaning: bool) -> None:
    assert leans(utterance, language) is leaning


def test_a_greeting_is_no_turn_that_a_question_could_lean_on() -> None:
    greeted = Conversation((Turn(Query("Hello!", "", "en"), Reply("Hello.")),))
    query = ByTerms().rewrite(greeted, "When was it opened?")
    assert (query.text, query.context, query.leans) == ("When was it opened?", "", False)


def test_a_turn_that_leans_is_read_with_its_conversation_too() -> None:
    asked = "When was it opened?"
    for rewriter in rewriters("When was the Globe opened?"):
        query = rewriter.rewrite(talk(), asked)
        assert query.leans and query.context == conversational(talk(), asked)


def test_history_terms_come_from_the_last_nine_utterances_and_are_not_those_of_the_turn() -> None:
    told = [("Elsinore castle", "Yes."), ("Yorick skull", "Yes."), *[(f"Act {n}", "Yes.") for n in range(8)]]
    by = ByTerms(Rare(elsinor=9.0, yorick=8.0, skull=7.0))
    assert by.rewrite(talk(told), "Where is it?").text == "Yorick skull Where is it?"
    assert by.rewrite(talk(told), "Is it his skull?").text == "Yorick Is it his skull?"


def test_of_chinese_only_the_characters_that_tell_are_put_before_the_turn() -> None:
    by = ByTerms(Rare(莎士=5.0, 雷特=4.0))
    query = by.rewrite(talk([("莎士比亚写了哈姆雷特吗？", "是的。")]), "他是哪年出生的？")
    assert query.text == "莎士 雷特 他是哪年出生的？"


@pytest.mark.parametrize(
    ("utterance", "said", "searched"),
    [
        ("When was it opened?", "When was the Globe opened?\nHere is why: it was asked.", "When was the Globe opened?"),
        ("他是哪年出生的？", "莎士比亚是哪年出生的？", "莎士比亚是哪年出生的？"),
        ("他是哪年出生的？", "拿破仑是哪年出生的？", "他是哪年出生的？"),  # nobody named him
        # half of the words that ask are kept, or not
        (
            "Was it built near London bridge?",
            "Was the Globe theatre near London?",
            "Was the Globe theatre near London?",
        ),
        ("Was it built near London bridge?", "Was the Globe theatre in London?", "Was it built near London bridge?"),
    ],
)
def test_a_rewrite_is_believed_by_its_first_line_and_by_its_words(utterance: str, said: str, searched: str) -> None:
    conversation = talk([*TALK, ("谁写了哈姆雷特？", "莎士比亚。")] if not utterance.isascii() else TALK)
    assert ByGenerator(Scripted(lambda prompt: said)).rewrite(conversation, utterance).text == searched


def test_a_rewrite_of_more_than_a_questions_length_is_not_believed() -> None:
    asked = "When was it opened?"
    rewritten = "When was the Globe opened?"
    for size, believed in ((2 * len(asked) + 200, True), (2 * len(asked) + 201, False)):
        assert believable(rewritten.ljust(size, "?"), talk(), asked) is believed
