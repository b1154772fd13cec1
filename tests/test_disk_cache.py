"""The passage cache on disk: a later process finds it, it changes no reply, and damage to it is a miss."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatbot import Chatbot, Conversation, Retrieved, Token
from chatbot.assemble import generator, read_passages
from chatbot.generators.causal import Causal, _from_pretrained, segments
from chatbot.generators.disk_cache import DiskCache, forget
from chatbot.generators.passage_cache import PassageCache, keys_of
from chatbot.generators.reference import Reference
from chatbot.history import from_messages
from chatbot.prompt import Prompt
from chatbot.settings import load as settings_of
from chatbot.train.model import Lora, ready
from tests.test_passage_cache import divergence

ROOT = Path(__file__).parent.parent
PASSAGES = ["the passage is long, and the text of the passage goes on and on", "text", "the answer and the question"]
SAID = (("the question", "an answer of it"),)
PROMPTS = [Prompt("Answer.", passage, SAID, "and the next", "Text: ") for passage in [*PASSAGES, None]]
ROOM = 10_000_000
MEMORY = torch.arange(24, dtype=torch.float16).view(1, 2, 1, 12, 1)  # 48 bytes


def on_disk(folder: Path, budget: int = ROOM, fingerprint: str = "m") -> DiskCache:
    cache = DiskCache(folder, budget)
    cache.open(fingerprint)
    return cache


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def keys(*numbers: int) -> list[bytes]:
    return keys_of("m", [[number] for number in numbers])


def test_a_later_process_reads_what_an_earlier_one_kept_and_replies_the_same(tiny_llama: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.test_disk_cache import PROMPTS, ROOM, Causal, DiskCache\n"
        "Causal(sys.argv[1], cache_bytes=ROOM, disk=DiskCache(Path(sys.argv[2]), ROOM)).read(PROMPTS)"
    )
    subprocess.run([sys.executable, "-c", program, tiny_llama, tmp_path], cwd=ROOT, check=True, timeout=120)
    plain, caching = Causal(str(tiny_llama)), Causal(str(tiny_llama), cache_bytes=ROOM)
    later = Causal(str(tiny_llama), disk=DiskCache(tmp_path, ROOM))
    model, tokenizer = _from_pretrained(str(tiny_llama))
    fingerprint = Reference(model).fingerprint
    later.warm()
    held = [len(later.cache.held(keys_of(fingerprint, segments(tokenizer, prompt)))) for prompt in PROMPTS]
    assert held == [2, 2, 2, 0]  # the instruction and the passage; what was said without one is not kept
    readings = [each.read(PROMPTS) for each in (plain, caching, later)]
    for token in (70, 71, 200):
        expected, cached, found = (reading.log_probs() for reading in readings)
        assert divergence(expected, found) < 1e-2  # float16's share here; a wrong position costs 0.1
        assert divergence(cached, found) < 1e-4
        for reading in readings:
            reading.push(token)


def test_nothing_that_people_said_is_kept(tiny_llama: Path, tmp_path: Path) -> None:
    model = Causal(str(tiny_llama), cache_bytes=ROOM, disk=DiskCache(tmp_path, ROOM))
    model.read(PROMPTS)
    assert len(files(tmp_path)) == 1 + len(PASSAGES)  # the instruction, and each passage
    assert len(model.cache) > 1 + len(PASSAGES)
    model.read([Prompt("Answer.", passage, (), "another", "Text: ") for passage in [*PASSAGES, None]])
    assert len(files(tmp_path)) == 1 + len(PASSAGES)


def test_the_least_recently_used_goes_first_also_after_a_restart(tmp_path: Path) -> None:
    cache = on_disk(tmp_path)
    for number in (1, 2):
        cache.keep(keys(0, number), [MEMORY, MEMORY])
    cache.keep(keys(0, 1), [MEMORY, MEMORY])
    one = cache.size // 3
    again = on_disk(tmp_path, 3 * one)
    again.keep(keys(0, 3), [MEMORY, MEMORY])
    assert [again.load(keys(0, number)[1]) is not None for number in (1, 2, 3)] == [True, False, True]
    assert again.load(keys(0)[0]) is not None
    assert sum(path.stat().st_size for path in files(tmp_path)) == again.size <= 3 * one
    assert on_disk(tmp_path, one).load(keys(0)[0]) is not None  # what the others begin with goes last
    assert len(files(tmp_path)) == 1
    assert on_disk(tmp_path, 0).size == 0
    assert files(tmp_path) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_a_miss_and_is_deleted(tmp_path: Path, data: st.DataObject) -> None:
    cache = on_disk(tmp_path)
    cache.keep(keys(1), [MEMORY])
    (file,) = files(tmp_path)
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    found = cache.load(keys(1)[0])
    assert found is None or torch.equal(found, MEMORY)  # white space in the header may change
    assert files(tmp_path) == ([] if found is None else [file])
    cache.clear()


def test_a_file_that_has_gone_is_a_miss(tmp_path: Path) -> None:
    cache = on_disk(tmp_path)
    cache.keep(keys(1), [MEMORY])
    for file in files(tmp_path):
        file.unlink()
    assert cache.load(keys(1)[0]) is None
    cache.keep(keys(1), [MEMORY])
    assert torch.equal(cache.load(keys(1)[0]), MEMORY)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files to be killed by")
def test_a_process_killed_while_it_writes_leaves_nothing_damaged(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys, torch; from pathlib import Path\n"
        "from chatbot.generators.disk_cache import DiskCache\n"
        "cache = DiskCache(Path(sys.argv[1]), 10**9)\n"
        "cache.open('m')\n"
        "cache.keep([bytes(32)], [torch.ones(1, 2, 1, 9, 64, dtype=torch.float16)])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"  # dies where a file would grow over the limit
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "cache.keep([bytes([1] * 32)], [torch.ones(1, 2, 1, 999, 64, dtype=torch.float16)])\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, timeout=120)
    assert killed.returncode == -signal.SIGXFSZ
    assert sorted(path.name.startswith(".") for path in files(tmp_path)) == [False, True]  # half-written, and named so
    cache = on_disk(tmp_path)
    assert [path.name for path in files(tmp_path)] == [bytes(32).hex()]
    assert cache.load(bytes(32)) is not None


def test_models_share_a_place_and_read_nothing_of_each_others(tmp_path: Path) -> None:
    one, other = (on_disk(tmp_path, fingerprint=name) for name in ("one", "other"))
    one.keep(keys(1), [MEMORY])
    assert other.load(keys(1)[0]) is None
    other.keep(keys(1), [2 * MEMORY])
    for fingerprint, memory in (("one", MEMORY), ("other", 2 * MEMORY)):
        assert torch.equal(on_disk(tmp_path, fingerprint=fingerprint).load(keys(1)[0]), memory)


def test_the_budget_is_of_all_models_together_and_what_nothing_uses_any_more_goes_first(tmp_path: Path) -> None:
    folder = tmp_path / "passages"
    gone = on_disk(folder, fingerprint="gone")
    gone.keep(keys(1, 2), [MEMORY, MEMORY])
    each = gone.size // 2
    one, other = (on_disk(folder, 3 * each, name) for name in ("one", "other"))
    one.keep(keys(3), [MEMORY])
    other.keep(keys(4), [MEMORY])
    assert other.size == one.size == 3 * each == sum(path.stat().st_size for path in files(folder))
    assert gone.load(keys(1)[0]) is not None  # what it begins with, used last of the two
    one.keep(keys(5), [MEMORY])
    assert [cache.load(keys(n)[0]) is not None for cache, n in ((gone, 1), (one, 3), (other, 4), (one, 5))] == [
        False, True, True, True,
    ]  # fmt: skip
    assert len(list(folder.iterdir())) == 2
    one.keep(keys(3), [MEMORY])
    one.keep(keys(6), [MEMORY])
    assert other.load(keys(4)[0]) is None


def test_what_was_begun_before_something_was_forgotten_is_not_kept_whoever_forgot_it(tmp_path: Path) -> None:
    folder = tmp_path / "passages"
    one, other = (on_disk(folder, fingerprint=name) for name in ("one", "other"))
    one.keep(keys(1), [MEMORY])
    begun = one.begun(), other.begun()
    forget(folder)
    for cache, since in zip((one, other), begun, strict=True):
        cache.keep(keys(1), [MEMORY], since)
    assert files(folder) == []
    one.keep(keys(1), [MEMORY], one.begun())
    assert len(files(folder)) == 1


def test_threads_that_keep_and_forget_leave_nothing_of_before(tmp_path: Path) -> None:
    folder = tmp_path / "passages"
    caches = [on_disk(folder, fingerprint=name) for name in ("one", "other")]
    begun = [cache.begun() for cache in caches]

    def keep(number: int) -> None:
        caches[number % 2].keep(keys(number), [MEMORY], begun[number % 2])

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(keep, number) for number in range(40)]
        forget(folder)
    assert all(each.exception() is None for each in done)
    assert files(folder) == []


class Kept:
    """All memories that any passage cache of this process holds, but those that were there before."""

    def __init__(self) -> None:
        self._before: set[int] = set()
        self._before = {id(cache) for cache in self.caches()}

    def __call__(self) -> list[int]:
        return [len(cache) for cache in self.caches()]

    def caches(self) -> list[PassageCache]:
        gc.collect()
        return [each for each in gc.get_objects() if type(each) is PassageCache and id(each) not in self._before]


@pytest.fixture(scope="module")
def rewriter(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `train rewriter` leaves one."""
    folder = tmp_path_factory.mktemp("rewriter")
    ready(str(tiny_llama), Lora(2)).save(folder, str(tiny_llama))
    return folder


