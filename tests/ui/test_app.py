"""The whole application in a real browser, over a real chatbot without weights."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from playwright.sync_api import Page, expect
from starlette.responses import HTMLResponse, PlainTextResponse

from chatbot import Asked, Chatbot, Conversation, MarginaliaError, open_chatbot
from chatbot.errors import HomeDamaged, full
from chatbot.history import History
from chatbot.knowledge import Rebuilding
from tests.ui.conftest import serving_site
from tests.ui.standin import Knowledge, StandIn
from tests.ui.test_chat import HOSTILE, answers, ask, page_of
from ui import build_app
from ui.server import listen, mounted

ROOT = Path(__file__).parents[2]
PETS = {"name": "Pet policy.md", "mimeType": "text/markdown", "buffer": b"Dogs may come to the office on Fridays."}
EMPTY = {"name": "empty <b>.txt", "mimeType": "text/plain", "buffer": b" "}


@pytest.fixture
def chatbot(tmp_path: Path) -> Iterator[Chatbot]:
    with open_chatbot(home=tmp_path, generator="scripted", embedder="hashing", sample=False) as chatbot:
        yield chatbot


def upload(page: Page, *files: dict[str, object]) -> None:
    page.locator(".mg-files input[type=file]").set_input_files(list(files))


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_a_file_is_added_asked_about_and_deleted(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot)))
    tab(page, "Documents")
    upload(page, PETS, EMPTY)
    expect(page.locator(".mg-outcomes tbody tr")).to_have_count(2)
    expect(page.locator(".mg-outcomes .mg-added")).to_contain_text("Pet policy.md")
    expect(page.locator(".mg-outcomes .mg-failed")).to_contain_text("empty <b>.txt")
    listed = page.locator("table:not(.mg-outcomes) tr", has_text="Pet policy.md").first
    expect(listed).to_be_visible()
    tab(page, "Chat")
    ask(page, "When may dogs come to the office?")
    answers(page, 1)
    expect(page.locator(".mg-reply")).to_contain_text("Fridays")
    expect(page.locator(".mg-card").first).to_contain_text("Pet policy.md")
    page.get_by_role("button", name="Show in the document").click()
    expect(page.locator("dialog[open] mark")).to_have_text("Dogs may come to the office on Fridays.")
    page.keyboard.press("Escape")
    tab(page, "Documents")
    delete = listed.get_by_role("button", name="Delete")
    delete.click()
    expect(delete).to_have_text("Really delete?")
    assert len(chatbot.knowledge.documents()) == 1  # nothing happens before the second click
    delete.click()
    expect(listed).to_have_count(0)
    assert chatbot.knowledge.documents() == []


def test_a_hostile_file_name_is_only_text(serve, visit, chatbot):
    name = "<img src=x onerror=alert(1)> ![x](https:evil.example) $$x$$.md"
    page = visit(serve(build_app(chatbot)))
    tab(page, "Documents")
    upload(page, PETS | {"name": name})
    expect(page.locator(".mg-outcomes .mg-added .mg-name")).to_have_text(name)
    listed = page.locator("table:not(.mg-outcomes) tr", has_text="onerror")
    expect(listed.locator(".mg-name")).to_have_text(name)
    listed.get_by_role("button", name="Delete").dblclick()
    expect(page.locator(".toast-body")).to_contain_text(f"{name} was deleted.")
    assert page.locator("img[src=x], img[src*=evil], .katex").count() == 0


def test_a_documents_new_version_asks_what_to_do_unless_the_box_is_ticked(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot)))
    tab(page, "Documents")
    upload(page, PETS)
    expect(page.locator(".mg-outcomes .mg-added")).to_be_visible()
    upload(page, PETS | {"buffer": b"Cats may come too."})
    asked = page.locator(".mg-asked")
    expect(asked).to_contain_text("Pet policy.md is there already")
    page.reload()
    tab(page, "Documents")
    asked.get_by_role("button", name="Replace").click()
    expect(page.locator(".mg-outcomes .mg-replaced")).to_be_visible()
    expect(asked).to_have_count(0)
    page.get_by_label("Replace documents of the same name").check()
    upload(page, PETS | {"buffer": b"Parrots may come."}, EMPTY)
    expect(page.locator(".mg-outcomes .mg-failed")).to_be_visible()
    expect(page.locator(".mg-outcomes .mg-replaced")).to_be_visible()
    expect(asked).to_have_count(0)
    assert [passage.text for passage in chatbot.knowledge.passages().values()] == ["Parrots may come."]


class Halting(Knowledge):
    """Its files stop half-way until they are allowed to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def add(self, file, *, progress, embedding, **options):
        embedding(40, 120)
        while not self.go_on.wait(0.02):
            progress(0.45, "embedding")
        return super().add(file, **options)


