"""Where an embedder's files lie, and what they hold. Loading them is its adapter's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from chatbot.errors import MissingModel
from chatbot.loading import from_the_hub

_SMALL = 1_000_000  # bytes: a larger file is hashed at places
_PLACES = 64
_NOT_READ = ["onnx/*", "openvino/*", "coreml/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.tflite", "*.gguf"]


def locate(model: str) -> Path:
    """The folder, or that of a hub id: from the cache on this machine, else over the network.

    Raises MissingModel, DiskFull.
    """
    folder = Path(model).expanduser()
    return folder if folder.is_dir() else _fetch(model)


def digest(folder: Path) -> str:
    """Of what the files hold, wherever they lie. Weights are hashed at 64 places: it takes no time."""
    hashed = hashlib.sha256()
    for file in _files(folder):
        hashed.update(f"{file.relative_to(folder).as_posix()} {file.stat().st_size}\n".encode())
        hashed.update(_sample(file))
    return hashed.hexdigest()[:32]


def _fetch(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        with from_the_hub():
            return _cached(model) or Path(snapshot_download(model, ignore_patterns=_NOT_READ))
    except HFValidationError as error:
        raise MissingModel(f"model {model!r} is neither a folder nor a hub id: give one of them") from error
    except OSError as error:  # each of the hub's own errors is one
        reason = str(error).partition("\n")[0]
        raise MissingModel(
            f"model {model!r} is no folder here and cannot be fetched from the Hugging Face hub ({reason})"
        ) from error


def _cached(model: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    weights = any(path.suffix in (".safetensors", ".bin") for path in folder.rglob("*"))
    return folder if weights else None  # another library may have fetched the tokenizer alone


def _files(folder: Path) -> Iterator[Path]:
    """What decides the vectors: configurations, vocabularies and weights, in a fixed order."""
    kinds = {".json", ".txt", ".model", ".safetensors", ".bin"}
    return (path for path in sorted(folder.rglob("*")) if path.suffix in kinds and path.is_file())


def _sample(file: Path) -> bytes:
    size = file.stat().st_size
    if size <= _SMALL:
        return file.read_bytes()
    with file.open("rb") as opened:
        parts = []
        for place in range(_PLACES):
            opened.seek(place * (size - 4096) // (_PLACES - 1))
            parts.append(opened.read(4096))
        return b"".join(parts)
