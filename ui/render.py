"""chatbot's values -> HTML. Pure, without gradio.

Everything from outside (names, passages, replies, utterances, queries) passes through `escape`, which leaves no
character that HTML or Markdown could read: what was written is what is seen, and nothing in it can be fetched. Chat
messages go through gradio's Markdown and its sanitizer: each is one `<div>` on one line (Markdown leaves such a block
alone), and carries what it has to say to scripts in class names, since the sanitizer drops `data-*` and `aria-*`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from chatbot import Citation, Hit, Passage, Query, Reply, Turn
from ui.i18n import said
from ui.place import WINDOW, Place
from ui.plain import marks, plain, without
from ui.searched import readable

Texts = Mapping[str, str]

COLOURS = 8  # in style.css: mg-c0 ... mg-c7, by source number
CLAMPED = 220  # characters of a passage that fit its folded card, about
SHOWN = 1000  # files on their way in; of more, their number
LEADING_HEADINGS = re.compile(r"\A(#+ .*\n+)+(?=.)")  # shown above the passage already

# HTML has no way to write these, and shows them as nothing or as another character.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_SPECIAL = re.compile(r"[^\w ]|_", re.ASCII)


class Entry(Protocol):
    """What `chatbot.knowledge.documents()` lists."""

    id: str
    name: str
    kind: str
    bytes: int
    pages: int | None
    passages: int
    language: str
    added: str
    notice: str
    collection: str


class Collection(Protocol):
    """What `chatbot.knowledge.collections()` lists."""

    @property
    def name(self) -> str: ...
    @property
    def documents(self) -> int: ...


class Rebuilding(Protocol):
    """How far the knowledge base follows a change of settings: `chatbot.knowledge.rebuilding`."""

    @property
    def done(self) -> float: ...


class File(Protocol):
    """A file of a batch, as `chatbot.ingestion` lists it."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def passages(self) -> int: ...
    @property
    def embedded(self) -> int: ...


class Batch(Protocol):
    """What one person handed in, as `chatbot.ingestion` lists it."""

    @property
    def files(self) -> Sequence[File]: ...
    @property
    def passages_per_s(self) -> float: ...
    @property
    def seconds_left(self) -> float | None: ...
    @property
    def done(self) -> bool: ...


def visible(text: str) -> str:
    """The text as a page can show it: line ends are `\\n`, and what HTML cannot hold becomes U+FFFD."""
    return _UNSHOWABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def escape(text: str) -> str:
    """`visible(text)` as HTML in which neither HTML nor Markdown finds anything to act on, in one line."""
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};" if found[0].isascii() else found[0], visible(text))


def utterance(text: str) -> str:
    return f'<div class="mg-utterance" dir="auto">{escape(text)}</div>'


def unfinished(query: Query | None, text: str, waiting: str, texts: Texts, run: str) -> str:
    """A reply while it streams; `waiting` is what it waits for before its first word. A script goes on with it, which
    knows it by `run`: live.js."""
    body = (
        f'<div class="mg-reply" dir="auto">{escape(text)}<span class="mg-caret"></span></div>'
        if text
        else f'<div class="mg-waiting">{escape(waiting)}</div>'
    )
    return f'<div class="mg-message mg-coming mg-r{run}">{searched(query, texts)}{body}</div>'


def broken_off(query: Query | None, text: str, note: str, texts: Texts) -> str:
    """A reply that was stopped or failed: what there was of it, and why it ends."""
    body = f'<div class="mg-reply" dir="auto">{escape(text)}</div>' if text else ""
    return (
        f'<div class="mg-message mg-broken-off">{searched(query, texts)}{body}'
        f'<div class="mg-note">{escape(note)}</div></div>'
    )


def reply(turn: Turn, number: int, texts: Texts, last: bool = False) -> str:
    """An answered turn's reply, each cited span marked with its source; `number` is the turn's, from 0.

    What was searched for the `last` one can be changed.
    """
    answer = turn.reply
    notices = [texts["abstained"]] * answer.abstained + [answer.notice] * bool(answer.notice)
    notice = "".join(f'<div class="mg-notice" role="note">{escape(text)}</div>' for text in notices)
    line = searched(turn.query, texts, last)
    return (
        f'<div class="mg-message{" mg-abstained" if answer.abstained else ""}">{line}{notice}'
        f'<div class="mg-reply" dir="auto">{_cited(answer, turn.hits, number)}</div>{_corrected(turn, texts)}'
        f"{_foot(turn, number, texts, last)}</div>"
    )


