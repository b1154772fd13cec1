"""The bench on a tiny random model: every system replies, and the figures hang together."""

from pathlib import Path

import pytest

from chatbot.bench import REPLY_TOKENS, bench, prompts, stuffed
from chatbot.settings import load


def test_systems_are_measured_side_by_side(tiny_llama: Path, tmp_path: Path) -> None:
    chosen = load(tmp_path, overrides={"generator": str(tiny_llama), "threads": 1}, environment={})
    found = bench(chosen, [1], 1, lambda share, what: None, ["ours-warm", "stuffing", "naive"])
    assert [row["system"] for row in found["rows"]] == ["ours-warm", "stuffing", "naive"]
    assert found["settings"]["reply_tokens"] == REPLY_TOKENS
    for row in found["rows"]:
        assert row["tokens_per_s"] == pytest.approx(1000 / row["step_ms"], rel=0.05)
        assert row["first_token_s"] > 0
        assert row["peak_memory_mb"] > 50


def test_the_stuffed_prompt_holds_every_passage() -> None:
    passages = [prompt.passage for prompt in prompts(3) if prompt.passage]
    assert len(passages) == 3
    assert all(passage in (stuffed(3).passage or "") for passage in passages)
