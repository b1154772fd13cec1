"""How rewrites are measured: against the formulas, and against figures of sacrebleu 2.6."""

import math

import pytest

from chatbot.rewrites import Rewrite, bleu, figures, terms

SAID = "When was he born?"
WANTED = "When was William Shakespeare born?"


def test_a_rewrite_that_is_the_persons_scores_one_whatever_its_case_and_marks() -> None:
    found = figures([Rewrite(SAID, WANTED, "when was  William Shakespeare born")])
    assert {name: found[name] for name in ("exact", "bleu4", "rouge1_recall", "added_words_recall")} == {
        "exact": 1,
        "bleu4": pytest.approx(1),
        "rouge1_recall": 1,
        "added_words_recall": 1,
    }


def test_the_raw_turn_recovers_none_of_the_words_that_were_added() -> None:
    found = figures([Rewrite(SAID, WANTED, SAID)])
    assert found["added_words_recall"] == 0
    assert found["rouge1_recall"] == pytest.approx(3 / 5)


def test_words_added_are_counted_over_all_rows_and_those_that_add_none_do_not_count() -> None:
    rows = [Rewrite(SAID, WANTED, "When was Shakespeare born?"), Rewrite("Who is she?", "Who is she?", "Who?")]
    assert figures(rows)["added_words_recall"] == 0.5
    assert figures(rows[1:])["added_words_recall"] == 0


def test_a_word_said_twice_counts_twice() -> None:
    assert figures([Rewrite("a", "a b b", "b")])["added_words_recall"] == 0.5
    assert figures([Rewrite("a", "a b b", "b")])["rouge1_recall"] == pytest.approx(1 / 3)


def test_bleu_is_the_geometric_mean_of_precisions_times_the_brevity_penalty() -> None:
    wanted, got = ["a", "b", "c", "d", "e", "f"], ["a", "b", "c", "d", "e"]
    assert bleu([(wanted, got)]) == pytest.approx(math.exp(1 - 6 / 5))
    wanted, got = ["a", "b", "c", "d", "e", "x", "f"], ["a", "b", "c", "d", "e", "f", "g"]
    assert bleu([(wanted, got)]) == pytest.approx((6 / 7 * 4 / 6 * 3 / 5 * 2 / 4) ** 0.25)


def test_bleu_is_of_the_whole_set_as_sacrebleu_counts_it() -> None:
    # corpus_bleu(tokenize="none", smooth_method="none").score / 100
    pairs = [
        ("when was shakespeare born in stratford", "when was william shakespeare born in stratford"),
        ("what do the solar panels cost in the north of spain", "what do the solar panels cost a year in the north"),
    ]
    split = [(wanted.split(), got.split()) for wanted, got in pairs]
    assert bleu(split) == pytest.approx(0.5559, abs=1e-4)


def test_nothing_in_common_scores_nothing() -> None:
    assert figures([Rewrite("x", "a b", "c d")])["bleu4"] == 0
    assert bleu([(["a"], [])]) == 0


def test_chinese_is_counted_by_characters() -> None:
    assert terms("莎士比亚 is 2 好。") == ["莎", "士", "比", "亚", "is", "2", "好"]
    assert figures([Rewrite("看了", "舒马赫看球了", "舒马赫看了")])["added_words_recall"] == 0.75
