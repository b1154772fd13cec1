"""What ui/render.py writes: whatever comes in is seen as it was, and is never read as HTML or Markdown."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatbot import Citation, Hit, Passage, Query, Reply, Scope, Turn
from chatbot.catalogue import Collection, Entry
from chatbot.ingestion import Batch, File
from ui import render
from ui.i18n import LANGUAGES, preferred, texts
from ui.place import WINDOW, place
from ui.scope import holds, midnight, narrowed, said

WORDS = texts("en")
HOSTILE = "<img src=x onerror=alert(1)> ![](https://evil.example/?q=1) [a](javascript:x) `b` **c** $$d$$ &lt; </div>"
READABLE = st.text().filter(lambda text: render.visible(text) == text)


class Page(HTMLParser):
    """The text, tags and attributes that a browser would find."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.tags, self.attributes, self._muted = "", [], [], 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._muted += tag == "sup"

    def handle_endtag(self, tag: str) -> None:
        self._muted -= tag == "sup"

    def handle_data(self, data: str) -> None:
        if not self._muted:
            self.text += data


def passage(ordinal: int, text: str = "text", document: str = "a.txt") -> Passage:
    return Passage(f"d:{ordinal}", "d", document, text, page=ordinal + 1, heading="Chapter › Section")


def answered(text: str, *citations: Citation, abstained: bool = False, query: str = "q") -> Turn:
    hits = (Hit(passage(0), 1.0), Hit(passage(1), 0.5))
    reply = Reply(text, citations, (0.6, 0.3, 0.1), 0.82, abstained)
    return Turn(Query("q", query, "en"), reply, hits, (0.5, 0.4, 0.1))


def reply_text(turn: Turn) -> str:
    found = re.search(r'<div class="mg-reply" dir="auto">(.*?)</div>', render.reply(turn, 0, WORDS))
    assert found
    return Page(found[1]).text


@given(READABLE)
def test_escaped_text_is_seen_as_it_was_written(text: str):
    assert Page(f"<p>{render.escape(text)}</p>").text == text


@given(st.text())
def test_escaped_text_holds_nothing_that_html_or_markdown_reads(text: str):
    escaped = render.escape(text)
    assert re.fullmatch(r"(?:[a-zA-Z0-9 ]|&#\d+;|[^\x00-\x7f])*", escaped)
    escaped.encode()  # no half surrogate, which a page cannot carry


@given(READABLE)
def test_escaped_text_stays_inside_an_attribute(text: str):
    assert Page(f'<p title="{render.escape(text)}">').attributes == [("title", text)]


def test_what_html_cannot_hold_is_shown_as_a_replacement_character():
    assert render.visible("a\x00b\x1b\ud800\x85") == "a\ufffdb\ufffd\ufffd\ufffd"
    assert render.visible("a\r\nb\rc") == "a\nb\nc"


@given(
    READABLE,
    st.lists(st.tuples(st.integers(-2, 40), st.integers(-2, 40), st.sampled_from(["d:0", "d:1", "gone"])), max_size=6),
)
def test_citations_of_any_kind_leave_the_replys_text_as_it_is(text: str, spans: list[tuple[int, int, str]]):
    assert reply_text(answered(text, *(Citation(*span, 0.5) for span in spans))) == text


def test_a_citation_marks_its_characters_and_names_its_source():
    html = render.reply(answered("Yes: 28 days.", Citation(5, 12, "d:1", 0.87)), 3, WORDS)
    span = re.search(r"<span class=\"([^\"]*mg-cite[^\"]*)\"[^>]*title=\"([^\"]*)\">(.*?)<sup>(\d+)</sup></span>", html)
    assert span
    assert {"mg-t3", "mg-s2"} <= set(span[1].split())
    assert Page(span[3]).text == "28 days"
    assert span[4] == "2"
    assert "a.txt" in Page(f"<p>{span[2]}</p>").text and "87%" in Page(f"<p>{span[2]}</p>").text


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_has_no_source_says_so_and_what_was_not_searched_has_no_confidence(language: str):
    words = texts(language)

    def foot(turn: Turn) -> str:
        return Page(render.reply(turn, 0, words).partition('<div class="mg-foot">')[2]).text

    confidence, unsourced = words["confidence"].format(percent="82%"), words["unsourced"]
    assert confidence in foot(answered("Yes.", Citation(0, 4, "d:0", 0.5)))
    assert unsourced not in foot(answered("Yes.", Citation(0, 4, "d:0", 0.5)))
    assert confidence in foot(answered("Yes.")) and unsourced in foot(answered("Yes."))
    greeting = answered("Hello.", query="")
    assert confidence not in foot(greeting) and unsourced in foot(greeting)
    assert unsourced not in foot(answered("I can't say. “text”", abstained=True))
    nothing = Turn(Query("q", "q", "en"), Reply("The documents don't hold it.", abstained=True))
    assert words["confidence"].format(percent="0%") not in foot(nothing)


