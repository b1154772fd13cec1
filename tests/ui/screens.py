"""Walks a person's way through the page, and stops at every screen that there is to look at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr
from playwright.sync_api import Page, expect

from chatbot.errors import NameTaken
from chatbot.knowledge import Outcome, Rebuilding
from tests.ui.standin import Knowledge, StandIn, stocked
from ui import RagChat, build_app
from ui.i18n import texts

LEAVE = "How many days of leave are there, and which trips go by train?"


class Shelf(Knowledge):
    """Asks about a name that is taken, and stops half-way through a file called slow until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def add(self, file: str | Path, **options: object) -> Outcome:
        name = str(options["name"])
        if name in {entry.name for entry in self.documents()}:
            raise NameTaken(f"{name!r} is there already, with other content")
        if name.startswith("slow"):
            options["embedding"](40, 120)  # type: ignore[operator]
            while not self.go_on.wait(0.02):
                options["progress"](0.45, "embedding")  # type: ignore[operator]
        return super().add(file, **options)  # type: ignore[arg-type]


def host(chatbot: StandIn) -> gr.Blocks:
    """The chat in another's page."""
    with gr.Blocks(analytics_enabled=False, title="A host") as page:
        gr.Markdown("# A host")
        RagChat(chatbot, language="en", examples=[LEAVE])  # type: ignore[arg-type]
    return page


def ask(page: Page, question: str) -> None:
    box = page.locator(".mg-textbox textarea").first
    box.fill(question)
    box.press("Enter")


def tab(page: Page, number: int) -> None:
    page.locator(".mg-tabs [role=tab]").nth(number).click()


def button(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).last.click()


def word(page: Page, name: str) -> str:
    """The page's own, in the language that it is in."""
    header = page.locator(".mg-header")
    return texts(header.get_attribute("lang") or "en" if header.count() else "en")[name]


def chat(page: Page, chatbot: StandIn) -> Iterator[str]:
    """The chat, in our page or a host's."""
    feet = page.locator(".mg-foot")
    expect(page.locator(".mg-welcome")).to_be_visible()
    yield "empty"
    chatbot.delay = 0.2
    ask(page, LEAVE)
    expect(page.locator(".mg-caret")).to_be_visible()
    yield "streaming"
    chatbot.delay = 0.0
    expect(feet).to_have_count(1)
    expect(page.locator(".mg-uncited")).to_have_count(1)
    page.locator(".mg-more").first.click()
    page.locator(".mg-cite").first.focus()
    yield "cited"
    button(page, word(page, "judge.down"))
    expect(page.get_by_label(word(page, "correction"))).to_be_visible()
    yield "correcting"
    page.get_by_label(word(page, "correction")).fill("28 days")
    button(page, word(page, "correction.save"))
    expect(page.locator(".mg-note")).to_be_visible()
    page.locator(".mg-in-place").first.click()
    expect(page.locator("dialog[open]")).to_be_visible()
    yield "place"
    page.keyboard.press("Escape")
    ask(page, "Will you explode?")
    expect(page.locator(".mg-broken-off")).to_have_count(1)
    yield "failed"
    page.locator(".mg-textbox textarea").fill("")
    ask(page, "Zebras?")
    expect(feet).to_have_count(2)
    yield "abstained"
    ask(page, "Can it be carried over?")
    expect(feet).to_have_count(3)
    button(page, word(page, "search.edit"))
    expect(page.get_by_label(word(page, "search.label"))).to_be_visible()
    yield "searching"


def around(page: Page, chatbot: StandIn) -> Iterator[str]:
    """What our page has besides."""
    page.locator(".mg-scope > button").click()
    expect(page.locator(".mg-days").first).to_be_visible()
    page.get_by_label(word(page, "scope.documents"), exact=True).last.click()
    expect(page.locator("[role=listbox]")).to_be_visible()
    yield "scope"
    page.keyboard.press("Escape")
    page.locator(".mg-scope > button").click()
    page.get_by_role("button", name="Toggle Sidebar").click()
    expect(page.locator(".mg-conversations li")).to_have_count(1)
    page.locator(".mg-conversations .mg-delete").click()
    yield "conversations"
    page.get_by_role("button", name="Toggle Sidebar").click()
    tab(page, 2)
    expect(page.locator(".mg-table code").first).to_be_visible()
    yield "about"


def documents(page: Page, chatbot: StandIn) -> Iterator[str]:
    """The Documents tab of a knowledge base that is empty at first and holds a `Shelf`."""
    tab(page, 1)
    expect(page.get_by_text(word(page, "documents.empty"))).to_be_visible()
    yield "no documents"
    files = page.locator(".mg-files input[type=file]")
    text = {"mimeType": "text/markdown", "buffer": b"Dogs may come to the office on Fridays."}
    files.set_input_files([text | {"name": "A policy on pets, and on who may bring which of them to the office.md"}])
    expect(page.locator(".mg-outcomes .mg-added")).to_be_visible()
    chatbot.knowledge.put("员工手册.md", "每位员工每年有二十八天带薪年假。", collection="House rules")
    chatbot.knowledge.put("دليل الموظف.md", "لكل موظف ثمانية وعشرون يوما من الإجازة.")
    chatbot.knowledge.rebuilding = Rebuilding(0.42, "computing", lexical_only=True)
    names = ["slow.md", "A policy on pets, and on who may bring which of them to the office.md", "empty.txt"]
    files.set_input_files([text | {"name": name} for name in names[:2]] + [text | {"name": names[2], "buffer": b" "}])
    expect(page.locator(".mg-asked")).to_be_visible()
    expect(page.locator(".mg-outcomes .mg-failed")).to_be_visible()
    expect(page.locator(".mg-chip")).to_have_count(3)
    page.locator(".mg-chip").nth(1).click()
    expect(page.locator(".mg-rename")).to_be_visible()
    page.locator(".mg-delete").last.click()
    yield "arriving"
    page.get_by_label(word(page, "address")).fill("not an address")
    page.get_by_label(word(page, "address")).press("Enter")
    expect(page.locator(".toast-body")).to_have_css("opacity", "1")
    yield "warned"
    chatbot.knowledge.go_on.set()  # type: ignore[attr-defined]


Screens = Callable[[Page, StandIn], Iterator[str]]
PAGES: dict[str, tuple[Callable[[], StandIn], Callable[[StandIn], gr.Blocks], tuple[Screens, ...]]] = {
    "ours": (stocked, lambda chatbot: build_app(chatbot, examples=[LEAVE, "Hotels?"]), (chat, around)),
    "documents": (lambda: StandIn(knowledge=Shelf()), build_app, (documents,)),
    "host": (stocked, host, (chat,)),
}