@pytest.mark.parametrize("when", ["found", "reading", "replying"])
def test_a_passage_deleted_in_the_middle_of_its_turn_is_kept_nowhere(
    when: str, open_scripted: Callable[..., Chatbot], tiny_llama: Path, rewriter: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "notes.txt").write_text("The harbour master is called Ada Quayle.")
    kept = Kept()
    chatbot = open_scripted(
        generator=str(tiny_llama), engine="transformers", rewriter=str(rewriter), passage_cache_disk_mb=10,
        max_reply_tokens=3, no_passage=-0.5, least_confidence=0, sample=False,
    )  # fmt: skip
    folder = read_passages(chatbot.settings)
    document = chatbot.knowledge.add(tmp_path / "notes.txt").document_id
    told = from_messages([("user", "Who is the harbour master?"), ("assistant", "Ada Quayle.")])
    list(chatbot.answer(told, "And what is she called?"))
    assert files(folder)
    assert sorted(map(bool, kept())) == [False, True]  # the rewriter's generator keeps nothing
    chatbot.knowledge.delete(document)
    assert (files(folder), kept()) == ([], [0, 0])

    document = chatbot.knowledge.add(tmp_path / "notes.txt").document_id
    read = Reference.read

    def deleting(*given: Any, **named: Any) -> Any:
        rows = read(*given, **named)
        if chatbot.knowledge.documents():
            chatbot.knowledge.delete(document)
        return rows

    for event in chatbot.answer(told, "And what is she called?"):
        if isinstance(event, Retrieved):
            assert event.hits
            if when == "found":
                chatbot.knowledge.delete(document)
            if when == "reading":
                monkeypatch.setattr(Reference, "read", deleting)
        if isinstance(event, Token):
            monkeypatch.undo()
            if when == "replying" and chatbot.knowledge.documents():
                chatbot.knowledge.delete(document)
    assert chatbot.knowledge.documents() == []
    assert (files(folder), kept()) == ([], [0, 0])


