import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from chatbot import assemble, open_chatbot
from chatbot.errors import WrongSetting
from chatbot.prompt import Prompt
from chatbot.settings import AUTO, FIELDS, Settings, load, parse_assignment

AUTOMATIC = [name for name, field in FIELDS.items() if field.default == AUTO and "low" in field.metadata]


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


def chosen(folder: Path, **values: object) -> Settings:
    return load(folder, overrides=values, environment={})


@pytest.mark.parametrize("name", FIELDS)
def test_a_default_that_is_given_is_the_default_from_wherever_it_comes(tmp_path: Path, name: str) -> None:
    default = FIELDS[name].default
    written = f"[{', '.join(map(repr, default))}]" if isinstance(default, tuple) else str(default)
    plain = Settings()
    for given in (default, written):
        assert getattr(load(overrides={name: given}, environment={}), name) == getattr(plain, name)
    assert getattr(load(environment={f"MARGINALIA_{name.upper()}": written}), name) == getattr(plain, name)
    quoted = f"'{written}'" if isinstance(default, str | Path) else written.lower()
    (tmp_path / "mine.toml").write_text(f"{name} = {quoted}")
    assert getattr(load(file=tmp_path / "mine.toml", environment={}), name) == getattr(plain, name)


def test_no_number_stands_for_not_chosen() -> None:
    told = {name for name, field in FIELDS.items() if re.search(r"[Ll]eft as|`auto`", field.metadata["help"])}
    assert {name for name in told if FIELDS[name].default != AUTO} == set()
    assert set(AUTOMATIC) <= told


# what a generator's training found, and what a number that is given becomes, wherever it is used
TRAINED = SimpleNamespace(default_epsilon=0.2, default_least_confidence=0.15, default_question_weight=2.0)
USED = {
    "epsilon": lambda these: assemble.mixing(these, TRAINED).epsilon,
    "question_weight": lambda these: assemble.mixing(these, TRAINED).question_weight,
    "least_confidence": lambda these: assemble.least_confidence(these, TRAINED),
    "temperature_of_prior": lambda these: assemble.prior(these, "ip")[0],
    "no_passage": lambda these: assemble.prior(these, "ip")[1],
}


def test_what_is_auto_is_looked_at() -> None:
    assert set(USED) == set(AUTOMATIC)


@pytest.mark.parametrize("name", USED)
@pytest.mark.parametrize("number", [0.0, 0.05, 0.25, 1.0])
def test_a_number_that_is_given_is_used_whatever_the_model_was_trained_with(
    tmp_path: Path, name: str, number: float
) -> None:
    number = max(number, FIELDS[name].metadata["low"])
    assert all(USED[name](chosen(tmp_path, **{name: given})) == number for given in (number, str(number)))


def test_auto_is_what_the_training_found_and_else_what_the_table_says(tmp_path: Path) -> None:
    these = chosen(tmp_path)
    for by, found in ((TRAINED, (0.2, 2.0, 0.15)), (SimpleNamespace(), (1.0, 0.0, 0.25))):
        mixing = assemble.mixing(these, by)
        assert (mixing.epsilon, mixing.question_weight, assemble.least_confidence(these, by)) == found
    assert assemble.prior(these, "cosine") == (0.05, 0.25)
    assert assemble.prior(these, "ip") == (1.0, float("-inf"))
    assert assemble.prior(chosen(tmp_path, no_passage=AUTO, temperature_of_prior="0.2"), "cosine") == (0.2, 0.25)


@pytest.mark.parametrize(
    ("given", "judges"), [({}, True), ({"question_weight": 0}, False), ({"question_weight": 1}, True)]
)
def test_questions_are_judged_where_the_training_weighs_them_or_the_setting_says_so(
    tmp_path: Path, tiny_llama: Path, given: dict[str, object], judges: bool
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "marginalia.json").write_text('{"question_weight": 2, "epsilon": 0.2}')
    by = assemble.generator(chosen(tmp_path, generator=str(folder), engine="transformers", **given))
    read = by.read([Prompt("Answer.", text, (), "the question") for text in ("the text", "the passage")])
    assert (read.log_question is not None) is judges
    assert assemble.mixing(chosen(tmp_path, epsilon=1), by).epsilon == 1.0


def test_nothing_is_no_value(tmp_path: Path) -> None:
    for name in FIELDS:
        with pytest.raises(WrongSetting, match=f"{name} is None: leave it out"):
            load(None, None, {name: None}, {})
    with pytest.raises(WrongSetting, match="epsilon is None: leave it out"):
        open_chatbot(tmp_path / "home", epsilon=None)


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (f"stop = {DEEP}", "nested too deeply"),
        (f"k = {'{a='}" * 20_000, "TOML|nested too deeply"),
        (f"k = {'9' * 9_000}", "not TOML: Exceeds the limit"),
        (f"k = 0x{'f' * 9_000}", "k is .*: it must"),
        (f"epsilon = 0x{'f' * 400}", "epsilon is .*: it must"),
        (f"k = '{'x' * 100_000}'", "k is 'x.*: it must be a whole number"),
        (f"stop = '{DEEP}'", "stop is .* no TOML list"),
        ("epsilon = 'automatic'", "epsilon is 'automatic': it must be a number, or auto"),
        ("k = 'auto'", "k is 'auto': it must be a whole number"),
        ("k = [1]", "k is .1.: it must be a whole number"),
        ("[generator]\nname = 'x'", "generator is .*: write a string"),
        ("embedder = 5", "embedder is 5: write a string"),
        ("sample = [[[[]]]]", "sample is .*: write true or false"),
        ("home = '~nobody-of-this-name/x'", "nobody's folder"),
        ('home = "a\\u0000b"', "zero byte"),
    ],
)
def test_an_odd_settings_file_is_one_line(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "odd.toml").write_text(content)
    with pytest.raises(WrongSetting, match=complaint) as error:
        load(None, tmp_path / "odd.toml", environment={})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
