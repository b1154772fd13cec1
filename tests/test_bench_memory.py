"""The run that watches memory, without weights."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from chatbot.bench import memory
from chatbot.cli import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_questions_of_every_length_are_asked_while_documents_come_and_go(tmp_path: Path) -> None:
    given = ["--set", "generator=scripted", "--set", "embedder=hashing", "--home", str(tmp_path), "--json"]
    command = [sys.executable, "run.py", "bench", "memory", "--questions", "12", "--documents", "6", *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["start_mb"] > 100 and set(found["resident_mb"]) == {"10", "12"}
    assert found["peak_mb"] >= max(found["median_mb"], found["end_mb"], *found["resident_mb"].values())
    assert found["peak_with_processes_mb"] > found["peak_mb"]  # files are parsed in a process of their own
    assert found["growth"] == 0  # after so few questions, the early ones are all


def test_lengths_are_spread_over_all_orders_of_magnitude() -> None:
    asked = list(memory.utterances(400, random.Random(0)))
    lengths = sorted(map(len, asked))
    assert lengths[0] == 1 and memory.LONGEST * 0.8 < lengths[-1] <= memory.LONGEST
    for low, high in ((1, 10), (10, 100), (100, 1_000)):
        assert sum(low <= length < high for length in lengths) > 60
    assert asked == list(memory.utterances(400, random.Random(0)))


def test_the_watch_sees_what_was_there_for_a_moment() -> None:
    before = memory.resident()
    held = bytearray(b"x") * 200_000_000
    assert memory.resident() > before + 150
    del held
    assert memory.resident("0") == 0  # no such process


def test_fewer_than_no_documents_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "memory", "--documents", "-1"]) == 1
    assert "--documents is -1" in capsys.readouterr().err
