"""The bench of files going in, on hashed words."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot.bench import ingest
from chatbot.cli import main, parser
from chatbot.settings import load


def test_the_figures_hang_together(tmp_path: Path):
    chosen = load(tmp_path, overrides={"embedder": "hashing", "generator": "scripted"}, environment={})
    shares: list[float] = []
    found = ingest.bench(chosen, 60, 1, lambda done, what: shares.append(done))
    pipeline, large = found["pipeline"], found["knowledge_base"]
    assert pipeline["passages_a_round"] == 6 * 40  # a paragraph is a passage
    assert pipeline["share_of_embedder"] == pytest.approx(
        pipeline["passages_per_s"] / pipeline["embedder_alone_passages_per_s"], rel=0.05
    )
    assert large["passages"] == 3 * 60 and "hashed" in large["vectors"]
    assert 0 < large["query_p50_ms"] <= large["query_p95_ms"]
    assert large["delete_s"] > 0 and large["start_s"] > 0 and large["memory_mb"] > 50
    assert all(size > 0 for size in large["disk_mb"].values())
    assert shares == sorted(shares) and list(tmp_path.iterdir()) == []


def test_bench_without_a_word_measures_replies():
    assert parser().parse_args(["bench"]).what == "replies"
    assert parser().parse_args(["bench", "ingest", "--passages", "5"]).passages == 5


def test_no_passages_are_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "ingest", "--passages", "0"]) == 1
    assert "--passages is 0" in capsys.readouterr().err
