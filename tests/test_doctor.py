"""What the doctor says of the generator."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from chatbot import open_chatbot
from chatbot.doctor import examine
from chatbot.generators import lean
from chatbot.generators.causal import Causal, engine_of
from chatbot.generators.reference import Reference
from chatbot.loading import has_openvino
from chatbot.settings import load
from chatbot.stores import embedder_of


def said_of_generator(home: Path, **chosen: object) -> tuple[bool, str]:
    (finding,) = [each for each in examine(load(home, overrides=chosen)) if each.what == "generator"]
    return finding.well, finding.found


@pytest.mark.parametrize("engine", ["auto", "transformers"])
@pytest.mark.parametrize("architecture", ["Llama", "Qwen2", "GPT2", "Mistral", "Mamba"])
def test_the_engine_that_is_named_is_the_one_that_runs(
    tiny: Callable[[str], Path], architecture: str, engine: str
) -> None:
    model = Causal(str(tiny(architecture)), engine=engine)
    runs = type(model._load().engine)
    assert (engine_of(str(tiny(architecture)), engine) == "transformers") == (runs is Reference)


def test_the_doctor_names_the_engine_without_the_weights(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "without-weights"
    shutil.copytree(tiny_llama, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    quick = "openvino int8" if has_openvino() else "lean int8" if lean.has_int8() else "transformers"
    for engine, expected in (("auto", quick), ("lean-float32", "lean float32"), ("transformers", "transformers")):
        well, found = said_of_generator(tmp_path, generator=str(folder), engine=engine)
        assert well
        assert f"runs on {expected}" in found


def test_the_doctor_says_what_auto_comes_to(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trained"
    shutil.copytree(tiny_llama, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "marginalia.json").write_text('{"epsilon": 0.2, "least_confidence": 0.15}')
    well, found = said_of_generator(tmp_path, generator=str(folder))
    assert well
    assert "auto is epsilon 0.2, question_weight 0, least_confidence 0.15" in found
    _, found = said_of_generator(tmp_path, generator=str(folder), epsilon=1, question_weight=0, least_confidence=0.25)
    assert "auto is" not in found
    well, found = said_of_generator(tmp_path, generator=str(folder), adapter="nowhere")
    assert not well
    assert "adapter 'nowhere'" in found


def test_the_doctor_finds_an_engine_that_does_not_fit(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    well, found = said_of_generator(tmp_path, generator=str(tiny("GPT2")), engine="lean")
    assert not well
    assert "engine=auto" in found
    assert "\n" not in found


def test_the_doctor_finds_a_folder_without_a_model(tmp_path: Path) -> None:
    well, found = said_of_generator(tmp_path, generator=str(tmp_path))
    assert not well
    assert "cannot be loaded" in found


def test_an_encoder_decoder_runs_on_transformers_whatever_the_engine(tmp_path: Path) -> None:
    from transformers import BartConfig

    BartConfig().save_pretrained(tmp_path)
    assert engine_of(str(tmp_path), "lean") == "transformers"


def test_a_hub_id_that_is_not_here_yet_is_no_fault_and_is_not_fetched(tmp_path: Path) -> None:
    well, found = said_of_generator(tmp_path, generator="nobody/no-such-model")
    assert well
    assert "not fetched yet" in found


def said_of_knowledge(home: Path) -> tuple[bool, str]:
    chosen = load(home, overrides={"generator": "scripted", "embedder": "hashing"})
    (finding,) = [each for each in examine(chosen) if each.what == "knowledge base"]
    return finding.well, finding.found


def test_the_doctor_mends_what_can_be_mended_and_says_so(tmp_path: Path) -> None:
    with open_chatbot(tmp_path, generator="scripted", embedder="hashing") as chatbot:
        (tmp_path / "notes.txt").write_text("The harbour master is called Ada Quayle.")
        id = chatbot.knowledge.add(tmp_path / "notes.txt").document_id
        chatbot._store.delete_ids(chatbot._catalogue.passage_ids())
    with sqlite3.connect(tmp_path / "catalogue.sqlite") as catalogue:
        catalogue.execute("DELETE FROM lexical")
    (tmp_path / "files" / "arriving-1").mkdir()
    well, found = said_of_knowledge(tmp_path)
    assert well
    for mended in ("1 lost vectors", "1 folders of files", "1 passages without words"):
        assert mended in found
    well, found = said_of_knowledge(tmp_path)
    assert well and "mended" not in found
    (tmp_path / "files" / id / "original.txt").write_text("something else")
    well, found = said_of_knowledge(tmp_path)
    assert not well and "'notes.txt' has changed on disk" in found
    (tmp_path / "files" / id / "original.txt").unlink()
    well, found = said_of_knowledge(tmp_path)
    assert not well and "'notes.txt' is missing" in found


def test_an_embedder_that_is_gone_is_replaced_in_the_background(tmp_path: Path) -> None:
    with open_chatbot(tmp_path, generator="scripted", embedder="hashing") as chatbot:
        (tmp_path / "notes.txt").write_text("The harbour master is called Ada Quayle.")
        chatbot.knowledge.add(tmp_path / "notes.txt")
        chatbot._catalogue.set_meta("embedder", '["another", "./gone"]')
    with open_chatbot(tmp_path, generator="scripted", embedder="hashing") as chatbot:
        chatbot.finish_rebuilding()
        assert not chatbot.knowledge.is_outdated()
        assert embedder_of(chatbot._catalogue) == ("hashing-256", "hashing")
