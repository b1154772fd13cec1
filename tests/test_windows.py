"""A question longer than what the generator reads is one line, wherever it is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest

from chatbot.cli import main
from chatbot.errors import UnusableUtterance
from chatbot.generate import generate
from chatbot.generators.base import Decoding
from chatbot.generators.causal import MOST_READ, Causal
from chatbot.generators.passage_cache import Since
from chatbot.history import from_messages
from chatbot.passage import Passage
from chatbot.prompt import Prompt
from chatbot.rewrite import ByGenerator
from chatbot.sampling import Sampling
from chatbot.train.documents import rows

WINDOW = 512  # of the small random Llama
LONG = "what is the text of the passage? " * 200


def prompt(query: str, passage: str | None = None) -> Prompt:
    return Prompt("Answer.", passage, (), query, "Text: ")


@pytest.mark.parametrize("architecture", ["Llama", "GPT2"])
@pytest.mark.parametrize("passage", [None, "the passage", "the passage and " * 500])
def test_a_question_longer_than_the_window_is_one_line_that_says_what_to_do(
    tiny: Callable[[str], Path], architecture: str, passage: str | None
) -> None:
    by = Causal(str(tiny(architecture)), reserve=100)
    with pytest.raises(UnusableUtterance, match=r"question .* have [\d,]+ tokens.* at most [\d,]+: shorten") as error:
        by.read([prompt("short?", "the passage"), prompt(40 * LONG, passage)])
    assert "\n" not in str(error.value)


def test_the_longer_the_question_the_fewer_passages_are_read_beside_it(tiny_llama: Path) -> None:
    by = Causal(str(tiny_llama), reserve=100)
    passages = [*(f"the passage {number}" for number in range(40)), None]
    counts = [by.at_once([prompt("x" * length, passage) for passage in passages]) for length in (10, 100, 300)]
    assert counts == sorted(counts, reverse=True) and counts[-1] >= 2
    assert all(count * (length + 20) <= MOST_READ for count, length in zip(counts, (10, 100, 300), strict=True))
    read: list[int] = []

    class Counted(Causal):
        def read(self, prompts: Sequence[Prompt], since: Since | None = None) -> Decoding:
            read.append(len(prompts))
            return super().read(prompts, since)

    prior = [1 / len(passages)] * len(passages)
    asked = [prompt("x" * 300, passage) for passage in passages]
    (token, *_) = generate(Counted(str(tiny_llama), reserve=100), asked, prior, Sampling(max_tokens=1))
    assert read == [counts[-1]] and token.dropped == pytest.approx(1 - counts[-1] / len(passages))
    assert [each > 0 for each in token.prior].count(True) == counts[-1] and token.prior[-1] > 0


def test_the_passage_is_cut_to_nothing_before_a_question_is_refused_and_the_reply_keeps_its_place(
    tiny_llama: Path,
) -> None:
    generator = cache(lambda reserve: Causal(str(tiny_llama), reserve=reserve))

    def reads(query: str, passage: str | None, reserve: int) -> bool:
        try:
            decoding = generator(reserve).read([prompt(query, passage)])
        except UnusableUtterance:
            return False
        assert decoding.log_probs().isfinite().all()
        return True

    longest = {
        (passage, reserve): max(n for n in range(WINDOW) if reads("x" * n, passage, reserve))
        for passage in (None, "", "the passage and " * 100)
        for reserve in (50, 450)
    }
    for passage in (None, ""):
        assert longest[passage, 50] - longest[passage, 450] == 400  # a token a character
    assert longest["the passage and " * 100, 50] == longest["", 50]
    assert not reads("what?", None, WINDOW)


def test_what_is_too_long_to_be_rewritten_is_searched_as_it_was_typed(tiny_llama: Path) -> None:
    told = from_messages([("user", "who wrote the text?"), ("assistant", "the answer " * 40)] * 3)
    query = ByGenerator(Causal(str(tiny_llama), reserve=400)).rewrite(told, "and when was it?")
    assert query.searches == ("and when was it?",)


@pytest.mark.parametrize("rewriter", ["terms", "generator"])
def test_asking_it_is_one_line(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str], rewriter: str
) -> None:
    (tmp_path / "notes.txt").write_text("what is the text of the passage? It is in the text.")
    (tmp_path / "told.json").write_text(json.dumps([{"role": "user", "content": "what?"}] * 2))
    chosen = {"generator": tiny_llama, "embedder": "hashing", "no_passage": -1, "rewriter": rewriter, "sample": "false"}
    given = ["--home", str(tmp_path / "home"), *(f"--set={name}={value}" for name, value in chosen.items())]
    assert main([*given, "ingest", str(tmp_path / "notes.txt")]) == 0
    capsys.readouterr()
    for conversation in ([], ["--conversation", str(tmp_path / "told.json")]):
        assert main([*given, "ask", LONG[:3900], *conversation]) == 1
        err = capsys.readouterr().err
        assert "shorten the question" in err
        assert len([line for line in err.splitlines() if line.startswith("marginalia: ")]) == 1


def test_a_row_with_such_a_question_is_named_by_its_number(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"question": "what?", "passages": [{"id": "t", "text": "the text"}], "answers": ["text"], "answerable": True}
    data = tmp_path / "rows.jsonl"
    chosen = {"generator": tiny_llama, "embedder": "hashing", "no_passage": -1, "max_reply_tokens": 2}
    given = ["--home", str(tmp_path / "home"), *(f"--set={name}={value}" for name, value in chosen.items())]
    for question in (LONG[:3900], LONG):  # the second is longer than `max_utterance`
        data.write_text("".join(json.dumps(row | {"question": each}) + "\n" for each in ("what?", question)))
        for command in (["eval", "answers"], ["train", "generator", "--alone", "--out", str(tmp_path / "out")]):
            assert main([*given, *command, "--data", str(data)]) == 1
            err = capsys.readouterr().err
            assert "marginalia: row 2" in err.splitlines()[-1]


def test_a_passage_too_long_to_ask_about_is_passed_over(tiny_llama: Path) -> None:
    long = Passage("p", "d", "notes.txt", LONG)
    assert list(rows([long], Causal(str(tiny_llama)), lambda conversation, text: [long], 1)) == []


@pytest.mark.parametrize("content", ["[" * 100_000, '{"turns": ' + '[{"a": ' * 50_000, "[[[[]]]]", "3", '"x"', "null"])
def test_an_odd_conversation_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "odd.json").write_text(content)
    given = ["--home", str(tmp_path / "home"), "--set", "generator=scripted", "--set", "embedder=hashing"]
    assert main([*given, "ask", "what?", "--conversation", str(tmp_path / "odd.json")]) == 1
    err = capsys.readouterr().err
    assert "holds no conversation" in err
    assert len(err.strip().splitlines()) == 1
