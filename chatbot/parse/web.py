"""HTML: the article's text as Markdown, without menus and footers; the whole page's if there is no article.

Nothing that the page names is fetched, and no script runs.
"""

import re
from pathlib import Path

import trafilatura
from selectolax.lexbor import LexborHTMLParser
from trafilatura.metadata import extract_metadata

from chatbot.parse.plain import decode
from chatbot.passage import Document, Page

# An article shorter than both is taken for a stray fragment. The teasers of pages behind a paywall have 3 %
# of the page's text and more; small pages are read whole unless most of them is article.
_SHORT = 200  # characters
_SHARE_OF_SMALL, _SHARE = 0.5, 0.02
_NEARLY_ALL = 0.85  # of the page's text, and no mark: trafilatura lost its structure, and it has hardly any menus
_MARK = re.compile(r"^(?:#|- |\||\d+\. )", re.M)
_TITLE = re.compile(r"^# ", re.M)
_LONG_CELL = 300  # characters; shorter ones are one line, whatever blocks they hold
_CHARSET = re.compile(
    rb"""<(?:meta[^>]{0,200}charset|\?xml[^>]{0,200}encoding)\s*+=\s*+(?:["']\s*+)?([\w.:-]+)""", re.I
)
_UNSEEN = ["script", "style", "noscript", "template", "head", "iframe", "svg", "select", "button"]
_EMPHASIS = ("b", "strong", "i", "em", "u", "mark", "sup", "sub")  # their marks would only be in the way
_BREAK = "\ue000"  # of a line, until the page's own white space, which means nothing, has become spaces
_PRE = re.compile(r"<pre\b.*?(?:(</pre)|\Z)", re.I | re.S)  # to the end: else each one open is looked at to the end
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()+.!|<>~-])")  # and so would Markdown's backslashes
_REFERENCE = re.compile(r"\A\s*+\[[^]]{1,20}\]\s*+")  # "[12]": it would end sentences, and its note is not here
_SPACE, _AROUND_BREAK, _BLANK_LINES = re.compile(r"\s+"), re.compile(r" ?\n ?"), re.compile(r"\n{3,}")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS = (
    "p, div, section, article, main, aside, header, footer, nav, ul, ol, dl, dt, dd, table, pre, "
    "blockquote, figcaption, address, form, fieldset, details, summary"
)


def read(path: Path, name: str) -> Document:
    data = path.read_bytes()
    declared = _CHARSET.search(data[:4096])
    html = decode(data, name, declared[1].decode() if declared else "")
    page = whole(html)
    article, title = _article(html)
    enough = max(_SHARE * len(page), min(_SHORT, _SHARE_OF_SMALL * len(page)))
    bare = len(article) > _NEARLY_ALL * len(page) and not _MARK.search(article)
    text = article if article and len(article) >= enough and not bare else page
    if title and not _TITLE.search(text):
        text = f"# {title}\n\n{text}"
    return Document(name, "html", (Page(text),))


def _article(html: str) -> tuple[str, str]:
    """Text and title; both empty for what trafilatura cannot take as a page."""
    tree = trafilatura.load_html(html)
    if tree is None:
        return "", ""
    title = extract_metadata(tree).title or ""
    for element in list(tree.iter("sup")):
        if _REFERENCE.fullmatch(element.text_content()):
            element.drop_tree()
    for element in list(tree.iter(*_EMPHASIS)):
        element.drop_tag()
    text = trafilatura.extract(tree, output_format="markdown", include_comments=False, include_formatting=True)
    return _ESCAPE.sub(r"\1", text or ""), " ".join(title.split())


def whole(html: str) -> str:
    """All that a browser would show as text, a line for each block."""
    body = LexborHTMLParser(_PRE.sub(_broken, html)).body
    if body is None:
        return ""
    body.strip_tags(_UNSEEN)
    for level, tag in enumerate(_HEADINGS, 1):
        for heading in body.css(tag):
            heading.insert_before(f"{_BREAK}{_BREAK}{'#' * level} ")
            heading.insert_after(_BREAK + _BREAK)
    cells = [cell for cell in body.css("td, th") if len(cell.text()) < _LONG_CELL and not cell.css_first("table")]
    inside = {block.mem_id for cell in cells for block in cell.css(f"{_BLOCKS}, li, br")}
    for block in body.css(_BLOCKS):
        block.insert_before(" " if block.mem_id in inside else _BREAK)
        block.insert_after(" " if block.mem_id in inside else _BREAK)
    for tag, before in (("li", f"{_BREAK}- "), ("br, tr", _BREAK), ("td + td, th + td, td + th, th + th", " | ")):
        for node in body.css(tag):
            node.insert_before(" " if node.mem_id in inside else before)
    text = _SPACE.sub(" ", body.text(separator="")).replace(_BREAK, "\n")
    return _BLANK_LINES.sub("\n\n", _AROUND_BREAK.sub("\n", text)).strip()


def _broken(pre: re.Match[str]) -> str:
    """With its line breaks marked, if it is closed."""
    return pre[0].replace("\n", _BREAK) if pre[1] else pre[0]