def test_a_message_is_one_line_so_that_markdown_leaves_it_alone():
    for message in (
        render.reply(answered("a\n\n# b\n\n    c", Citation(0, 4, "d:0", 1.0)), 0, WORDS),
        render.utterance("a\n\n- b"),
        render.unfinished(Query("q", "r\n\ns", "en"), "t\n\nu", "", WORDS, "ab"),
        render.broken_off(None, "a\n\nb", "c\n\nd", WORDS),
    ):
        assert "\n" not in message and message.startswith("<div ")


def test_hostile_text_is_only_text_wherever_it_comes_from():
    hit = Hit(Passage(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1, HOSTILE), 1.0)
    turn = Turn(
        Query("q", HOSTILE, "en"),
        Reply(HOSTILE, (Citation(0, 20, HOSTILE, 0.5),), (1.0, 0.0), 0.5),
        (hit,),
        (1.0, 0.0),
    )
    pages = [
        render.reply(turn, 0, WORDS),
        render.reply(replace(answered("a"), rating="down", correction=HOSTILE), 0, WORDS),
        render.sources(turn.hits, turn.prior, WORDS),
        render.utterance(HOSTILE),
        render.unfinished(turn.query, HOSTILE, HOSTILE, WORDS, "ab"),
        render.broken_off(turn.query, HOSTILE, HOSTILE, WORDS),
        render.arriving([Batch("b", (File(HOSTILE, "b", "", HOSTILE, 1, "", "failed", HOSTILE),))], WORDS),
        render.asked([Batch("b", (File(HOSTILE, "b", "", HOSTILE, 1, "", "asking", HOSTILE),))], WORDS),
        render.conversations([(HOSTILE, HOSTILE, HOSTILE)], HOSTILE, WORDS),
        render.settings([(HOSTILE, HOSTILE)], WORDS),
    ]
    for html in pages:
        page = Page(html)
        assert HOSTILE.replace(" ", "") in page.text.replace(" ", "")
        assert not {"img", "a", "script", "iframe"} & set(page.tags)
        assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href")]


def test_the_query_is_shown_only_where_it_differs_from_what_was_typed():
    assert "mg-searched" not in render.reply(answered("a"), 0, WORDS)
    assert "mg-searched" in render.reply(answered("a", query="another"), 0, WORDS)
    assert "mg-searched" not in render.reply(answered("a", query=""), 0, WORDS)  # nothing was searched


def test_what_was_searched_for_the_last_turn_alone_can_be_changed():
    rewritten = answered("a", query="another")
    assert "mg-search" not in re.findall(r'button class="([\w-]+)', render.reply(rewritten, 0, WORDS))
    assert "mg-typed" in render.reply(rewritten, 0, WORDS, last=True)
    assert "mg-typed" not in render.reply(answered("a"), 0, WORDS, last=True)  # it was searched as typed
    assert 'class="mg-search"' in render.reply(answered("a"), 0, WORDS, last=True)


def test_an_abstention_is_told_apart():
    assert WORDS["abstained"] in Page(render.reply(answered("I cannot say.", abstained=True), 0, WORDS)).text
    assert WORDS["abstained"] not in Page(render.reply(answered("28 days."), 0, WORDS)).text


def test_every_source_has_a_card_and_no_source_comes_last():
    hits = [Hit(passage(0, "one"), 1.0), Hit(passage(1, "two"), 0.5)]
    text = Page(render.sources(hits, (0.5, 0.4, 0.1), WORDS)).text
    assert text.index("one") < text.index("two") < text.index(WORDS["no_source"])
    assert "p. 1" in text and "Chapter › Section" in text


