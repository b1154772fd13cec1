"""Fusion, the prior, and what a retriever asks of its indexes."""

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.conversation import Query
from chatbot.embedders.hashing import Hashing
from chatbot.fusion import rank_fusion, reciprocal_rank_fusion, score_fusion
from chatbot.index.base import Ranking
from chatbot.passage import Passage, embedded
from chatbot.retrieve import Given, Retriever, Shares
from chatbot.scope import EVERYTHING, Scope

IDS = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)


class Fixed:
    """An index that answers each text with a ranking written down, and a shelf of passages named by one letter."""

    def __init__(self, rankings: Mapping[str, str], missing: str = "", texts: Mapping[str, str] | None = None) -> None:
        self._rankings = rankings
        self._texts = texts or {}
        self._missing = missing

    def search(self, text: str, k: int, scope: Scope = EVERYTHING) -> Ranking:
        return [(id, 1 - place / 10) for place, id in enumerate(self._rankings.get(text, ""))][:k]

    def similarities(self, text: str, ids: Sequence[str]) -> list[float]:
        return [1 - "abcdef".index(id) / 10 for id in ids]

    def passages(self, ids: Sequence[str]) -> dict[str, Passage]:
        return {id: Passage(id, "d", "doc", self._texts.get(id, id)) for id in ids if id not in self._missing}


@given(st.lists(IDS, max_size=4))
def test_fusion_is_the_sum_of_reciprocal_ranks(rankings: list[list[str]]) -> None:
    ids = {id for ranking in rankings for id in ranking}
    slow = {id: sum(1 / (60 + ranking.index(id) + 1) for ranking in rankings if id in ranking) for id in ids}
    fused = reciprocal_rank_fusion(rankings)
    assert dict(fused) == pytest.approx(slow)
    assert [score for _, score in fused] == sorted(slow.values(), reverse=True)


def test_a_weight_counts_like_that_many_rankings() -> None:
    assert dict(reciprocal_rank_fusion([["a"], ["b"]], [2.0, 1.0])) == pytest.approx(
        dict(reciprocal_rank_fusion([["a"], ["a"], ["b"]]))
    )


def test_a_passage_far_ahead_counts_for_more_than_one_ahead_by_a_hair() -> None:
    sure = [("a", 9.0), ("b", 2.0), ("c", 1.5), ("d", 1.0)]
    unsure = [("b", 0.51), ("a", 0.5), ("c", 0.49), ("d", 0.2)]
    assert score_fusion([sure, unsure], [1.0, 1.0])[0][0] == "a"
    assert rank_fusion([unsure, sure], [1.0, 1.0])[0][0] == "b"


def test_scores_of_any_scale_are_fused_alike() -> None:
    one, other = [("a", 0.9), ("b", 0.5), ("c", 0.1)], [("c", 30.0), ("b", 21.0), ("a", 2.0)]
    larger = [(id, 100 * score + 7) for id, score in one]
    assert dict(score_fusion([one, other], [1.0, 0.5])) == pytest.approx(
        dict(score_fusion([larger, other], [1.0, 0.5]))
    )


def test_what_a_shorter_ranking_leaves_out_has_none_of_its_score() -> None:
    dense = [("a", 0.6), ("b", 0.5), ("c", 0.4), ("d", 0.3)]
    assert score_fusion([dense, [("d", 8.0)]], [1.0, 2.0])[0][0] == "d"
    assert score_fusion([dense, []], [1.0, 1.0])[0][0] == "a"
    assert score_fusion([[("a", 0.4)], [("a", 2.0)]], [1.0, 1.0]) == [("a", 0.0)]
    assert score_fusion([], []) == []


def retrieve(one: Fixed, other: Fixed, query: Query, k: int = 3) -> tuple[list[str], tuple[float, ...]]:
    found = Retriever(one, [one, other], one, k=k).retrieve(query)
    return [hit.passage.id for hit in found.hits], found.prior


def test_what_both_indexes_find_comes_first() -> None:
    hits, _ = retrieve(Fixed({"q": "ab"}), Fixed({"q": "bc"}), Query("q", "q", "en"))
    assert set(hits) == {"a", "b", "c"}
    assert (
        Retriever(Fixed({}), [Fixed({"q": "abc"}), Fixed({"q": "bcd"})], Fixed({})).rank(Query("q", "q", "en"), 1)[0][0]
        == "b"
    )


def test_what_only_the_raw_turn_finds_is_not_lost() -> None:
    index = Fixed({"bad rewrite": "ab", "raw": "fe"})
    hits, _ = retrieve(index, Fixed({}), Query("raw", "bad rewrite", "en"), k=4)
    assert {"f", "e"} <= set(hits)


def test_a_passage_gone_since_it_was_ranked_is_left_out_and_has_no_prior() -> None:
    hits, prior = retrieve(Fixed({"q": "abc"}, missing="b"), Fixed({}), Query("q", "q", "en"))
    assert hits == ["a", "c"]
    assert len(prior) == 3


