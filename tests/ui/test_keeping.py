"""A question and its reply are there whatever becomes of the page, the line, the connection and the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from chatbot import Conversation
from chatbot.errors import DiskFull
from chatbot.history import History
from tests.ui.standin import stocked
from tests.ui.test_chat import LEAVE, answers, ask, page_of, visible_reply
from tests.ui.test_whole_page import HOTELS, Halting, box, whole
from ui import build_app
from ui.i18n import texts
from ui.line import WAITING
from ui.run import Broken
from ui.thread import Asking

ROOT = Path(__file__).parents[2]


@pytest.fixture
def chatbot(tmp_path: Path) -> Iterator[Halting]:
    chatbot = Halting(knowledge=stocked().knowledge, history=History(tmp_path / "conversations"))
    yield chatbot
    chatbot.go_on.set()


def begun(page: Page, question: str) -> None:
    ask(page, question)
    expect(page.locator(".mg-caret")).to_be_visible()


def two_asking(visit: Any, address: str, chatbot: Halting) -> tuple[Page, Page]:
    """Two tabs in one conversation, of one answered turn, each of which waits for a reply."""
    page = visit(address)
    chatbot.go_on.set()
    ask(page, HOTELS)
    answers(page, 1)
    other = visit(address, beside=page)
    other.get_by_role("button", name="Toggle Sidebar").click()
    other.locator(".mg-conversations .mg-open").click()
    answers(other, 1)
    chatbot.go_on.clear()
    begun(page, LEAVE)
    ask(other, "Which office?")
    expect(other.locator(".mg-utterance")).to_have_count(2)
    return page, other


def errors(page: Page) -> int:
    return page.locator(".error, .toast-body.error").count()


def test_a_reload_while_a_reply_comes_shows_question_and_reply_and_goes_on(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot, shared=True)))
    begun(page, LEAVE)
    ((key, title, _),) = chatbot.history.list()
    assert title == LEAVE and chatbot.history.asked(key)[0].utterance == LEAVE
    page.reload()
    expect(page.locator(".mg-utterance")).to_have_text([LEAVE])
    expect(page.locator(".mg-coming .mg-reply")).to_contain_text("According to")
    expect(page.locator(".mg-card").first).to_contain_text("Employee handbook.pdf")
    expect(page.locator(".mg-conversations li")).to_have_count(1)
    before = len(visible_reply(page))
    chatbot.go_on.set()
    answers(page, 1)
    assert len(visible_reply(page)) > before
    expect(page.locator(".mg-cite")).to_have_count(2)
    assert chatbot.closed == 1 and errors(page) == 0  # made once
    assert chatbot.history.asked(key) == () and len(chatbot.history.load(key).turns) == 1
    ask(page, "Can it be carried over?")
    answers(page, 2)
    expect(page.locator(".mg-searched")).to_contain_text(LEAVE)
    page.reload()
    answers(page, 2)


def test_a_reply_that_comes_while_no_page_is_open_is_there_when_one_is(serve, visit, chatbot):
    address = serve(build_app(chatbot))
    page = visit(address)
    begun(page, LEAVE)
    other = visit(address, beside=page)
    page.goto("about:blank")
    chatbot.go_on.set()
    ((key, *_),) = chatbot.history.list()
    until = time.monotonic() + 10
    while chatbot.history.load(key) is None and time.monotonic() < until:
        time.sleep(0.05)
    page.go_back()
    answers(page, 1)
    other.get_by_role("button", name="Toggle Sidebar").click()
    other.locator(".mg-conversations .mg-open").click()
    answers(other, 1)


def test_another_conversation_can_be_looked_at_while_a_reply_comes(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot)))
    chatbot.go_on.set()
    ask(page, HOTELS)
    answers(page, 1)
    page.get_by_role("button", name="New chat").click()
    answers(page, 0)
    chatbot.go_on.clear()
    begun(page, LEAVE)
    page.get_by_role("button", name="Toggle Sidebar").click()
    conversations = page.locator(".mg-conversations .mg-open")
    expect(conversations).to_have_count(2)
    conversations.filter(has_text=HOTELS).click()
    expect(page.locator(".mg-utterance")).to_have_text([HOTELS])
    answers(page, 1)
    expect(page.locator(".mg-textbox .submit-button")).to_be_visible()
    conversations.filter(has_text=LEAVE).click()
    expect(page.locator(".mg-utterance")).to_have_text([LEAVE])
    expect(page.locator(".mg-caret")).to_be_visible()
    chatbot.go_on.set()
    answers(page, 1)
    assert "28 days" in visible_reply(page)


def test_two_tabs_see_one_reply_come_and_either_can_stop_it(serve, visit, chatbot):
    address = serve(build_app(chatbot))
    page = visit(address)
    begun(page, LEAVE)
    other = visit(address, beside=page)
    other.get_by_role("button", name="Toggle Sidebar").click()
    other.locator(".mg-conversations .mg-open").click()
    expect(other.locator(".mg-caret")).to_be_visible()
    other.locator(".mg-textbox .stop-button").click()
    for each in (page, other):
        expect(each.locator(".mg-note")).to_contain_text("Stopped")
        expect(each.locator(".mg-textbox .submit-button")).to_be_visible()
    page.reload()
    expect(page.locator(".mg-note")).to_contain_text("Stopped")
    expect(page.locator(".mg-utterance")).to_have_text([LEAVE])
    chatbot.go_on.set()
    page.get_by_role("button", name="Retry").click()
    answers(page, 1)
    expect(page.locator(".mg-utterance")).to_have_text([LEAVE])
    page.get_by_role("button", name="Undo").click()
    expect(box(page)).to_have_value(LEAVE)
    page.reload()
    expect(page.locator(".mg-welcome")).to_be_visible()
    expect(page.locator(".mg-conversations li")).to_have_count(0)


def test_a_deleted_conversation_stays_deleted_though_two_tabs_were_asking_in_it(serve, visit, chatbot):
    page, other = two_asking(visit, serve(build_app(chatbot)), chatbot)
    delete = other.locator(".mg-conversations").get_by_role("button", name="Delete")
    delete.click()
    delete.click()
    expect(other.locator(".mg-conversations li")).to_have_count(0)
    expect(page.locator(".mg-note")).to_contain_text("Stopped")
    chatbot.go_on.set()
    page.wait_for_timeout(1500)
    assert chatbot.history.list() == []


def test_what_is_deleted_just_as_its_reply_is_kept_stays_deleted(tmp_path):
    """The reply is there, so nothing stops it, and is about to be stored."""

    class Slow(History):
        saving, go_on = threading.Event(), threading.Event()

        def save(self, *given, **options):
            self.saving.set()
            self.go_on.wait(10)
            return super().save(*given, **options)

    chatbot = stocked(history=Slow(tmp_path / "conversations"))
    chat = build_app(chatbot).chat
    asking = Asking(LEAVE, Conversation(), texts("en"), key="k")
    chat._replies.begin(asking)
    assert chatbot.history.saving.wait(10)
    deleting = threading.Thread(target=chat.delete, args=["k"])
    deleting.start()
    time.sleep(0.2)
    chatbot.history.go_on.set()
    deleting.join(10)
    asking.run.future.result(10)
    assert chatbot.history.list() == []


def test_a_turn_that_found_no_room_and_is_stored_later_leaves_no_question_without_a_reply(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot)))
    begun(page, LEAVE)
    save = chatbot.history.save
    chatbot.history.save = lambda *given, **options: (_ for _ in ()).throw(DiskFull("the disk is full"))
    chatbot.go_on.set()
    answers(page, 1)
    expect(page.locator(".toast-body")).to_contain_text("disk is full")
    ((key, *_),) = chatbot.history.list()
    assert len(chatbot.history.asked(key)) == 1 and chatbot.history.load(key) is None
    chatbot.history.save = save
    page.get_by_role("button", name="Good").click()
    expect(page.locator(".mg-thumb[aria-pressed=true]")).to_have_count(1)
    page.wait_for_timeout(500)
    assert chatbot.history.asked(key) == () and len(chatbot.history.load(key).turns) == 1
    page.reload()
    answers(page, 1)
    expect(page.locator(".mg-note")).to_have_count(0)


def test_conversations_that_cannot_be_listed_are_told_of_in_their_place_and_the_chat_goes_on(serve, visit, chatbot):
    chatbot.go_on.set()
    chatbot.history.list = lambda: (_ for _ in ()).throw(DiskFull("the disk is full"))
    page = visit(serve(build_app(chatbot)))
    ask(page, LEAVE)
    answers(page, 1)
    page.reload()
    answers(page, 1)
    page.get_by_role("button", name="Toggle Sidebar").click()
    expect(page.locator(".mg-sidebar .mg-notice")).to_contain_text("the disk is full")
    page.get_by_role("button", name="Good").click()
    page.wait_for_timeout(500)
    assert errors(page) == 0
    del chatbot.history.list
    page.get_by_role("button", name="Good").click()
    expect(page.locator(".mg-conversations li")).to_have_count(1)


def test_a_question_that_comes_as_the_server_closes_is_cut_off(tmp_path):
    chatbot = stocked(history=History(tmp_path / "conversations"))
    chat = build_app(chatbot).chat
    chat.close()
    asking = Asking(LEAVE, Conversation(), texts("en"), key="k")
    chat._replies.begin(asking)
    assert asking.run.ended == Broken("cut_off")
    (asked,) = chatbot.history.asked("k")
    assert (asked.utterance, asked.note) == (LEAVE, "cut_off") and chat.coming("k") is None


def test_two_tabs_questions_in_one_conversation_are_both_there_after_the_server_was_killed(serve, visit, chatbot):
    page, _ = two_asking(visit, serve(build_app(chatbot)), chatbot)
    page.wait_for_timeout(500)
    again = visit(serve(build_app(stocked(history=chatbot.history))))  # as another process begins
    again.get_by_role("button", name="Toggle Sidebar").click()
    again.locator(".mg-conversations .mg-open").click()
    expect(again.locator(".mg-utterance")).to_have_text([HOTELS, LEAVE, "Which office?"])
    expect(again.locator(".mg-note")).to_have_count(2)


def test_a_page_whose_session_the_server_dropped_goes_on_in_its_conversation(serve, visit, chatbot):
    app = build_app(chatbot)
    page = visit(serve(app))
    chatbot.go_on.set()
    ask(page, HOTELS)
    answers(page, 1)
    for count, question in enumerate((LEAVE, "Which office?"), start=2):
        app.state_holder.session_data.clear()
        ask(page, question)
        expect(page.locator(".mg-utterance")).to_have_count(count)
        answers(page, count)
    ((key, title, _),) = chatbot.history.list()
    assert title == HOTELS and len(chatbot.history.load(key).turns) == 3
    page.reload()
    answers(page, 3)


def join(address: str, number: int, values: list[Any], session: str) -> None:
    body = {"fn_index": number, "data": values, "session_hash": session}
    asked = urllib.request.Request(
        f"{address}/gradio_api/queue/join", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    urllib.request.urlopen(asked).read()


def completed(address: str, session: str) -> dict[str, Any]:
    """How the only event of a session ended."""
    with urllib.request.urlopen(f"{address}/gradio_api/queue/data?session_hash={session}") as stream:
        for line in stream:
            if line.startswith(b"data:") and (said := json.loads(line[5:]))["msg"] == "process_completed":
                return dict(said)
    raise AssertionError(f"the event of {session} never ended")


def visitors(address: str, count: int) -> None:
    """Ask, each on a page of their own, and wait."""
    with urllib.request.urlopen(f"{address}/config") as answer:
        config = json.load(answer)
    kinds = {each["id"]: each for each in config["components"]}
    submit = next(
        event
        for event in config["dependencies"]
        for target, name in event["targets"]
        if name == "submit" and "mg-textbox" in (kinds[target]["props"].get("elem_classes") or [])
    )
    states = len(submit["inputs"])
    for n in range(count):
        join(address, submit["id"], [None] * (states - 2) + ["", f"Which hotels, {n}?"], f"visitor{n}")


def test_who_finds_the_line_full_is_told_in_the_replys_place_and_can_ask_again(serve, visit, chatbot):
    address = serve(build_app(chatbot))
    page, second = visit(address), visit(address)
    begun(page, HOTELS)
    visitors(address, WAITING)
    second.wait_for_timeout(500)
    ask(second, LEAVE)
    expect(second.locator(".mg-note")).to_contain_text("Too many people are asking")
    expect(second.locator(".mg-utterance")).to_have_text([LEAVE])
    expect(box(second)).to_have_value(LEAVE)
    assert errors(second) == 0
    second.reload()
    expect(second.locator(".mg-note")).to_contain_text("Too many people are asking")
    chatbot.go_on.set()
    answers(page, 1)
    second.wait_for_timeout(500)
    second.get_by_role("button", name="Retry").click()
    expect(second.locator(".mg-note")).to_have_count(0)
    answers(second, 1)
    expect(second.locator(".mg-utterance")).to_have_text([LEAVE])


def test_who_waits_is_told_how_many_are_before(serve, visit, chatbot):
    address = serve(build_app(chatbot))
    page, second = visit(address), visit(address)
    begun(page, HOTELS)
    visitors(address, 2)
    page.wait_for_timeout(300)
    ask(second, LEAVE)
    expect(second.locator(".mg-waiting")).to_contain_text("2 before you")
    chatbot.go_on.set()
    answers(second, 1)


def test_programs_and_visitors_keep_each_other_from_nothing(serve, visit, chatbot):
    address = serve(build_app(chatbot))
    page, second = visit(address), visit(address)
    begun(page, HOTELS)
    with urllib.request.urlopen(f"{address}/config") as answer:
        endpoint = next(each["id"] for each in json.load(answer)["dependencies"] if each["api_name"] == "ask")
    programs = [f"program{n}" for n in range(WAITING + 10)]
    for program in programs:
        join(address, endpoint, [f"Which hotels, {program}?", None], program)
    ask(second, LEAVE)
    expect(second.locator(".mg-waiting")).to_be_visible()
    chatbot.go_on.set()
    answers(second, 1)
    assert LEAVE in chatbot.utterances[:3]
    with ThreadPoolExecutor(10) as pool:
        said = [*pool.map(lambda program: completed(address, program), programs)]
    assert [each["success"] for each in said] == [True] * WAITING + [False] * 10
    assert all("Too many are asking" in each["output"]["error"] for each in said if not each["success"])


SERVER = """
import sys
from pathlib import Path
from chatbot.history import History
from tests.ui.standin import stocked
from ui.server import listen, serve
chatbot = stocked(history=History(Path(sys.argv[1])), delay=float(sys.argv[3]))
serve(chatbot, listen("127.0.0.1", int(sys.argv[2])))
"""


class Served:
    """The page in a process of its own, to be ended and begun again."""

    def __init__(self, home: Path, port: int) -> None:
        self._home, self._port = home, port
        self.address = f"http://127.0.0.1:{port}"

    def begin(self, delay: float = 0.01) -> None:
        command = [sys.executable, "-c", SERVER, str(self._home / "conversations"), str(self._port), str(delay)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdout and self._process.stdout.readline()

    def end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait(20)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    from ui.server import listen

    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    served = Served(tmp_path, port)
    served.begin(delay=0.5)
    yield served
    served.end(signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped"])
def test_a_server_that_ends_in_mid_reply_leaves_the_question_and_a_mark(visit, served, how):
    page = visit(served.address)
    begun(page, LEAVE)
    served.end(how)
    if how == signal.SIGINT:  # said before the connection is closed
        expect(page.locator(".mg-note")).to_contain_text("cut off", timeout=1000)
    page.wait_for_timeout(1000)
    served.begin()
    if how == signal.SIGINT:
        page.reload()
        expect(page.locator(".mg-reply")).to_contain_text("According")  # what there was of it
    expect(page.locator(".mg-note")).to_contain_text("cut off", timeout=60_000)
    expect(page.locator(".mg-utterance")).to_have_text([LEAVE])
    expect(page.locator(".mg-caret, .mg-waiting")).to_have_count(0)
    assert errors(page) == 0
    page.get_by_role("button", name="Retry").click()
    answers(page, 1)
    expect(page.locator(".mg-note")).to_have_count(0)
    page.reload()
    answers(page, 1)
    expect(page.locator(".mg-utterance")).to_have_text([LEAVE])


@pytest.mark.parametrize("build", [build_app, page_of])
def test_a_page_that_hears_nothing_more_of_its_reply_asks_how_it_goes_on(serve, visit, chatbot, monkeypatch, build):
    monkeypatch.setattr("ui.replies.BEAT_SECONDS", 1000.0)
    page = visit(serve(build(chatbot)))
    page.clock.install()
    begun(page, LEAVE)
    with page.expect_request("**/queue/join*"):
        page.clock.fast_forward(26_000)
    chatbot.go_on.set()
    answers(page, 1)
    assert errors(page) == 0 and len(page.locator(".mg-utterance").all()) == 1


# A connection over which nothing comes any more, and which nobody has closed.
DEAF = """() => {
  const real = window.fetch;
  window.fetch = async (...given) => {
    const answer = await real(...given);
    if (!String(given[0]?.url || given[0]).includes('/queue/data')) return answer;
    const stream = new TransformStream({transform(chunk, to) { if (!window.deaf) to.enqueue(chunk); }});
    return new Response(answer.body.pipeThrough(stream), {status: answer.status, headers: answer.headers});
  };
}"""


def test_a_page_whose_connection_is_dead_is_loaded_anew_and_has_the_reply(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot)))
    page.evaluate(DEAF)
    page.clock.install()
    begun(page, LEAVE)
    page.evaluate("window.deaf = true")
    chatbot.go_on.set()
    page.wait_for_timeout(1000)
    expect(page.locator(".mg-caret")).to_be_visible()
    page.clock.fast_forward(26_000)
    page.wait_for_timeout(1000)
    expect(page.locator(".mg-caret")).to_be_visible()
    page.clock.fast_forward(26_000)
    answers(page, 1)
    assert errors(page) == 0


def test_a_hosts_page_that_keeps_nothing_stays_as_it_is_where_its_connection_is_dead(serve, visit, chatbot):
    page = visit(serve(page_of(chatbot)))
    chatbot.go_on.set()
    ask(page, HOTELS)
    answers(page, 1)
    chatbot.go_on.clear()
    page.evaluate("window.same = true")
    page.evaluate(DEAF)
    page.clock.install()
    begun(page, LEAVE)
    page.evaluate("window.deaf = true")
    for _ in range(40):  # it asks for the page meanwhile, which takes as long as it takes
        page.clock.fast_forward(26_000)
        page.wait_for_timeout(300)
        if page.locator(".mg-note").count():
            break
    expect(page.locator(".mg-note")).to_contain_text("connection was lost")
    expect(page.locator(".mg-utterance")).to_have_text([HOTELS, LEAVE])
    expect(page.locator(".mg-caret, .mg-waiting")).to_have_count(0)
    assert page.evaluate("window.same") is True


def test_a_hosts_page_whose_session_the_server_dropped_shows_what_it_did_and_can_ask(
    serve, visit, chatbot, monkeypatch
):
    monkeypatch.setattr("ui.replies.BEAT_SECONDS", 1000.0)
    host = page_of(chatbot)
    page = visit(serve(host))
    page.clock.install()
    begun(page, LEAVE)
    host.state_holder.session_data.clear()
    page.clock.fast_forward(26_000)
    expect(page.locator(".mg-note")).to_contain_text("connection was lost")
    expect(page.locator(".mg-utterance")).to_have_text([LEAVE])
    expect(page.locator(".mg-caret, .mg-waiting")).to_have_count(0)
    chatbot.go_on.set()
    ask(page, HOTELS)
    expect(page.locator(".mg-utterance").last).to_have_text(HOTELS)
    answers(page, 1)


def test_a_question_that_reaches_no_server_is_in_the_box_when_one_is_there_again(serve, visit, chatbot):
    chatbot.go_on.set()
    page = visit(serve(build_app(chatbot)))
    ask(page, HOTELS)
    answers(page, 1)
    page.wait_for_timeout(500)
    page.context.set_offline(True)
    ask(page, LEAVE)
    expect(page.locator(".toast-body")).to_contain_text("Connection")
    page.wait_for_timeout(500)
    with page.expect_event("load", timeout=20_000):
        page.context.set_offline(False)
    answers(page, 1)
    expect(box(page)).to_have_value(LEAVE)
    box(page).press("Enter")
    answers(page, 2)
    expect(box(page)).to_have_value("")
    page.reload()
    answers(page, 2)
    expect(box(page)).to_have_value("")


def test_where_gradio_takes_no_event_the_page_stays_and_the_question_is_in_the_box(serve, visit, chatbot):
    chatbot.go_on.set()
    app = build_app(chatbot)
    page = visit(serve(app))
    ask(page, HOTELS)
    answers(page, 1)
    before = whole(page)
    app._queue.max_size = 0
    ask(page, LEAVE)
    expect(page.locator(".toast-body")).to_contain_text("busy")
    expect(box(page)).to_have_value(LEAVE)
    box(page).fill("")
    assert whole(page) == before and before["errors"] == 0
    app._queue.max_size = None
    ask(page, LEAVE)
    answers(page, 2)


CHANGED = """() => {
  window.changed = new Set();
  new MutationObserver(changes => changes.forEach(({target}) => {
    const message = (target.nodeType === 1 ? target : target.parentElement).closest('.mg-message, .mg-utterance');
    if (message) changed.add([...document.querySelectorAll('.mg-message, .mg-utterance')].indexOf(message));
  })).observe(document.querySelector('.mg-messages'), {subtree: true, childList: true, characterData: true});
}"""


def test_while_a_reply_comes_only_what_is_new_is_sent_and_drawn(serve, visit, chatbot):
    chatbot.go_on.set()
    page = visit(serve(page_of(chatbot)))
    for count in range(6):
        ask(page, LEAVE)
        answers(page, count + 1)
    chatbot.go_on.clear()
    chatbot.reply = " ".join(f"word{n}" for n in range(400))
    chatbot.delay = 0.012
    begun(page, HOTELS)
    page.wait_for_timeout(500)
    received = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.dataReceived", lambda event: received.append(event["dataLength"]))
    page.evaluate(CHANGED)
    chatbot.go_on.set()
    page.wait_for_function("() => document.querySelector('.mg-coming .mg-reply')?.textContent.includes('word330')")
    came, changed = sum(received), page.evaluate("[...changed]")
    answers(page, 7)
    assert changed == [13]  # the last of 14
    assert came < 60_000, came
    assert visible_reply(page) == chatbot.reply


def test_what_is_typed_and_where_one_reads_stay_while_a_reply_comes(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot)))
    begun(page, LEAVE)
    box(page).fill("And by train")
    page.reload()
    expect(page.locator(".mg-caret")).to_be_visible()
    box(page).fill("And by train")
    before = whole(page)
    chatbot.go_on.set()
    answers(page, 1)
    expect(box(page)).to_have_value("And by train")
    assert before["errors"] == 0


def test_a_host_that_keeps_nothing_has_nothing_made_for_nobody(serve, visit, tmp_path):
    chatbot = stocked(delay=0.3)
    page = visit(serve(page_of(chatbot)))
    begun(page, LEAVE)
    page.goto("about:blank")
    until = time.monotonic() + 15
    while not chatbot.closed and time.monotonic() < until:
        time.sleep(0.1)
    assert chatbot.closed == 1
    assert chatbot.history.list() == []
