"""Posteriors to citations, on tokens made by hand."""

import math
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.attribution import (
    LEAST_WEIGHT,
    answerable,
    confidence,
    evidence,
    mean_posterior,
    most_likely_sources,
    reply,
    spans,
)
from chatbot.events import Token
from chatbot.passage import Hit, Passage

HITS = [Hit(Passage(f"d:{number}", "d", "doc.txt", f"passage {number}"), 0.5) for number in range(2)]
PRIOR = (0.45, 0.45, 0.1)


def token(text: str, *likelihoods: float) -> Token:
    joint = [prior * likelihood for prior, likelihood in zip(PRIOR, likelihoods, strict=True)]
    return Token(text, PRIOR, tuple(p / sum(joint) for p in joint), tuple(math.log(p) for p in likelihoods))


FROM_FIRST, FROM_SECOND, FROM_NONE = (0.9, 0.01, 0.01), (0.01, 0.9, 0.01), (0.01, 0.01, 0.9)
FUNCTION_WORD = (0.5, 0.5, 0.5)


def cited(tokens: list[Token]) -> list[tuple[str, str]]:
    made = reply(tokens, HITS)
    return [(made.text[citation.start : citation.end], citation.passage_id) for citation in made.citations]


def test_each_sentence_cites_the_passage_that_predicted_it() -> None:
    tokens = [
        token(" Cats", *FROM_FIRST),
        token(" purr.", *FROM_FIRST),
        token(" Dogs", *FROM_SECOND),
        token(" bark.", *FROM_SECOND),
    ]
    assert cited(tokens) == [("Cats purr.", "d:0"), ("Dogs bark.", "d:1")]


def test_what_no_passage_predicted_is_cited_to_none() -> None:
    assert cited([token("Snow", *FROM_NONE), token(" falls.", *FROM_NONE)]) == []


def test_one_telling_word_outweighs_many_that_every_branch_predicts() -> None:
    tokens = [token(word, *FUNCTION_WORD) for word in (" It", " is", " the", " one", " in")]
    assert cited([*tokens, token(" Lyon.", *FROM_SECOND)]) == [("It is the one in Lyon.", "d:1")]


def test_two_passages_that_say_the_same_are_both_cited() -> None:
    assert {passage for _, passage in cited([token("Same.", 0.9, 0.9, 0.001)])} == {"d:0", "d:1"}


def test_a_reply_that_the_passages_predict_better_than_nothing_does_is_more_confident() -> None:
    assert confidence([token("x", *FROM_FIRST)]) > 0.9
    assert confidence([token("x", *FUNCTION_WORD)]) == pytest.approx(0, abs=1e-9)
    assert confidence([token("x", *FROM_NONE)]) == 0


@given(
    st.lists(st.tuples(st.sampled_from([" a", "b.", " c!", "。", "\n", "é"]), *[st.floats(1e-6, 1)] * 3), min_size=1)
)
def test_citations_lie_within_the_reply_and_weigh_at_most_one(drawn: list[tuple[str, float, float, float]]) -> None:
    made = reply([token(*values) for values in drawn], HITS)
    for citation in made.citations:
        assert 0 <= citation.start < citation.end <= len(made.text)
        assert LEAST_WEIGHT <= citation.weight <= 1
    assert sum(made.weights) == pytest.approx(1)
    assert 0 <= made.confidence < 1


@given(st.text(alphabet="ab .!?。\n'\"", max_size=40))
def test_spans_leave_nothing_but_white_space_between_them(text: str) -> None:
    rest = text
    for start, end in reversed(spans(text)):
        rest = rest[:start] + rest[end:]
    assert rest.strip() == ""


def test_an_empty_reply_cites_nothing() -> None:
    assert reply([], HITS).citations == ()


def test_words_that_no_passage_made_likelier_cite_nothing_however_sure_the_prior() -> None:
    sure = (0.9999, 0.00005, 0.00005)
    invented = [Token(text, sure, sure, (math.log(0.3),) * 3) for text in ("Made", " up.")]
    assert cited(invented) == []


def test_where_passages_stay_a_word_that_both_hold_counts_for_the_one_that_wrote_the_next() -> None:
    tokens = [token("The", *FUNCTION_WORD), token(" cat", *FROM_FIRST)]
    assert mean_posterior(tokens)[0] == pytest.approx((tokens[0].posterior[0] + tokens[1].posterior[0]) / 2)
    assert mean_posterior(tokens, epsilon=0.0)[0] == pytest.approx(0.45 * 0.45 / (0.45 * 0.45 + 0.005 * 0.45 + 0.0005))
    assert mean_posterior(tokens)[0] < mean_posterior(tokens, epsilon=0.2)[0] < mean_posterior(tokens, epsilon=0.0)[0]


def test_a_generator_that_can_refuse_is_as_sure_as_its_passages_answer_and_its_words_are_likely() -> None:
    prior, refusing, likelihoods = (0.6, 0.3, 0.1), (0.9, 0.2, 0.5), (0.5, 0.8, 0.3)
    answering = [p * (1 - r) for p, r in zip(prior, refusing, strict=True)]
    weights = [each / sum(answering) for each in answering]
    joint = [weight * likelihood for weight, likelihood in zip(weights, likelihoods, strict=True)]
    log_likelihoods = tuple(map(math.log, likelihoods))
    posterior = tuple(each / sum(joint) for each in joint)
    said = [Token("x", tuple(weights), posterior, log_likelihoods, refusing=refusing)]
    assert answerable(said) == pytest.approx(0.6 * 0.1 + 0.3 * 0.8)
    assert confidence(said) == pytest.approx((0.6 * 0.1 + 0.3 * 0.8) * sum(joint))
    assert evidence(said) == pytest.approx(max(0, 1 - likelihoods[2] / sum(joint)))