def test_the_prior_follows_similarity_and_not_the_rank() -> None:
    hits, prior = retrieve(Fixed({"q": "fa"}), Fixed({"q": "f"}), Query("q", "q", "en"))
    assert hits == ["a", "f"]
    assert prior[0] > prior[1]
    assert sum(prior) == pytest.approx(1)


def test_a_query_that_finds_nothing_leaves_all_the_mass_on_no_passage() -> None:
    hits, prior = retrieve(Fixed({}), Fixed({}), Query("q", "q", "en"))
    assert hits == []
    assert prior == (1.0,)


def test_passages_with_the_same_text_are_taken_once_and_others_fill_their_place() -> None:
    hits, prior = retrieve(Fixed({"q": "abcd"}, texts={"a": "same", "b": "same"}), Fixed({}), Query("q", "q", "en"))
    assert hits == ["a", "c", "d"]
    assert len(prior) == 4


def ranked(retriever: Retriever, query: Query) -> str:
    return "".join(id for id, _ in retriever.rank(query, 6))


def test_of_two_indexes_the_heavier_decides() -> None:
    one, other = Fixed({"q": "ab"}), Fixed({"q": "ba"})
    for weights, first in (((2.0, 1.0), "ab"), ((1.0, 2.0), "ba")):
        assert ranked(Retriever(one, [one, other], one, weights=weights), Query("q", "q", "en")) == first


def test_a_turn_with_its_conversation_is_searched_by_the_dense_index_alone() -> None:
    dense, lexical = Fixed({"raw": "aef", "context": "cgh"}), Fixed({"raw": "bij", "context": "dkl"})

    def order(retriever: Retriever, query: Query) -> str:
        return "".join(id for id, _ in retriever.rank(query, 12) if id in "abcd")

    retriever = Retriever(dense, [dense, lexical], dense, shares=Shares(1.0, 1.0, 3.0))
    assert order(retriever, Query("raw", "raw", "en", context="context", leans=True)) == "cab"
    assert order(retriever, Query("raw", "raw", "en", context="context")) == "ab"
    background = Retriever(dense, [dense, lexical], dense, shares=Shares(background=0.5))
    assert order(background, Query("raw", "raw", "en", context="context")) == "abc"


def test_without_a_query_encoder_no_conversation_is_searched() -> None:
    dense = Fixed({"raw": "a", "context": "c"})
    assert ranked(Retriever(dense, [dense], dense), Query("raw", "raw", "en", context="context", leans=True)) == "a"


def test_after_a_first_turn_the_lexical_rankings_count_less() -> None:
    dense, lexical = Fixed({"q": "ab"}), Fixed({"q": "ba"})
    retriever = Retriever(dense, [dense, lexical], dense, weights=(1.0, 1.5), shares=Shares(lexical=0.5))
    assert ranked(retriever, Query("q", "q", "en")) == "ba"
    assert ranked(retriever, Query("q", "q", "en", context="context")) == "ab"


def test_what_counts_nothing_is_not_searched() -> None:
    index = Fixed({"raw": "a", "rewrite": "b"})
    assert ranked(Retriever(index, [index], index, shares=Shares(0.0, 1.0)), Query("raw", "rewrite", "en")) == "b"


class Backwards:
    """A reranker that likes the last letter of the alphabet best."""

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        return [float(ord(text[-1])) for text in texts]


def test_a_reranker_orders_the_best_again_and_leaves_the_others_behind_them() -> None:
    index = Fixed({"q": "abcdef"})
    retriever = Retriever(index, [index], index, reranker=Backwards(), second_look=3, k=2)
    assert ranked(retriever, Query("q", "q", "en")) == "cbadef"
    assert {hit.passage.id for hit in retriever.retrieve(Query("q", "q", "en")).hits} == {"b", "c"}


def test_a_reranker_is_not_asked_where_nothing_was_found() -> None:
    index = Fixed({})
    assert Retriever(index, [index], index, reranker=Backwards()).rank(Query("q", "q", "en"), 3) == []


class Near(Fixed):
    """Passages whose similarity to each text is written down."""

    def __init__(self, similarity: Mapping[str, Mapping[str, float]]) -> None:
        super().__init__({text: "".join(sorted(near, key=lambda id: -near[id])) for text, near in similarity.items()})
        self._near = similarity

    def similarities(self, text: str, ids: Sequence[str]) -> list[float]:
        return [self._near[text][id] for id in ids]


NEARNESS = st.fixed_dictionaries({id: st.floats(-1, 1) for id in "abc"})


