"""Fusion, the prior, and what a retriever asks of its indexes."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.conversation import Query
from chatbot.fusion import reciprocal_rank_fusion
from chatbot.index.base import Ranking
from chatbot.passage import Passage
from chatbot.retrieve import Retriever
from chatbot.scope import EVERYTHING, Scope

IDS = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)


class Fixed:
    """An index that answers each text with a ranking written down, and a shelf of passages named by one letter."""

    def __init__(self, rankings: Mapping[str, str], missing: str = "", texts: Mapping[str, str] | None = None) -> None:
        self._rankings = rankings
        self._texts = texts or {}
        self._missing = missing

    def search(self, text: str, k: int, scope: Scope = EVERYTHING) -> Ranking:
        return [(id, 1.0) for id in self._rankings.get(text, "")][:k]

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


def retrieve(one: Fixed, other: Fixed, query: Query, k: int = 3) -> tuple[list[str], tuple[float, ...]]:
    found = Retriever(one, [one, other], one, k=k).retrieve(query)
    return [hit.passage.id for hit in found.hits], found.prior


def test_what_both_indexes_find_comes_first() -> None:
    hits, _ = retrieve(Fixed({"q": "ab"}), Fixed({"q": "bc"}), Query("q", "q", "en"))
    assert set(hits) == {"a", "b", "c"}
    assert (
        Retriever(Fixed({}), [Fixed({"q": "ab"}), Fixed({"q": "bc"})], Fixed({})).rank(Query("q", "q", "en"), 1)[0][0]
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
