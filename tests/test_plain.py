"""What is shown of a source: Markdown without its marks, and everything else as it is; and what was searched."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot import Hit, Passage, Query
from ui import render
from ui.i18n import texts
from ui.place import place
from ui.plain import marks, plain, without
from ui.searched import readable

MARKED = """# Leave ##

**Every** employee has *28* days: see [the _rules_](https://evil.example/?q=(1) "x") and ![a map](https://evil.example/x.png).
> Quoted, with `code **as it is**` and 2*3*4, a_b_c, \\*this\\*.

| Kind | Days |
| :--- | ---: |
| paid | ~~27~~ 28 |

```python
x = **kwargs  # [not](a link)
```
[![badge](https://evil.example/b.svg)](https://evil.example) 年假是**二十八天**的。
"""
READ = """Leave ##

Every employee has 28 days: see the rules and a map.
Quoted, with code **as it is** and 2*3*4, a_b_c, *this*.

Kind | Days 
paid | 27 28 

x = **kwargs  # [not](a link)
badge 年假是二十八天的。
"""


def test_marks_are_taken_off_markdown_and_nothing_else_is():
    assert plain(MARKED, "a.md") == READ
    assert plain(MARKED, "www.example.org/a/page") == READ
    assert plain(MARKED, "a.docx") == MARKED.removeprefix("# ")


@pytest.mark.parametrize("name", ["a.txt", "a.py", "a.csv", "a.pdf", "README", "an offer/of ours", "<img src=x>.json"])
def test_other_kinds_are_shown_as_they_are(name: str):
    assert plain(MARKED, name) == MARKED


SOME = st.text(alphabet="ab *_~`[]()!#>|-\\\n1天", max_size=120)


@given(SOME)
def test_what_is_left_out_lies_in_order(text: str):
    spans = marks(text, "a.md")
    assert all(first < last for first, last in spans)
    assert all(one[1] < other[0] for one, other in pairwise(spans))


@given(
    st.text(alphabet="ab *_~`!#>|-\\\n1天", max_size=120).filter(lambda text: "```" not in text and "~~~" not in text)
)
def test_no_word_is_left_out(text: str):
    assert re.sub(r"[^ab1天]", "", plain(text, "a.md")) == re.sub(r"[^ab1天]", "", text)


@given(SOME, st.data())
def test_a_passage_is_marked_in_its_document_where_it_stands(text: str, data: st.DataObject):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    spans = marks(text, "a.md")
    parts = [without(text, spans, *span) for span in ((0, start), (start, end), (end, len(text)))]
    assert "".join(parts) == plain(text, "a.md")
    assert without(text, [], start, end) == text[start:end]


def test_cards_and_documents_show_no_marks():
    passage = Passage("d:0", "d", "a.md", "**Every** employee has [28](https://evil.example) days.", None, "", 3, 56)
    card = render.sources([Hit(passage, 1.0)], (0.9, 0.1), texts("en"))
    page = render.place(passage, place(passage, f"# A\n{passage.text} *And* so on."), 0, 1, texts("en"))
    assert render.escape("Every employee has 28 days.") in card
    assert f"A&#10;<mark>{render.escape('Every employee has 28 days.')}</mark> And so on" in page
    assert "evil" not in card and "evil" not in page


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "[](",
        "![",
        "[![a](b",
        "`",
        "`a``b",
        "**a",
        "*a_b",
        "> ",
        "|",
        "| a ",
        "\\",
        "- -",
        "# ",
        "~~~\n",
        "(",
        "a](b(c)",
    ],
)
def test_time_grows_with_length_and_no_faster(piece: str):
    def took(length: int) -> float:
        text = piece * (length // len(piece))
        begun = time.thread_time()
        marks(text, "a.md")
        return time.thread_time() - begun

    assert took(64_000) < 12 * max(took(16_000), 0.01)


@pytest.mark.parametrize(
    ("searched", "told", "shown"),
    [
        ("删 除 删除 除文 可以吗？", "可以吗？ 好的。 怎么删除文档？", "删除文档 可以吗？"),
        ("年假 薪年 PDF 那一天呢？", "那一天呢？ PDF 里写了每年有多少天带薪年假吗", "天带薪年假 PDF 那一天呢？"),
        ("删除 可以吗？", "", "删除 可以吗？"),
        ("leave days and then?", "and then? How many leave days?", "leave days and then?"),
        ("怎么删除文档？", "怎么删除文档？", "怎么删除文档？"),
    ],
)
def test_what_was_searched_is_shown_in_whole_words(searched: str, told: str, shown: str):
    utterance = next(
        each for each in ("可以吗？", "那一天呢？", "and then?", "怎么删除文档？") if searched.endswith(each)
    )
    assert readable(Query(utterance, searched, "zh", context=told)) == shown
