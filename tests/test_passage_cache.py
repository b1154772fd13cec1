"""The passage cache: what is kept changes no reply, is read once, and stays within its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from chatbot.generators.causal import Causal, _from_pretrained, _read, segments
from chatbot.generators.engine import Engine, Rows
from chatbot.generators.passage_cache import PassageCache, keys_of, packed
from chatbot.generators.reference import Reference
from chatbot.prompt import Prompt

PASSAGES = ["the passage is long, and the text of the passage goes on and on", "text", "the answer and the question"]
FIRST = [Prompt("Answer.", passage, (), "the question", "Text: ") for passage in [*PASSAGES, None]]
NEXT = [
    Prompt("Answer.", passage, (("the question", "an answer of it"),), "and the next", "Text: ")
    for passage in [*reversed(PASSAGES), None]
]
ROOM = 10_000_000


def divergence(expected: Tensor, found: Tensor) -> float:
    """The largest Kullback-Leibler divergence of a row: (B, V), (B, V), in nats."""
    return float((expected.exp() * (expected - found)).sum(dim=1).max())


class Counting:
    """An engine that notes how many tokens it reads in each row."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.fingerprint, self.weight_bytes = engine.fingerprint, engine.weight_bytes
        self.read_tokens: list[int] = []

    def read(self, rows: Sequence[Sequence[int]], before: Sequence[Sequence[Tensor]], tail: int = 1) -> Rows:
        self.read_tokens += [len(row) for row in rows]
        return self._engine.read(rows, before, tail)


@pytest.mark.parametrize("architecture", ["Llama", "Qwen2", "Qwen3", "GPT2"])
def test_a_reply_from_the_cache_is_the_reply_without_it(tiny: Callable[[str], Path], architecture: str) -> None:
    plain, caching = Causal(str(tiny(architecture))), Causal(str(tiny(architecture)), cache_bytes=ROOM)
    for prompts in (FIRST, NEXT, FIRST[1:], NEXT):
        one, other = plain.read(prompts), caching.read(prompts)
        for token in (70, 71, 200, 72):
            assert divergence(one.log_probs(), other.log_probs()) < 1e-4  # float16's share; a wrong position costs 0.1
            one.push(token), other.push(token)
    assert caching.cache.size > 0


def test_a_warm_reading_equals_the_cold_one_closely(tiny_llama: Path) -> None:
    caching = Causal(str(tiny_llama), cache_bytes=ROOM)
    cold, warm = caching.read(FIRST).log_probs(), caching.read(FIRST).log_probs()
    assert torch.allclose(cold, warm, atol=1e-4)  # both read after what is kept in 16 bits


def test_what_is_held_is_not_read_again(tiny_llama: Path) -> None:
    model, tokenizer = _from_pretrained(str(tiny_llama))
    engine, cache = Counting(Reference(model)), PassageCache(ROOM)
    first = [segments(tokenizer, prompt) for prompt in FIRST]

    def tokens_read(prompts: Sequence[Prompt]) -> list[int]:
        engine.read_tokens.clear()
        _read(engine, cache, [segments(tokenizer, prompt) for prompt in prompts])
        return list(engine.read_tokens)

    lasts = [len(pieces[-1]) for pieces in first]
    instruction, bare = len(first[0][0]), len(first[-1][0])
    assert len(first[-1]) == 1  # nothing but the instruction stands before its query
    assert tokens_read(FIRST) == [instruction, *(len(pieces[1]) for pieces in first[:-1]), *lasts]
    assert tokens_read(FIRST) == lasts
    assert tokens_read([Prompt("Answer.", PASSAGES[1], (), "another", "Text: ")]) != []
    assert bare > 0


