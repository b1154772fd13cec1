"""The process that embeds: what it gives, whose passages go there, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from chatbot.embedders.hashing import Hashing
from chatbot.embedders.process import Apart
from chatbot.errors import MissingModel, SetupError

ROOT = Path(__file__).parent.parent
TEXTS = ["thirty days of leave", "trains are preferred", "每年有三十天年假"]


@pytest.fixture
def embedder() -> Iterator[Apart]:
    apart = Apart(Hashing)
    yield apart
    apart.close()


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process_id}/stat").read_text().split()[2] != "Z" if Path("/proc/self/stat").exists() else True


def test_both_processes_give_the_same_vectors(embedder: Apart):
    here = embedder.parts(TEXTS)
    assert embedder.process_id is None
    with embedder.apart():
        there = embedder.parts(TEXTS)
        assert embedder.process_id not in (None, os.getpid())
        assert embedder.parts([]) == []
    np.testing.assert_array_equal(here, there)
    assert {each.dtype for each in there} == {np.dtype(np.float32)}


def test_only_what_is_embedded_inside_go_to_the_process(embedder: Apart):
    with embedder.apart():
        embedder.queries(TEXTS)
    embedder.parts(TEXTS)
    assert embedder.process_id is None


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="no niceness here")
def test_the_process_gives_way_to_everything_else(embedder: Apart):
    with embedder.apart():
        embedder.parts(TEXTS)
    assert embedder.process_id and os.getpriority(os.PRIO_PROCESS, embedder.process_id) == 19


def test_the_process_ends_when_it_has_been_idle_and_comes_back():
    embedder = Apart(Hashing, idle_s=0.2)
    with embedder.apart():
        embedder.parts(TEXTS)
        first = embedder.process_id
        deadline = time.monotonic() + 10
        while embedder.process_id is not None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert np.shape(embedder.parts(TEXTS)) == (3, 1, 256)
        assert embedder.process_id != first
    embedder.close()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_a_process_that_the_system_ended_is_started_again(embedder: Apart):
    with embedder.apart():
        before = embedder.parts(TEXTS)
        assert embedder.process_id
        os.kill(embedder.process_id, signal.SIGKILL)
        np.testing.assert_array_equal(embedder.parts(TEXTS), before)


class Dying(Hashing):
    def parts(self, texts):
        os._exit(9)


def test_a_process_that_ends_every_time_is_said(embedder: Apart):
    dying = Apart(Dying)
    with dying.apart(), pytest.raises(SetupError, match="enough memory"):
        dying.parts(TEXTS)
    assert dying.process_id is None


class Sleeping(Hashing):
    def parts(self, texts):
        time.sleep(60)


def test_closing_waits_for_nothing_that_is_being_embedded():
    embedder, raised = Apart(Sleeping), []

    def work() -> None:
        try:
            with embedder.apart():
                embedder.parts(TEXTS)
        except SetupError as error:
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while embedder.process_id is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    embedder.close()
    thread.join(10)
    assert len(raised) == 1 and embedder.process_id is None


class Missing(Hashing):
    def parts(self, texts):
        raise MissingModel("'minilm' is not there")


def test_an_error_of_the_embedder_is_raised_here_and_the_process_goes_on():
    missing = Apart(Missing)
    with missing.apart():
        for _ in range(2):
            with pytest.raises(MissingModel, match="'minilm' is not there"):
                missing.parts(TEXTS)
        assert missing.process_id
    missing.close()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_the_process_does_not_outlive_us():
    program = (
        "import sys\nfrom chatbot.embedders.hashing import Hashing\nfrom chatbot.embedders.process import Apart\n"
        "apart = Apart(Hashing)\nwith apart.apart():\n    apart.parts(['a'])\n"
        "print(apart.process_id, flush=True)\nsys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)
