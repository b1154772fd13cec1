"""What a generator made of passages, kept on disk for the next start: a file a segment, within a budget of bytes.

A file is written beside its place and moved there whole, and holds a checksum: what a crash, or a disk, left damaged
is deleted, and read again by the model. Nothing is waited for to reach the disk. One model's files lie in one folder,
named for its weights, and for the code that read with them; another model's are deleted when one comes to use.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

_ARRIVING = ".arriving-"


class DiskCache:
    """Any number of threads may use it. `budget` in bytes, of whole files. Does nothing before `open`."""

    def __init__(self, folder: Path, budget: int) -> None:
        self.budget = budget
        self._all = folder
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()  # by name, least recently used first

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(self._sizes.values())

    def open(self, fingerprint: str) -> None:
        """Find what an earlier process left of this model's, and delete what others' is there."""
        with self._lock:
            self._folder = self._all / _named(fingerprint)
            for other in self._all.glob("*"):
                if other != self._folder:
                    shutil.rmtree(other, ignore_errors=True)
            found = []
            for file in self._folder.glob("*"):
                if file.name.startswith(_ARRIVING):
                    file.unlink(missing_ok=True)
                else:
                    found.append((file.stat().st_mtime_ns, file.name, file.stat().st_size))
            self._sizes = OrderedDict((name, size) for _, name, size in sorted(found))
            self._shrink()

    def load(self, key: bytes) -> Tensor | None:
        """None: it is not there, or damaged."""
        with self._lock:
            folder = self._folder
            if folder is None or key.hex() not in self._sizes:
                return None
        try:
            memory = _unpacked((folder / key.hex()).read_bytes())
        except OSError:  # deleted meanwhile
            memory = None
        if memory is None:
            with self._lock:
                self._drop(key.hex())
        return memory

    def keep(self, keys: Sequence[bytes], memories: Sequence[Tensor]) -> None:
        """Memories of a run of segments from the first on, just used."""
        with self._lock:
            if self._folder is None:
                return
            for key, memory in zip(keys, memories, strict=True):
                if key.hex() not in self._sizes:
                    self._write(self._folder / key.hex(), memory)
            now = time.time_ns()
            for place, key in enumerate(reversed(keys)):  # the first segment last, so that it outlives the others
                if key.hex() in self._sizes:
                    self._sizes.move_to_end(key.hex())
                    with contextlib.suppress(OSError):  # deleted meanwhile: `load` will find out
                        os.utime(self._folder / key.hex(), ns=(now + place, now + place))
            self._shrink()

    def clear(self) -> None:
        with self._lock:
            for name in list(self._sizes):
                self._drop(name)

    def _write(self, place: Path, memory: Tensor) -> None:
        arriving = place.with_name(f"{_ARRIVING}{uuid.uuid4().hex}")
        content = _packed(memory)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            arriving.write_bytes(content)
            arriving.replace(place)
        except OSError:  # a full disk is no reason not to reply: this one is not kept
            with contextlib.suppress(OSError):
                arriving.unlink()
        else:
            self._sizes[place.name] = len(content)

    def _shrink(self) -> None:
        while self._sizes and self.size > self.budget:
            self._drop(next(iter(self._sizes)))

    def _drop(self, name: str) -> None:
        self._sizes.pop(name, None)
        if self._folder is not None:
            (self._folder / name).unlink(missing_ok=True)


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
