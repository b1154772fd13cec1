"""Bulk ingestion: what a task makes is what the knowledge base would have written; the writer writes it whole."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from chatbot import Chatbot, Query, bulk, open_chatbot
from chatbot.bulk import Made, Reader, Writer
from chatbot.errors import SetupError, WrongSetting
from chatbot.knowledge import Outcome
from chatbot.settings import Settings, load

QUESTION = "which trains leave on day 7"
GIVEN = {"generator": "scripted", "embedder": "hashing", "sample": False}


def chosen(home: Path) -> Settings:
    return load(home, overrides=GIVEN, environment={})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for n in range(20):
        (tmp_path / "in" / f"{n:02}.md").write_text(
            f"# Part {n}\n\nTrains number {n} leave on day {n}.\n\n# 年假\n\n休假 {n}"
        )
    (tmp_path / "in" / "sub" / "empty.md").write_text(" ")
    return tmp_path / "in"


def stored(chatbot: Chatbot) -> list[tuple[object, ...]]:
    """Everything but when it was added."""
    passages = chatbot.knowledge.passages()
    parts = chatbot._store.parts(list(passages))
    assert chatbot._store.ids() == set(passages)
    files = sorted(path.name for path in (chatbot.settings.home / "files").iterdir())
    assert files == sorted(entry.id for entry in chatbot.knowledge.documents())
    return sorted((p.document, p.id, p.text, p.heading, parts[p.id].tobytes()) for p in passages.values())


def written(home: Path, files: list[tuple[Path, str]], replace: bool = False) -> list[Outcome]:
    """As `bulk.ingest` does it, without Ray."""
    with open_chatbot(home, **GIVEN) as chatbot:
        reader, outcomes = Reader(chatbot.settings, {}), []
        writer = Writer(chatbot.settings, chatbot._catalogue, chatbot._store, replace)
        for path, name in files:
            made = pickle.loads(reader({"path": str(path), "name": name})["made"])
            outcomes += list(writer.write(made)) if isinstance(made, Made) else [made]
        return [*outcomes, *writer.flush()]


def test_what_was_written_in_bulk_is_what_adding_writes(folder: Path, tmp_path: Path):
    files = sorted(folder.glob("*.md"))
    outcomes = written(tmp_path / "bulk", [(file, file.name) for file in files])
    assert {outcome.status for outcome in outcomes} == {"added"} and len(outcomes) == 20
    with open_chatbot(tmp_path / "plain", **GIVEN) as plain, open_chatbot(tmp_path / "bulk", **GIVEN) as many:
        list(plain.knowledge.add_all(files))
        assert stored(many) == stored(plain)


def test_the_writer_replaces_only_when_asked_and_does_nothing_twice(folder: Path, tmp_path: Path):
    first, second = folder / "00.md", folder / "01.md"
    files = [(first, "a.md"), (first, "a.md"), (second, "a.md")]
    outcomes = written(tmp_path / "home", files)
    assert [outcome.status for outcome in outcomes] == ["added", "unchanged", "failed"]
    assert "--replace" in outcomes[2].message
    outcomes = written(tmp_path / "home", [(second, "a.md")], replace=True)
    assert [outcome.status for outcome in outcomes] == ["replaced"]
    with open_chatbot(tmp_path / "home", **GIVEN) as chatbot:
        assert {row[2] for row in stored(chatbot)} == {
            passage.text for passage in chatbot.knowledge.passages().values() if " 1" in passage.text
        }
        assert len(chatbot.knowledge.documents()) == 1


def test_what_is_there_already_is_not_read_again(folder: Path, tmp_path: Path):
    written(tmp_path / "home", [(folder / "00.md", "a.md")])
    with open_chatbot(tmp_path / "home", **GIVEN) as chatbot:
        known = {entry.name: entry for entry in chatbot.knowledge.documents()}
        reader = Reader(chatbot.settings, known)
        same, other = (
            pickle.loads(reader({"path": str(folder / n), "name": "a.md"})["made"]) for n in ("00.md", "01.md")
        )
    assert same.status == "unchanged"
    assert other.status == "failed" and "'a.md' is there already" in other.message


def test_without_the_engine_one_line_names_the_extra(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"marginalia-chat\[bulk\]"):
        list(bulk.ingest(chosen(tmp_path), [folder], workers=2))


def test_no_workers_are_refused(folder: Path, tmp_path: Path):
    pytest.importorskip("ray")
    with pytest.raises(WrongSetting, match="--workers is 0"):
        list(bulk.ingest(chosen(tmp_path), [folder], workers=0))


@pytest.mark.skipif(sys.platform == "win32", reason="Ray is experimental there")
def test_several_workers_of_ray_read_a_folder_into_one_knowledge_base(folder: Path, tmp_path: Path):
    pytest.importorskip("ray", reason="pip install 'marginalia-chat[bulk]'")
    seen: list[float] = []
    home = tmp_path / "home"
    outcomes = list(bulk.ingest(chosen(home), [folder], workers=2, progress=lambda done, _: seen.append(done)))
    assert sorted(outcome.status for outcome in outcomes) == ["added"] * 20 + ["failed"]
    assert seen[-1] == 1.0 and len(seen) == 21
    with open_chatbot(tmp_path / "plain", **GIVEN) as plain, open_chatbot(home, **GIVEN) as many:
        list(plain.knowledge.add_all([folder]))
        assert stored(many) == stored(plain)
        found = many.retriever().rank(Query(QUESTION, QUESTION, "en"), 5)
    assert found[0][0].split(":")[0] == next(o.document_id for o in outcomes if o.name == "07.md")


@pytest.mark.skipif(sys.platform == "win32", reason="Ray is experimental there")
def test_what_a_worker_cannot_load_is_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("ray", reason="pip install 'marginalia-chat[bulk]'")

    def raising(*_: object, **__: object) -> None:
        raise ConnectionError("no cluster answers")

    monkeypatch.setattr("ray.init", raising)
    with pytest.raises(SetupError, match="no cluster answers"):
        list(bulk.ingest(chosen(tmp_path / "home"), [folder], workers=2))
    with open_chatbot(tmp_path / "home", **GIVEN) as chatbot:  # the home is free again
        assert chatbot.knowledge.documents() == []
