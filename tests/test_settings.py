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
        ("sample", "perhaps", "true or false"),
        ("retriever", "magic", "hybrid, dense, lexical"),
        ("stop", "['a', 3]", "a list of strings"),
        ("stop", "['a'", "no TOML list"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(tmp_path: Path, name: str, value: str, complaint: str) -> None:
    with pytest.raises(WrongSetting, match=complaint) as error:
        load(tmp_path, overrides={name: value}, environment={})
    assert value in str(error.value) or name == "kk"


def test_strings_are_one_or_a_list_in_the_file_the_environment_and_a_flag(tmp_path: Path) -> None:
    def stop(given: object) -> tuple[str, ...]:
        return load(tmp_path, overrides={"stop": given}, environment={}).stop

    (tmp_path / "settings.toml").write_text('stop = ["\\n", "Q:"]')
    assert load(tmp_path, environment={}).stop == ("\n", "Q:")
    assert load(tmp_path, environment={"MARGINALIA_STOP": "Q: [1]"}).stop == ("Q: [1]",)
    assert stop(parse_assignment('stop=["\\n\\n", "User: "]')[1]) == ("\n\n", "User: ")
    assert stop(["###"]) == stop(("###", "")) == stop("###") == ("###",)
    assert stop("") == stop([]) == stop("[]") == ()


def test_beams_that_would_leave_another_setting_aside_are_refused(tmp_path: Path) -> None:
    assert load(tmp_path, overrides={"beams": "4"}, environment={}).beams == 4
    for name, value in (("temperature", 0.5), ("repetition_penalty", 1.2)):
        with pytest.raises(WrongSetting, match="beams is 4"):
            load(tmp_path, overrides={"beams": 4, name: value}, environment={})


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
