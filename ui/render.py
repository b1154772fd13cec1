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

from chatbot import Citation, Hit, Query, Reply, Turn

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
    added: str
    notice: str


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
    return f'<div class="mg-utterance">{escape(text)}</div>'


def unfinished(query: Query | None, text: str, waiting: str, texts: Texts) -> str:
    """A reply while it streams; `waiting` is what it waits for before its first word."""
    body = (
        f'<div class="mg-reply">{escape(text)}<span class="mg-caret"></span></div>'
        if text
        else f'<div class="mg-waiting">{escape(waiting)}</div>'
    )
    return f'<div class="mg-message">{_searched(query, texts)}{body}</div>'


def broken_off(query: Query | None, text: str, note: str, texts: Texts) -> str:
    """A reply that was stopped or failed: what there was of it, and why it ends."""
    body = f'<div class="mg-reply">{escape(text)}</div>' if text else ""
    return (
        f'<div class="mg-message mg-broken-off">{_searched(query, texts)}{body}'
        f'<div class="mg-note" role="status">{escape(note)}</div></div>'
    )


def reply(turn: Turn, number: int, texts: Texts, last: bool = False) -> str:
    """An answered turn's reply, each cited span marked with its source; `number` is the turn's, from 0.

    What was searched for the `last` one can be changed.
    """
    answer = turn.reply
    notices = [texts["abstained"]] * answer.abstained + [answer.notice] * bool(answer.notice)
    notice = "".join(f'<div class="mg-notice" role="note">{escape(text)}</div>' for text in notices)
    searched = _searched(turn.query, texts, last)
    return (
        f'<div class="mg-message{" mg-abstained" if answer.abstained else ""}">{searched}{notice}'
        f'<div class="mg-reply">{_cited(answer, turn.hits, number)}</div>{_corrected(turn, texts)}'
        f"{_foot(turn, number, texts, last)}</div>"
    )


def _searched(query: Query | None, texts: Texts, last: bool = False) -> str:
    if query is None or not query.rewritten or not query.text:
        return ""
    said = texts["searched.own" if query.edited else "searched"]
    typed = f' <button class="mg-search mg-typed" type="button">{escape(texts["search.typed"])}</button>' * last
    return f'<div class="mg-searched">{escape(said)} <span>{escape(query.text)}</span>{typed}</div>'


def _corrected(turn: Turn, texts: Texts) -> str:
    if not turn.correction:
        return ""
    return f'<div class="mg-note">{escape(texts["corrected"])} <span>{escape(turn.correction)}</span></div>'


def _foot(turn: Turn, number: int, texts: Texts, last: bool) -> str:
    confidence = escape(texts["confidence"].format(percent=percent(turn.reply.confidence)))
    parts = [f'<span title="{escape(texts["confidence.help"])}">{confidence}</span>']
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
        return f'<h3>{escape(texts["sources"])}</h3><p class="mg-hint">{escape(texts["sources.none"])}</p>'
    cards = [_card(hit, rank, share, texts) for rank, (hit, share) in enumerate(zip(hits, prior, strict=False), 1)]
    nothing = (
        f'<li class="mg-card mg-nothing" title="{escape(texts["no_source.help"])}"><div class="mg-head">'
        f'<span class="mg-name">{escape(texts["no_source"])}</span><span class="mg-share"></span></div>'
        f"{_bar(prior[-1] if len(prior) > len(hits) else 0.0, texts)}</li>"
    )
    return (
        f'<h3>{escape(texts["sources"])}</h3><ol class="mg-cards">{"".join(cards)}{nothing}</ol>'
        f'<p class="mg-legend">{escape(texts["sources.legend"])}</p>'
    )


def no_sources_yet(texts: Texts) -> str:
    return f'<h3>{escape(texts["sources"])}</h3><p class="mg-hint">{escape(texts["sources.empty"])}</p>'


def _card(hit: Hit, rank: int, prior: float, texts: Texts) -> str:
    passage = hit.passage
    page = texts["page"].format(page=passage.page) if passage.page else ""
    where = " · ".join(escape(part) for part in (page, passage.heading) if part)
    text = LEADING_HEADINGS.sub("", passage.text) if passage.heading else passage.text
    more = (
        f'<button class="mg-more" type="button" aria-expanded="false" data-more="{escape(texts["more"])}" '
        f'data-less="{escape(texts["less"])}">{escape(texts["more"])}</button>'
        if len(text) > CLAMPED or text.count("\n") > 2
        else ""
    )
    return (
        f'<li class="mg-card mg-c{(rank - 1) % COLOURS}" data-source="{rank}" tabindex="0">'
        f'<div class="mg-head"><span class="mg-number">{rank}</span>'
        f'<span class="mg-name" title="{escape(passage.document)}">{escape(passage.document)}</span>'
        f'<span class="mg-share"></span></div>'
        f"{_bar(prior, texts)}"
        f'<div class="mg-where">{where}</div><div class="mg-passage">{escape(text)}</div>{more}</li>'
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
        f'<tr class="mg-{escape(file.state)}"><td class="mg-name">{escape(file.name)}</td>'
        f'<td>{escape(texts[f"status.{file.state}"])}</td><td class="mg-text">{escape(_how(file, texts))}</td></tr>'
        for file in sorted(files, key=lambda file: file.state not in ("reading", "embedding"))[:SHOWN]
    )
    more = f'<p class="mg-hint">{escape(texts["arriving.more"].format(count=len(files) - SHOWN))}</p>'
    return (
        f'{_pace(batches, texts)}<div class="mg-scroll mg-files-shown"><table class="mg-table mg-outcomes">{head}'
        f"<tbody>{body}</tbody></table></div>{more if len(files) > SHOWN else ''}"
    )