def searched(query: Query | None, texts: Texts, last: bool = False) -> str:
    """What was searched, where that is not what was typed."""
    if query is None or not query.rewritten or not query.text:
        return ""
    said = texts["searched.own" if query.edited else "searched"]
    typed = f' <button class="mg-search mg-typed" type="button">{escape(texts["search.typed"])}</button>' * last
    return f'<div class="mg-searched">{escape(said)} <span dir="auto">{escape(readable(query))}</span>{typed}</div>'


def _corrected(turn: Turn, texts: Texts) -> str:
    if not turn.correction:
        return ""
    return f'<div class="mg-note">{escape(texts["corrected"])} <span dir="auto">{escape(turn.correction)}</span></div>'


def _foot(turn: Turn, number: int, texts: Texts, last: bool) -> str:
    parts = []
    if turn.query.text and (turn.reply.confidence or not turn.reply.abstained):  # some reply was read from passages
        confidence = escape(texts["confidence"].format(percent=percent(turn.reply.confidence)))
        parts.append(f'<span title="{escape(texts["confidence.help"])}">{confidence}</span>')
    if not turn.reply.sourced:
        parts.append(f'<span class="mg-unsourced">{escape(texts["unsourced"])}</span>')
    if turn.hits:
        parts.append(f'<button class="mg-look mg-t{number}" type="button">{escape(texts["sources.show"])}</button>')
    if last:
        parts.append(f'<button class="mg-search" type="button">{escape(texts["search.edit"])}</button>')
    parts.append(f'<button class="mg-copy" type="button">{escape(texts["copy"])}</button>')
    for rating in ("up", "down"):
        pressed, name = " mg-pressed" * (turn.rating == rating), escape(texts[f"judge.{rating}"])
        parts.append(
            f'<button class="mg-thumb mg-{rating} mg-t{number}{pressed}" type="button" title="{name}">{name}</button>'
        )
    return f'<div class="mg-foot">{"".join(parts)}</div>'


def _cited(answer: Reply, hits: Sequence[Hit], number: int) -> str:
    sources = {hit.passage.id: (rank, hit) for rank, hit in enumerate(hits, 1)}
    pieces, end = [], 0
    for citation in _in_order(answer.citations, len(answer.text)):
        if citation.passage_id not in sources:
            continue
        pieces.append(escape(answer.text[end : citation.start]))
        pieces.append(_span(answer.text, citation, *sources[citation.passage_id], number))
        end = citation.end
    return "".join([*pieces, escape(answer.text[end:])])


def _in_order(citations: Iterable[Citation], length: int) -> Iterator[Citation]:
    """The citations by position, without those that leave the text or overlap an earlier one."""
    end = 0
    for citation in sorted(citations, key=lambda citation: citation.start):
        if end <= citation.start < citation.end <= length:
            yield citation
            end = citation.end


def _span(text: str, citation: Citation, rank: int, hit: Hit, number: int) -> str:
    where = f", {hit.passage.page}" if hit.passage.page else ""
    title = escape(f"[{rank}] {hit.passage.document}{where} · {percent(citation.weight)}")
    return (
        f'<span class="mg-cite mg-t{number} mg-s{rank} mg-c{(rank - 1) % COLOURS}" tabindex="0" role="button" '
        f'title="{title}">{escape(text[citation.start : citation.end])}<sup>{rank}</sup></span>'
    )


def sources(hits: Sequence[Hit], prior: Sequence[float], texts: Texts) -> str:
    """The panel's cards, best passage first, "no source" last. A script fills in the live shares."""
    if not hits:
        return f'<h2>{escape(texts["sources"])}</h2><p class="mg-hint">{escape(texts["sources.none"])}</p>'
    cards = [_card(hit, rank, share, texts) for rank, (hit, share) in enumerate(zip(hits, prior, strict=False), 1)]
    nothing = (
        f'<li class="mg-card mg-nothing" title="{escape(texts["no_source.help"])}"><div class="mg-head">'
        f'<span class="mg-name">{escape(texts["no_source"])}</span><span class="mg-share"></span></div>'
        f"{_bar(prior[-1] if len(prior) > len(hits) else 0.0, texts)}</li>"
    )
    return (
        f'<h2>{escape(texts["sources"])}</h2><ol class="mg-cards">{"".join(cards)}{nothing}</ol>'
        f'<p class="mg-legend">{escape(texts["sources.legend"])}</p>'
    )


