"""The metrics against the formulas written out, and the readers of judged data against good and bad files."""

import json
import math
from pathlib import Path

import pytest

from chatbot.errors import UnreadableData
from chatbot.evaluate import judged, metrics, ndcg, read_judgements, read_topics, retrieval


def test_ndcg_is_dcg_over_the_best_dcg_with_the_grade_as_gain() -> None:
    dcg = 0 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    ideal = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(["x", "two", "one"], {"two": 2, "one": 1, "lost": 1, "bad": 0}, 10) == pytest.approx(dcg / ideal)


def test_recall_and_mrr_count_relevant_passages_only() -> None:
    found = metrics(["x", "bad", "a", *"0123456789", "b"], {"a": 1, "b": 3, "bad": 0})
    assert found["recall@5"] == found["recall@10"] == 0.5
    assert found["recall@100"] == 1
    assert found["mrr@10"] == pytest.approx(1 / 3)


def test_queries_without_a_relevant_passage_do_not_count(tmp_path: Path) -> None:
    topics = read_topics(_jsonl(tmp_path, {"_id": "1", "text": "a"}, {"_id": "2", "text": "b"}))
    judgements = {"1": {"x": 1}, "2": {"x": 0}}
    scores, run = retrieval(judged(topics, judgements), judgements, lambda topic: [("x", 1.0)])
    assert scores["queries"] == 1
    assert scores["ndcg@10"] == 1
    assert list(run) == ["1"]


@pytest.mark.parametrize(
    "row",
    [
        {"text": "|user|: Who wrote Hamlet?\n|agent|: Shakespeare.\n|user|: When was he born?"},
        {"text": "When was he born?", "history": ["Who wrote Hamlet?", "Shakespeare."]},
        {
            "text": "When was he born?",
            "history": [{"speaker": "user", "text": "Who wrote Hamlet?"}, {"role": "agent", "content": "Shakespeare."}],
        },
    ],
)
def test_a_query_may_hold_a_conversation(tmp_path: Path, row: dict[str, object]) -> None:
    (topic,) = read_topics(_jsonl(tmp_path, {"_id": "1", **row}))
    assert topic.utterance == "When was he born?"
    assert [(t.utterance, t.reply.text) for t in topic.conversation.turns] == [("Who wrote Hamlet?", "Shakespeare.")]


@pytest.mark.parametrize("header", ["query-id\tcorpus-id\tscore\n", ""])
def test_judgements_are_read_with_and_without_a_header(tmp_path: Path, header: str) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_text(f"{header}q1\td1\t2\nq1\td2\t0\n")
    assert read_judgements(path) == {"q1": {"d1": 2, "d2": 0}}


@pytest.mark.parametrize(("text", "line"), [('{"_id": "1"}', "line 1"), ('{"_id": "1", "text": "a"}\n{', "line 2")])
def test_a_bad_line_is_named(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text(text)
    with pytest.raises(UnreadableData, match=line):
        read_topics(path)


def _jsonl(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path
