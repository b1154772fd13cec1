"""Passages must lie in the text exactly, fit the limit, and end where a reader would pause."""

import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from chatbot.passage import Document, Page
from chatbot.split import split

LIMIT = 30


def tokenizer_of_words() -> Tokenizer:
    """A token for each word, Chinese character, and mark."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    pieces = Regex(r"[㐀-鿿]|[A-Za-z0-9']+|[^\sA-Za-z0-9'㐀-鿿]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, "removed", invert=True)
    return tokenizer


WORDS = tokenizer_of_words()


def count(text: str) -> int:
    return len(WORDS.encode(text, add_special_tokens=False).ids)


def document(*pages: str, kind: str = "markdown") -> Document:
    numbers = range(1, len(pages) + 1) if kind == "pdf" else [None] * len(pages)
    return Document("a", kind, tuple(Page(text, number) for text, number in zip(pages, numbers, strict=True)))


def passages(*pages: str, kind: str = "markdown", limit: int = LIMIT, overlap: int = 0):
    return split(document(*pages, kind=kind), "d", max_tokens=limit, tokenizer=WORDS, overlap=overlap)


def sentence(word: str, length: int = 8) -> str:
    return " ".join([word.capitalize(), *[word] * (length - 1)]) + "."


def test_the_tokenizer_of_these_tests_counts_words_characters_and_marks():
    assert count("It's 3 模型。\n\n# x") == 7


TEXT = st.lists(
    st.one_of(
        st.sampled_from(["\n", "\n\n", " ", "# A\n", "## B?\n\n", "- x\n", "```\n", "---\n", "| a | b |\n"]),
        st.sampled_from(["。", ". ", "🙂", "é", "\u3000", "*", "[x](y)"]),
        st.text(max_size=12),
        st.integers(1, 40).map(lambda n: "word " * n),
        st.integers(1, 40).map(lambda n: "模型" * n),
    ),
    max_size=25,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=3), st.sampled_from(["markdown", "text", "pdf"]), st.sampled_from([0, 5]))
def test_passages_are_exact_stretches_of_the_text_within_the_limit(pages, kind, overlap):
    made = document(*pages, kind=kind)
    found = split(made, "d", max_tokens=LIMIT, tokenizer=WORDS, overlap=overlap)
    texts = {page.number: page.text for page in made.pages} if kind == "pdf" else None
    for ordinal, passage in enumerate(found):
        assert passage.id == f"d:{ordinal}"
        if texts is not None or len(pages) == 1:
            text = pages[0] if texts is None else texts[passage.page]
            assert text[passage.start : passage.end] == passage.text
        assert passage.text and passage.text == passage.text.strip()
        assert count(passage.text) <= LIMIT


@settings(max_examples=150, deadline=None)
@given(TEXT)
def test_no_word_is_lost(text):
    covered = set()
    for passage in passages(text, kind="text"):
        covered |= set(range(passage.start, passage.end))
    lettered = any(map(str.isalnum, text))
    assert not lettered or all(i in covered for i, character in enumerate(text) if character.isalnum())


def test_a_passage_knows_its_page_and_its_place_on_it():
    first, second = passages("One page.", "  Another page.", kind="pdf")
    assert (first.page, first.start, first.end) == (1, 0, 9)
    assert (second.page, second.start, second.text) == (2, 2, "Another page.")
    assert (second.id, second.document_id, second.document) == ("d:1", "d", "a")


def test_a_passage_bears_the_headings_above_it():
    text = f"""# Guide

{sentence("intro", 20)}

## Install *it* {{#install}}

{sentence("first", 18)}

{sentence("second", 18)}

Removal
-------

{sentence("third", 18)}

# Index

