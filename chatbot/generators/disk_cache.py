"""What a generator made of passages, kept on disk for the next start: a file a segment, within a budget of bytes.

A file is written beside its place and moved there whole, and holds a checksum: what a crash, or a disk, left damaged
is deleted, and read again by the model. Nothing is waited for to reach the disk. One model's files lie in one folder,
named for its weights, and for the code that read with them. Several models, and processes, may share the place: the
files alone say what is kept, and the budget is of all together, so what is no longer used makes room for what is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

_ARRIVING = ".arriving-"


class DiskCache:
    """Any number of threads may use it, and processes one place. `budget` in bytes, of whole files, of all models
    together. Does nothing before `open`."""

    def __init__(self, folder: Path, budget: int) -> None:
        self.budget = budget
        self._all = folder
        self._folder: Path | None = None

    @property
    def size(self) -> int:
        """Bytes, of all models."""
        return sum(size for _, size, _ in _files(self._all))

    def open(self, fingerprint: str) -> None:
        """Use what an earlier process left of this model's, as far as the budget goes."""
        folder = self._all / _named(fingerprint)
        with contextlib.suppress(OSError):
            self._all.parent.mkdir(parents=True, exist_ok=True)
            with _alone(self._all):
                for file in folder.glob(f"{_ARRIVING}*"):
                    file.unlink(missing_ok=True)
                self._shrink()
        self._folder = folder

    def begun(self) -> str:
        """What has been forgotten up to now, for `keep`: what is read before a `forget` is not kept after it."""
        return _forgotten(self._all)

    def load(self, key: bytes) -> Tensor | None:
        """None: it is not there, or damaged."""
        if self._folder is None:
            return None
        file = self._folder / key.hex()
        try:
            memory = _unpacked(file.read_bytes())
            if memory is None:
                file.unlink(missing_ok=True)
        except OSError:  # not there, or deleted meanwhile
            return None
        return memory

    def keep(self, keys: Sequence[bytes], memories: Sequence[Tensor], since: str | None = None) -> None:
        """Memories of a run of segments from the first on, just used. `since`: see `begun`; None: now."""
        folder = self._folder
        if folder is None:
            return
        with contextlib.suppress(OSError), _alone(self._all):  # a full disk is no reason not to reply
            if since is not None and since != self.begun():
                return
            files = [folder / key.hex() for key in keys]
            missing = [(file, memory) for file, memory in zip(files, memories, strict=True) if not file.exists()]
            for file, memory in missing:
                _write(file, memory)
            now = time.time_ns()
            for place, file in enumerate(reversed(files)):  # the first segment last, so that it outlives the others
                os.utime(file, ns=(now + place, now + place))
            if missing:
                self._shrink()

    def clear(self) -> None:
        forget(self._all)

    def _shrink(self) -> None:
        """Whatever was used least recently goes, of models that nothing uses any more too."""
        found = sorted(_files(self._all))
        size = sum(size for _, size, _ in found)
        for _, bytes, file in found:
            if size <= self.budget:
                return
            file.unlink(missing_ok=True)
            size -= bytes
            with contextlib.suppress(OSError):  # a folder goes with its last file
                file.parent.rmdir()


def forget(folder: Path) -> None:
    """Delete what any model made of passages; nothing that is being read meanwhile, by any process, is kept after."""
    if not folder.parent.is_dir():  # nobody has kept anything here
        return
    try:
        with _alone(folder):
            shutil.rmtree(folder, ignore_errors=True)
            _mark(folder).write_text(uuid.uuid4().hex, encoding="utf-8")
    except OSError:  # nobody else can write here either
        shutil.rmtree(folder, ignore_errors=True)


def _alone(folder: Path) -> FileLock:
    """One at a time, of all threads and processes: a lock of its own each time, for one that is held lets its owner
    in."""
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def _mark(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.forgotten")


def _forgotten(folder: Path) -> str:
    try:
        return _mark(folder).read_text(encoding="utf-8")
    except OSError:  # nothing yet
        return ""


def _files(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """(when last used, bytes, file) of all that is kept."""
    for file in folder.glob("*/*"):
        with contextlib.suppress(OSError):  # deleted meanwhile
            found = file.stat()
            yield found.st_mtime_ns, found.st_size, file


def _write(place: Path, memory: Tensor) -> None:
    arriving = place.with_name(f"{_ARRIVING}{uuid.uuid4().hex}")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        arriving.write_bytes(_packed(memory))
        arriving.replace(place)
    except OSError:
        with contextlib.suppress(OSError):
            arriving.unlink()
        raise


def _named(fingerprint: str) -> str:
    """A memory means what the code that made it meant by it: it may order a head's numbers as it likes."""
    digest = hashlib.sha256(" ".join([fingerprint, version("torch"), version("transformers")]).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]


def _packed(memory: Tensor) -> bytes:
    memory = memory.cpu().contiguous()
    return save({"memory": memory, "sum": torch.tensor(_sum(memory))})


def _unpacked(content: bytes) -> Tensor | None:
    try:
        read = load(content)
        memory = read["memory"]
        return memory if int(read["sum"]) == _sum(memory) else None
    except (SafetensorError, KeyError, ValueError, RuntimeError):  # whatever damaged bytes look like
        return None


def _sum(memory: Tensor) -> int:
    content = memory.flatten().view(torch.uint8).numpy().data
    return zlib.crc32(content, zlib.crc32(f"{memory.shape} {memory.dtype}".encode()))
