from pathlib import Path

import pytest

from chatbot.errors import WrongSetting
from chatbot.settings import load, parse_assignment


def test_later_sources_win(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("k = 2\nseed = 2\nthreads = 2")
    chosen = load(tmp_path, overrides={"k": 4}, environment={"MARGINALIA_K": "3", "MARGINALIA_SEED": "3"})
    assert (chosen.k, chosen.seed, chosen.threads) == (4, 3, 2)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("kk", "1", "there is no setting 'kk'"),
        ("k", "0", "between 1 and 50"),
        ("k", "many", "whole number"),
        ("no_passage", "nan", "finite"),
        ("rewrite", "perhaps", "true or false"),
        ("retriever", "magic", "hybrid, dense, lexical"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(tmp_path: Path, name: str, value: str, complaint: str) -> None:
    with pytest.raises(WrongSetting, match=complaint) as error:
        load(tmp_path, overrides={name: value}, environment={})
    assert value in str(error.value) or name == "kk"


def test_a_settings_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("k = = 2")
    with pytest.raises(WrongSetting, match=r"mine\.toml.*not TOML"):
        load(tmp_path, tmp_path / "mine.toml", environment={})
    with pytest.raises(WrongSetting, match="cannot be read"):
        load(tmp_path, tmp_path / "absent.toml", environment={})


def test_an_assignment_without_a_value_is_refused() -> None:
    assert parse_assignment("chroma=http://localhost:8000") == ("chroma", "http://localhost:8000")
    with pytest.raises(WrongSetting, match="--set name=value"):
        parse_assignment("k")
