"""The bench on tiny random models: every system replies, and the figures hang together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, RagTokenForGeneration

from chatbot import loading
from chatbot.bench import REPLY_TOKENS, SYSTEMS, bench, chart, row
from chatbot.bench.children import MAKERS
from chatbot.bench.rag import HuggingFaceRag, OursSeq2Seq, Shape, checkpoint, context, put, tokenizer_of
from chatbot.bench.systems import Footprint, Ours, Timing, footprint, prompts, stuffed
from chatbot.errors import MarginaliaError
from chatbot.generators.causal import segments
from chatbot.generators.lean import Lean
from chatbot.generators.reference import Reference, weight_bytes
from chatbot.generators.seq2seq import Seq2Seq, encode
from chatbot.prompt import Prompt
from chatbot.settings import Settings, load

TINY = Shape("tiny", layers=2, hidden=32, inner=48, heads=4, vocabulary=400)
LLAMA_CPP = """
import itertools
import time

class Llama:
    def __init__(self, path, n_ctx, n_threads, verbose):
        assert path.endswith("model.gguf")

    def tokenize(self, text):
        return list(text)

    def reset(self):
        pass

    def generate(self, ids, temp):
        assert temp == 0 and len(ids) > 256
        for token in itertools.count():
            time.sleep(0.001)
            yield token
"""


@pytest.fixture
def chosen(tiny_llama: Path, tmp_path: Path) -> Settings:
    return load(tmp_path, overrides={"generator": str(tiny_llama), "threads": 1}, environment={})


@pytest.fixture(scope="module")
def rag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rag")
    checkpoint(folder, TINY)
    return folder


def test_systems_are_measured_side_by_side(chosen: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "llama_cpp.py").write_text(LLAMA_CPP)  # children have the parent's sys.path
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.gguf").touch()
    systems = ["ours-warm", "llama.cpp", "ours-seq2seq"]
    found = bench(chosen, [1], 1, lambda share, what: None, systems, TINY)
    assert [each["system"] for each in found["rows"]] == systems
    assert found["settings"]["reply_tokens"] == REPLY_TOKENS
    for each in found["rows"]:
        assert each["tokens_per_s"] == pytest.approx(1000 / each["step_ms"], rel=0.05)
        assert each["first_token_s"] > 0 and each["peak_memory_mb"] > 10
        assert (each["bandwidth_share"] is None) == (each["system"] == "llama.cpp")
        assert (each["cache_bytes_per_passage"] is None) == (each["system"] != "ours-warm")


@pytest.mark.parametrize("name", ["ours-cold", "stuffing", "naive"])
def test_every_system_says_the_same_number_of_tokens(name: str, chosen: Settings) -> None:
    system = MAKERS[name](chosen, 1)
    timing, found = system.reply(), footprint(system)
    assert timing.tokens == REPLY_TOKENS and 0 < timing.first < timing.last
    assert found.step_bytes and found.cache_bytes_per_passage is None


def test_a_chart_shows_every_row(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [row(name, k, [Timing(k, k + 6, 64)], Footprint(1, None, None), 20) for name in SYSTEMS for k in (1, 10)]
    settings = {"generator": "some/folder/model", "passage_tokens": 256, "rounds": 3, "random_weights": "bart-base"}
    chart.draw({"settings": settings, "rows": rows}, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_the_stuffed_prompt_holds_every_passage() -> None:
    passages = [prompt.passage for prompt in prompts(3) if prompt.passage]
    assert len(passages) == 3
    assert all(passage in (stuffed(3).passage or "") for passage in passages)


def test_a_share_of_one_is_a_step_that_takes_as_long_as_reading_its_bytes() -> None:
    timing = Timing(first=1.0, last=1.0 + 63 * 0.1, tokens=64)
    assert row("naive", 1, [timing], Footprint(1.0, 2_000_000_000, None), 20.0)["bandwidth_share"] == 1


def test_a_step_reads_the_weights_as_stored_and_every_branchs_keys_and_values(
    chosen: Settings, tiny_llama: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    parts = {name: weight.numel() for name, weight in model.named_parameters() if "embed" not in name}
    assert weight_bytes(model) == Reference(model).weight_bytes == 4 * sum(parts.values())
    matrices = sum(count for name, count in parts.items() if "norm" not in name)
    wide = 2 * 32 * 32  # float32 channels of two layers
    assert Lean(model, int8=False).weight_bytes == 4 * matrices
    ours = Ours(replace(chosen, engine="lean"), prompts(2), warm=True)
    ours.reply()
    tokens = sum(
        len(ids) for prompt in prompts(2) for ids in segments(ours._generator._load().tokenizer, prompt)
    ) + 3 * (REPLY_TOKENS // 2)
    assert ours.step_bytes() - tokens * 2 * 2 * 2 * 8 * 4 in (matrices + 3 * wide, 4 * matrices)  # int8, or without it


def test_openvino_keeps_keys_and_values_in_the_precision_that_it_multiplies_in(chosen: Settings) -> None:
    through = Ours(replace(chosen, engine="openvino"), prompts(2), warm=True)
    plain = Ours(replace(chosen, engine="lean-float32"), prompts(2), warm=True)
    numbers = (plain.step_bytes() - plain._generator.weight_bytes) / 4
    precision = loading.openvino().Core().get_property("CPU", "INFERENCE_PRECISION_HINT").size
    assert through.step_bytes() - through._generator.weight_bytes == precision * numbers


def test_a_kept_passage_takes_two_bytes_a_number_of_its_own_tokens(chosen: Settings) -> None:
    short = [Prompt("Answer.", passage, (), "the question") for passage in ("the text of the passage", None)]
    ours = Ours(chosen, short, warm=True)
    tokenizer = ours._generator._load().tokenizer
    whole, without = (sum(len(ids) for ids in segments(tokenizer, prompt)) for prompt in short)
    assert ours.cache_bytes_per_passage() == (whole - without) * 2 * 2 * 2 * 8 * 2 > 0


def test_both_rag_loops_read_and_say_the_same(rag: Path, chosen: Settings, tmp_path: Path) -> None:
    model, tokenizer = RagTokenForGeneration.from_pretrained(rag), tokenizer_of(str(rag))
    ids, mask = context(model.config, tokenizer, put(2))
    ours = Seq2Seq(str(rag))
    assert ids.shape == (2, 300)
    assert [encode(ours._load(), prompt).ids for prompt in put(2)] == [
        each[kept.bool()].tolist() for each, kept in zip(ids, mask, strict=True)
    ]
    over = load(tmp_path, overrides={"generator": str(rag), "threads": 1}, environment={})
    theirs, own = HuggingFaceRag(over, 2), OursSeq2Seq(over, 2)
    assert theirs.reply().tokens == own.reply().tokens == REPLY_TOKENS
    assert theirs.step_bytes() == own.step_bytes() > 4 * model.generator.model.shared.weight.numel()


def test_a_chart_that_cannot_be_drawn_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, expected in (("a.pdf", "end"), ("none/a.png", "make it first")):
        with pytest.raises(MarginaliaError, match=expected):
            chart.check(tmp_path / name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MarginaliaError, match="pip install matplotlib"):
        chart.check(tmp_path / "a.png")