def test_a_branch_that_goes_on_is_extended(tiny_llama: Path) -> None:
    model, tokenizer = _from_pretrained(str(tiny_llama))
    engine, cache = Counting(Reference(model)), PassageCache(ROOM)
    _read(engine, cache, [segments(tokenizer, prompt) for prompt in FIRST])
    engine.read_tokens.clear()
    pieces = [segments(tokenizer, prompt) for prompt in NEXT]
    _read(engine, cache, pieces)
    assert engine.read_tokens == [len(each[-1]) for each in pieces]  # the earlier reply and the new question


def test_another_model_does_not_take_what_one_keeps(tiny: Callable[[str], Path]) -> None:
    prints = {Reference(_from_pretrained(str(tiny(name)))[0]).fingerprint for name in ("Llama", "Qwen2", "Qwen3")}
    assert len(prints) == 3
    assert len({keys_of(each or "", [[1, 2], [3]])[1] for each in prints}) == 3


def test_a_key_depends_on_all_ids_before_it_and_on_none_after() -> None:
    assert keys_of("m", [[1], [2], [3]])[:2] == keys_of("m", [[1], [2], [4]])[:2]
    assert keys_of("m", [[1], [2]])[1] != keys_of("m", [[0], [2]])[1]
    assert keys_of("m", [[1, 2]])[0] != keys_of("m", [[1], [2]])[1]


def test_two_readings_do_not_disturb_each_other(tiny_llama: Path) -> None:
    caching = Causal(str(tiny_llama), cache_bytes=ROOM)
    expected = [caching.read(prompts) for prompts in (FIRST, FIRST)]
    alone = []
    for token in (70, 71, 72):
        expected[0].push(token)
        alone.append(expected[0].log_probs())
    one, other = caching.read(FIRST), caching.read(NEXT)
    for token, rows in zip((70, 71, 72), alone, strict=True):
        one.push(token), other.push(90)
        other.log_probs()
        assert torch.allclose(one.log_probs(), rows, atol=1e-4)


def test_a_fork_goes_its_own_way(tiny_llama: Path) -> None:
    model, tokenizer = _from_pretrained(str(tiny_llama))
    prompts = [segments(tokenizer, prompt) for prompt in FIRST]
    rows, again = (_read(Reference(model), PassageCache(ROOM), prompts) for _ in range(2))
    other = rows.fork()
    other.step(90)
    rows.step(70)
    again.step(70)
    assert torch.allclose(rows.logits(), again.logits(), atol=1e-4)
    assert not torch.allclose(rows.logits(), other.logits(), atol=1e-2)


def test_many_threads_get_what_one_gets(tiny_llama: Path) -> None:
    caching = Causal(str(tiny_llama), cache_bytes=60_000)  # too little for all: they evict each other's
    plain = Causal(str(tiny_llama))
    told = [[Prompt("Answer.", f"the text {n} of the passage", (), "the question")] * 2 for n in range(6)]

    def say(generator: Causal, prompts: Sequence[Prompt]) -> Tensor:
        decoding = generator.read(prompts)
        for token in (70, 71, 72):
            decoding.log_probs()
            decoding.push(token)
        return decoding.log_probs()

    expected = [say(plain, prompts) for prompts in told]
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda n: say(caching, told[n % 6]), range(24)))
    for n, reply in enumerate(replies):
        assert divergence(expected[n % 6], reply) < 1e-3
    assert caching.cache.size <= 60_000


@pytest.mark.parametrize("architecture", ["Mamba", "Rwkv", "Mistral"])
def test_what_cannot_be_cut_is_read_whole(tiny: Callable[[str], Path], architecture: str) -> None:
    caching = Causal(str(tiny(architecture)), cache_bytes=ROOM)
    together, alone = caching.read(FIRST), [caching.read([prompt]) for prompt in FIRST]
    for token in (70, 71, 72):
        rows = torch.cat([decoding.log_probs() for decoding in alone])
        assert torch.allclose(together.log_probs(), rows, atol=2e-4)
        for decoding in (together, *alone):
            decoding.push(token)
    assert caching.cache.size == 0


