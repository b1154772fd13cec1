"""Everything is pressed in every state of the page, and the whole of it looked at before and after."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from chatbot import Event, open_chatbot
from tests.ui.standin import StandIn, stocked
from tests.ui.test_chat import LEAVE, answers, ask
from ui import build_app

HOTELS = "Which hotels are booked?"
WHOLE = """() => {
  const chat = document.querySelector('.mg-chat'), shown = node => node.checkVisibility();
  const all = selector => [...chat.querySelectorAll(selector)].filter(shown);
  return {
    text: chat.innerText,
    fields: all('textarea, input').map(each => [each.getAttribute('aria-label'), each.placeholder, each.value]),
    buttons: all('button').map(each => [each.textContent.trim(), each.title, each.className.includes('mg-pressed')]),
    errors: all('.error').length,
    conversations: [...document.querySelectorAll('.mg-conversations li')].map(each => each.textContent),
    tab: sessionStorage.getItem('marginalia'),
  };
}"""


@dataclass
class Halting(StandIn):
    """Its replies stop half-way until they are allowed to go on."""

    go_on: threading.Event = field(default_factory=threading.Event)

    def _tokens(self, pieces: list[tuple[str, int]], prior: tuple[float, ...]) -> Iterator[Event]:
        tokens = super()._tokens(pieces, prior)
        yield next(tokens)
        yield next(tokens)
        self.go_on.wait(120)
        yield from tokens


def whole(page: Page) -> dict[str, Any]:
    """All that the page shows, once it has settled."""
    page.wait_for_timeout(350)
    before = page.evaluate(WHOLE)
    while True:
        page.wait_for_timeout(150)
        if (now := page.evaluate(WHOLE)) == before:
            return now
        before = now


def box(page: Page) -> Any:
    return page.locator(".mg-textbox textarea")


def one_turn(page: Page, chatbot: Halting) -> None:
    chatbot.go_on.set()
    ask(page, LEAVE)
    answers(page, 1)


def streaming(page: Page, chatbot: Halting) -> None:
    one_turn(page, chatbot)
    chatbot.go_on.clear()
    ask(page, HOTELS)
    expect(page.locator(".mg-caret")).to_be_visible()


def stopped(page: Page, chatbot: Halting) -> None:
    streaming(page, chatbot)
    page.locator(".mg-textbox .stop-button").click()
    expect(page.locator(".mg-note")).to_be_visible()
    chatbot.go_on.set()


def failed(page: Page, chatbot: Halting) -> None:
    one_turn(page, chatbot)
    ask(page, "This is too long")
    expect(page.locator(".mg-note")).to_be_visible()
    box(page).fill("")


def correcting(page: Page, chatbot: Halting) -> None:
    one_turn(page, chatbot)
    page.get_by_role("button", name="Bad reply").click()
    page.get_by_label("What should it have said?").fill("Thirty days.")


def searching(page: Page, chatbot: Halting) -> None:
    one_turn(page, chatbot)
    page.get_by_role("button", name="Edit the search").click()
    page.get_by_label("What should be searched?").fill("Leave")


def choosing(page: Page, chatbot: Halting) -> None:
    one_turn(page, chatbot)
    page.locator(".mg-scope button").first.click()
    expect(page.get_by_label("Added since")).to_be_visible()


def empty(page: Page, chatbot: Halting) -> None:
    expect(page.locator(".mg-welcome")).to_be_visible()


STATES = [empty, one_turn, streaming, stopped, failed, correcting, searching, choosing]


def enter(page: Page) -> None:
    box(page).press("Enter")


def enter_twice(page: Page) -> None:
    enter(page)
    enter(page)


def enter_blanks(page: Page) -> None:
    box(page).fill("   ")
    box(page).press("Enter")
    page.wait_for_timeout(300)
    box(page).fill("")


def enter_text_while_a_reply_streams(page: Page) -> None:
    if page.locator(".mg-caret").count():
        box(page).fill("And by train?")
        box(page).press("Enter")
        page.wait_for_timeout(300)
        expect(box(page)).to_have_value("And by train?")
        box(page).fill("")


def retry_and_undo_while_a_reply_streams(page: Page) -> None:
    if page.locator(".mg-caret").count():
        for name in ("Retry", "Undo"):
            for button in page.get_by_role("button", name=name).all():
                button.click()


def judge_while_a_reply_streams(page: Page) -> None:
    if page.locator(".mg-caret").count():
        page.get_by_role("button", name="Good reply").click()


def look_at_the_sources_shown(page: Page) -> None:
    if page.locator(".mg-look").count() and not page.locator(".mg-caret, .mg-broken-off").count():
        page.locator(".mg-look").last.click()


def look_at_a_place_and_close_it(page: Page) -> None:
    if page.locator(".mg-in-place").count():
        page.locator(".mg-in-place").first.click()
        page.locator("dialog[open]").wait_for()
        page.keyboard.press("Escape")


NOTHING: list[Callable[[Page], None]] = [
    enter,
    enter_twice,
    enter_blanks,
    enter_text_while_a_reply_streams,
    retry_and_undo_while_a_reply_streams,
    judge_while_a_reply_streams,
    look_at_the_sources_shown,
    look_at_a_place_and_close_it,
]


@pytest.fixture
def chatbot() -> Iterator[Halting]:
    known = stocked()
    chatbot = Halting(knowledge=known.knowledge)
    yield chatbot
    chatbot.go_on.set()


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_what_should_change_nothing_leaves_the_whole_page_as_it_was(serve, visit, chatbot, state):
    page = visit(serve(build_app(chatbot)))
    state(page, chatbot)
    before = whole(page)
    for press in NOTHING:
        press(page)
        assert whole(page) == before, press.__name__
    assert before["errors"] == 0


def test_enter_twice_asks_once(serve, visit, chatbot):
    chatbot.go_on.set()
    page = visit(serve(build_app(chatbot)))
    ask(page, LEAVE)
    enter(page)
    answers(page, 1)
    once = whole(page)
    expect(page.locator(".mg-utterance")).to_have_text([LEAVE])
    page.get_by_role("button", name="Retry").click()
    enter(page)
    expect(page.locator(".mg-foot")).to_have_count(1)
    assert whole(page) == once


@pytest.mark.parametrize("state", [streaming, failed, correcting, searching], ids=lambda state: state.__name__)
def test_a_new_chat_is_the_empty_page_from_every_state(serve, visit, chatbot, state):
    page = visit(serve(build_app(chatbot)))
    fresh = whole(page)
    state(page, chatbot)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".mg-utterance")).to_have_count(0)
    after = whole(page)
    assert after.pop("tab") != fresh.pop("tab")
    assert fresh.pop("conversations") == [] and len(after.pop("conversations")) == 1
    assert after == fresh


def test_editing_the_search_shows_a_field_and_changes_nothing_else(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot)))
    one_turn(page, chatbot)
    ask(page, "Can it be carried over?")
    answers(page, 2)
    before = whole(page)
    for _ in range(2):
        page.get_by_role("button", name="Edit the search").click()
        expect(page.get_by_label("What should be searched?")).to_have_value(f"Can it be carried over? ({LEAVE})")
        after = whole(page)
        assert len(after["fields"]) == len(before["fields"]) + 1
        shown = [line for line in after["text"].splitlines() if line not in before["text"].splitlines()]
        assert set(shown) <= {"What should be searched?", "Search and answer"}
        assert set(before["text"].splitlines()) <= set(after["text"].splitlines())
        assert after["conversations"] == before["conversations"]
    page.get_by_role("button", name="Search as typed").click()
    answers(page, 2)
    expect(page.get_by_label("What should be searched?")).to_have_count(0)


@pytest.mark.parametrize("state", [stopped, failed, searching], ids=lambda state: state.__name__)
def test_taking_the_last_question_back_puts_it_into_the_box(serve, visit, chatbot, state):
    page = visit(serve(build_app(chatbot)))
    before = whole(page) if state is searching else None
    state(page, chatbot)
    asked = page.locator(".mg-utterance").all_inner_texts()
    page.get_by_role("button", name="Undo").last.click()
    expect(page.locator(".mg-utterance")).to_have_text(asked[:-1])
    expect(box(page)).to_have_value(asked[-1])
    box(page).fill("")
    after = whole(page)
    assert after["errors"] == 0
    if before:
        assert (after["text"], after["fields"]) == (before["text"], before["fields"])


def test_judging_changes_the_thumbs_alone(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot)))
    one_turn(page, chatbot)
    before = whole(page)
    page.get_by_role("button", name="Good reply").click()
    expect(page.get_by_role("button", name="Good reply")).to_have_attribute("aria-pressed", "true")
    after = whole(page)
    assert after["buttons"] != before["buttons"]
    assert {**after, "buttons": 0} == {**before, "buttons": 0}
    page.get_by_role("button", name="Good reply").click()
    expect(page.get_by_role("button", name="Good reply")).to_have_attribute("aria-pressed", "false")
    assert whole(page) == before


def called(address: str, number: int, values: list[Any], pressed: dict[str, Any]) -> dict[str, Any]:
    """What the event of this number sends to the page, by the queue, as gradio's own client asks."""
    body = {"fn_index": number, "data": values, "event_data": pressed, "session_hash": f"walk{number}"}
    asked = urllib.request.Request(
        f"{address}/gradio_api/queue/join", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    urllib.request.urlopen(asked).read()
    with urllib.request.urlopen(f"{address}/gradio_api/queue/data?session_hash=walk{number}") as stream:
        for line in stream:
            if line.startswith(b"data:") and (said := json.loads(line[5:]))["msg"] == "process_completed":
                return said
    raise AssertionError(f"event {number} never ended")


def test_no_event_of_the_application_empties_anything_where_there_is_nothing_to_do(serve, tmp_path):
    """gradio sends null for what a function does not give: the page would be wiped."""
    with open_chatbot(home=tmp_path, generator="scripted", embedder="hashing", sample=False) as chatbot:
        walk(serve(build_app(chatbot)))


def walk(address: str) -> None:
    with urllib.request.urlopen(f"{address}/config") as answer:
        config = json.load(answer)
    kinds = {each["id"]: each["type"] for each in config["components"]}
    pressed = {
        "turn": 99,
        "source": 99,
        "typed": False,
        "rating": "up",
        "key": "none",
        "value": {"text": ""},
        "index": 0,
    }
    pressed |= {"since": "", "until": "", "choice": "", "name": ""}
    empties, failures, walked = [], [], 0
    for event in config["dependencies"]:
        if not event["backend_fn"]:
            continue
        walked += 1
        nothing = {"state": None, "textbox": "", "dropdown": [], "browserstate": [], "checkbox": False}
        said = called(address, event["id"], [nothing.get(kinds[each]) for each in event["inputs"]], pressed)
        if not said["success"]:
            if event["api_visibility"] == "private":  # programs are told what is wrong
                failures.append((event["id"], event["targets"], said["output"]))
            continue
        for output, value in zip(event["outputs"], said["output"]["data"], strict=True):
            if value is None and kinds[output] not in ("state", "file"):
                empties.append((event["id"], event["targets"], kinds[output]))
    assert walked > 20
    assert empties == []
    assert failures == [], failures