@given(st.fixed_dictionaries(dict.fromkeys("urc", NEARNESS)), st.booleans(), st.booleans(), st.sampled_from(["", "c"]))
def test_a_passage_is_as_near_as_the_formula_says(
    near: dict[str, dict[str, float]], trained: bool, leans: bool, context: str
) -> None:
    """(sim(conversation) + RAW sim(turn)) / (1 + RAW) of a turn read with its conversation, else the nearest text's."""
    index = Near(near)
    retriever = Retriever(index, [index], index, shares=Shares(context=float(trained)), k=3)
    hits = retriever.retrieve(Query("u", "r", "en", context=context, leans=leans)).hits
    for hit in hits:
        turn, rewrite, conversation = (near[text][hit.passage.id] for text in "urc")
        mean = (conversation + 0.3 * turn) / 1.3
        assert hit.score == pytest.approx(mean if trained and leans and context else max(turn, rewrite))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert {hit.passage.id for hit in hits} == set("abc")


@given(
    text=st.sampled_from(["", "u", "r"]),
    edited=st.booleans(),
    context=st.sampled_from(["", "c"]),
    leans=st.booleans(),
    weights=st.tuples(st.sampled_from([0.0, 1.0, 1.5]), st.sampled_from([0.0, 0.7])),
    shares=st.builds(Shares, *[st.sampled_from([0.0, 0.5, 1.0, 3.0])] * 5),
)
def test_each_index_ranks_each_text_of_weight(
    text: str, edited: bool, context: str, leans: bool, weights: tuple[float, float], shares: Shares
) -> None:
    query = Query("u", text, "en", edited, context, leans)
    dense, lexical = Fixed(dict.fromkeys(("", *"urc"), "d")), Fixed(dict.fromkeys(("", *"urc"), "l"))
    counted: list[tuple[str, float]] = []

    def fusion(rankings: Sequence[Ranking], counts: Sequence[float]) -> Ranking:
        counted.extend((ranking[0][0], count) for ranking, count in zip(rankings, counts, strict=True))
        return []

    expected = []
    for name, weight in zip("dl", weights, strict=True):
        texts = {text: 1.0}
        if text != "u" and not edited:
            texts = {text: shares.rewrite, "u": shares.utterance} if text else {}
        if context and name == "d":
            texts[context] = shares.context if leans else shares.background
        kept = shares.lexical if context and name == "l" else 1.0
        expected += [(name, weight * share * kept) for share in texts.values() if weight * share]
    if len(expected) != 1:  # a single ranking is not fused
        Retriever(dense, [dense, lexical], dense, weights=weights, shares=shares, fusion=fusion).rank(query, 3)
        assert counted == [(name, pytest.approx(count)) for name, count in expected]


def test_a_single_ranking_keeps_its_scores_and_no_ranking_is_longer_than_asked() -> None:
    one, other, query = Fixed({"q": "abcdef"}), Fixed({"q": "fedcba"}), Query("q", "q", "en")
    assert Retriever(one, [one], one).rank(query, 2) == [("a", 1.0), ("b", 0.9)]
    assert len(Retriever(one, [one, other], one).rank(query, 2)) == 2
    assert len(Retriever(one, [one], one, reranker=Backwards(), second_look=2).rank(query, 3)) == 3


def test_what_a_reranker_did_not_look_at_has_the_least_score_and_nothing_found_is_not_shown_to_it() -> None:
    class Never:
        def scores(self, query: str, texts: Sequence[str]) -> list[float]:
            raise AssertionError(texts)

    index, query = Fixed({"q": "abc"}), Query("q", "q", "en")
    ranking = Retriever(index, [index], index, reranker=Backwards(), second_look=2).rank(query, 3)
    assert ranking == [("b", ord("b")), ("a", ord("a")), ("c", -math.inf)]
    nothing = Fixed({})
    assert Retriever(nothing, [nothing], nothing, reranker=Never()).rank(query, 3) == []


TEXTS = ["Cats sleep all day.", "Dogs bark.", "Cats and dogs sleep.", "Trains run late."]


@given(
    st.lists(st.sampled_from(TEXTS), unique=True),
    st.sampled_from(["Do cats sleep?", "bark"]),
    st.sampled_from(["", "Do dogs bark?"]),
    st.integers(1, 3),
    st.sampled_from([-math.inf, 0.1, 0.4]),
)
def test_passages_at_hand_are_weighed_by_the_nearest_of_the_questions_texts(
    texts: list[str], utterance: str, rewrite: str, k: int, no_passage: float
) -> None:
    embedder = Hashing()
    passages = [Passage(text, "d", "doc", text) for text in texts]
    query = Query(utterance, rewrite or utterance, "en")
    given = Given(passages, embedder, k=k, temperature=0.1, no_passage=no_passage).retrieve(query)
    near = {
        passage.id: max(
            float(embedder.passages([embedded(passage)])[0] @ vector)
            for vector in embedder.queries([utterance, *([rewrite] if rewrite else [])])
        )
        for passage in passages
    }
    best = sorted(near.values(), reverse=True)[:k]
    assert [hit.score for hit in given.hits] == pytest.approx(best)
    assert all(hit.score == pytest.approx(near[hit.passage.id]) for hit in given.hits)
    masses = [math.exp(score / 0.1) for score in best] + [math.exp(no_passage / 0.1) if best else 1.0]
    assert given.prior == pytest.approx([mass / sum(masses) for mass in masses])
