"""What loading a model needs of libraries: what they raise where it fails, and OpenVINO without its reports."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError

from chatbot.errors import room

NOT_LOADED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    ImportError,
    SafetensorError,
)


# Held while a library is imported late: of two threads that import transformers at once, one finds names missing.
IMPORTING = threading.RLock()


@contextmanager
def from_the_hub() -> Iterator[None]:
    """Raises DiskFull where files of the Hugging Face hub find no room on this machine, OSError where it hangs up."""
    from httpx import HTTPError
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        with room(HF_HUB_CACHE):
            yield
    except HTTPError as error:
        raise OSError(str(error)) from error


_LARGE = 256 * 1024  # bytes of a block that the system gets back at once
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h


def give_back_freed_memory() -> None:
    """From now on, and for the whole process: glibc would keep most of what replies of very different lengths free."""
    if (tell := _of_glibc("mallopt")) is not None:
        tell(_M_MMAP_THRESHOLD, _LARGE)
        tell(_M_ARENA_MAX, 2)  # places to take small blocks from: by itself there is one a thread, each kept as it was


def trim() -> None:
    """Give back what is free now; some 10 ms."""
    if (tell := _of_glibc("malloc_trim")) is not None:
        tell(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def openvino() -> Any:
    """The package, without openvino_telemetry, which tells its makers over the network that it was imported."""
    reporting = "openvino_telemetry"
    if "openvino" not in sys.modules and reporting not in sys.modules:
        sys.modules[reporting] = None  # type: ignore[assignment]  # as if it were not installed: a stub takes its place
        try:
            return importlib.import_module("openvino")
        finally:
            del sys.modules[reporting]
    return importlib.import_module("openvino")


STRIDE = 16


def rounded(length: int) -> int:
    """To the next multiple of STRIDE: a compiled graph keeps what it builds for every length that it meets, so it is
    given few; see LOG.md, 2026-11-27."""
    return -(-length // STRIDE) * STRIDE


def compiled(graph: Any, chosen: Mapping[str, Any]) -> Any:
    """The graph, compiled by OpenVINO for the CPU, in a thread of its own.

    It leaves the thread that compiles another stack for signals, and may unmap that later: then the next signal,
    Ctrl-C for one, ends the process without a word.
    """
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(openvino().Core().compile_model, graph, "CPU", dict(chosen)).result()