def test_files_on_their_way_survive_a_reload_leave_the_chat_free_and_can_be_cancelled(serve, visit):
    chatbot = StandIn(knowledge=Halting())
    address = serve(build_app(chatbot, shared=True))
    page = visit(address)
    tab(page, "Documents")
    upload(page, *(PETS | {"name": f"{n}.md"} for n in range(5)))
    rows = page.locator(".mg-outcomes tbody tr")
    expect(rows).to_have_count(5)
    expect(page.locator(".mg-outcomes .mg-embedding")).to_have_count(3)
    expect(page.locator(".mg-outcomes .mg-embedding").first).to_contain_text("40 of 120 passages")
    expect(page.locator(".mg-outcomes .mg-waiting")).to_have_count(2)
    expect(page.locator(".mg-pace")).to_contain_text("0 of 5 files")
    stranger = visit(address)
    tab(stranger, "Documents")
    expect(stranger.get_by_text("No documents yet")).to_be_visible()
    assert stranger.locator(".mg-outcomes").count() == 0
    tab(page, "Chat")
    ask(page, "Is there anything?")
    answers(page, 1)
    page.reload()
    tab(page, "Documents")
    expect(rows).to_have_count(5)
    cancel = page.get_by_role("button", name="Cancel")
    cancel.click()
    expect(page.locator(".mg-outcomes .mg-cancelled")).to_have_count(5)
    expect(cancel).to_be_hidden()
    chatbot.knowledge.go_on.set()
    upload(page, PETS)
    expect(page.locator(".mg-outcomes .mg-added")).to_have_count(1)
    expect(rows).to_have_count(1)
    expect(page.locator("table:not(.mg-outcomes) tr", has_text="Pet policy.md")).to_be_visible()


def test_documents_go_into_a_collection_that_can_be_renamed_and_deleted(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot)))
    tab(page, "Documents")
    upload(page, PETS)
    expect(page.locator(".mg-outcomes .mg-added")).to_be_visible()
    into = page.get_by_label("Add to collection")
    into.fill("House  rules")
    into.press("Enter")
    upload(page, PETS)  # the same name, in another collection
    rows = page.locator("table:not(.mg-outcomes) tbody tr")
    expect(rows).to_have_count(2)
    chip = page.locator(".mg-chip")
    expect(chip).to_have_text(["All collections 2", "House rules 1", "default 1"])
    chip.filter(has_text="House").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("House rules")
    page.get_by_role("button", name="Rename").click()
    field = page.get_by_label("Rename")
    field.fill("default")
    field.press("Enter")
    expect(page.locator(".toast-body")).to_contain_text("there is a collection 'default' already")
    page.get_by_role("button", name="Rename").click()
    field.fill(HOSTILE)
    field.press("Enter")
    expect(rows.locator(".mg-text")).to_have_text(HOSTILE[:80].strip())
    delete = page.get_by_role("button", name="Delete collection")
    delete.click()
    expect(delete).to_have_text("Really delete, with all its documents?")
    assert len(chatbot.knowledge.documents()) == 2
    delete.click()
    expect(chip).to_have_count(0)
    expect(rows).to_have_count(1)
    assert [entry.collection for entry in chatbot.knowledge.documents()] == ["default"]


def test_a_web_address_has_a_row_and_what_is_none_is_said_at_once(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot)))
    tab(page, "Documents")
    address = page.get_by_label("Add a web address")
    address.fill("not an address")
    address.press("Enter")
    expect(page.locator(".toast-body")).to_contain_text("'not an address' is no web address")
    expect(address).to_have_value("not an address")
    address.fill("http://127.0.0.1:9/dogs")
    address.press("Enter")
    expect(page.locator(".mg-outcomes .mg-failed")).to_contain_text("private network")
    expect(page.locator(".mg-outcomes .mg-name")).to_have_text("127.0.0.1:9/dogs")
    expect(address).to_have_value("")


def test_the_page_says_how_far_the_knowledge_base_follows_its_settings(serve, visit):
    chatbot = StandIn(knowledge=Knowledge(rebuilding=Rebuilding(0.42, "computing", lexical_only=True)))
    page = visit(serve(build_app(chatbot)))
    expect(page.locator(".mg-main .mg-notice")).to_contain_text("found by their words alone")
    tab(page, "Documents")
    progress = page.locator(".mg-notice", has_text="42% done")
    expect(progress).to_be_visible()
    chatbot.knowledge.rebuilding = None
    expect(progress).to_have_count(0)
    tab(page, "Chat")
    ask(page, "Is there anything?")
    answers(page, 1)
    expect(page.locator(".mg-main > * .mg-notice", has_text="words alone")).to_have_count(0)


