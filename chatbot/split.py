"""A document becomes passages: along headings, then paragraphs, then sentences, and inside them if need be.

`semantic-text-splitter` does the cutting. Its splitter for Markdown is not used: it rather cuts at a link or
at a line's end than at a sentence's. Instead each section is given to the one for plain text, with the line
breaks that end nothing (inside a paragraph, after a heading) blanked out, which moves no offset.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer

from chatbot.parse.lines import goes_on
from chatbot.passage import Document, Heading, Passage

SPLITTER = "2"  # changes whenever the same text might be split otherwise by the same settings
WITH_HEADINGS = (  # kinds whose text marks headings as Markdown does
    *("markdown", "html", "docx", "pptx", "xlsx", "odt", "ods", "odp", "epub", "eml", "msg"),
)
BETWEEN_HEADINGS = " › "

_CHARACTERS_PER_TOKEN = 16  # English has 4 to 5; to WordPiece a word of 200,000 letters is one token
_STRETCH = 20  # passages' lengths given to the splitter at once: its time grows faster than a line's length
_SMALL = 4  # a passage below a fourth of the limit joins the next one of its section
_LONGEST_HEADING = 500  # characters of its line: longer ones are paragraphs that happen to begin with a mark
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_UNDERLINE = re.compile(r"\A {0,3}(=+|-+)[ \t]*$")
_MARK = re.compile(r"!?(\[)|([*`])|(?<!\s)\s*+(\{)#|(<)/?\w")


Place = tuple[int, int, int, str]  # of a passage: its page, counted from 0, start and end there, its heading


@dataclass(frozen=True, slots=True)
class _Heading:
    start: int  # of its line, in characters from the start of the page's text
    end: int  # of its line, or of the line below that underlines it
    path: str  # "Chapter › Section": those above it, and it


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    tokens: int
    heading: str  # path of what its first words are under
    bare: bool  # nothing but headings


def split(
    document: Document, document_id: str, *, max_tokens: int, tokenizer: Tokenizer, overlap: int = 0
) -> list[Passage]:
    """Passages in the order of the text, each of at most `max_tokens`, special tokens not counted.

    `page.text[passage.start:passage.end] == passage.text`, without white space at its ends. Neighbours in one
    section share up to `overlap` tokens. Stretches without a letter are left out, and so is a heading alone
    before passages that bear it in `heading`.
    """
    return passages(document, document_id, Cutter(tokenizer, max_tokens, overlap).places(document))


def passages(document: Document, document_id: str, places: Iterable[Place]) -> list[Passage]:
    """Those that stand at these places of the document."""
    return [
        Passage(
            id=f"{document_id}:{ordinal}",
            document_id=document_id,
            document=document.name,
            text=document.pages[index].text[start:end],
            page=document.pages[index].number,
            heading=heading,
            start=start,
            end=end,
        )
        for ordinal, (index, start, end, heading) in enumerate(places)
    ]


class Cutter:
    """Says where a document is cut, see `split`. Making one takes some 25 ms: it serves many documents."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, overlap: int) -> None:
        if tokenizer.truncation or tokenizer.padding:  # either would miscount
            tokenizer = Tokenizer.from_str(tokenizer.to_str())  # ours to change; takes 25 ms
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._max = max_tokens
        self._longest = _CHARACTERS_PER_TOKEN * max_tokens
        self._splitter = TextSplitter.from_huggingface_tokenizer(tokenizer, max_tokens, overlap=overlap, trim=False)

    def places(self, document: Document) -> Iterator[Place]:
        open_headings: list[tuple[int, str]] = []  # stays open from page to page
        for index, page in enumerate(document.pages):
            above = _path(open_headings)
            marked = _headings(page.text) if document.kind in WITH_HEADINGS else iter(page.headings)
            headings = list(_opened(marked, open_headings))
            for span in self._cut(page.text, headings, above):
                yield index, span.start, span.end, span.heading

    def _cut(self, text: str, headings: list[_Heading], above: str) -> list[_Span]:
        spans = []
        for start, end in _sections(text, headings):
            for part in _stretches(text, start, end, _STRETCH * self._longest):
                for first, last, tokens in self._pieces(text, *part):
                    heading, bare = _under(text, first, last, headings, above)
                    spans.append(_Span(first, last, tokens, heading, bare))
        lettered = [span for span in spans if any(map(str.isalnum, text[span.start : span.end]))]
        joined = self._join(text, lettered or spans)
        return [
            span
            for span, following in pairwise([*joined, None])
            if span and not (span.bare and following and _within(following.heading, span.heading))
        ]

    def _pieces(self, text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(first, last, tokens)"""
        blanked = _blank(text[start:end])
        for offset, piece in self._splitter.chunk_indices(blanked):
            first, last = _strip(text, start + offset, start + offset + len(piece))
            if last - first > self._longest:
                yield from self._cut_again(TextSplitter(self._longest, trim=False), text, first, last)
            elif (tokens := self._count(text[first:last])) > self._max:  # a line break can be more tokens than a space
                yield from self._cut_again(self._splitter, text, first, last)
            elif first < last:
                yield first, last, tokens

    def _cut_again(self, splitter: TextSplitter, text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        for offset, piece in splitter.chunk_indices(text[start:end]):
            first, last = _strip(text, start + offset, start + offset + len(piece))
            yield first, last, self._count(text[first:last])

    def _join(self, text: str, spans: list[_Span]) -> list[_Span]:
        """Bare headings join what follows, small passages a neighbour in their section, where both fit."""
        joined: list[_Span] = []
        for span in spans:
            before = joined[-1] if joined else None
            if before and self._belong(before, span):
                both = text[before.start : span.end]
                if len(both) <= self._longest and (tokens := self._count(both)) <= self._max:
                    heading = span.heading if before.bare else before.heading
                    joined[-1] = _Span(before.start, span.end, tokens, heading, before.bare and span.bare)
                    continue
            joined.append(span)
        return joined

    def _belong(self, before: _Span, span: _Span) -> bool:
        small = self._max // _SMALL
        return (
            before.bare
            or (before.tokens < small and _within(span.heading, before.heading))
            or (span.tokens < small and span.heading == before.heading)
        )

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _opened(headings: Iterable[Heading], open_headings: list[tuple[int, str]]) -> Iterator[_Heading]:
    """With their paths; `open_headings` is kept up to date."""
    for heading in headings:
        while open_headings and open_headings[-1][0] >= heading.level:
            open_headings.pop()
        open_headings.append((heading.level, heading.title))
        yield _Heading(heading.start, heading.end, _path(open_headings))


def _headings(text: str) -> Iterator[Heading]:
    """ATX (`# x`) and underlined headings outside fenced code."""
    fence = ""
    above: tuple[int, str] | None = None  # the line above, if it is a paragraph's first
    blank = True
    for start, line in _lines(text):
        if mark := _FENCE.match(line):
            fence = "" if fence == mark[1] else fence or mark[1]
        level, title, first = 0, "", start
        if fence or mark:
            above = None
        elif heading := _marked(line):
            level, title = len(heading[1]), line[heading.end() :].rstrip(" \t").rstrip("#").rstrip(" \t")
        elif (underline := _UNDERLINE.match(line)) and above:
            level, (first, title) = 1 if underline[1][0] == "=" else 2, above
        title = " ".join(_unmarked(title).split())
        if level and title:
            yield Heading(level, title, first, start + len(line))
        opens = blank and line.strip() and len(line) <= _LONGEST_HEADING and not level and not fence
        above = (start, line) if opens else None
        blank = not line.strip() or bool(level)


def _marked(line: str) -> re.Match[str] | None:
    """The mark of a heading."""
    return _HEADING.match(line) if len(line) <= _LONGEST_HEADING else None


def _unmarked(title: str) -> str:
    """Without Markdown's and HTML's marks and an id at its end; of links the words, as they are.

    What a mark needs to be closed by is looked for once, not once for each mark that opens.
    """
    closing = dict.fromkeys("])}>", -1)  # where each is next

    def after(character: str, place: int) -> int:
        if closing[character] < place:
            found = title.find(character, place)
            closing[character] = len(title) if found < 0 else found
        return closing[character]

    kept, end = [], 0
    for mark in _MARK.finditer(title):
        start, words, stop = mark.start(), "", len(title)
        if start < end:  # inside of what is taken out
            continue
        if mark[1] and title.startswith("](", close := after("]", mark.end())):
            words, stop = title[mark.end() : close], after(")", close + 2)
        elif mark[2]:
            stop = start
        elif mark[3] and after("}", mark.end()) == len(title) - 1:
            stop = len(title) - 1
        elif mark[4]:
            stop = after(">", mark.end())
        if stop < len(title):
            kept += [title[end:start], words]
            end = stop + 1
    return "".join([*kept, title[end:]])


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.split("\n"):
        yield start, line
        start += len(line) + 1


def _path(open_headings: list[tuple[int, str]]) -> str:
    return BETWEEN_HEADINGS.join(title for _, title in open_headings)


def _within(path: str, outer: str) -> bool:
    return path == outer or not outer or path.startswith(outer + BETWEEN_HEADINGS)


def _sections(text: str, headings: list[_Heading]) -> Iterator[tuple[int, int]]:
    """From heading to heading; headings with nothing between them open one section."""
    starts = [0]
    for before, heading in pairwise([None, *headings]):
        if heading and text[before.end if before else 0 : heading.start].strip():
            starts.append(heading.start)
    yield from pairwise([*starts, len(text)])


def _stretches(text: str, start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """The section in parts that end with a paragraph, else a line, else a word."""
    while end - start > longest:
        cuts = (text.rfind(mark, start + longest // 2, start + longest) for mark in ("\n\n", "\n", " "))
        cut = next((cut for cut in cuts if cut > 0), start + longest)
        yield start, cut
        start = cut
    yield start, end


def _under(text: str, start: int, end: int, headings: list[_Heading], above: str) -> tuple[str, bool]:
    """The heading path at the span's first words that are no heading, and whether there are none."""
    index = bisect_right(headings, start, key=lambda heading: heading.start)
    position = start if index == 0 else max(start, headings[index - 1].end)
    while not text[position : min(end, headings[index].start) if index < len(headings) else end].strip():
        if index == len(headings) or headings[index].start >= end:
            break
        position = headings[index].end
        index += 1
    return headings[index - 1].path if index else above, not text[position:end].strip()


def _blank(section: str) -> str:
    """The section, with spaces for line breaks that end neither paragraph nor item: no shorter, no longer."""
    lines = section.split("\n")
    blanked, fenced, opening = [], False, True
    for line, following in pairwise([*lines, ""]):
        fenced ^= bool(_FENCE.match(line))
        opening = opening and (not line.strip() or bool(_marked(line)))
        soft = not fenced and (opening or goes_on(line, following))
        blanked.append(line + (" " if soft else "\n"))
    return "".join(blanked)[:-1]


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
