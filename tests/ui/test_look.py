"""That everybody can read and use every screen: axe-core finds nothing, and what it does not see is measured here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files

import gradio as gr
import pytest
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from tests.ui.conftest import serving, serving_site
from tests.ui.screens import LEAVE, PAGES, Screens, ask, button, host, tab
from tests.ui.standin import StandIn, stocked
from ui import build_app

AXE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 667}

# Every rule of axe-core's that is on by default, and two that are not. Colours do not hang on the window's width nor
# names on the theme, so the dark page is asked for its colours alone.
FINDINGS = """async dark => {
  await Promise.allSettled(document.getAnimations().map(each => each.finished));  // what fades in
  const rules = {'target-size': {enabled: true}, 'css-orientation-lock': {enabled: true}};
  const only = dark ? {runOnly: ['color-contrast']} : {rules};
  const found = (await axe.run(document, {resultTypes: ['violations', 'incomplete'], ...only}));
  const unsure = found.incomplete.filter(rule => rule.id === 'color-contrast').flatMap(rule => rule.nodes);
  return [
    ...found.violations.flatMap(rule => rule.nodes.map(
      node => rule.id + ': ' + node.target + ': ' + node.html.slice(0, 160) + ' ' + node.failureSummary)),
    ...unsure.map(node => node.element || document.querySelector(node.target[0])).filter(Boolean)
      .filter(node => node.textContent.match(/[\\p{L}\\p{N}]/u)).map(node => [node, contrast(node)])
      .filter(([_, ratio]) => ratio < 4.5)
      .map(([node, ratio]) => 'measured: ' + node.outerHTML.slice(0, 160) + ' ' + ratio.toFixed(2)),
  ];
}"""

# The contrast of an element's text with the grounds that lie under it, one over the other (WCAG 2.2, 1.4.3).
CONTRAST = """
const rgba = colour => {
  const [r, g, b, a = 1] = colour.match(/[-\\d.e]+/g).map(Number);
  return colour.startsWith('color(') ? [255 * r, 255 * g, 255 * b, a] : [r, g, b, a];
};
const over = (top, under) => top.slice(0, 3).map((each, i) => each * top[3] + under[i] * (1 - top[3]));
const luminance = colour => {
  const [r, g, b] = colour.map(each => each / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const ratio = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + .05) / (low + .05);
};
const ground = node => {
  const grounds = [];
  for (let each = node; each; each = each.parentElement) grounds.unshift(rgba(getComputedStyle(each).backgroundColor));
  return grounds.reduce((under, top) => over(top, under), [255, 255, 255]);
};
const contrast = node => {
  const under = ground(node);
  return ratio(over(rgba(getComputedStyle(node).color), under), under);
};
"""

BOXES = """selector => [...document.querySelectorAll(selector)]
  .filter(node => node.checkVisibility({visibilityProperty: true}))
  .map(node => [node, node.getBoundingClientRect()]).filter(([_, box]) => box.width > 2 && box.height > 2)
  .map(([node, {left, right, width, height}]) => ({name: node.outerHTML.slice(0, 120), left, right, width, height}))"""

# What is pressed. Citations are words in a sentence, whose height is the line's; a checkbox has its label.
PRESSED = "button, [role=button]:not(.mg-cite), a[href], input:not([type=checkbox], [type=file])"

READ = "h1, h2, td, label, .mg-name, .mg-welcome-title, .mg-utterance, .mg-reply, .mg-passage, .mg-notice, .mg-note"


@pytest.fixture
def look(visit):
    """Opens a page with axe-core in it, and without colours on their way to others."""

    def open_page(address: str, **options: object) -> Page:
        page = visit(address, **options)
        page.evaluate("script => { (0, eval)(script); }", AXE + ";" + CONTRAST.replace("const ", "var "))
        page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
        return page

    return open_page


def themes(page: Page) -> Iterator[bool]:
    for dark in (False, True):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
        yield dark
    page.evaluate("document.body.classList.remove('dark')")


@contextmanager
def with_gradios_theme(page: gr.Blocks) -> Iterator[str]:
    """The page's address where its host serves it without any of ours. gradio's footer is not ours to mend."""
    with serving_site(gr.mount_gradio_app(FastAPI(), page, "/", footer_links=[])) as address:
        yield address


@pytest.mark.parametrize(
    ("name", "serving", "locale"),
    [
        *((name, serving, "en-US") for name in PAGES),
        ("ours", serving, "zh-CN"),
        ("documents", serving, "zh-CN"),
        ("host", with_gradios_theme, "en-US"),
    ],
)
def test_axe_finds_nothing_on_any_screen_and_everything_fits_a_phone(look, name, serving, locale):
    stand_in, build, walks = PAGES[name]
    chatbot = stand_in()
    with serving(build(chatbot)) as address:
        page = look(address, locale=locale)
        found = findings(page, chatbot, walks)
    assert not found, "\n".join(f"{where}: {finding}" for finding, where in found.items())


def findings(page: Page, chatbot: StandIn, walks: Sequence[Screens]) -> dict[str, str]:
    """By what is wrong, the first screen where it is."""
    found: dict[str, str] = {}
    for walk in walks:
        for screen in walk(page, chatbot):
            for size in (DESKTOP, PHONE):
                page.set_viewport_size(size)
                where = f"{screen}, {size['width']} px"
                for dark in themes(page):
                    for finding in page.evaluate(FINDINGS, dark):
                        found.setdefault(finding, f"{where}, {'dark' if dark else 'light'}")
                for box in page.evaluate(BOXES, PRESSED):
                    if min(box["width"], box["height"]) < 24:
                        found.setdefault(f"under 24 px: {box}", where)
                for box in page.evaluate(BOXES, f"{PRESSED}, {READ}"):
                    if box["left"] < 0 or box["right"] > size["width"]:
                        found.setdefault(f"outside the window: {box}", where)
                if page.evaluate("document.documentElement.scrollWidth") > size["width"]:
                    found.setdefault("the page scrolls sideways", where)
            page.set_viewport_size(DESKTOP)
    return found


def test_the_welcome_begins_where_it_is_seen_on_a_phone(serve, visit):
    page = visit(serve(build_app(stocked(), examples=[f"{LEAVE} {n}" for n in range(5)])))
    page.set_viewport_size(PHONE)
    log = page.locator(".mg-messages").bounding_box()
    title = page.locator(".mg-welcome-title").bounding_box()
    assert log["y"] <= title["y"] and title["y"] + title["height"] <= log["y"] + log["height"]
    page.locator(".example").last.click()
    expect(page.locator(".mg-utterance")).to_have_text(f"{LEAVE} 4")


HEARD = """() => {
  window.heard = [];
  const live = '[aria-live=polite], [aria-live=assertive], [role=status], [role=alert], [role=log]';
  new MutationObserver(changes => {
    for (const {target, addedNodes} of changes) {
      const node = target.nodeType === 1 ? target : target.parentElement;
      const added = [...addedNodes].map(each => each.textContent).join('');
      const text = (addedNodes.length ? added : node.textContent).trim();
      const silent = node?.closest('[aria-live]')?.getAttribute('aria-live') === 'off';
      if (node?.closest(live) && !silent && text) heard.push(text);
    }
  }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


@pytest.mark.parametrize(("locale", "send", "stop"), [("en-US", "Send", "Stop"), ("zh-CN", "发送", "停止")])
def test_what_sends_a_question_and_what_stops_its_reply_are_named(serve, visit, locale, send, stop):
    chatbot = stocked(delay=0.5)
    page = visit(serve(build_app(chatbot)), locale=locale)
    expect(page.locator(".mg-textbox button")).to_have_accessible_name(send)
    ask(page, LEAVE)
    expect(page.locator(".mg-caret")).to_be_visible()
    expect(page.locator(".mg-textbox button")).to_have_accessible_name(stop)
    page.get_by_role("button", name=stop, exact=True).press("Enter")
    expect(page.locator(".mg-broken-off, .mg-stopped, .mg-note").first).to_be_visible()
    expect(page.locator(".mg-textbox button")).to_have_accessible_name(send)


def test_a_reply_is_heard_once_when_it_is_there_and_nothing_else_is(serve, visit):
    chatbot = stocked(delay=0.03)
    page = visit(serve(host(chatbot)))
    page.evaluate(HEARD)
    ask(page, LEAVE)
    expect(page.locator(".mg-foot")).to_have_count(1)
    plain = "According to the documents: Every employee has 28 days of paid leave a year. Up to five days"
    (heard,) = page.evaluate("heard.splice(0)")
    assert heard.startswith(plain) and not re.search(r"\.\d|%|Copy|Sources|Confidence", heard)
    ask(page, "Zebras?")
    expect(page.locator(".mg-foot")).to_have_count(2)
    assert page.evaluate("heard.splice(0)") == [
        "Not answered from the documents. I could not find this in the documents."
    ]
    ask(page, "Will you explode?")
    expect(page.locator(".mg-broken-off")).to_have_count(1)
    (heard,) = page.evaluate("heard.splice(0)")
    assert heard.startswith("Something went wrong")
    button(page, "Good reply")
    expect(page.locator(".mg-pressed")).to_have_count(1)
    chatbot.delay = 0.2
    ask(page, LEAVE)
    expect(page.locator(".mg-caret")).to_be_visible()
    button(page, "New chat")
    expect(page.locator(".mg-welcome")).to_be_visible()
    assert page.evaluate("heard") == []


# Where the keyboard is, and whether that is drawn: on the element itself, or on the field that it is a part of.
FOCUSED = """() => {
  const node = document.activeElement, rings = [];
  for (let each = node, up = 0; each && up < 7; each = each.parentElement, up++) {
    const {outlineStyle, outlineWidth, outlineColor} = getComputedStyle(each);
    const drawn = outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2;
    if (drawn) rings.push(ratio(rgba(outlineColor), ground(each.parentElement)));
  }
  const name = node.getAttribute('aria-label') || node.textContent.trim();
  return [node.outerHTML.slice(0, 120), name, Math.max(0, ...rings)];
}"""


def tabbed(page: Page, most: int = 60) -> list[tuple[str, str, float]]:
    """Every stop of the Tab key, from the page's beginning until it comes round."""
    page.evaluate("document.activeElement.blur(); document.body.tabIndex = -1; document.body.focus()")
    stops: list[tuple[str, str, float]] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        stops.append(tuple(page.evaluate(FOCUSED)))
    return stops


@pytest.mark.parametrize("build", [build_app, host])
def test_the_keyboard_reaches_everything_sees_where_it_is_and_leaves_by_escape(serve, look, build):
    page = look(serve(build(stocked())))
    ask(page, LEAVE)
    expect(page.locator(".mg-foot")).to_have_count(1)
    if build is build_app:
        page.locator(".mg-scope > button").click()
        expect(page.get_by_label("Kinds", exact=True)).to_be_visible()
    for dark in themes(page):
        stops = tabbed(page)
        names = {name for _, name, _ in stops}
        assert {"Send", "New chat", "Copy", "Sources", "Good reply", "Edit the search", "Show in the document"} <= names
        assert [(stop, ring) for stop, _, ring in stops if ring < 3] == [], "dark" if dark else "light"
    bad = page.get_by_role("button", name="Bad reply")
    bad.click()
    field = page.get_by_label("What should it have said?")
    expect(field).to_be_focused()
    field.press("Escape")
    expect(field).to_have_count(0)
    expect(page.locator(".mg-down")).to_be_focused()
    edit = page.get_by_role("button", name="Edit the search")
    edit.click()
    field = page.get_by_label("What should be searched?")
    field.press("Escape")
    expect(field).to_have_count(0)
    expect(edit).to_be_focused()
    expect(page.locator(".mg-utterance")).to_have_text([LEAVE])


# The edges of fields, and the marks that colour alone makes, against what lies around them (WCAG 2.2, 1.4.11).
EDGES = """selector => [...document.querySelectorAll(selector)].filter(node => node.checkVisibility()).map(node => {
  const {borderTopColor, borderTopWidth, borderTopStyle} = getComputedStyle(node);
  const drawn = borderTopStyle !== 'none' && parseFloat(borderTopWidth) > 0;
  return [node.outerHTML.slice(0, 100), drawn ? ratio(rgba(borderTopColor), ground(node.parentElement)) : 0];
})"""


def test_fields_have_edges_and_citations_of_every_colour_have_numbers_that_can_be_read(serve, look):
    page = look(serve(build_app(stocked())))
    ask(page, LEAVE)
    expect(page.locator(".mg-foot")).to_have_count(1)
    page.locator(".mg-scope > button").click()
    expect(page.get_by_label("Kinds", exact=True)).to_be_visible()
    button(page, "Bad reply")
    expect(page.get_by_label("What should it have said?")).to_be_visible()
    fields = ".form:has(> .mg-textbox), .mg-correcting textarea, .mg-scope .wrap:has(input), .mg-days input"
    for dark in themes(page):
        edges = page.evaluate(EDGES, fields)
        assert len(edges) >= 6 and [edge for edge in edges if edge[1] < 3] == [], f"dark={dark}"
        for colour in range(8):
            for lit in ("", " mg-lit"):
                page.evaluate(
                    """([colour, lit]) => document.querySelectorAll('.mg-cite, li[data-source]').forEach(node => {
                      node.className = node.className.replace(/ mg-c[0-7]| mg-lit/g, '') + ' mg-c' + colour + lit;
                    })""",
                    [colour, lit],
                )
                for selector in (".mg-cite sup", ".mg-cite", ".mg-card .mg-number"):
                    ratio = page.evaluate("selector => contrast(document.querySelector(selector))", selector)
                    assert ratio >= 4.5, (selector, colour, lit, dark)


def test_with_forced_colours_what_colour_told_is_still_there(serve, visit):
    page = visit(serve(build_app(stocked())))
    page.emulate_media(forced_colors="active")
    ask(page, LEAVE)
    expect(page.locator(".mg-foot")).to_have_count(1)
    button(page, "Good reply")
    expect(page.locator(".mg-up")).to_have_attribute("aria-pressed", "true")
    page.locator(".mg-cite").first.hover()
    page.locator(".mg-in-place").first.click()
    expect(page.locator("dialog[open]")).to_be_visible()
    style = "([selector, pseudo, name]) => getComputedStyle(document.querySelector(selector), pseudo)[name]"

    def css(selector: str, name: str, pseudo: str | None = None) -> str:
        return page.evaluate(style, [selector, pseudo, name])

    ground = css(".mg-chat", "backgroundColor"), css("body", "backgroundColor")
    for filled in (".mg-bar i", ".mg-bar b", ".mg-page mark"):
        assert css(filled, "backgroundColor") not in ground, filled
    assert css(".mg-thumb", "backgroundColor", "::before") not in (*ground, css(".mg-thumb", "backgroundColor"))
    assert css(".mg-cite", "borderBottomStyle") == "solid"
    for told, untold in (
        (".mg-pressed", ".mg-down"),
        (
            ".mg-tabs .tab-container:not(.visually-hidden) .selected",
            ".mg-tabs .tab-container:not(.visually-hidden) button:not(.selected)",
        ),
    ):
        assert css(told, "outlineStyle") == "solid" and css(untold, "outlineStyle") != "solid"
    page.keyboard.press("Escape")
    tab(page, 1)
    expect(page.locator("td .mg-delete").first).to_be_visible()
    page.locator("td .mg-delete").first.click()
    assert css(".mg-armed", "borderTopColor") not in ground


def test_right_to_left_text_runs_from_the_right(serve, visit):
    chatbot = StandIn(reply="نعم، ثمانية وعشرون يوما (28 days).")
    chatbot.knowledge.put("دليل الموظف.md", "كم days: لكل موظف ثمانية وعشرون يوما من الإجازة.", heading="الإجازة")
    page = visit(serve(build_app(chatbot)))
    ask(page, "كم عدد days الإجازة؟")
    expect(page.locator(".mg-foot")).to_have_count(1)
    page.get_by_role("button", name="Show in the document").click()
    expect(page.locator("dialog[open]")).to_be_visible()
    for selector in (".mg-utterance", ".mg-reply", ".mg-passage", ".mg-card .mg-name", "dialog .mg-name", ".mg-page"):
        expect(page.locator(selector).first).to_have_css("direction", "rtl")
        expect(page.locator(selector).first).to_have_css("text-align", "start")
    page.keyboard.press("Escape")
    tab(page, 1)
    expect(page.locator("td.mg-name")).to_have_css("direction", "rtl")
    expect(page.locator(".mg-textbox textarea")).to_have_css("unicode-bidi", "plaintext")
