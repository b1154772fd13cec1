"""The commands, run as a person runs them: in a process of their own, with a home of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatbot.cli.terminal import bar

ROOT = Path(__file__).parent.parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run_one(*arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
        chosen = {"generator": "scripted", "embedder": "hashing", "no_passage": "0.05"} | settings
        extra = [word for name, value in chosen.items() for word in ("--set", f"{name}={value}")]
        command = [sys.executable, ROOT / "run.py", *arguments, "--home", tmp_path / "home", *extra]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)

    return run_one


def printed(result: subprocess.CompletedProcess[str]) -> Any:
    """What a command with --json printed; nothing but one object may be there."""
    return json.loads(result.stdout)


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """The complaint of a command that failed: exit code 1 and one line, no traceback."""
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("marginalia: ")]
    assert len(lines) == 1
    return lines[0]


def test_ingest_ask_and_delete_work_together(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Harbour\n\nThe harbour master is called Ada Quayle.")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 nothing more")
    added = run("ingest", "notes.md", "broken.pdf", "--json")
    assert added.returncode == 1
    assert [outcome["status"] for outcome in printed(added)["outcomes"]] == ["added", "failed"]

    answer = printed(run("ask", "Who is the harbour master?", "--json"))
    assert answer["reply"] == "The harbour master is called Ada Quayle."
    assert answer["citations"][0]["passage_id"] == answer["passages"][0]["id"]
    assert set(answer) == {
        "query", "language", "reply", "abstained", "confidence", "citations", "passages", "timings",
    }  # fmt: skip
    assert set(answer["passages"][0]) == {"id", "document", "page", "text", "score", "prior"}

    (document,) = printed(run("documents", "--json"))["documents"]
    assert document["name"] == "notes.md"
    assert run("delete", document["id"]).returncode == 0
    assert printed(run("documents", "--json"))["documents"] == []
    assert document["id"] in one_line(run("delete", document["id"]))


def test_an_empty_path_is_no_folder_and_odd_bytes_are_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("The harbour master is called Ada Quayle.")
    assert one_line(run("ingest", "notes.md", "")) == "marginalia: one of the paths is empty: name a file or a folder"
    assert printed(run("documents", "--json"))["documents"] == []
    run("ingest", "notes.md", "--collection", "h\udcff")
    assert printed(run("documents", "--collection", "h\udcff", "--json"))["documents"][0]["collection"] == "h?"
    assert "there is no collection 'n?'" in one_line(run("ask", "Who?", "--collection", "n\udcff"))
    assert "there is no document with the id 'x?'" in one_line(run("delete", "x\udcff"))


def test_a_collection_is_filled_asked_listed_and_deleted_by_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("The harbour master is called Ada Quayle.")
    run("ingest", "notes.md", "--collection", "harbour")
    (tmp_path / "notes.md").write_text("The harbour master is called Tom Tugwell.")
    run("ingest", "notes.md", "--collection", "harbour", "--keep")
    run("ingest", "notes.md")
    answer = printed(run("ask", "Who is the harbour master?", "--collection", "harbour", "--json"))
    assert answer["reply"] == "The harbour master is called Ada Quayle." and len(answer["passages"]) == 2
    assert "'absent'" in one_line(run("ask", "Who?", "--collection", "absent"))
    listed = run("documents", "--collection", "harbour").stdout
    assert "harbour › notes.md" in listed and "harbour › notes (2).md" in listed and len(listed.splitlines()) == 2
    assert run("delete", "--collection", "harbour").returncode == 0
    assert {each["collection"] for each in printed(run("documents", "--json"))["documents"]} == {"default"}


def test_a_conversation_file_carries_what_was_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("The harbour master is called Ada Quayle.")
    run("ingest", "notes.txt")
    for question in ("Who is the harbour master?", "Where does she live?"):
        assert run("ask", question, "--conversation", "talk.json").returncode == 0
    turns = json.loads((tmp_path / "talk.json").read_text())["turns"]
    assert [turn["query"]["utterance"] for turn in turns] == ["Who is the harbour master?", "Where does she live?"]
    assert turns[1]["query"]["text"] != "Where does she live?"


def test_what_cannot_be_done_is_said_in_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("")
    complaints = {
        "question is empty": run("ask", " "),
        "20,000 characters": run("ask", "x" * 20_000),
        "holds no conversation": run("ask", "Why?", "--conversation", "empty.json"),
        "no setting 'colour'": run("documents", "--set", "colour=red"),
        "does not exist": run("ask", "Why?", generator="./absent-model"),
        "absent.pdf": run("ingest", "absent.pdf", "--json"),
        "invalid choice": run("fly"),
        "--search is empty": run("ask", "Why?", "--search", ""),
        "'0' is no whole number of at least 1": run("eval", "answers", "--data", "rows.jsonl", "--limit", "0"),
        "'-1' is no whole number of at least 1": run("eval", "rewrite", "--data", "rows.jsonl", "--limit", "-1"),
        "'q.jsonl' cannot be read": run(
            "eval", "retrieval", "--corpus", "corpus.jsonl", "--queries", "q.jsonl", "--qrels", "r.tsv"
        ),
    }
    for expected, result in complaints.items():
        found = one_line(result) + result.stdout
        assert expected in found or expected in result.stderr


def test_without_documents_a_question_is_answered_with_what_to_do(run: Run) -> None:
    answer = printed(run("ask", "What is there?", "--json", sample="false"))
    assert answer["abstained"]
    assert "no documents" in answer["reply"] and "`ingest`" in answer["reply"]
    assert "`ingest`" in run("ask", "文档在哪里？", sample="false").stdout


def test_a_fresh_home_answers_from_the_sample(run: Run) -> None:
    answer = printed(run("ask", "How do I delete a document?", "--json"))
    assert not answer["abstained"]
    assert answer["passages"][0]["document"].startswith(("en/", "zh/"))


def test_what_is_said_without_a_source_says_so(run: Run) -> None:
    assert "without a source" in run("ask", "Hello!", sample="false").stdout
    assert printed(run("ask", "Hello!", "--json", sample="false"))["sourced"] is False
    assert "没有出处" in run("ask", "你好", sample="false").stdout


def test_the_doctor_finds_a_missing_model_and_nothing_else(run: Run) -> None:
    assert printed(run("doctor", "--json"))["well"]
    assert "generator" in one_line(run("doctor", generator="./absent-model"))


def test_retrieval_is_measured_on_a_small_collection(run: Run, tmp_path: Path) -> None:
    rows = [{"_id": "d1", "title": "Cats", "text": "Cats purr."}, {"_id": "d2", "title": "Dogs", "text": "Dogs bark."}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "Which animals purr?"}))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    files = ("--corpus", "corpus.jsonl", "--queries", "queries.jsonl", "--qrels", "qrels.tsv")
    scores = printed(run("eval", "retrieval", *files, "--run-out", "run.tsv", "--json"))
    assert scores["ndcg@10"] == scores["mrr@10"] == scores["queries"] == 1
    assert (tmp_path / "run.tsv").read_text().splitlines()[1].startswith("q\td1\t")
    assert set(scores) == {
        "ndcg@1", "ndcg@5", "ndcg@10", "recall@5", "recall@10", "recall@100", "mrr@10", "queries", "seconds",
    }  # fmt: skip


def test_help_is_quick_and_names_every_command(run: Run) -> None:
    shown = run("--help").stdout
    assert all(command in shown for command in ("serve", "ingest", "documents", "delete", "ask", "eval", "doctor"))


def test_rewrites_are_held_to_those_that_people_made(run: Run, tmp_path: Path) -> None:
    said = ["Who wrote Hamlet?", "William Shakespeare."]
    rows = [
        {
            "history": said,
            "utterance": "Where in London was it staged first?",
            "rewrite": "Where in London was Hamlet staged first?",
        },
        {"history": [], "utterance": "Who wrote Hamlet?", "rewrite": "Who wrote Hamlet?", "answer": "Shakespeare"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = printed(run("eval", "rewrite", "--data", "rows.jsonl", "--json"))
    assert found["added_words_recall"] == 1
    assert found["exact"] == 0.5
    assert 0 < found["bleu4"] < 1
    assert found["ms_per_turn"] < 1000
    raw = printed(run("eval", "rewrite", "--data", "rows.jsonl", "--limit", "1", "--json", rewriter="none"))
    assert (raw["rows"], raw["added_words_recall"]) == (1, 0)


def test_rows_without_a_rewrite_are_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "who", "answer": "me"}\n')
    assert "row 1 has no 'rewrite'" in one_line(run("eval", "rewrite", "--data", "rows.jsonl"))


def test_a_bar_in_a_file_is_drawn_only_when_something_has_changed(capsys: pytest.CaptureFixture[str]) -> None:
    with bar() as progress:
        for _ in range(50):
            progress(0.0, "reading a.md")
        progress(0.5, "embedding a.md")
    drawn = capsys.readouterr().err
    assert drawn.count("reading a.md") == 1 and drawn.count("embedding a.md") == 1
