"""The figures of `eval answers` against what they are defined as, and the command on a generator without weights."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot import attributions
from chatbot.answers import Outcome, aurc, ece, f1, figures, splices, terms
from chatbot.cli import main
from chatbot.conversation import Reply
from chatbot.events import Token
from chatbot.rows import Row

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20)


def outcome(reply: str, *answers: str, abstained: bool = False, confidence: float = 0.5) -> Outcome:
    return Outcome(Row(1, (), "?", (), answers), Reply(reply, confidence=confidence), abstained)


def test_terms_are_words_without_case_punctuation_and_articles_and_chinese_characters() -> None:
    assert terms("The U.S. (an ally), 10,000 men!") == ["us", "ally", "10000", "men"]
    assert terms("在北京。Beijing") == ["在", "北", "京", "beijing"]


def test_f1_is_the_harmonic_mean_of_precision_and_recall_over_terms() -> None:
    precision, recall = 1 / 3, 1 / 2
    assert f1("in old Paris", "Paris, France") == pytest.approx(2 * precision * recall / (precision + recall))
    assert f1("the", "") == 1  # both have no terms
    assert f1("Rome", "Paris") == 0


def test_the_best_of_several_answers_counts_and_abstaining_is_right_only_without_an_answer() -> None:
    found = figures(
        [
            outcome("Paris", "Rome", "Paris"),
            outcome("Paris", "Paris", abstained=True),
            outcome("Rome", abstained=True),
            outcome("Rome"),
        ]
    )
    assert (found["answerable_f1"], found["unanswerable_f1"], found["f1"], found["em"]) == (0.5, 0.5, 0.5, 0.5)
    assert found["coverage"] == 0.5


def test_a_figure_of_no_questions_is_left_out() -> None:
    found = figures([outcome("Paris", "Paris")])
    assert "unanswerable_f1" not in found
    assert found["answerable_f1"] == 1


def test_confidence_that_ranks_right_replies_first_has_the_least_area_under_risk_and_coverage() -> None:
    best, worst = [(0.9, 1.0), (0.8, 1.0), (0.2, 0.0)], [(0.1, 1.0), (0.2, 1.0), (0.9, 0.0)]
    assert aurc(best) == pytest.approx((0 + 0 + 1 / 3) / 3)
    assert aurc(worst) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


@given(PAIRS)
def test_a_confidence_that_says_nothing_has_the_mean_risk_at_every_coverage(pairs: list[tuple[float, float]]) -> None:
    mean = sum(right for _, right in pairs) / len(pairs)
    assert aurc([(0.5, right) for _, right in pairs]) == pytest.approx(1 - mean)


def test_the_calibration_error_is_the_gap_in_each_bin_by_its_share() -> None:
    assert ece([(0.95, 1.0), (0.95, 1.0), (0.15, 1.0), (0.15, 0.0)]) == pytest.approx(0.5 * 0.05 + 0.5 * 0.35)


def test_a_splice_is_a_change_of_the_likeliest_source() -> None:
    def token(*posterior: float) -> Token:
        return Token("a", (0.5, 0.4, 0.1), posterior, tuple(math.log(p) for p in posterior))

    assert splices([token(0.9, 0.05, 0.05), token(0.1, 0.8, 0.1), token(0.2, 0.7, 0.1), token(0.8, 0.1, 0.1)]) == 2


ROW = {
    "history": [],
    "question": "What may hotels in Lyon cost a night?",
    "passages": [
        {"id": "t", "title": "Travel", "text": "Hotels in Lyon may cost ninety euros a night."},
        {"id": "h", "title": "Handbook", "text": "Employees have thirty days of leave."},
    ],
    "answers": ["ninety euros"],
    "answerable": True,
}


def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *rows: dict[str, object], measure: str = "answers"
) -> tuple[int, str, str]:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["--home", str(tmp_path / "home"), "--set", "generator=scripted", "--set", "embedder=hashing"]
    out = ["--out", str(tmp_path / "out.jsonl")] if measure == "answers" else []
    code = main([*command, "eval", measure, "--data", str(data), *out, "--json"])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_answers_from_the_rows_passages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(tmp_path, capsys, ROW, {**ROW, "answers": [], "answerable": False})
    found = json.loads(out)
    assert code == 0
    assert found["questions"] == 2
    assert found["answerable_f1"] == pytest.approx(f1("Hotels in Lyon may cost ninety euros a night.", "ninety euros"))
    assert found["unanswerable_f1"] == 0
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [each["reply"] for each in written] == ["Hotels in Lyon may cost ninety euros a night."] * 2


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**ROW, "question": " "}, "row 2 has no 'question'"),
        ({**ROW, "passages": [{"id": "t", "text": ""}]}, "row 2 has an empty passage"),
        ({**ROW, "passages": []}, "row 2 has no passages"),
        ({**ROW, "answers": []}, "row 2 has no 'answer'"),
        ({**ROW, "answerable": "yes"}, "row 2 has 'answerable' = 'yes'"),
        ({**ROW, "history": ["Hello"]}, "row 2 has a 'history' of 1 texts"),
        ({**ROW, "gold": ["x"]}, "row 2 has 'gold' = 'x'"),
    ],
)
def test_a_bad_row_is_named(
    row: dict[str, object], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(tmp_path, capsys, ROW, row)
    assert code == 1
    assert told in err
    assert len(err.strip().splitlines()) == 1


def test_precision_recall_and_f1_of_sources_are_means_over_the_replies() -> None:
    a, b, c = (frozenset(each) for each in ("a", "b", "c"))
    rows = [
        (a, {"posterior": a, "similarity": b, "top1": a, "all": a | b | c}),
        (a | b, {"posterior": frozenset(), "similarity": b, "top1": a, "all": a | b | c}),
    ]
    found = attributions.figures(rows)
    assert found["posterior"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert found["similarity"] == pytest.approx({"precision": 0.5, "recall": 0.25, "f1": (0 + 2 / 3) / 2})
    assert found["all"] == pytest.approx({"precision": 0.5, "recall": 1, "f1": (0.5 + 0.8) / 2})


def test_the_sources_of_replies_are_held_to_the_judged_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {**ROW, "question": "How many days of leave do employees have?", "answers": ["thirty"], "gold": ["h"]}
    code, out, _ = run(tmp_path, capsys, {**ROW, "gold": ["t"]}, other, ROW, measure="attribution")
    found = json.loads(out)
    assert code == 0
    assert (found["questions"], found["replies"]) == (2, 2)
    assert found["top1"] == found["similarity"] == {"precision": 1, "recall": 1, "f1": 1}
    assert found["all"]["precision"] == 0.5 and found["all"]["recall"] == 1
    assert found["posterior"]["recall"] == 1


def test_rows_without_judged_sources_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(tmp_path, capsys, ROW, measure="attribution")
    assert code == 1
    assert "no row of 'rows.jsonl' has 'gold'" in err and len(err.strip().splitlines()) == 1
