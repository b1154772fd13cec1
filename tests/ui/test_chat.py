"""RagChat in a real browser, over a stand-in chatbot."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gradio as gr
import pytest
from gradio_client import Client
from playwright.sync_api import Locator, Page, expect

from chatbot import open_chatbot
from tests.ui.standin import StandIn, stocked
from ui import RagChat

ROOT = Path(__file__).parents[2]
LEAVE = "How many days of leave are there?"
HOSTILE = "<img src=x onerror=alert(1)> ![x](https://evil.example/?q=1) <script>alert(2)</script> $$x$$ **b** `c` &lt;"


def page_of(*chatbots: StandIn, **options: object) -> gr.Blocks:
    """A host's page: other components, and the chats side by side."""
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Markdown("# A host")
        with gr.Row():
            for chatbot in chatbots:
                with gr.Column():
                    RagChat(chatbot, **options)  # type: ignore[arg-type]
    return page


def ask(page: Page | Locator, question: str) -> None:
    box = page.locator(".mg-textbox textarea").first
    box.fill(question)
    box.press("Enter")


def answers(page: Page | Locator, count: int) -> None:
    expect(page.locator(".mg-foot")).to_have_count(count)


def visible_reply(page: Page) -> str:
    """The last reply as it is copied: without the numbers of its sources."""
    return page.locator(".mg-reply").last.evaluate(
        "node => { const copy = node.cloneNode(true); copy.querySelectorAll('sup').forEach(s => s.remove());"
        " return copy.textContent; }"
    )


def test_a_reply_streams_and_shows_where_each_part_came_from(serve, visit):
    page = visit(serve(page_of(stocked(delay=0.08))))
    ask(page, LEAVE)
    expect(page.locator(".mg-caret")).to_be_visible()  # streaming, before any citation
    expect(page.locator(".mg-card .mg-share").first).to_have_text(re.compile(r"\d+%"))  # shares while it streams
    assert page.locator(".mg-cite").count() == 0
    answers(page, 1)
    expect(page.locator(".mg-cite")).to_have_text(
        [re.compile(r"^Every employee has 28 days.*1$"), re.compile(r"^Up to five days.*2$")]
    )
    cards = page.locator(".mg-card")
    expect(cards.first).to_contain_text("Employee handbook.pdf")
    expect(cards.first).to_contain_text("p. 2")
    expect(cards.first).to_contain_text("Working here › Leave")
    expect(cards.last).to_contain_text("No source")
    shares = [int(text.rstrip("%")) for text in page.locator(".mg-share").all_inner_texts()]
    assert 98 <= sum(shares) <= 102
    assert visible_reply(page).startswith("According to the documents: Every employee")


def test_a_citation_and_its_card_light_up_together(serve, visit):
    page = visit(serve(page_of(stocked())))
    ask(page, LEAVE)
    answers(page, 1)
    page.locator(".mg-cite").nth(1).focus()
    expect(page.locator(".mg-card.mg-lit")).to_have_count(1)
    expect(page.locator(".mg-card.mg-lit")).to_contain_text("Leave FAQ.md")
    page.locator(".mg-card").first.hover()
    expect(page.locator(".mg-cite.mg-lit").first).to_contain_text("28 days")
    folded = page.locator(".mg-passage").first.bounding_box()
    page.locator(".mg-cite").first.press("Enter")
    expect(page.locator(".mg-more").first).to_have_attribute("aria-expanded", "true")
    unfolded = page.locator(".mg-passage").first.bounding_box()
    assert folded and unfolded and unfolded["height"] >= folded["height"]


def test_a_reply_is_copied_as_plain_text_without_the_numbers_of_its_sources(serve, visit):
    page = visit(serve(page_of(stocked())))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, LEAVE)
    answers(page, 1)
    plain = visible_reply(page)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == plain
    selected = page.locator(".mg-reply").evaluate(
        "node => { getSelection().selectAllChildren(node); return getSelection().toString(); }"
    )
    assert selected.strip() == plain.strip()


def test_an_earlier_replys_citation_brings_back_its_sources(serve, visit):
    page = visit(serve(page_of(stocked())))
    ask(page, LEAVE)
    answers(page, 1)
    ask(page, "Which hotels are booked?")
    answers(page, 2)
    expect(page.locator(".mg-card").first).to_contain_text("Travel policy.docx")
    page.locator(".mg-cite.mg-t0").first.click()
    expect(page.locator(".mg-card").first).to_contain_text("Employee handbook.pdf")


