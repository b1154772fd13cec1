"""The README says what is true: its code runs, and its tables and its tree are those of the repository."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from chatbot.settings import FIELDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
EMBED = ROOT / "docs/examples/embed.py"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = sorted(set(re.findall(r"`python run\.py ([a-z]+(?: retrieval)?)", README)))


@pytest.mark.parametrize("block", [block for block in BLOCKS if ".launch(" not in block])
def test_a_block_of_code_runs_as_it_stands(block: str, tmp_path: Path):
    (tmp_path / "handbook.md").write_text("# Leave\n\nThere are 28 days of leave in a year.\n", "utf-8")
    run = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        env=offline(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert "28 days" in run.stdout


@pytest.mark.parametrize("block", [block for block in BLOCKS if ".launch(" in block])
def test_a_block_that_launches_an_app_serves_a_page(block: str, tmp_path: Path):
    port = free_port()
    environment = offline(tmp_path) | {"GRADIO_SERVER_PORT": str(port)}
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen([sys.executable, "-c", block], cwd=tmp_path, env=environment, stdout=log, stderr=log) as app,
    ):
        try:
            assert "gradio" in page(f"http://127.0.0.1:{port}", app), (tmp_path / "log").read_text()
        finally:
            app.kill()


def test_the_example_of_mounting_serves_the_page(tmp_path: Path):
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(ROOT / "docs/examples"), "--port", str(port)]
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen([*command, "mount:app"], cwd=tmp_path, env=offline(tmp_path), stdout=log, stderr=log) as app,
    ):
        try:
            assert "gradio" in page(f"http://127.0.0.1:{port}/chat/", app), (tmp_path / "log").read_text()
        finally:
            app.kill()


def test_the_example_of_embedding_is_the_readmes_and_under_ten_lines():
    example = EMBED.read_text("utf-8")
    assert example in BLOCKS
    assert len([line for line in example.splitlines() if line.strip()]) < 10


def test_the_readmes_commands_are_there():
    assert COMMANDS
    for command in COMMANDS:
        run = subprocess.run(
            [sys.executable, "run.py", *command.split(), "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == 0, f"{command}: {run.stderr}"


def test_the_table_of_settings_is_that_of_the_code():
    assert table("Settings") == [
        [f"`{name}`", default_of(name), str(field.metadata["help"])] for name, field in FIELDS.items()
    ]


def test_the_table_of_dependencies_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    names = dict.fromkeys(re.split(r"[<>=~! ;\[]", each)[0] for each in [*project["dependencies"], *extras])
    assert [row[0] for row in table("Dependencies")] == list(names)


def test_the_tree_is_that_of_the_repository():
    named = tree()
    files = {path for path in repository() if path.name not in (".gitignore", "__init__.py")}
    folders = {parent for path in files for parent in path.parents}
    leaves = [path for path in named if not any(path in other.parents for other in named)]
    assert [path for path in named if path not in files | folders] == [], "in the README and not in the repository"
    assert [path for path in sorted(files) if not {path, *path.parents} & set(leaves)] == [], "not in the README"


@pytest.mark.parametrize(
    "document",
    ["README.md", "CHANGELOG.md", "LOG.md", "docs/architecture.md", "docs/hugging-face-rag.md", "docs/scale.md"],
)
def test_every_relative_link_leads_somewhere(document: str):
    text = (ROOT / document).read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link and not link.startswith("#")]
    assert [link for link in links if not ((ROOT / document).parent / link.partition("#")[0]).exists()] == []


def test_no_file_names_a_path_outside_the_repository():
    patterns = ["/" + "work/", "/" + "tmp/", r"\.\." + "/shared"]  # in pieces: this file is searched too
    outside = re.compile("|".join(patterns).encode())
    assert [str(path) for path in repository() if outside.search((ROOT / path).read_bytes())] == []


def test_the_readme_has_its_figures():
    assert "TODO" not in README


def offline(home: Path) -> dict[str, str]:
    """An environment in which a chatbot needs no weights and touches no home but this one."""
    return os.environ | {
        "MARGINALIA_HOME": str(home / "home"),
        "MARGINALIA_GENERATOR": "scripted",
        "MARGINALIA_EMBEDDER": "hashing",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def page(address: str, app: subprocess.Popen[bytes]) -> str:
    """The page, as soon as the app serves it; empty if the app ends before."""
    deadline = time.monotonic() + 120
    while app.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=30) as response:
                return str(response.read(), "utf-8")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    return ""


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(title: str) -> list[list[str]]:
    """The rows of a section's table, without its head."""
    rows = [line[2:-2].split(" | ") for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.replace(r"\|", "|") for cell in row] for row in rows[1:]]


def default_of(name: str) -> str:
    default = FIELDS[name].default
    if name == "home":
        return "the platform's user data folder"
    if default in ("", ()):
        return "empty"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def tree() -> list[Path]:
    """The paths in the README's tree: two spaces a level; a name, and after two spaces or more a remark."""
    paths: list[Path] = []
    for line in re.search(r"```text\n(.*?)```", section("Repository"), re.DOTALL)[1].splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        depth = len(indent) // 2
        folder = next((path for path in reversed(paths) if len(path.parts) == depth), Path())
        paths.append(folder / name)
    return paths


def repository() -> list[Path]:
    """Every file that is, or is about to be, in the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is a copy without its repository")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = [Path(name) for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if (ROOT / path).is_file()]