def test_a_reload_keeps_the_conversation_and_another_tab_has_its_own(serve, visit, chatbot, tmp_path):
    (tmp_path / "pets.txt").write_text("Dogs may come to the office on Fridays.")
    chatbot.knowledge.add(tmp_path / "pets.txt")
    address = serve(build_app(chatbot))
    page = visit(address)
    ask(page, "When may dogs come to the office?")
    answers(page, 1)
    expect(page.locator(".mg-conversations li")).to_have_count(1)
    page.reload()
    answers(page, 1)
    expect(page.locator(".mg-card").first).to_contain_text("pets.txt")
    other = visit(address, beside=page)
    expect(other.locator(".mg-conversations li")).to_have_count(1)  # listed
    answers(other, 0)  # but not open


def test_two_tabs_that_go_on_with_one_conversation_lose_nothing(serve, visit, chatbot):
    address = serve(build_app(chatbot))
    page = visit(address)
    ask(page, "Is there anything?")
    answers(page, 1)
    other = visit(address, beside=page)
    other.get_by_role("button", name="Toggle Sidebar").click()
    other.locator(".mg-conversations .mg-open").click()
    answers(other, 1)
    ask(page, "Which office?")
    answers(page, 2)
    ask(other, "Which dogs?")
    expect(other.locator(".mg-utterance")).to_have_text(["Is there anything?", "Which office?", "Which dogs?"])
    expect(other.locator(".toast-body")).to_contain_text("went on elsewhere")
    page.reload()
    answers(page, 3)
    ((key, title, _),) = chatbot.history.list()
    assert title == "Is there anything?" and len(chatbot.history.load(key).turns) == 3


class Full(History):
    """Its disk is full while it is told so."""

    full = True

    def ask(self, key: str, asked: Asked, *more: Any) -> None:
        if self.full:
            raise full("<b>here</b>")
        super().ask(key, asked, *more)

    def save(self, key: str, conversation: Conversation, *more: Any, **named: Any) -> Conversation:
        if self.full:
            raise full("<b>here</b>")
        return super().save(key, conversation, *more, **named)

    def delete(self, key: str) -> None:
        if self.full:
            raise full("<b>here</b>")
        super().delete(key)


def test_a_turn_that_found_no_room_stays_on_the_page_and_is_kept_with_the_next(serve, visit, tmp_path):
    history = Full(tmp_path / "conversations")
    page = visit(serve(build_app(StandIn(history=history))))
    ask(page, "Is there anything?")
    answers(page, 1)
    expect(page.locator(".toast-body")).to_contain_text("'<b>here</b>' is full: make room there")
    history.full = False
    ask(page, "Which office?")
    answers(page, 2)
    expect(page.locator(".mg-conversations li")).to_have_count(1)
    ((key, *_),) = history.list()
    assert [turn.utterance for turn in history.load(key).turns] == ["Is there anything?", "Which office?"]


class Unreadable(History):
    def load(self, key: str) -> Conversation | None:
        raise HomeDamaged(f"the conversations {key!r} cannot be used: disk I/O error")


def test_what_becomes_of_a_conversation_is_told_in_the_language_of_the_page(serve, visit, tmp_path):
    history = Full(tmp_path / "conversations")
    address = serve(build_app(StandIn(history=history)))
    page = visit(address, locale="zh-CN")
    ask(page, "Is there anything?")
    answers(page, 1)
    expect(page.locator(".toast-body")).to_contain_text("'<b>here</b>' 所在的磁盘已满：请腾出空间")
    page.reload()
    history.full = False
    ask(page, "Which office?")
    answers(page, 1)
    page.locator(".mg-sidebar .toggle-button").click()
    history.full = True
    for _ in range(2):
        page.locator(".mg-conversations .mg-delete").click()
    expect(page.locator(".toast-body")).to_contain_text("所在的磁盘已满：请腾出空间")
    expect(page.locator(".mg-conversations li")).to_have_count(1)
    answers(page, 1)
    broken = visit(serve(build_app(StandIn(history=Unreadable(tmp_path / "others")))), locale="zh-CN")
    expect(broken.locator(".toast-body")).to_contain_text("无法使用")


