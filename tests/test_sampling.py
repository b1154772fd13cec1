"""From the mixture to a token, and up to a stop string."""

import math
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from chatbot.events import Token
from chatbot.sampling import Sampling, choose, ended, loops, stop_start, truncate, unlooped, until

PROBS = st.lists(st.floats(1e-6, 1), min_size=1, max_size=12).map(lambda ps: [p / sum(ps) for p in ps])


def test_a_repetition_penalty_makes_the_same_word_again_less_likely() -> None:
    mixture = torch.tensor([0.6, 0.4]).log()
    assert choose(mixture, [0], Sampling(), torch.Generator()) == 0
    assert choose(mixture, [0], Sampling(repetition_penalty=3.0), torch.Generator()) == 1
    assert mixture.exp().tolist() == pytest.approx([0.6, 0.4])


@given(PROBS, st.floats(0, 0.999))
def test_top_p_keeps_the_fewest_likeliest_tokens_whose_mass_reaches_it(probs: list[float], top_p: float) -> None:
    kept, mass = set(), 0.0
    for token in sorted(range(len(probs)), key=lambda token: -probs[token]):
        if kept and mass >= top_p:
            break
        kept.add(token)
        mass += probs[token]
    found = truncate(torch.tensor(probs, dtype=torch.float64), top_p, 0.0)
    assert sorted(found[found > 0].tolist()) == pytest.approx(sorted(probs[token] for token in kept))


@given(PROBS, st.floats(0, 1))
def test_min_p_keeps_what_is_nearly_as_likely_as_the_likeliest(probs: list[float], min_p: float) -> None:
    found = truncate(torch.tensor(probs, dtype=torch.float64), 1.0, min_p).tolist()
    assert found == [p if p >= min_p * max(probs) else 0.0 for p in probs]


def test_top_p_and_min_p_each_keep_only_what_the_other_keeps_too() -> None:
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    assert truncate(probs, 0.9, 0.5).tolist() == pytest.approx([0.5, 0.3, 0.0, 0.0])
    assert truncate(probs, 0.7, 0.2).tolist() == pytest.approx([0.5, 0.3, 0.0, 0.0])


def drawn(sampling: Sampling, draws: int = 4000) -> dict[int, float]:
    random = torch.Generator().manual_seed(0)
    mixture = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    counts = Counter(choose(mixture, [], sampling, random) for _ in range(draws))
    return {token: count / draws for token, count in counts.items()}


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    assert drawn(Sampling(temperature=1.0)) == pytest.approx({0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}, abs=0.03)
    squares = [0.25, 0.09, 0.0225, 0.0025]
    assert drawn(Sampling(temperature=0.5))[0] == pytest.approx(squares[0] / sum(squares), abs=0.03)


def test_what_top_p_leaves_is_drawn_in_proportion() -> None:
    assert drawn(Sampling(temperature=1.0, top_p=0.8)) == pytest.approx({0: 0.625, 1: 0.375}, abs=0.03)


# --- stop strings


def tokens_of(pieces: list[str]) -> list[Token]:
    return [Token(piece, (1.0,), (1.0,), (0.0,)) for piece in pieces]