def no_sources_yet(texts: Texts) -> str:
    return f'<h2>{escape(texts["sources"])}</h2><p class="mg-hint">{escape(texts["sources.empty"])}</p>'


def _card(hit: Hit, rank: int, prior: float, texts: Texts) -> str:
    passage = hit.passage
    where = _where(passage, texts)
    text = plain(LEADING_HEADINGS.sub("", passage.text) if passage.heading else passage.text, passage.document)
    more = (
        f'<button class="mg-more" type="button" aria-expanded="false" data-more="{escape(texts["more"])}" '
        f'data-less="{escape(texts["less"])}">{escape(texts["more"])}</button>'
        if len(text) > CLAMPED or text.count("\n") > 2
        else ""
    )
    in_place = f'<button class="mg-in-place" type="button">{escape(texts["place.show"])}</button>'
    return (
        f'<li class="mg-card mg-c{(rank - 1) % COLOURS}" data-source="{rank}" tabindex="0">'
        f'<div class="mg-head"><span class="mg-number">{rank}</span>'
        f'<span class="mg-name" dir="auto" title="{escape(passage.document)}">{escape(passage.document)}</span>'
        f'<span class="mg-share"></span></div>'
        f"{_bar(prior, texts)}"
        f'<div class="mg-where">{where}</div><div class="mg-passage" dir="auto">{escape(text)}</div>'
        f'<div class="mg-actions">{more}{in_place}</div></li>'
    )


def _where(passage: Passage, texts: Texts) -> str:
    page = texts["page"].format(page=passage.page) if passage.page else ""
    return " · ".join(escape(part) for part in (page, passage.heading) if part)


def place(passage: Passage, found: Place | None, turn: int, source: int, texts: Texts) -> str:
    """A dialog with the text around a passage, marked in it; or a line, where that text is gone."""
    if found is None:
        body = f'<p class="mg-hint">{escape(texts["place.gone"])}</p>'
    else:
        above = _further(turn, source, found.first - WINDOW, found.last, True, texts) if found.first else ""
        below = _further(turn, source, found.first, found.last + WINDOW, False, texts)
        shown, first = found.text[found.first : found.last], found.first
        spans = marks(shown, passage.document)
        before, marked, after = (
            escape(without(shown, spans, start - first, end - first))
            for start, end in ((first, found.start), (found.start, found.end), (found.end, found.last))
        )
        body = (
            f'<div class="mg-page" dir="auto" tabindex="0">{above}{before}'
            f"<mark>{marked}</mark>"
            f"{after}{below if found.last < len(found.text) else ''}</div>"
        )
    return (
        f'<dialog class="mg-place mg-c{(source - 1) % COLOURS}" aria-label="{escape(passage.document)}">'
        f'<div class="mg-head"><h2 class="mg-name" dir="auto">{escape(passage.document)}</h2>'
        f'<button class="mg-close" type="button" autofocus>{escape(texts["place.close"])}</button></div>'
        f'<div class="mg-where">{_where(passage, texts)}</div>{body}</dialog>'
    )


def _further(turn: int, source: int, first: int, last: int, above: bool, texts: Texts) -> str:
    return (
        f'<button class="mg-further" type="button" data-turn="{turn}" data-source="{source}" data-first="{first}" '
        f'data-last="{last}" data-above="{above:d}">{escape(texts["place.above" if above else "place.below"])}</button>'
    )


def _bar(prior: float, texts: Texts) -> str:
    title = escape(f"{texts['prior']} {percent(prior)}")
    return (
        f'<div class="mg-bar" title="{title}"><i></i><b style="left:{100 * min(1.0, max(0.0, prior)):.0f}%"></b></div>'
    )


def arriving(batches: Sequence[Batch], texts: Texts) -> str:
    """Files on their way in and what became of them, a row each; above them how far all is."""
    files = [file for batch in batches for file in batch.files if file.state != "asking"]
    if not files:
        return ""
    head = _head(texts, "outcome.file", "outcome.status", "outcome.message")
    body = "".join(
        f'<tr class="mg-{escape(file.state)}"><td class="mg-name" dir="auto">{escape(file.name)}</td>'
        f"<td>{escape(texts[f'status.{file.state}'])}</td>"
        f'<td class="mg-text" dir="auto">{escape(_how(file, texts))}</td></tr>'
        for file in sorted(files, key=lambda file: file.state not in ("reading", "embedding", "cancelling"))[:SHOWN]
    )
    more = f'<p class="mg-hint">{escape(texts["arriving.more"].format(count=len(files) - SHOWN))}</p>'
    return (
        f'{_pace(batches, texts)}<table class="mg-table mg-outcomes">{head}'
        f"<tbody>{body}</tbody></table>{more if len(files) > SHOWN else ''}"
    )


