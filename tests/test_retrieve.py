"""Fusion, the prior, and what a retriever asks of its indexes."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.conversation import Query
from chatbot.fusion import rank_fusion, reciprocal_rank_fusion, score_fusion
from chatbot.index.base import Ranking
from chatbot.passage import Passage
from chatbot.retrieve import Retriever, Shares
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