def asked(batches: Sequence[Batch], texts: Texts) -> str:
    """Files whose name is taken by other content, each with what can be done."""
    return "".join(
        f'<div class="mg-note mg-asked" role="group"><span>{escape(texts["asked"].format(name=file.name))}</span>'
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
    done = sum(file.state not in ("waiting", "reading", "embedding") for file in files)
    said = [texts["arriving.files"].format(done=done, count=len(files))]
    if rate := max(batch.passages_per_s for batch in batches):
        said.append(texts["arriving.rate"].format(rate=f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"))
    if left := max(batch.seconds_left or 0 for batch in batches):
        unit = "minutes" if left >= 90 else "seconds"
        said.append(texts[f"arriving.{unit}"].format(count=round(left / 60 if unit == "minutes" else max(1, left))))
    share = (done + sum(file.embedded / file.passages for file in files if file.state == "embedding")) / len(files)
    return (
        f'<div class="mg-pace"><span>{escape(" · ".join(said))}</span><div class="mg-bar" role="progressbar" '
        f'aria-valuenow="{100 * share:.0f}"><i style="width:{100 * share:.1f}%"></i></div></div>'
    )


def _how(file: File, texts: Texts) -> str:
    if file.state == "embedding":
        return texts["arriving.embedded"].format(done=file.embedded, count=file.passages)
    passages = texts["outcome.passages"].format(count=file.passages) if file.passages else ""
    return file.message or ("" if file.state in ("waiting", "reading", "cancelled") else passages)


def documents(entries: Sequence[Entry], texts: Texts) -> str:
    title = f"<h3>{escape(texts['documents.title'])} <small>{len(entries)}</small></h3>"
    if not entries:
        return f'{title}<p class="mg-hint">{escape(texts["documents.empty"])}</p>'
    columns = ("name", "kind", "bytes", "pages", "passages", "added")
    head = _head(texts, *(f"documents.{column}" for column in columns), "")
    body = "".join(_document(entry, texts) for entry in entries)
    return f'{title}<div class="mg-scroll"><table class="mg-table">{head}<tbody>{body}</tbody></table></div>'


def _document(entry: Entry, texts: Texts) -> str:
    notice = f'<div class="mg-hint">{escape(entry.notice)}</div>' if entry.notice else ""
    cells = (entry.kind, _size(entry.bytes), str(entry.pages or "–"), str(entry.passages), _when(entry.added))
    return (
        f'<tr><td class="mg-name">{escape(entry.name)}{notice}</td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + f"<td>{_delete(entry.id, entry.name, texts)}</td></tr>"
    )


def conversations(rows: Sequence[tuple[str, str, str]], current: str, texts: Texts) -> str:
    """Earlier conversations: (key, title, when), newest first; `current` is the key of the one that is open."""
    title = f"<h3>{escape(texts['conversations'])}</h3>"
    if not rows:
        return f'{title}<p class="mg-hint">{escape(texts["conversations.empty"])}</p>'
    items = "".join(
        f'<li{" class=mg-current" if key == current else ""}><button class="mg-open" type="button" '
        f'data-key="{escape(key)}">{escape(name or texts["conversation.untitled"])}<small>{escape(_when(when))}</small>'
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
        f'<div class="mg-scroll"><table class="mg-table">{head}<tbody>{body}</tbody></table></div>'
    )


def header(texts: Texts) -> str:
    return f'<div class="mg-header"><h1>Marginalia</h1><p>{escape(texts["tagline"])}</p></div>'


def welcome(texts: Texts) -> str:
    return (
        f'<div class="mg-welcome"><div class="mg-welcome-title">{escape(texts["empty.title"])}</div>'
        f"<div>{escape(texts['empty.text'])}</div></div>"
    )


def percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.0f}%"


def _delete(key: str, name: str, texts: Texts) -> str:
    return (
        f'<button class="mg-delete" type="button" data-key="{escape(key)}" data-sure="{escape(texts["delete.sure"])}" '
        f'aria-label="{escape(texts["delete"] + " " + name)}">{escape(texts["delete"])}</button>'
    )


def _head(texts: Texts, *keys: str) -> str:
    return "<thead><tr>" + "".join(f"<th>{escape(texts[key]) if key else ''}</th>" for key in keys) + "</tr></thead>"


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