def asked(batches: Sequence[Batch], texts: Texts) -> str:
    """Files whose name is taken by other content, each with what can be done."""
    return "".join(
        f'<div class="mg-note mg-asked" role="group">'
        f'<span dir="auto">{escape(texts["asked"].format(name=file.name))}</span>'
        + "".join(
            f'<button class="mg-choose" type="button" data-key="{escape(file.id)}" data-choice="{choice}">'
            f"{escape(texts[f'asked.{choice}'])}</button>"
            for choice in ("replace", "keep", "skip")
        )
        + "</div>"
        for batch in batches
        for file in batch.files
        if file.state == "asking"
    )


def _pace(batches: Sequence[Batch], texts: Texts) -> str:
    files = [file for batch in batches if not batch.done for file in batch.files]
    if not files:
        return ""
    done = sum(file.state not in ("waiting", "reading", "embedding", "cancelling") for file in files)
    said = [texts["arriving.files"].format(done=done, count=len(files))]
    if rate := max(batch.passages_per_s for batch in batches):
        said.append(texts["arriving.rate"].format(rate=f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"))
    if left := max(batch.seconds_left or 0 for batch in batches):
        unit = "minutes" if left >= 90 else "seconds"
        said.append(texts[f"arriving.{unit}"].format(count=round(left / 60 if unit == "minutes" else max(1, left))))
    share = (done + sum(file.embedded / file.passages for file in files if file.state == "embedding")) / len(files)
    return (
        f'<div class="mg-pace"><span>{escape(" · ".join(said))}</span><div class="mg-bar" role="progressbar" '
        f'aria-label="{escape(said[0])}" aria-valuenow="{100 * share:.0f}"><i style="width:{100 * share:.1f}%"></i>'
        "</div></div>"
    )


def _how(file: File, texts: Texts) -> str:
    if file.state == "embedding":
        return texts["arriving.embedded"].format(done=file.embedded, count=file.passages)
    passages = texts["outcome.passages"].format(count=file.passages) if file.passages else ""
    return said(file.message, texts) or (
        "" if file.state in ("waiting", "reading", "cancelling", "cancelled") else passages
    )


def collections(listed: Sequence[Collection], shown: str | None, texts: Texts) -> str:
    """Which documents are listed: of all collections (None), or of one, with what can be done to it."""
    if len(listed) < 2:
        return ""
    everything = (None, texts["collections.all"], sum(each.documents for each in listed))
    chips = "".join(
        f'<button class="mg-open mg-chip" type="button" aria-pressed="{"true" if name == shown else "false"}" '
        f'data-key="{escape(name or "")}"><span dir="auto">{escape(label)}</span> <small>{count}</small></button>'
        for name, label, count in [everything, *((each.name, each.name, each.documents) for each in listed)]
    )
    if shown is None:
        return f'<div class="mg-collections">{chips}</div>'
    rename = (
        f'<button class="mg-rename" type="button" data-key="{escape(shown)}">'
        f"{escape(texts['collections.rename'])}</button>"
    )
    return (
        f'<div class="mg-collections">{chips}<span>{rename}'
        f"{_delete(shown, shown, texts, 'collections.delete', 'collections.sure')}</span></div>"
    )


def documents(entries: Sequence[Entry], texts: Texts, several: bool = False) -> str:
    """`several`: there is more than one collection, so each document names its own."""
    title = f"<h2>{escape(texts['documents.title'])} <small>{len(entries)}</small></h2>"
    if not entries:
        return f'{title}<p class="mg-hint">{escape(texts["documents.empty"])}</p>'
    columns = ("name", *("collection",) * several, "kind", "bytes", "pages", "passages", "added")
    head = _head(texts, *(f"documents.{column}" for column in columns), "delete")
    body = "".join(_document(entry, texts, several) for entry in entries)
    return f'{title}<div class="mg-scroll"><table class="mg-table">{head}<tbody>{body}</tbody></table></div>'


def _document(entry: Entry, texts: Texts, several: bool) -> str:
    notice = f'<div class="mg-hint">{escape(said(entry.notice, texts))}</div>' if entry.notice else ""
    cells = {
        "kind": entry.kind,
        "bytes": _size(entry.bytes),
        "pages": str(entry.pages or "–"),
        "passages": str(entry.passages),
        "added": _when(entry.added),
    }
    return (
        f'<tr><td class="mg-name" dir="auto">{escape(entry.name)}{notice}</td>'
        + _cell("collection", entry.collection, texts, "mg-text") * several
        + "".join(_cell(column, cell, texts) for column, cell in cells.items())
        + f"<td>{_delete(entry.id, entry.name, texts)}</td></tr>"
    )


def _cell(column: str, text: str, texts: Texts, name: str = "") -> str:
    """`data-head`: its column's title, which stands before it where the table is too wide for the window."""
    shown = f' class="{name}" dir="auto"' if name else ""
    return f'<td{shown} data-head="{escape(texts[f"documents.{column}"])}">{escape(text)}</td>'


def rebuilding(going_on: Rebuilding | None, texts: Texts) -> str:
    return notice(texts["rebuilding"].format(percent=percent(going_on.done))) if going_on else ""


def notice(text: str) -> str:
    return f'<div class="mg-notice" role="status">{escape(text)}</div>'


def days(texts: Texts) -> str:
    """The fields for the first and the last day, and a button that empties every field."""
    since, until = (
        f'<label>{escape(texts[f"scope.{name}"])} <input type="date" name="{name}"></label>'
        for name in ("since", "until")
    )
    everything = f'<button class="mg-choose" type="button">{escape(texts["scope.clear"])}</button>'
    return f'<div class="mg-days">{since}{until}{everything}</div>'


def conversations(rows: Sequence[tuple[str, str, str]], current: str, texts: Texts) -> str:
    """Earlier conversations: (key, title, when), newest first; `current` is the key of the one that is open."""
    title = f"<h2>{escape(texts['conversations'])}</h2>"
    if not rows:
        return f'{title}<p class="mg-hint">{escape(texts["conversations.empty"])}</p>'
    items = "".join(
        f'<li{" class=mg-current" if key == current else ""}><button class="mg-open" type="button" '
        f'data-key="{escape(key)}"><span dir="auto">'
        f"{escape(name or texts['conversation.untitled'])}</span><small>{escape(_when(when))}</small>"
        f"</button>{_delete(key, name, texts)}</li>"
        for key, name, when in rows
    )
    return f'{title}<ul class="mg-conversations">{items}</ul>'


def settings(rows: Sequence[tuple[str, object]], texts: Texts) -> str:
    head = _head(texts, "about.setting", "about.value")
    body = "".join(
        f'<tr><td><code>{escape(name)}</code></td><td class="mg-text">{escape(str(value))}</td></tr>'
        for name, value in rows
    )
    return (
        f'<p class="mg-hint">{escape(texts["about.text"])}</p>'
        f'<table class="mg-table">{head}<tbody>{body}</tbody></table>'
    )


def header(texts: Texts) -> str:
    name = f"<h1>Marginalia</h1><p>{escape(texts['tagline'])}</p>"
    return f'<div class="mg-header" lang="{escape(texts["language"])}">{name}</div>'


def welcome(texts: Texts) -> str:
    return (
        f'<div class="mg-welcome"><div class="mg-welcome-title">{escape(texts["empty.title"])}</div>'
        f"<div>{escape(texts['empty.text'])}</div></div>"
    )


def percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.0f}%"


def _delete(key: str, name: str, texts: Texts, label: str = "delete", sure: str = "delete.sure") -> str:
    return (
        f'<button class="mg-delete" type="button" data-key="{escape(key)}" data-sure="{escape(texts[sure])}" '
        f'aria-label="{escape(texts[label] + " " + name)}">{escape(texts[label])}</button>'
    )


def _head(texts: Texts, *keys: str) -> str:
    """What stands above the buttons to delete is for screen readers: the buttons say it themselves."""
    shown = (
        f'<span class="mg-unseen">{escape(texts[key])}</span>' if key == "delete" else escape(texts[key])
        for key in keys
    )
    return "<thead><tr>" + "".join(f'<th scope="col">{text}</th>' for text in shown) + "</tr></thead>"


def _size(count: int) -> str:
    size, units = float(count), ["B", "kB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if size >= 10 or units[0] == "B" else f"{size:.1f} {units[0]}"


def _when(iso: str) -> str:
    try:
        return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return iso
