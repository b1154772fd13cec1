"""The line that waits for the model."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError

import pytest

from ui.line import Closed, Full, Line


class Halted:
    """Work that notes its beginning and goes on when it may."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go_on = threading.Semaphore(0)

    def wait_for(self, count: int) -> None:
        until = time.monotonic() + 10
        while len(self.begun) < count and time.monotonic() < until:
            time.sleep(0.01)

    def __call__(self, name: str):
        def work() -> str:
            self.begun.append(name)
            assert self.go_on.acquire(timeout=10)
            return name

        return work


@pytest.fixture
def halted():
    halted = Halted()
    yield halted
    halted.go_on.release(1000)


def test_a_kind_that_fills_its_own_line_neither_closes_nor_delays_another(halted: Halted):
    line = Line(1, most=3)
    first = line.put("program", halted("p0"))
    halted.wait_for(1)
    programs = [line.put("program", halted(f"p{n}")) for n in range(1, 4)]
    with pytest.raises(Full):
        line.put("program", halted("p4"))
    page = [line.put("page", halted(f"v{n}")) for n in range(2)]
    halted.go_on.release(6)
    assert [each.result(10) for each in (first, *programs, *page)] == ["p0", "p1", "p2", "p3", "v0", "v1"]
    assert halted.begun == ["p0", "p1", "v0", "p2", "v1", "p3"]


@pytest.mark.parametrize(("width", "at_once"), [(1, 1), (2, 2), (None, 5)])
def test_as_many_go_on_at_once_as_it_is_wide(halted: Halted, width: int | None, at_once: int):
    line = Line(width)
    futures = [line.put("page", halted(str(n))) for n in range(5)]
    halted.wait_for(at_once)
    time.sleep(0.2)
    assert len(halted.begun) == at_once
    halted.go_on.release(5)
    assert [each.result(10) for each in futures] == ["0", "1", "2", "3", "4"]


def test_what_is_cancelled_before_its_turn_is_not_done_and_gives_its_place_free(halted: Halted):
    line = Line(1, most=2)
    first = line.put("page", halted("0"))
    halted.wait_for(1)
    second, third = (line.put("page", halted(str(n))) for n in (1, 2))
    assert [line.ahead(each) for each in (first, second, third)] == [0, 0, 1]
    assert second.cancel()
    assert line.ahead(third) == 0
    fourth = line.put("page", halted("3"))
    halted.go_on.release(4)
    assert [third.result(10), fourth.result(10)] == ["2", "3"]
    with pytest.raises(CancelledError):
        second.result(10)
    assert halted.begun == ["0", "2", "3"]


def test_a_line_that_is_closed_does_nothing_more_that_waits_and_awaits_what_is_done(halted: Halted):
    line = Line(1)
    first, second = (line.put("page", halted(str(n))) for n in range(2))
    halted.wait_for(1)
    begun = time.monotonic()
    line.close(0.2)
    assert time.monotonic() - begun >= 0.2 and second.cancelled()
    threading.Timer(0.2, halted.go_on.release).start()
    line.close(10)
    assert first.done() and halted.begun == ["0"]
    with pytest.raises(Closed):
        line.put("page", halted("2"))


def test_where_the_system_starts_no_thread_who_asks_is_told_and_the_line_goes_on_once_it_does(
    halted: Halted, monkeypatch: pytest.MonkeyPatch
):
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    line = Line(2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for n in range(3):
            with pytest.raises(Full):
                line.put("page", halted(f"refused {n}"))
    first = line.put("page", halted("0"))
    halted.wait_for(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        second = line.put("page", halted("1"))  # the thread that there is does it
    third = line.put("page", halted("2"))
    halted.wait_for(2)
    halted.go_on.release(3)
    assert [each.result(10) for each in (first, second, third)] == ["0", "1", "2"]


def test_work_that_fails_tells_who_asked_and_the_next_is_done():
    line = Line(1)
    with pytest.raises(ZeroDivisionError):
        line.put("page", lambda: 1 / 0).result(10)
    assert line.put("page", lambda: 7).result(10) == 7