def test_an_earlier_conversation_is_opened_and_deleted(serve, visit, chatbot, tmp_path):
    (tmp_path / "pets.txt").write_text("Dogs may come to the office on Fridays.")
    chatbot.knowledge.add(tmp_path / "pets.txt")
    page = visit(serve(build_app(chatbot)))
    ask(page, "When may dogs come?")
    answers(page, 1)
    page.get_by_role("button", name="New chat").click()
    answers(page, 0)
    ask(page, "Which office?")
    answers(page, 1)
    earlier = page.locator(".mg-conversations li")
    expect(earlier).to_have_count(2)
    page.get_by_role("button", name="Toggle Sidebar").click()
    earlier.filter(has_text="When may dogs come?").locator(".mg-open").click()
    expect(page.locator(".mg-utterance")).to_have_text(["When may dogs come?"])
    delete = earlier.filter(has_text="When may dogs come?").locator(".mg-delete")
    delete.click()
    delete.click()
    expect(earlier).to_have_count(1)
    answers(page, 0)  # it was the one that was open
    assert [title for _, title, _ in chatbot.history.list()] == ["Which office?"]


def test_a_reply_is_judged_and_corrected_and_a_reload_keeps_what_was_said(serve, visit, chatbot, tmp_path):
    (tmp_path / "pets.txt").write_text("Dogs may come to the office on Fridays.")
    chatbot.knowledge.add(tmp_path / "pets.txt")
    page = visit(serve(build_app(chatbot)))
    ask(page, "When may dogs come to the office?")
    answers(page, 1)
    up, down = (page.get_by_role("button", name=name, exact=True) for name in ("Good reply", "Bad reply"))
    field = page.get_by_label("What should it have said?")
    up.click()
    expect(up).to_have_attribute("aria-pressed", "true")
    expect(field).to_have_count(0)
    down.click()
    expect(down).to_have_attribute("aria-pressed", "true")
    expect(up).to_have_attribute("aria-pressed", "false")
    field.fill(HOSTILE)
    page.get_by_role("button", name="Save").click()
    expect(field).to_have_count(0)
    for _ in range(2):
        expect(page.locator(".mg-note span")).to_have_text(HOSTILE)
        expect(down).to_have_attribute("aria-pressed", "true")
        assert page.locator(".mg-chat :is(img[src=x], a[href], script, .katex)").count() == 0
        page.reload()
    ((key, *_),) = chatbot.history.list()
    (turn,) = chatbot.history.load(key).turns
    assert (turn.rating, turn.correction) == ("down", HOSTILE)
    down.click()  # shows what was written
    expect(field).to_have_value(HOSTILE)
    up.click()
    expect(up).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".mg-note")).to_have_count(0)
    up.click()  # taken back
    expect(up).to_have_attribute("aria-pressed", "false")


def test_strangers_do_not_see_each_others_conversations(serve, visit, chatbot):
    address = serve(build_app(chatbot, shared=True))
    page = visit(address)
    ask(page, "Is there anything?")
    answers(page, 1)
    expect(page.locator(".mg-conversations li")).to_have_count(1)
    page.reload()
    expect(page.locator(".mg-conversations li")).to_have_count(1)
    stranger = visit(address)
    expect(stranger.locator(".mg-sidebar")).to_contain_text("None yet")


def test_the_application_speaks_chinese(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot)), locale="zh-CN")
    tab(page, "文档")
    expect(page.get_by_text("替换同名文档")).to_be_visible()
    upload(page, {"name": "手册.md", "mimeType": "text/markdown", "buffer": "每位员工每年有二十八天年假。".encode()})
    expect(page.locator(".mg-outcomes .mg-added")).to_contain_text("手册.md")
    tab(page, "对话")
    ask(page, "每年有多少天年假？")
    answers(page, 1)
    expect(page.locator(".mg-reply")).to_contain_text("二十八天")


def test_a_failure_is_told_in_the_language_of_the_page(serve, visit, chatbot):
    page = visit(serve(build_app(chatbot)), locale="zh-CN")
    tab(page, "文档")
    upload(page, EMPTY)
    expect(page.locator(".mg-outcomes .mg-failed")).to_contain_text("中没有文字：请提供含有文字的文件")
    page.get_by_label("添加网址").fill("not an address")
    page.get_by_label("添加网址").press("Enter")
    expect(page.locator(".toast-body")).to_contain_text("不是网址")
    tab(page, "对话")
    ask(page, "x" * 5000)
    expect(page.locator(".mg-note")).to_contain_text("问题有 5,000 个字符")