{sentence("fourth", 20)}
"""
    assert [(p.heading, p.text.split()[-1]) for p in passages(text)] == [
        ("Guide", "intro."),
        ("Guide › Install it", "first."),
        ("Guide › Install it", "second."),
        ("Guide › Removal", "third."),
        ("Index", "fourth."),
    ]


def test_headings_hold_from_page_to_page():
    first, second, third = passages(
        f"# One\n\n{sentence('a')}", f"{sentence('b')}\n\n## Two\n\n{sentence('c', 25)}", kind="docx"
    )
    assert [first.heading, second.heading, third.heading] == ["One", "One", "One › Two"]


def test_a_number_sign_is_no_heading_in_code_or_plain_text():
    code = f"# Real\n\n{sentence('a')}\n\n```\n# a comment\n{sentence('b', 25)}\n```\n"
    assert {passage.heading for passage in passages(code)} == {"Real"}
    assert {passage.heading for passage in passages("# Not\n\nwords", kind="text")} == {""}


@pytest.mark.parametrize("long", ["# " + "word " * 100, "word " * 101 + "\n---"], ids=["marked", "underlined"])
def test_a_line_of_more_than_500_characters_is_no_heading(long):
    found = passages(f"# Real\n\n{long}\n\n{sentence('a', 25)}")
    assert len(found) > 4 and {passage.heading for passage in found} == {"Real"}
    assert passages(f"# {'word ' * 99}\n\n{sentence('a', 25)}")[0].heading == "word " * 98 + "word"


def test_the_front_matter_is_no_heading():
    assert passages("---\ntitle: words\n---\n\nMore words.")[0].heading == ""


def test_a_heading_stays_with_what_it_heads():
    text = f"{sentence('a', 25)}\n\n## Next\n\n{sentence('b', 13)} {sentence('c', 13)} {sentence('d', 13)}"
    found = passages(text)
    assert found[1].text.startswith("## Next\n\nB b")
    assert not any(passage.text == "## Next" for passage in found)


def test_a_heading_too_large_to_stay_is_still_borne():
    found = passages(f"## What next?\n\n{sentence('b', 29)}")
    assert [(passage.text[0], passage.heading) for passage in found] == [("B", "What next?")]


def test_a_document_of_headings_alone_is_kept():
    assert [p.text for p in passages("# One\n\n## Two\n\n# Three\n")] == ["# One\n\n## Two\n\n# Three"]


def test_sections_are_not_mixed():
    text = "\n\n".join(f"## {name}\n\n{sentence(name, 10)}" for name in "abc")
    assert [passage.heading for passage in passages(text)] == ["a", "b", "c"]


def test_passages_end_with_sentences_where_these_fit():
    lengths = [9, 14, 5, 11, 8, 13, 7, 12]
    text = " ".join(sentence(word, length) for word, length in zip("abcdefgh", lengths, strict=True))
    found = passages(text, kind="text")
    assert len(found) > 2 and all(passage.text.endswith(".") for passage in found)


@pytest.mark.parametrize("kind", ["markdown", "text"])
def test_a_line_break_inside_a_paragraph_is_no_place_to_cut(kind):
    words = " ".join(sentence(word, 13) for word in ["alpha", "gamma", "delta", "omega", "sigma", "kappa"])
    found = passages(textwrap.fill(words, 60), kind=kind)
    assert len(found) >= 3 and all(passage.text.endswith(".") for passage in found)


def test_a_link_is_no_place_to_cut():
    text = " ".join(f"See [the {word} page](x) for {sentence(word, 4)}" for word in ["one", "two", "six", "ten"])
    found = passages(text)
    assert len(found) > 1 and all(passage.text.startswith("See [the") for passage in found)


def test_chinese_is_cut_at_its_sentence_ends():
    text = "檢索增強生成結合兩種記憶。它可以回答問題！每個回答都有出處？" * 4
    found = passages(text, kind="text")
    assert len(found) > 2 and all(passage.text[-1] in "。！？" for passage in found)


def test_a_word_of_ten_thousand_letters_does_not_make_a_giant_passage():
    found = passages(f"Before. {'x' * 10_000} After.", kind="text")
    assert max(len(passage.text) for passage in found) <= 16 * LIMIT
    assert sum(passage.text.count("x") for passage in found) == 10_000


def test_stretches_without_a_letter_are_left_out():
    assert [p.text for p in passages(f"{sentence('a', 29)}\n\n* * *\n\n{sentence('b', 29)}")] == [
        sentence("a", 29),
        sentence("b", 29),
    ]
    assert [p.text for p in passages("🙂🙂")] == ["🙂🙂"]


def test_neighbours_share_words_where_an_overlap_is_asked_for():
    text = " ".join(f"w{i}" for i in range(100))
    first, second, *_ = passages(text, kind="text", overlap=5)
    assert set(first.text.split()[-3:]) <= set(second.text.split())
    assert second.start < first.end


def test_a_tokenizer_that_truncates_and_pads_counts_right_and_is_left_as_it_is():
    tokenizer = tokenizer_of_words()
    tokenizer.enable_truncation(10)
    tokenizer.enable_padding(length=10)
    text = " ".join(f"w{i}" for i in range(100))
    found = split(document(text, kind="text"), "d", max_tokens=LIMIT, tokenizer=tokenizer)
    assert [count(passage.text) for passage in found] == [30, 30, 30, 10]
    assert len(tokenizer.encode(text).ids) == 10


def test_an_empty_document_has_no_passages():
    assert passages("", " \n ") == []


def test_the_time_it_takes_grows_no_faster_than_a_line_does():
    text = " ".join(f'"IOReport{i}"=({i}.0,{i}),' for i in range(12_000))
    assert len(text) > 300_000
    started = time.monotonic()
    assert len(passages(text, kind="text")) > 1000
    assert time.monotonic() - started < 8
