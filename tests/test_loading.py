"""What loading a model leaves of the process that loads it."""

from __future__ import annotations

import ctypes
import importlib
import subprocess
import sys

import pytest

from chatbot.loading import compiled, openvino


class Stack(ctypes.Structure):
    _fields_ = [("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def stack_for_signals() -> tuple[int | None, int]:
    """(address, bytes) of the calling thread's."""
    found = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.place, found.size


@pytest.mark.skipif(sys.platform != "linux", reason="other systems lay this structure out otherwise")
def test_a_signal_finds_its_stack_after_a_model_was_compiled() -> None:
    pytest.importorskip("openvino")
    op = importlib.import_module("openvino.opset15")
    numbers = op.parameter([-1, 8], openvino().Type.f32)
    before = stack_for_signals()
    model = compiled(openvino().Model([op.result(op.relu(numbers))], [numbers]), {"INFERENCE_NUM_THREADS": 2})
    assert stack_for_signals() == before
    del model
    assert stack_for_signals() == before


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another allocator than glibc's")
@pytest.mark.parametrize(("before", "kept"), [("", True), ("give_back_freed_memory()", False)])
def test_what_is_freed_goes_back_to_the_system(before: str, kept: bool) -> None:
    program = (
        "from chatbot.bench.memory import resident\n"
        "from chatbot.loading import give_back_freed_memory\n"
        f"{before}\n"
        "first = resident()\n"
        "del (large := [bytearray(b'x') * 30_000_000])[:]\n"  # from now on glibc keeps blocks up to this size
        "held = [(bytearray(b'x') * 1_000_000, bytes(2_000)) for _ in range(200)]\n"
        "held = [small for _, small in held]\n"
        "print(resident() - first)\n"
    )
    grown = int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert (grown > 100) == kept