def test_a_generator_that_knows_no_refusal_is_always_taken_to_answer() -> None:
    assert answerable([token("x", *FROM_FIRST)]) == 1


def test_the_passage_that_wrote_most_of_a_span_is_cited_first() -> None:
    for likelihoods, order in (((0.9, 0.5, 0.001), ["d:0", "d:1"]), ((0.5, 0.9, 0.001), ["d:1", "d:0"])):
        citations = reply([token("Both.", *likelihoods)], HITS).citations
        assert [citation.passage_id for citation in citations] == order
        assert citations[0].weight > citations[1].weight


def test_a_sentence_without_white_space_before_it_owes_nothing_to_the_one_before() -> None:
    tokens = [token("猫睡。", *FROM_FIRST), token("狗叫。", *FROM_SECOND), token("猫走。", *FROM_FIRST)]
    assert cited(tokens) == [("猫睡。", "d:0"), ("狗叫。", "d:1"), ("猫走。", "d:0")]


def test_a_token_that_reaches_over_the_end_of_a_sentence_counts_for_both_and_for_no_other() -> None:
    tokens = [
        token("Cats purr.", *FROM_FIRST),
        token(" Dogs bark. Owls", *FROM_SECOND),
        token(" hoot.", *FUNCTION_WORD),
    ]
    assert cited(tokens) == [("Cats purr.", "d:0"), ("Dogs bark.", "d:1"), ("Owls hoot.", "d:1")]
    assert cited([token("One", *FUNCTION_WORD), token(".\n\n", *FROM_FIRST), token("Two.", *FROM_SECOND)]) == [
        ("One.", "d:0"),
        ("Two.", "d:1"),
    ]


PIECE = st.sampled_from([" a", "b.", " c!", "。", "\n", "d. e", ".\n\n", "f"])


@given(st.lists(st.tuples(PIECE, *[st.floats(0.01, 1)] * 3), min_size=1, max_size=8))
def test_a_span_is_weighed_by_the_tokens_that_share_a_character_with_it(
    drawn: list[tuple[str, float, float, float]],
) -> None:
    tokens = [token(*values) for values in drawn]
    raw = "".join(each.text for each in tokens)
    owner = [each for each in tokens for _ in each.text]  # of each character
    lead = len(raw) - len(raw.lstrip())
    expected = {}
    for start, end in spans(raw):
        mine = [each for each in tokens if any(each is one for one in owner[start:end])]
        joint = [prior * math.prod(math.exp(each.log_likelihoods[z]) for each in mine) for z, prior in enumerate(PRIOR)]
        for z, mass in enumerate(joint[:-1]):
            weight = mass / sum(joint) * evidence(mine)
            if abs(weight - LEAST_WEIGHT) > 1e-9:
                expected[start - lead, end - lead, f"d:{z}"] = weight if weight > LEAST_WEIGHT else None
    found = {(each.start, each.end, each.passage_id): each.weight for each in reply(tokens, HITS).citations}
    for place, weight in expected.items():
        assert found.get(place) == (None if weight is None else pytest.approx(weight))


@given(st.lists(st.tuples(*[st.floats(0.01, 1)] * 3), min_size=1, max_size=5), st.sampled_from([0.0, 0.3, 1.0]))
def test_the_likeliest_source_of_each_token_is_that_of_most_weight_given_the_whole_reply(
    drawn: list[tuple[float, float, float]], epsilon: float
) -> None:
    tokens = [token("x", *values) for values in drawn]
    paths: dict[tuple[int, ...], float] = {}
    for path in product(range(3), repeat=len(tokens)):
        mass = PRIOR[path[0]] * drawn[0][path[0]]
        for (before, now), values in zip(pairwise(path), drawn[1:], strict=True):
            mass *= ((1 - epsilon) * (before == now) + epsilon * PRIOR[now]) * values[now]
        paths[path] = mass
    for place, source in enumerate(most_likely_sources(tokens, epsilon)):
        masses = [sum(mass for path, mass in paths.items() if path[place] == z) for z in range(3)]
        assert masses[source] == pytest.approx(max(masses))
    assert most_likely_sources([]) == []


def test_a_branch_without_mass_is_no_reason_to_fail() -> None:
    said = [Token("x", (0.0, 0.9, 0.1), (0.0, 1.0, 0.0), (-math.inf, math.log(0.5), -math.inf))]
    assert evidence(said) == 1.0
    assert evidence([]) == 0.0


def test_where_passages_refuse_for_certain_the_reply_is_unsure_and_a_longer_one_no_surer_for_its_length() -> None:
    weights, refusing, likelihoods = (0.6, 0.3, 0.1), (1.0, 1.0, 0.5), (0.5, 0.5, 0.5)
    one = Token("x", weights, weights, tuple(map(math.log, likelihoods)), refusing=refusing)
    assert answerable([one]) < 1e-6 and answerable([]) == 1
    half = Token("x", weights, weights, tuple(map(math.log, likelihoods)), refusing=(0.0, 0.0, 0.0))
    assert confidence([half]) == pytest.approx(0.9 * 0.5)
    assert confidence([half] * 3) == pytest.approx(0.9 * 0.5)