@pytest.mark.parametrize("architecture", ["Mamba", "Rwkv"])
def test_a_recurrent_model_remembers_what_was_pushed(tiny: Callable[[str], Path], architecture: str) -> None:
    model, tokenizer = _from_pretrained(str(tiny(architecture)))
    decoding = Causal(str(tiny(architecture))).read(FIRST[:1])
    ids = [id for segment in segments(tokenizer, FIRST[0]) for id in segment]
    for token in (70, 71, 72):
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        assert torch.allclose(decoding.log_probs()[0], expected, atol=1e-4)
        decoding.push(token)
        ids.append(token)


@given(
    budget=st.integers(0, 40),
    runs=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=20),
)
def test_the_budget_holds_and_no_segment_outlives_those_before_it(budget: int, runs: list[list[int]]) -> None:
    cache = PassageCache(budget)
    seen = {key: run[:end] for run in runs for end, key in enumerate(keys_of("m", [[n] for n in run]), start=1)}
    for run in runs:
        keys = keys_of("m", [[n] for n in run])
        held = cache.held(keys)
        cache.keep(keys, held + [torch.zeros(1, 2, 1, n + 1, 1, dtype=torch.float16) for n in run[len(held) :]])
        assert cache.size <= budget
        assert [key for key in seen if cache.held([key])] == [
            key for key, before in seen.items() if len(cache.held(keys_of("m", [[n] for n in before]))) == len(before)
        ]
    cache.clear()
    assert (cache.size, len(cache)) == (0, 0)


def test_the_least_recently_used_goes_first() -> None:
    memory = torch.zeros(1, 2, 1, 1, 1, dtype=torch.float16)  # 4 bytes
    cache = PassageCache(8)
    one, two, three = (keys_of("m", [[n]]) for n in (1, 2, 3))
    cache.keep(one, [memory])
    cache.keep(two, [memory])
    cache.held(one)
    cache.keep(three, [memory])
    assert [len(cache.held(keys)) for keys in (one, two, three)] == [1, 0, 1]


def test_numbers_beyond_float16_stay_finite() -> None:
    assert packed(torch.tensor([1e9, -1e9, 0.1])).isfinite().all()
    assert packed(torch.zeros(3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("cache_bytes", [0, ROOM])
@pytest.mark.parametrize("engine", ["transformers", "lean-float32", "openvino"])
def test_each_branch_judges_the_question(tiny_llama: Path, engine: str, cache_bytes: int) -> None:
    by = Causal(str(tiny_llama), engine=engine, cache_bytes=cache_bytes, judges_questions=True)
    model, tokenizer = _from_pretrained(str(tiny_llama))
    for prompts in (FIRST, NEXT, NEXT):  # the last time, from the cache
        wanted = []
        for prompt in prompts:
            ids = [id for segment in segments(tokenizer, prompt) for id in segment]
            question = tokenizer(prompt.query, add_special_tokens=False).input_ids
            start = next(n for n in reversed(range(len(ids))) if ids[n : n + len(question)] == question)
            with torch.inference_mode():
                log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            wanted.append(torch.stack([log_probs[start - 1 + n, id] for n, id in enumerate(question)]).mean())
        found = by.read(prompts).log_question
        rounding = 1.0 if engine == "openvino" else 0.1 if cache_bytes else 2e-4  # int8, float16; random weights
        assert torch.allclose(found, torch.stack(wanted), atol=rounding)


def test_a_question_is_judged_only_where_branches_are_compared_and_that_is_asked_for(tiny_llama: Path) -> None:
    asked, unasked = (Causal(str(tiny_llama), judges_questions=judges) for judges in (True, False))
    assert asked.read(FIRST[:1]).log_question is None
    assert unasked.read(FIRST).log_question is None
    assert asked.read([Prompt("Answer.", text, (), "", "Text: ") for text in PASSAGES]).log_question is None
    long = [Prompt("Answer.", text, (), "the question and " * 60, "Text: ") for text in PASSAGES]
    assert asked.read(long).log_question.shape == (3,)