@pytest.mark.parametrize(("share", "shown"), [(0.0, "0%"), (0.125, "12%"), (1.0, "100%"), (-1.0, "0%"), (7.0, "100%")])
def test_a_share_is_a_percentage_between_none_and_all(share: float, shown: str):
    assert render.percent(share) == shown


def test_both_languages_have_the_same_texts_with_the_same_blanks():
    blanks = {
        language: {key: set(re.findall(r"{\w+}", text)) for key, text in texts(language).items()}
        for language in LANGUAGES
    }
    assert blanks["en"] == blanks["zh"]


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("fr", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("fr;q=1, en;q=0.3, zh;q=0.7", "zh"),
        ("zh;q=nonsense, en;q=0.1", "en"),
        (";;,,=", "en"),
    ],
)
def test_the_language_that_a_browser_likes_best_is_used(header: str, language: str):
    assert preferred(header) == language


def test_a_reply_says_what_it_was_made_without():
    turn = Turn(Query("q", "q", "en"), Reply("text", notice="<b> was cut"))
    assert "<b> was cut" in Page(render.reply(turn, 0, WORDS)).text
    assert "b" not in Page(render.reply(turn, 0, WORDS)).tags


def test_files_on_their_way_show_how_far_they_are_and_the_running_ones_first():
    files = (
        File("1", "b", "", "done.md", 10, "", "added", passages=57),
        File("2", "b", "", "waits.md", 10),
        File("3", "b", "", "taken.md", 10, "", "asking"),
        File("4", "b", "", "runs.md", 10, "", "embedding", passages=120, embedded=60),
    )
    page = Page(render.arriving([Batch("b", files, 43.2, 61.0)], WORDS))
    assert page.text.startswith("2 of 4 files · 43 passages a second · about 61 s left")
    assert ("aria-valuenow", "62") in page.attributes  # two and a half of four
    assert page.text.index("runs.mdEmbedding60 of 120 passages") < page.text.index("done.mdAddedPassages: 57")
    assert "taken.md" not in page.text
    assert "taken.md" in render.asked([Batch("b", files)], WORDS).replace("&#46;", ".")


def test_a_batch_that_is_done_shows_no_rate():
    page = Page(render.arriving([Batch("b", (File("1", "b", "", "a.md", 1, "", "failed", "no text"),))], WORDS))
    assert page.text.startswith("File") and "a.mdFailedno text" in page.text


def test_of_very_many_files_the_number_of_the_rest_is_shown():
    files = tuple(File(str(n), "b", "", f"{n}.md", 1) for n in range(render.SHOWN + 7))
    page = Page(render.arriving([Batch("b", files)], WORDS))
    assert page.tags.count("tr") == render.SHOWN + 1 and page.text.endswith("and 7 more files")


@given(READABLE, READABLE.filter(bool), READABLE)
@example(HOSTILE, HOSTILE, HOSTILE)
def test_a_source_in_its_document_is_its_pages_text_with_the_passage_marked(before: str, marked: str, after: str):
    source = Passage("d:0", "d", "a.txt", marked, start=len(before), end=len(before) + len(marked))
    html = render.place(source, place(source, before + marked + after), 0, 1, WORDS)
    found = re.search(r'<div class="mg-page"[^>]*>(.*?)<mark>(.*?)</mark>(.*?)</div>', html, re.DOTALL)
    assert found and [Page(part).text for part in found.groups()] == [before, marked, after]
    assert Page(html).tags.count("mark") == 1


def test_of_a_huge_page_a_window_around_the_passage_is_shown_which_grows():
    text = "".join(f"{n:07} " for n in range(10_000))
    source = Passage("d:0", "d", "a.txt", text[40_000:40_400], start=40_000, end=40_400)
    seen = place(source, text)
    assert seen and seen.last - seen.first == WINDOW and seen.first < seen.start < seen.end < seen.last
    page = Page(render.place(source, seen, 2, 3, WORDS))
    assert page.text.count(WORDS["place.above"]) == page.text.count(WORDS["place.below"]) == 1
    asked = [value for name, value in page.attributes if name == "data-first"]
    more = place(source, text, int(asked[0] or 0), seen.last)
    assert more and (more.first, more.last) == (seen.first - WINDOW, seen.last)
    whole = place(source, text, -(10**9), 10**9)
    assert whole and (whole.first, whole.last) == (0, len(text))
    assert place(source, text, 60_000, "no number") == seen  # never less than the passage and what is around it
    assert WORDS["place.above"] not in Page(render.place(source, whole, 2, 3, WORDS)).text