def test_a_rewritten_query_is_shown(serve, visit):
    page = visit(serve(page_of(stocked())))
    ask(page, LEAVE)
    answers(page, 1)
    expect(page.locator(".mg-searched")).to_have_count(0)
    ask(page, "Can it be carried over?")
    answers(page, 2)
    expect(page.locator(".mg-searched span")).to_have_text(f"Can it be carried over? ({LEAVE})")


def test_what_was_searched_can_be_changed_and_undone(serve, visit):
    page = visit(serve(page_of(stocked())))
    ask(page, LEAVE)
    answers(page, 1)
    ask(page, "Can it be carried over?")
    answers(page, 2)
    page.get_by_role("button", name="Edit the search").click()
    box = page.get_by_label("What should be searched?")
    expect(box).to_have_value(f"Can it be carried over? ({LEAVE})")
    box.fill("Hotels and trips")
    page.get_by_role("button", name="Search and answer").click()
    expect(page.locator(".mg-searched")).to_contain_text("You searched for: Hotels and trips")
    expect(box).to_be_hidden()
    expect(page.locator(".mg-card").first).to_contain_text("Travel policy.docx")
    expect(page.locator(".mg-utterance")).to_have_text([LEAVE, "Can it be carried over?"])
    page.get_by_role("button", name="Search as typed").click()
    expect(page.locator(".mg-searched")).to_have_count(0)
    expect(page.locator(".mg-card").first).to_contain_text("Leave FAQ.md")
    answers(page, 2)


def test_hostile_text_is_shown_as_it_is_and_fetches_nothing(serve, visit):
    chatbot = StandIn(reply=HOSTILE)
    chatbot.knowledge.put(HOSTILE, f"travel {HOSTILE}", heading=HOSTILE)
    page = visit(serve(page_of(chatbot)))
    question = f"travel {HOSTILE}"
    ask(page, question)
    answers(page, 1)
    expect(page.locator(".mg-utterance")).to_have_text(question)
    assert visible_reply(page) == HOSTILE
    assert page.locator(".mg-passage").first.text_content() == f"travel {HOSTILE}"
    assert page.locator(".mg-card .mg-name").first.text_content() == HOSTILE
    for selector in (".mg-chat img", ".mg-chat a[href]", ".mg-chat .katex", ".mg-chat script"):
        assert page.locator(selector).count() == 0


def test_a_stopped_turn_stays_visible_and_is_no_part_of_the_conversation(serve, visit):
    chatbot = stocked(delay=0.15)
    page = visit(serve(page_of(chatbot)))
    ask(page, LEAVE)
    expect(page.locator(".mg-reply")).to_contain_text("According to")
    page.locator(".mg-textbox .stop-button").click()
    expect(page.locator(".mg-note")).to_contain_text("Stopped")
    stopped = visible_reply(page)
    page.wait_for_timeout(600)
    assert visible_reply(page) == stopped and stopped.startswith("According to")
    assert chatbot.closed == 1  # the generation itself ended
    assert page.locator(".mg-messages .error").count() == 0
    chatbot.delay = 0.0
    ask(page, "Can it be carried over?")  # nothing that "it" could mean: the query is not rewritten
    answers(page, 1)
    expect(page.locator(".mg-searched")).to_have_count(0)
    expect(page.locator(".mg-note")).to_have_count(1)


def test_a_new_chat_starts_empty(serve, visit):
    page = visit(serve(page_of(stocked(), examples=[LEAVE, "Which hotels are booked?"])))
    page.get_by_role("button", name=LEAVE).click()  # an example, as a starter
    answers(page, 1)
    page.get_by_role("button", name="New chat").click()
    answers(page, 0)
    expect(page.locator(".mg-card")).to_have_count(0)
    expect(page.locator(".mg-welcome")).to_be_visible()
    ask(page, "Can it be carried over?")
    answers(page, 1)
    expect(page.locator(".mg-searched")).to_have_count(0)


def test_a_new_chat_while_a_reply_streams_stays_empty(serve, visit):
    chatbot = stocked(delay=0.1)
    page = visit(serve(page_of(chatbot)))
    ask(page, LEAVE)
    expect(page.locator(".mg-caret")).to_be_visible()
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".mg-welcome")).to_be_visible()
    page.wait_for_timeout(500)
    expect(page.locator(".mg-utterance, .mg-card, .mg-messages .error")).to_have_count(0)
    assert chatbot.closed == 1
    ask(page, "Which hotels are booked?")
    answers(page, 1)
    expect(page.locator(".mg-utterance")).to_have_count(1)


