"""The engines for a CPU, held to transformers: the same numbers in float32, close ones in int8."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chatbot.errors import MissingModel
from chatbot.generators import lean
from chatbot.generators.causal import Causal, _engine, _from_pretrained
from chatbot.generators.engine import Engine
from chatbot.generators.lean import GROWTH, Lean
from chatbot.generators.openvino import OpenVino
from chatbot.generators.reference import Reference
from chatbot.loading import has_openvino
from chatbot.prompt import Prompt
from tests.conftest import Noting

TINY = ["Llama", "Qwen2", "Qwen3"]
QUICK = [Lean, OpenVino]
ROWS = [[5, 6, 7, 8, 9, 10, 11], [20], [30, 31, 32]]  # of uneven lengths, one of a single token

Made = Callable[[str], Path]


@pytest.fixture(
    params=[(name, quick) for name in TINY for quick in QUICK], ids=lambda pair: f"{pair[0]}-{pair[1].__name__}"
)
def engines(request: pytest.FixtureRequest, tiny: Made) -> tuple[Engine, Engine]:
    name, quick = request.param
    model = loaded(tiny(name))
    return Reference(model), quick(model, int8=False)


def loaded(folder: Path) -> torch.nn.Module:
    """With biases and norms that are not those of a fresh model, all 0 and 1."""
    model, _ = _from_pretrained(str(folder))
    random = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            weight.data += 0.3 * torch.rand(weight.shape, generator=random)
    return model


def replies(engine: Engine, before: list[list[Tensor]], tokens: range) -> Tensor:
    """The logits of every step: (steps, B, V)."""
    rows = engine.read(ROWS, before)
    logits = [rows.logits()]
    for token in tokens:
        rows.step(token)
        logits.append(rows.logits())
    return torch.stack(logits)


def test_in_float32_it_is_transformers(engines: tuple[Engine, Engine]) -> None:
    reference, ours = engines
    assert torch.allclose(*(replies(engine, [[]] * 3, range(60, 66)) for engine in (reference, ours)), atol=1e-4)


def test_rows_read_after_memories_are_rows_read_whole(engines: tuple[Engine, Engine]) -> None:
    for engine in engines:
        first, second = [40, 41, 42, 43], [50, 51]
        one = engine.read([first], [[]]).memory(0)
        two = engine.read([second], [[one]]).memory(0)
        after = replies(engine, [[one, two], [], [one]], range(60, 63))
        whole = engine.read([first + second + ROWS[0], ROWS[1], first + ROWS[2]], [[], [], []])
        for token, logits in enumerate(after, start=60):
            assert torch.allclose(logits, whole.logits(), atol=1e-4)
            whole.step(token)


def test_the_tail_has_the_logits_after_each_of_the_last_tokens(engines: tuple[Engine, Engine]) -> None:
    for engine in engines:
        memory = engine.read([[40, 41, 42]], [[]]).memory(0)
        rows, before = [[50, 51, 52, 53], [60], [70, 71]], [[memory], [], [memory]]
        read = engine.read(rows, before, 3)
        assert read.tail().shape[:2] == (3, 3)
        assert torch.allclose(read.tail()[:, -1], read.logits(), atol=1e-5)
        for row, ids in enumerate(rows):
            for missing in range(1, min(3, len(ids))):
                shorter = engine.read([ids[:-missing]], [before[row]]).logits()[0]
                assert torch.allclose(read.tail()[row, -1 - missing], shorter, atol=1e-4)


def test_prompts_of_all_lengths_reach_the_reading_graph_in_few(tiny: Made) -> None:
    """It keeps what it builds for each."""
    engine = OpenVino(loaded(tiny("Llama")))
    engine.reading = noting = Noting(engine.reading)
    memory = engine.read([[5] * 40], [[]]).memory(0)
    noting.shapes.clear()
    for length in range(1, 49):
        before = [[memory[..., : length % 40, :]], [memory[..., : length % 7, :]]]
        engine.read([[5] * length, [6]], before, tail=1 + length % 20)
    for shapes in zip(*noting.shapes, strict=True):  # of each input
        assert len(set(shapes)) <= 9


def test_a_reply_may_outgrow_the_buffer(engines: tuple[Engine, Engine]) -> None:
    reference, ours = (replies(engine, [[]] * 3, range(60, 60 + GROWTH + 5)) for engine in engines)
    assert torch.allclose(reference, ours, atol=2e-4)


def test_a_fork_goes_its_own_way(engines: tuple[Engine, Engine]) -> None:
    rows, again = (engines[1].read(ROWS, [[]] * 3) for _ in range(2))
    other = rows.fork()
    for each, tokens in ((other, (90, 91)), (rows, (70, 71)), (again, (70, 71))):
        for token in tokens:
            each.step(token)
    assert torch.equal(rows.logits(), again.logits())
    assert not torch.allclose(rows.logits(), other.logits(), atol=1e-2)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=5), token=st.integers(3, 99)
)
def test_however_lengths_differ_it_is_transformers(tiny: Made, lengths: list[tuple[int, int]], token: int) -> None:
    model = loaded(tiny("Qwen2"))
    found = []
    for engine in (Reference(model), Lean(model, int8=False), OpenVino(model, int8=False)):
        memory = engine.read([list(range(100, 109))], [[]]).memory(0)
        before = [[memory[:, :, :, :behind]] if behind else [] for behind, _ in lengths]
        rows = engine.read([list(range(50, 50 + own)) for _, own in lengths], before)
        rows.step(token)
        found.append(rows.logits())
    assert all(torch.allclose(found[0], logits, atol=2e-4) for logits in found[1:])


@pytest.mark.skipif(not lean.has_int8(), reason="this torch has no int8 products")
@pytest.mark.parametrize("quick", QUICK)
@pytest.mark.parametrize("architecture", TINY)
def test_in_int8_it_is_close(tiny: Made, architecture: str, quick: type[Lean] | type[OpenVino]) -> None:
    model = loaded(tiny(architecture))
    exact, rounded = (replies(engine, [[]] * 3, range(60, 80)) for engine in (Reference(model), quick(model)))
    error = (exact - rounded).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt()
    assert 0 < error < 0.1


def test_int8_weights_of_a_product_are_within_half_a_step() -> None:
    linear = lean.Linear(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), torch.arange(8.0))
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    assert (lean.in_int8(linear)(x) - lean.in_float(linear)(x)).abs().max() < 0.2
    assert torch.allclose(lean.in_float(linear)(x), x @ linear.weight.t() + linear.bias, atol=1e-5)


def test_auto_takes_what_fits(tiny: Made) -> None:
    fitting = {name: lean.fits(_from_pretrained(str(tiny(name)))[0]) for name in ("Llama", "Qwen2", "Qwen3", "Mistral")}
    assert fitting == {"Llama": True, "Qwen2": True, "Qwen3": True, "Mistral": False}  # its window slides
    prompts = [Prompt("Answer.", "text", (), "the question")]
    for name in ("Llama", "Mistral", "Mamba"):
        log_probs = Causal(str(tiny(name)), engine="auto", cache_bytes=1_000_000).read(prompts).log_probs()
        assert torch.allclose(log_probs.exp().sum(dim=1), torch.ones(1), atol=1e-4)


@pytest.mark.parametrize("engine", ["lean", "openvino"])
def test_an_engine_that_does_not_fit_is_refused(tiny: Made, engine: str) -> None:
    with pytest.raises(MissingModel, match=f"the {engine} engine does not run MambaForCausalLM"):
        Causal(str(tiny("Mamba")), engine=engine).warm()


@pytest.mark.skipif(not has_openvino(), reason="OpenVINO is not installed")
def test_auto_takes_openvino_before_lean(tiny: Made) -> None:
    model = loaded(tiny("Llama"))
    assert str(_engine(model, "auto").fingerprint).startswith("openvino")
    assert str(_engine(model, "lean").fingerprint).startswith("lean int8" if lean.has_int8() else "lean float32")


def test_a_rope_that_stretches_is_left_to_transformers(tiny: Made) -> None:
    model, _ = _from_pretrained(str(tiny("Llama")))
    model.config.rope_parameters = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0}
    assert not lean.fits(model)


@pytest.mark.parametrize("architecture", TINY)
def test_a_cached_reply_is_the_uncached_one(tiny: Made, architecture: str) -> None:
    folder = str(tiny(architecture))
    plain = Causal(folder)
    caching = Causal(folder, cache_bytes=10_000_000, engine="lean-float32")
    prompts = [Prompt("Answer.", passage, (), "the question") for passage in ("the text of it", "text", None)]
    for _ in range(2):
        one, other = plain.read(prompts), caching.read(prompts)
        for token in (70, 71, 200):
            expected, found = one.log_probs(), other.log_probs()
            assert (expected.exp() * (expected - found)).sum(dim=1).max() < 1e-4
            one.push(token), other.push(token)


LOADED = """
import sys
from chatbot.generators.causal import Causal
Causal(sys.argv[1], engine="openvino").warm()
print(sorted(name for name in sys.modules if name.startswith("openvino_telemetry")), "openvino" in sys.modules)
"""


def test_openvino_is_loaded_without_what_reports_that_it_was(tiny_llama: Path) -> None:
    run = subprocess.run([sys.executable, "-c", LOADED, str(tiny_llama)], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "[] True", run.stderr
