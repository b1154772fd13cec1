"""Keys and values of what was read, kept within a budget of bytes; least recently used go first.

A prompt is cut into segments. What a decoder makes of a segment depends on it and on the segments before it, so each is
stored alone under a hash of all ids up to its end: passages share their instruction, and a branch that goes on in the
next turn shares everything up to the new question. A segment is never dropped before those that follow it.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from chatbot.generators.disk_cache import DiskCache


def keys_of(fingerprint: str, segments: Sequence[Sequence[int]]) -> list[bytes]:
    """A key a segment: a hash of the model and of all token ids up to the segment's end."""
    running = hashlib.sha256(fingerprint.encode())
    keys = []
    for segment in segments:
        running.update(len(segment).to_bytes(8, "little") + array("q", segment).tobytes())
        keys.append(running.digest())
    return keys


def packed(memory: Tensor) -> Tensor:
    """In 16 bits, a copy: float32 as float16, which moves probabilities by about 1e-5 (see LOG.md)."""
    if memory.dtype.itemsize == 2:
        return memory.clone(memory_format=torch.contiguous_format)
    bound = torch.finfo(torch.float16).max
    return memory.clamp(-bound, bound).to(torch.float16, memory_format=torch.contiguous_format)


Since = tuple[int, str]  # what had been forgotten, in memory and on disk


class PassageCache:
    """Any number of threads may use it. `budget` in bytes; 0 keeps nothing here. `disk`: where more is kept."""

    def __init__(self, budget: int, disk: DiskCache | None = None) -> None:
        self.budget = budget
        self.disk = disk
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()  # least recently used first
        self._size = 0
        self._cleared = 0  # times

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def __len__(self) -> int:
        return len(self._kept)

    def begun(self) -> Since:
        """To be taken before what is read is looked up, and given to `keep`: after a `clear` since then it keeps none.

        So a passage that is deleted while it is found, or read, is not kept.
        """
        return self._cleared, "" if self.disk is None else self.disk.begun()

    def held(self, keys: Sequence[bytes], since: Since | None = None) -> list[Tensor]:
        """The memories of the longest run of segments, from the first on, that are all here."""
        since = self.begun() if since is None else since
        with self._lock:
            found = []
            for key in keys:
                if key not in self._kept:
                    break
                found.append(self._kept[key])
            self._touch(keys[: len(found)])
        if self.disk is not None:
            here = len(found)
            for key in keys[here:]:
                if (memory := self.disk.load(key)) is None:
                    break
                found.append(memory)
            if len(found) > here:
                self.keep(keys[: len(found)], found, since=since)
        return found

    def keep(
        self, keys: Sequence[bytes], memories: Sequence[Tensor], lasting: int = 0, since: Since | None = None
    ) -> None:
        """Memories of a run of segments from the first on; of the first `lasting`, also on disk. `since`: see `begun`;
        None: now."""
        since = self.begun() if since is None else since
        with self._lock:
            if since[0] != self._cleared:
                return
            for key, memory in zip(keys, memories, strict=True):
                if key not in self._kept:
                    self._kept[key] = memory
                    self._size += memory.nbytes
            self._touch(keys)
            while self._size > self.budget:
                _, dropped = self._kept.popitem(last=False)
                self._size -= dropped.nbytes
        if self.disk is not None and lasting:
            self.disk.keep(keys[:lasting], memories[:lasting], since[1])

    def clear(self) -> None:
        with self._lock:
            self._cleared += 1
            self._kept.clear()
            self._size = 0
        if self.disk is not None:
            self.disk.clear()

    def _touch(self, keys: Sequence[bytes]) -> None:
        for key in reversed(keys):  # the first segment last, so that it outlives those that need it
            self._kept.move_to_end(key)