def before_first_stop(text: str, stops: list[str]) -> str:
    """The slow way: character by character, until the text ends with a stop string."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return text


PIECES = st.lists(st.text("ab\n", max_size=3), max_size=8)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)


@given(PIECES, STOPS)
@example(["a", "a", "a", "b", "\n"], ["aab"])  # one token of those held may go, the next not yet
def test_what_is_said_ends_before_the_first_stop_string_however_the_text_is_cut_into_tokens(
    pieces: list[str], stops: list[str]
) -> None:
    said = "".join(token.text for token in until(tokens_of(pieces), stops))
    assert said == before_first_stop("".join(pieces), stops)


@given(PIECES, STOPS)
@example(["b", "", "a", ""], ["baa"])
def test_a_token_is_held_back_only_while_it_may_begin_a_stop_string(pieces: list[str], stops: list[str]) -> None:
    said: list[Token] = []

    def read() -> Iterator[Token]:
        for count, token in enumerate(tokens_of(pieces)):
            if held := pieces[len(said) : count]:  # when the next token is asked for
                text = "".join(held)
                assert any(text[start:] == stop[: len(text) - start] for stop in stops for start in range(len(held[0])))
            yield token

    for token in until(read(), stops):
        said.append(token)


def test_without_stop_strings_every_token_comes_at_once() -> None:
    taken: list[Token] = []
    said = until((taken.append(token) or token for token in tokens_of(["a", "", "b"])), ["", ""])
    for count, _ in enumerate(said, start=1):
        assert len(taken) == count


def test_a_beginning_that_comes_to_nothing_is_said_after_all() -> None:
    assert [token.text for token in until(tokens_of(["x", "E", "N"]), ["END"])] == ["x", "E", "N"]


def test_a_token_that_only_a_stop_string_is_made_of_is_not_said() -> None:
    assert [token.text for token in until(tokens_of(["x", "</", "s>"]), ["</s>"])] == ["x"]
    assert list(until(tokens_of(["</", "s>"]), ["</s>"])) == []


def test_a_token_cut_short_keeps_its_numbers() -> None:
    (token,) = until([Token("word</s", (0.3, 0.7), (0.9, 0.1), (-1.0, -math.inf), 0.2)], ["</"])
    assert token == Token("word", (0.3, 0.7), (0.9, 0.1), (-1.0, -math.inf), 0.2)


LOOP = "Answer the question briefly. "


def test_a_reply_ends_with_the_repeat_that_makes_a_loop_of_it() -> None:
    before = "Thirty days, x"
    said = before + 9 * LOOP
    for size in (1, 3, 7, 50):  # characters a token
        tokens = tokens_of([said[start : start + size] for start in range(0, len(said), size)])
        text = "".join(token.text for token in unlooped(tokens, 3))
        assert said.startswith(text)
        assert 0 <= len(text) - len(before + 3 * LOOP) < size
        assert list(unlooped(tokens, 0)) == tokens


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("的" * 40, True),
        ("1, 1, " * 20, True),
        ("请用文中的话简短地回答问题。" * 3, True),
        ("请用文中的话简短地回答问题。" * 2, False),
        ("No, no, no, no, no!", False),
        ("| --- | --- | --- | --- | --- | --- | --- | --- |", False),
        ("=" * 200, False),
        ("".join(chr(0x4E00 + n) for n in range(101)) * 5, False),  # too long a piece
        ("", False),
    ],
)
def test_a_loop_is_one_piece_with_words_in_it_said_again_and_again(text: str, looping: bool) -> None:
    assert loops(text, 3) is looping
    assert not loops(text, 0)


@given(
    st.lists(st.sampled_from(["a", "b ", ". ", "说", "one and another, ", "--"]), max_size=30).map("".join),
    st.integers(0, 5),
)
@example("x" * 40, 1)
@example("the very same sentence, said once and then once more. " * 2, 1)
def test_a_loop_is_what_the_end_of_the_text_says_at_least_twice(text: str, most: int) -> None:
    def said(piece: str) -> int:
        times = 0
        while text.endswith(piece * (times + 1)):
            times += 1
        return times

    pieces = [text[-length:] for length in range(1, min(100, len(text)) + 1)]
    found = any(
        said(piece) >= max(2, most) and said(piece) * len(piece) >= 40 and any(map(str.isalnum, piece))
        for piece in pieces
    )
    assert loops(text, most) is (found and most > 0)


@given(st.permutations([chr(0x4E00 + n) for n in range(150)]).map("".join), st.integers(0, 5), st.integers(1, 60))
def test_a_reply_that_says_nothing_twice_is_never_ended(text: str, most: int, size: int) -> None:
    tokens = tokens_of([text[start : start + size] for start in range(0, len(text), size)])
    assert list(unlooped(tokens, most)) == tokens


@pytest.mark.parametrize("most", [1, 2])
def test_the_second_telling_of_even_a_long_piece_ends_a_reply(most: int) -> None:
    piece = "".join(chr(0x4E00 + n) for n in range(100))
    tokens = tokens_of(list(2 * piece + "and on"))
    assert "".join(token.text for token in unlooped(tokens, most)) == 2 * piece


@given(st.text("ab1. ", min_size=1, max_size=5), st.integers(1, 45), st.text("ab1.x ", max_size=6), st.integers(1, 6))
@example("a", 39, "", 3)
@example("a", 40, "", 3)
@example("ab1", 13, "", 3)
@example("ab1", 14, "", 3)
@example("a" + 99 * "1", 2, "", 2)
@example("a" + 100 * "1", 2, "", 2)
def test_a_loop_is_so_many_repeats_of_so_many_characters_and_no_fewer(
    piece: str, count: int, before: str, most: int
) -> None:
    text = before + piece * count
    least = max(2, most)
    slow = any(
        text.endswith(text[-length:] * times) and any(map(str.isalnum, text[-length:]))
        for length in range(1, min(100, len(text)) + 1)
        for times in range(least, len(text) // length + 1)
        if length * times >= 40
    )
    assert loops(text, most) is slow


@given(st.text("ab", max_size=9), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
@example("abab", ["bab", "ab"])
@example("aabb", ["bb", "aabb"])
@example("abba", ["ba", "ab"])
def test_of_several_stop_strings_the_first_to_be_completed_counts_and_the_longer_of_two_together(
    text: str, stops: list[str]
) -> None:
    start = stop_start(text, stops)
    assert (text if start is None else text[:start]) == before_first_stop(text, stops)


def test_an_empty_stop_string_stops_nothing() -> None:
    assert [token.text for token in until(tokens_of(["a", "", "b"]), ["", "x"])] == ["a", "", "b"]


def test_a_reply_ends_at_a_loop_and_before_a_stop_string() -> None:
    said = tokens_of(["one ", "two ", *["again and again "] * 9])
    looped = "".join(token.text for token in ended(said, Sampling(most_repeats=3, stop=("x",))))
    assert looped == "one two " + 3 * "again and again "
    assert [token.text for token in ended(said, Sampling(stop=("two",)))] == ["one "]
    assert list(ended(said, Sampling())) == said


def test_the_same_seed_draws_the_same_and_another_not() -> None:
    mixture, sampling = torch.full((1_000,), 0.001).log(), Sampling(temperature=1.0)
    one, same, other = ([choose(mixture, [], sampling, torch.Generator().manual_seed(n))] for n in (1, 1, 2))
    assert one == same != other


def test_a_nucleus_that_reaches_its_mass_exactly_takes_no_token_more() -> None:
    probs = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    assert truncate(probs, 0.5, 0.0).tolist() == [0, 0.5, 0]
    assert int((truncate(probs, 0.75, 0.0) > 0).sum()) == 2