def test_retry_asks_again_and_undo_takes_the_turn_back(serve, visit):
    chatbot = stocked()
    page = visit(serve(page_of(chatbot)))
    ask(page, LEAVE)
    answers(page, 1)
    chatbot.reply = "Another answer."
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".mg-reply")).to_contain_text("Another answer.")
    answers(page, 1)
    page.get_by_role("button", name="Undo").click()
    answers(page, 0)
    expect(page.locator(".mg-chat textarea")).to_have_value(LEAVE)


def test_an_error_is_one_line_and_the_question_is_kept(serve, visit, caplog):
    page = visit(serve(page_of(stocked())))
    ask(page, "This is too long")
    expect(page.locator(".mg-note")).to_contain_text("shorten it")
    expect(page.locator(".mg-chat textarea")).to_have_value("This is too long")
    ask(page, "explode")
    expect(page.locator(".mg-note")).to_have_count(2)
    expect(page.locator(".mg-note").last).to_contain_text("Something went wrong")
    assert "secret" not in page.content()
    assert "a secret path" in caplog.text  # logged, for whoever runs the page


def test_an_abstention_looks_different(serve, visit):
    page = visit(serve(page_of(stocked())))
    ask(page, "Who won the cup?")
    answers(page, 1)
    expect(page.locator(".mg-notice")).to_be_visible()
    expect(page.locator(".mg-cite")).to_have_count(0)


def test_two_chats_side_by_side_do_not_mix(serve, visit):
    first, second = stocked(delay=0.05), StandIn(delay=0.05)
    second.knowledge.put("Recipes.md", "Bake the bread for forty minutes.")
    page = visit(serve(page_of(first, second)))
    left, right = page.locator(".mg-chat").all()
    ask(left, LEAVE)
    ask(right, "How long do I bake the bread?")
    answers(page, 2)
    expect(left.locator(".mg-utterance")).to_have_text([LEAVE])
    expect(right.locator(".mg-reply")).to_contain_text("forty minutes")
    expect(left.locator(".mg-card .mg-name").first).to_have_text("Employee handbook.pdf")
    expect(right.locator(".mg-card .mg-name").first).to_have_text("Recipes.md")
    right.locator(".mg-cite").first.focus()
    expect(right.locator(".mg-card.mg-lit")).to_have_count(1)
    expect(left.locator(".mg-lit")).to_have_count(0)


def test_two_tabs_are_two_conversations(serve, visit):
    address = serve(page_of(stocked(delay=0.03)))
    first = visit(address)
    second = visit(address, beside=first)
    ask(first, LEAVE)
    ask(second, "Which hotels are booked?")
    answers(first, 1)
    answers(second, 1)
    expect(first.locator(".mg-utterance")).to_have_text([LEAVE])
    ask(second, "Can it be carried over?")
    answers(second, 2)
    expect(second.locator(".mg-searched")).to_contain_text("hotels")


@pytest.mark.parametrize(("locale", "send"), [("zh-CN", "新对话"), ("en-GB", "New chat")])
def test_the_page_speaks_the_visitors_language(serve, visit, locale, send):
    page = visit(serve(page_of(stocked())), locale=locale)
    expect(page.get_by_role("button", name=send)).to_be_visible()
    ask(page, "年假有多少天？")
    answers(page, 1)
    expect(page.locator(".mg-cite")).to_contain_text("二十八天")
    expect(page.locator(".mg-panel h2")).to_have_text("出处" if locale == "zh-CN" else "Sources")


def test_programs_can_ask_and_each_client_has_its_own_conversation(serve):
    address = serve(page_of(stocked()))
    client = Client(address, verbose=False)
    reply, sources = client.predict(LEAVE, api_name="/ask")
    assert "28 days" in reply
    cited = sources["citations"][0]
    assert "28 days" in reply[cited["start"] : cited["end"]]
    assert cited["passage_id"] in [passage["id"] for passage in sources["passages"]]
    assert sources["query"] == LEAVE
    assert LEAVE in client.predict("Can it be carried over?", api_name="/ask")[1]["query"]
    assert LEAVE not in Client(address, verbose=False).predict("Can it be?", api_name="/ask")[1]["query"]
    with pytest.raises(Exception, match="shorten it"):
        client.predict("too long", api_name="/ask")
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(named) == ["/ask"]