@pytest.mark.parametrize(("locale", "spoken"), [("de-DE", "en"), ("zh-CN", "zh")])
def test_the_page_names_the_language_of_its_texts_and_where_to_add_documents(serve, visit, chatbot, locale, spoken):
    page = visit(serve(build_app(chatbot)), locale=locale)
    expect(page.locator("html")).to_have_attribute("lang", spoken)
    ask(page, "What is there?")
    answers(page, 1)
    expect(page.locator(".mg-reply")).to_contain_text("Documents" if spoken == "en" else "“文档”")
    expect(page.locator("html")).to_have_attribute("lang", spoken)


def test_a_chat_without_a_tab_for_documents_names_none(serve, visit, chatbot):
    page = visit(serve(page_of(chatbot)))
    ask(page, "What is there?")
    answers(page, 1)
    expect(page.locator(".mg-reply")).to_have_text("There are no documents to search.")


def test_every_answer_forbids_the_page_to_reach_other_machines(serve, chatbot):
    with urllib.request.urlopen(serve(build_app(chatbot))) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "img-src 'self'" in policy and "http" not in policy


def test_a_port_in_use_is_one_clear_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MarginaliaError, match=rf"port {port} .*--port"):
            listen("127.0.0.1", port)


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_interrupt_ends_the_server_even_with_a_page_open(visit):
    program = (
        "from tests.ui.standin import stocked\nfrom ui.server import listen, serve\n"
        "serve(stocked(), listen('127.0.0.1', 0))\nprint('closed')"
    )
    pipe = subprocess.PIPE
    server = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    try:
        assert server.stdout
        address = next(word for word in server.stdout.readline().split() if word.startswith("http"))
        visit(address.replace("localhost", "127.0.0.1"))
        server.send_signal(signal.SIGINT)
        rest, errors = server.communicate(timeout=30)
        assert (server.returncode, rest.strip()) == (0, "closed")
        assert "Traceback" not in errors and "ERROR" not in errors
    finally:
        server.kill()


BLOCKED = """for (const name of ['localStorage', 'sessionStorage'])
  Object.defineProperty(window, name, {get() { throw new DOMException('blocked', 'SecurityError'); }});"""


def test_the_page_works_where_the_browser_keeps_nothing(serve, browser, chatbot):
    page = browser.new_page()
    page.add_init_script(BLOCKED)
    page.goto(serve(build_app(chatbot, shared=True)))
    ask(page, "When may dogs come to the office?")
    answers(page, 1)
    expect(page.locator(".mg-conversations, .mg-sidebar").first).to_contain_text("When may dogs", timeout=15_000)
    tab(page, "Documents")
    upload(page, PETS)
    expect(page.locator(".mg-outcomes .mg-added")).to_contain_text("Pet policy.md")
    page.close()


def test_the_page_works_in_the_frame_of_a_site_that_may_show_it(serve, browser, chatbot):
    address = serve(build_app(chatbot), frames=["http://localhost:*"]).replace("127.0.0.1", "chat.localhost")
    refusing = serve(build_app(chatbot)).replace("127.0.0.1", "chat.localhost")
    host = FastAPI()

    @host.get("/")
    def portal(of: str) -> HTMLResponse:
        return HTMLResponse(f'<iframe src="{of}" style="width: 100%; height: 700px"></iframe>')

    context = browser.new_context()
    page = context.new_page()
    with serving_site(host) as site:
        portal_address = site.replace("127.0.0.1", "localhost")
        page.goto(f"{portal_address}/?of={address}")
        frame = page.frame_locator("iframe")
        frame.locator(".mg-textbox textarea").first.fill("When may dogs come to the office?")
        frame.locator(".mg-textbox textarea").first.press("Enter")
        expect(frame.locator(".mg-reply")).to_have_count(1)
        page.goto(f"{portal_address}/?of={refusing}")
        page.wait_for_timeout(1000)
        assert page.frame_locator("iframe").locator(".mg-textbox").count() == 0
    context.close()


def test_the_page_works_below_a_prefix_that_a_proxy_takes_off(serve, browser, chatbot):
    site = mounted(build_app(chatbot), 5, names=(), root_path="/docs")

    async def proxy(scope, receive, send):
        if scope["type"] == "lifespan":
            await site(scope, receive, send)
        elif scope["path"].startswith("/docs/"):
            await site(scope | {"path": scope["path"].removeprefix("/docs"), "raw_path": b""}, receive, send)
        else:
            await PlainTextResponse("not here", 404)(scope, receive, send)

    page = browser.new_page()
    with serving_site(proxy) as address:
        page.goto(f"{address}/docs/")
        ask(page, "When may dogs come to the office?")
        answers(page, 1)
        tab(page, "Documents")
        upload(page, PETS)
        expect(page.locator(".mg-outcomes .mg-added")).to_contain_text("Pet policy.md")
    page.close()