def test_a_rewriter_of_its_own_takes_nothing_of_what_the_settings_give_to_passages(
    open_scripted: Callable[..., Chatbot], tiny_llama: Path, rewriter: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("The harbour master is called Ada Quayle.")
    kept = Kept()
    chosen = {"generator": str(tiny_llama), "rewriter": str(rewriter), "max_reply_tokens": 3, "no_passage": -0.5}
    chatbot = open_scripted(**chosen, passage_cache_mb=2, passage_cache_disk_mb=10)
    chatbot.knowledge.add(tmp_path / "notes.txt")
    told = from_messages([("user", "Who is the harbour master?"), ("assistant", "Ada Quayle.")])
    list(chatbot.answer(told, "And what is she called?"))
    assert sorted(cache.budget for cache in kept.caches()) == [0, 2_000_000]
    assert len([cache for cache in kept.caches() if cache.disk is not None]) == 1
    held = files(read_passages(chatbot.settings))
    assert held
    chatbot.close()
    open_scripted(**chosen, passage_cache_mb=2, passage_cache_disk_mb=10).dialogue()
    assert files(read_passages(chatbot.settings)) == held


def test_a_full_disk_keeps_no_passage_and_fails_no_reply(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    cache = on_disk(tmp_path / "cache")
    cache.keep(keys(1), [MEMORY])
    assert cache.load(keys(1)[0]) is None


def test_a_deleted_document_leaves_nothing_of_it_on_disk(
    open_scripted: Callable[..., Chatbot], tiny_llama: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("The harbour master is called Ada Quayle.")
    chosen = {"generator": str(tiny_llama), "passage_cache_disk_mb": 10, "max_reply_tokens": 1, "no_passage": -0.5}
    chatbot = open_scripted(**chosen)
    document = chatbot.knowledge.add(tmp_path / "notes.txt").document_id
    list(chatbot.answer(Conversation(), "Who is the harbour master?"))
    folder = read_passages(chatbot.settings)
    assert files(folder)
    chatbot.close()
    again = open_scripted(**chosen)  # the generator is not even made
    again.knowledge.delete(document)
    assert files(folder) == []
    again.knowledge.add(tmp_path / "notes.txt")
    list(again.answer(Conversation(), "Who is the harbour master?"))
    assert files(folder)
    again.knowledge.delete(document)
    assert files(folder) == []


def test_without_the_setting_nothing_is_kept_and_what_was_goes(tiny_llama: Path, tmp_path: Path) -> None:
    def read(mb: int) -> list[Path]:
        chosen = settings_of(tmp_path, overrides={"generator": str(tiny_llama), "passage_cache_disk_mb": mb})
        generator(chosen).read(PROMPTS)
        return files(read_passages(chosen))

    assert read(0) == []
    assert len(read(10)) == 1 + len(PASSAGES)
    assert read(0) == []


@pytest.mark.parametrize("architecture", ["Mamba", "Mistral"])
def test_what_cannot_be_cut_is_not_kept(tiny: Callable[[str], Path], tmp_path: Path, architecture: str) -> None:
    Causal(str(tiny(architecture)), disk=DiskCache(tmp_path, ROOM)).read(PROMPTS)
    assert files(tmp_path) == []