def documented(language: str) -> str:
    """The block of code in this language, of the page on the endpoint."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / "endpoint.md").read_text("utf-8"), re.DOTALL)
    return block


def test_the_documented_ways_to_ask_from_a_program_do(serve, tmp_path):
    with open_chatbot(home=tmp_path, generator="scripted", embedder="hashing") as chatbot:
        chatbot.load_sample()
        address = serve(page_of(chatbot))

        def run(*command: str) -> str:
            *before, code = command
            code = code.replace("http://127.0.0.1:7860", address)
            return subprocess.run([*before, code], capture_output=True, text=True, check=True, timeout=60).stdout

        said = run(sys.executable, "-c", documented("python"))
        assert "comes from" in said
        assert said.splitlines()[-1].endswith("And a collection?") and "delete" in said.splitlines()[-1]

        if shutil.which("curl") is None:
            pytest.skip("the other way needs curl")
        first, again = documented("sh"), documented("sh").replace("How do I delete a document?", "And a collection?")
        for asked, searched in ((first, "How do I delete a document?"), (again, "delete")):
            last = run("sh", "-c", asked).strip().split("\n\n")[-1]
            event, _, data = last.partition("\n")
            assert event == "event: complete"
            reply, sources, kept = json.loads(data.removeprefix("data: "))
            assert kept is None  # the conversation, which stays where the page is
            assert sources["reply"] == reply
            assert searched in sources["query"]
        alone = run("sh", "-c", again.replace("5d0c1f", "another"))
        assert "delete" not in json.loads(alone.strip().rpartition("data: ")[2])[1]["query"]


def chosen(page: Page, field: str, name: str) -> None:
    page.get_by_label(field, exact=True).click()
    page.get_by_role("option", name=name).click()
    page.keyboard.press("Escape")


def test_a_visitor_chooses_what_is_searched_and_hears_of_it_when_that_is_gone(serve, visit):
    chatbot = stocked()
    chatbot.knowledge.put("Rules of the pool.md", "Guests leave the pool at nine.", collection="Club")
    page = visit(serve(page_of(chatbot, choose_scope=True)))
    line = page.locator(".mg-scope button").first
    expect(line).to_contain_text("Searching: all documents")
    line.click()
    chosen(page, "Collections", "Club")
    expect(line).to_contain_text("Searching: Club")
    for count in (1, 2):
        ask(page, LEAVE)
        answers(page, count)
        expect(page.locator(".mg-card .mg-name")).to_have_text(["Rules of the pool.md", "No source"])
    expect(line).to_contain_text("Searching: Club")
    chatbot.knowledge.delete(chatbot.knowledge.documents()[-1].id)
    ask(page, LEAVE)
    expect(page.locator(".mg-note")).to_contain_text("no longer there: choose again")
    expect(page.locator(".mg-textbox textarea")).to_have_value(LEAVE)
    answers(page, 2)
    line.click()
    line.click()  # what is offered is what there is
    expect(line).to_contain_text("Searching: all documents")
    chosen(page, "Documents", "Travel policy.docx")
    expect(line).to_contain_text("Searching: 1 document")
    page.get_by_label("Added since").fill("2026-11-01")
    expect(line).to_contain_text("Searching: 1 document, added since 2026-11-01")
    page.get_by_role("button", name="Search everything").click()
    expect(line).to_contain_text("Searching: all documents")
    expect(page.get_by_label("Added since")).to_have_value("")


def test_a_source_is_shown_in_its_document_as_text(serve, visit):
    chatbot = StandIn()
    chatbot.knowledge.put(HOSTILE, f"travel {HOSTILE}", around=f"{HOSTILE} stands around.\n" * 400)
    page = visit(serve(page_of(chatbot)))
    ask(page, "What of travel?")
    answers(page, 1)
    show = page.get_by_role("button", name="Show in the document").first
    show.click()
    mark, text = page.locator("dialog[open] mark"), page.locator(".mg-page")
    expect(mark).to_have_text(f"travel {HOSTILE}")
    expect(mark).to_be_in_viewport()
    assert page.locator("dialog :is(img, script, a, .katex)").count() == 0
    before = len(text.text_content() or "")
    place = mark.bounding_box()
    page.get_by_role("button", name="More above").evaluate("button => button.click()")
    expect(mark).to_be_in_viewport()
    expect(page.get_by_role("button", name="More above")).to_have_count(1)
    page.wait_for_function(
        "before => document.querySelector('.mg-page').textContent.length > before + 19000", arg=before
    )
    after = mark.bounding_box()
    assert place and after and abs(place["y"] - after["y"]) < 40  # the reader's place stays
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    chatbot.knowledge.delete("d0")
    show.click()
    expect(page.locator("dialog[open]")).to_contain_text("no longer in the knowledge base")
    page.get_by_role("button", name="Close").click()
    expect(show).to_be_focused()