def test_a_passage_is_found_where_it_has_moved_to_and_is_gone_where_it_has_not():
    source = Passage("d:0", "d", HOSTILE, "leave of absence", start=3, end=19)
    moved = place(source, "of the leave of absence")
    assert moved and moved.text[moved.start : moved.end] == source.text
    assert place(source, "of leave") is None
    page = Page(render.place(source, None, 0, 1, WORDS))
    assert WORDS["place.gone"] in page.text and "img" not in page.tags and "mark" not in page.tags


SOME = st.lists(st.sampled_from(["a", "b", "c"]), max_size=2, unique=True).map(tuple)
MOMENT = st.none() | st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 9)).map(lambda day: day.replace(tzinfo=UTC))
SCOPES = st.builds(Scope, SOME, SOME, SOME, SOME, MOMENT, MOMENT)


@given(SCOPES, SCOPES, st.tuples(*[st.sampled_from("abc")] * 4), st.integers(1, 9))
def test_what_is_chosen_never_reaches_beyond_what_is_allowed(allowed, chosen, told, day):
    collection, id, kind, language = told
    entry = Entry(id, "n", kind, 1, None, 1, language, f"2026-01-0{day}T12:00:00+00:00", "", collection)
    if holds(narrowed(allowed, chosen), entry):
        assert holds(allowed, entry)
    if holds(allowed, entry) and holds(chosen, entry):
        assert holds(narrowed(allowed, chosen), entry)


def test_what_is_searched_is_said_in_one_line():
    scope = Scope(("hand\nbook",), ("d1", "d2"), ("pdf",), (), midnight("2026-01-31"), midnight("2026-02-28", later=1))
    assert said(Scope(), WORDS) == "Searching: all documents"
    assert said(scope, WORDS) == (
        "Searching: hand\nbook, 2 documents, pdf, added since 2026-01-31, added until 2026-02-28"
    )
    assert [midnight(day) for day in ("", "0002-01-01", "9999-12-31", "x", None)] == [None] * 5


def test_collections_and_documents_are_only_text_and_one_collection_alone_needs_no_choosing():
    listed = [Collection(HOSTILE, 2, 3), Collection("default", 1, 1)]
    page = Page(render.collections(listed, HOSTILE, WORDS))
    assert HOSTILE in page.text and "All collections 3" in page.text
    assert ("data-key", HOSTILE) in page.attributes and set(page.tags) == {"div", "span", "button", "small"}
    assert render.collections(listed[:1], None, WORDS) == ""
    entry = Entry("d", HOSTILE, HOSTILE, 1, None, 1, "en", HOSTILE, HOSTILE, HOSTILE)
    assert Page(render.documents([entry], WORDS, several=True)).text.count(HOSTILE) == 5
    assert "img" not in Page(render.documents([entry], WORDS)).tags


@pytest.mark.parametrize("field", ["collections", "documents", "kinds", "languages"])
def test_choosing_only_what_is_not_allowed_leaves_what_is_allowed(field):
    allowed, chosen = Scope(**{field: ("a", "b")}), Scope(**{field: ("c",)})
    assert narrowed(allowed, chosen) == allowed
    assert narrowed(allowed, Scope(**{field: ("c", "b")})) == Scope(**{field: ("b",)})
    assert narrowed(Scope(), chosen) == chosen and narrowed(allowed, Scope()) == allowed


def test_the_moment_itself_is_after_and_not_before_it_in_what_the_page_lists():
    entry = Entry("d", "n", "k", 1, None, 1, "en", "2026-01-05T00:00:00+00:00", "", "c")
    moment = datetime(2026, 1, 5, tzinfo=UTC)
    assert holds(Scope(added_after=moment), entry) and not holds(Scope(added_before=moment), entry)
    assert not holds(Scope(added_after=moment + timedelta(seconds=1)), entry)
    assert holds(Scope(added_before=moment + timedelta(seconds=1)), entry)
