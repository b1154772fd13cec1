"""Settings that decide how follow-ups are searched, from a setting to what is searched."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot import assemble
from chatbot.errors import WrongSetting
from chatbot.generators.scripted import Scripted
from chatbot.passage import Passage
from chatbot.rewrite import ByGenerator, ByTerms, Verbatim
from chatbot.rows import Row
from chatbot.settings import Settings, load


def chosen(tmp_path: Path, **values: object) -> Settings:
    return load(tmp_path, overrides=values, environment={})


def unused() -> Scripted:
    raise AssertionError("the generator is asked for though it does not rewrite")


def test_the_generator_is_loaded_only_where_it_rewrites(tmp_path: Path) -> None:
    assert isinstance(assemble.rewriter(chosen(tmp_path, rewriter="none"), unused), Verbatim)
    assert isinstance(assemble.rewriter(chosen(tmp_path, rewriter="terms"), unused), ByTerms)
    assert isinstance(assemble.rewriter(chosen(tmp_path, rewriter="generator"), Scripted), ByGenerator)


def test_the_trained_rewriter_is_the_default_generator_with_matrices_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Settings] = []
    monkeypatch.setattr(assemble, "generator", lambda chosen, **_: made.append(chosen) or Scripted())
    rewriter = assemble.rewriter(chosen(tmp_path, rewriter="trained", generator="other/model"), unused)
    assert isinstance(rewriter, ByGenerator)
    assert made[0].generator == "smollm2-135m-instruct"
    assert assemble.adapter(made[0]) == made[0].adapter
    assert Path(made[0].adapter).name == "smollm2-135m-instruct-rewriter"


def test_measuring_replies_makes_the_rewriters_generator_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Settings] = []
    monkeypatch.setattr(assemble, "generator", lambda chosen, **_: made.append(chosen) or Scripted())
    passage = Passage("t", "d", "notes.txt", "The text is about boats.")
    rows = [Row(number, (("Who?", "Ada."),), "And what is it?", (passage,), ("boats",)) for number in (1, 2, 3)]
    outcomes = list(assemble.replies(chosen(tmp_path, rewriter="trained", embedder="hashing"), Scripted(), rows))
    assert [outcome.row.number for outcome in outcomes] == [1, 2, 3]
    assert len(made) == 1


@pytest.mark.parametrize("name", ["rewriter", "query_encoder"])
def test_a_folder_without_an_adapter_is_named(name: str, tmp_path: Path) -> None:
    make = {"rewriter": lambda c: assemble.rewriter(c, unused), "query_encoder": assemble.query_encoder}[name]
    with pytest.raises(WrongSetting, match=f"{name} .*nowhere.* adapter_config.json"):
        make(chosen(tmp_path, **{name: str(tmp_path / "nowhere")}))


def test_a_query_encoder_is_of_the_embedder_that_it_was_trained_for(tmp_path: Path) -> None:
    (tmp_path / "embedder").mkdir()
    assert assemble.query_encoder(chosen(tmp_path, embedder=str(tmp_path / "embedder"))) is None
    assert assemble.query_encoder(chosen(tmp_path, query_encoder="none")) is None
    with pytest.raises(WrongSetting, match="query_encoder=none"):
        assemble.query_encoder(chosen(tmp_path, embedder="hashing", query_encoder="somewhere"))


def test_each_fusion_has_the_weights_that_were_fitted_for_it(tmp_path: Path) -> None:
    by_scores = assemble.shares(chosen(tmp_path))
    by_ranks = assemble.shares(chosen(tmp_path, fusion="ranks"))
    assert (by_scores.utterance, by_scores.context, by_scores.lexical) == (0.5, 2, 1)
    assert (by_ranks.utterance, by_ranks.context, by_ranks.lexical) == (0.25, 4, 0.7)
    assert assemble.shares(chosen(tmp_path, query_encoder="none")).context == 0
