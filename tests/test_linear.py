"""No text, whatever it holds, takes longer than its length calls for: every pattern is found, and timed on pumped text.

A pattern is pumped with what its own parse tree names: what each repeat in it repeats, and each beginning of what it
matches, over and over, with an end that almost matches; and with what strangers' files are full of.
"""

from __future__ import annotations

import ast
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.conversation import Conversation, Query, Reply, Turn
from chatbot.language import detect
from chatbot.parse.formats import kind_of
from chatbot.passage import Document, Page
from chatbot.rewrite import ByTerms, believable, leans
from chatbot.split import split
from tests.test_split import WORDS

ROOT = Path(__file__).parent.parent
LENGTHS = (2_000, 4_000, 8_000)
FLOOR_S = 0.005  # a linear pattern needs about 0.3 ms for 8,000 characters; a quadratic one 50 ms and more
GROWTH = 3  # a pattern whose time goes with the square takes four times as long for twice the text
HOPELESS_S = 1.0  # of processor time: what goes with the cube, or faster, is not waited for
SEARCHES: tuple[Callable[[re.Pattern[Any], Any], object], ...] = (
    lambda pattern, text: pattern.match(text),
    lambda pattern, text: pattern.fullmatch(text),
    lambda pattern, text: pattern.search(text),
    lambda pattern, text: pattern.sub(text[:0], text),
)
PUMPS = (
    *(" ", "\n", "\t", " \n", "\r", "\r\n", "\u3000", "#", "# ", "#\n", "*", "-", "_", "=", "|", ">", "<", "<a", "</a"),
    *("<!--", "<!-- -->", "-->", "<pre", "[", "]", "[a](", "![", "(", ")", "{", "{#", "}", "`", "~", '"', "'", "\\"),
    *("’", "' ", "a", "a ", "A", "and ", "it ", "0", "0.", "1 ", ".", ". ", "...", ",", "!", "@", "a@", "http://", "&"),
    *("汉", "。", "か", "한", "\u0301", "e\u0301", "\u200d", "ا", "न", "🙂", "\x00", "\ufffe", "\ud800", "\ue000"),
)
ENDS = ("", "\x00", " x y z w")
OLD = {  # what stopped the server
    "the heading of a Markdown line": re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$"),
    "marks in a heading": re.compile(r"!?\[([^]]*)\]\([^)]*\)|[*`]|\s*\{#[^}]*\}$|</?\w[^>]*>"),
    "the head of an HTML page": re.compile(
        rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.I | re.S
    ),
    "a turn that leans on others": re.compile(
        r"^\W*(and|but|or|so|also|then|what about|how about|why|what else|which|who else|when|where|how come)\b"
        r"(\W*\w+){0,3}\W*$",
        re.IGNORECASE,
    ),
}


class Hopeless(Exception):
    pass


def sources() -> Iterator[tuple[str, ast.Module]]:
    """(name, tree) of every module."""
    for path in sorted([*(ROOT / "chatbot").rglob("*.py"), *(ROOT / "ui").rglob("*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), ast.parse(path.read_text("utf-8"))


def imports_re(tree: ast.Module) -> bool:
    return any(
        (isinstance(node, ast.Import) and any(name.name.split(".")[0] in ("re", "regex") for name in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module in ("re", "regex"))
        for node in ast.walk(tree)
    )


def calls_of_re(node: ast.AST) -> Iterator[ast.Attribute]:
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "re":
            yield each


def amiss(tree: ast.Module) -> list[str]:
    """Uses of `re` that would hide a pattern from the walk below, by line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("re", "regex"):
            found.append(f"line {node.lineno}: `import re`, so that its calls are seen")
        if isinstance(node, ast.Import) and any(name.name == "re" and name.asname for name in node.names):
            found.append(f"line {node.lineno}: `import re` under its own name")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inside = (
                call
                for part in ([node.body] if isinstance(node, ast.Lambda) else node.body)
                for call in calls_of_re(part)
            )
            found += [
                f"line {c.lineno}: re.{c.attr} in a function" for c in inside if c.attr.islower() and c.attr != "escape"
            ]
    allowed = ("compile", "escape")
    found += [f"line {c.lineno}: re.{c.attr}" for c in calls_of_re(tree) if c.attr.islower() and c.attr not in allowed]
    return found


@cache
def patterns() -> dict[str, re.Pattern[Any]]:
    """Of all modules that import `re`, by where they are."""
    found: dict[str, re.Pattern[Any]] = {}
    for name, tree in sources():
        if imports_re(tree):
            found |= {f"{name}.{place}": pattern for place, pattern in held(vars(import_module(name)), name)}
    return found


def held(value: object, module: str, place: str = "", depth: int = 4) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """The patterns in a module's names, its classes and whatever holds them."""
    if isinstance(value, re.Pattern):
        yield place, value
    elif depth and isinstance(value, dict):
        for key, inner in value.items():
            if not str(key).startswith("__"):
                yield from held(inner, module, f"{place}.{key}".lstrip("."), depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for number, inner in enumerate(value):
            yield from held(inner, module, f"{place}[{number}]", depth - 1)
    elif depth and isinstance(value, type) and value.__module__ == module:
        yield from held(dict(vars(value)), module, place, depth - 1)


def texts(pattern: re.Pattern[Any], length: int) -> Iterator[Any]:
    """Each of `length` characters or a few more, of the kind that the pattern reads."""
    tree = parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)
    whole = sample(tree)
    pumped = [("", pump) for pump in PUMPS]
    pumped += [(whole[:cut], pump) for cut in (1, len(whole)) for pump in (" ", "\n", "a", "-")]
    pumped += [("", whole[:cut]) for cut in range(1, min(len(whole), 40) + 1)]
    pumped += islice(repeats(tree, ""), 60)
    seen = set()
    for before, pump in pumped:
        for end in ENDS:
            text = before + (pump * (length // max(1, len(pump)) + 1))[:length] + end
            if text not in seen:
                seen.add(text)
                yield text if isinstance(pattern.pattern, str) else text.encode("latin-1", "replace")


def repeats(tree: Iterable[Any], before: str) -> Iterator[tuple[str, str]]:
    """(what the pattern matches before it, what it repeats) of each repeat without a bound, or with a large one."""
    for kind, value in tree:
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            if value[1] == op.MAXREPEAT or value[1] > 16 or (value[1] > 1 and any(True for _ in repeats(value[2], ""))):
                yield from ((before, pump) for pump in samples(value[2]) if pump)
            yield from repeats(value[2], before)
        elif kind is op.BRANCH:
            for branch in value[1]:
                yield from repeats(branch, before)
        elif kind is op.SUBPATTERN:
            yield from repeats(value[-1], before)
        elif kind is op.ATOMIC_GROUP:
            yield from repeats(value, before)
        before += sample([(kind, value)])


def samples(tree: Iterable[Any]) -> set[str]:
    """Some of what a part of a pattern matches."""
    tree = list(tree)
    if len(tree) == 1 and tree[0][0] is op.IN:
        return {character for item in islice(tree[0][1], 6) if (character := of_set([item]))}
    if len(tree) == 1 and tree[0][0] is op.BRANCH:
        return {sample(branch) for branch in tree[0][1][1][:8]}
    if len(tree) == 1 and tree[0][0] is op.SUBPATTERN:
        return samples(tree[0][1][-1])
    return {sample(tree)}


def sample(tree: Iterable[Any]) -> str:
    """Something that a part of a pattern matches, or nearly; looking around is not heeded."""
    return "".join(one(kind, value) for kind, value in tree)


def one(kind: Any, value: Any) -> str:
    if kind is op.LITERAL:
        return chr(value)
    if kind is op.NOT_LITERAL:
        return "a" if value != ord("a") else "b"
    if kind is op.ANY:
        return "a"
    if kind is op.IN:
        return of_set(value)
    if kind is op.BRANCH:
        return sample(value[1][0])
    if kind is op.SUBPATTERN:
        return sample(value[-1])
    if kind is op.ATOMIC_GROUP:
        return sample(value)
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        return sample(value[2]) * min(max(1, value[0]), 300)
    return ""


CATEGORIES = {
    op.CATEGORY_DIGIT: "7",
    op.CATEGORY_SPACE: " ",
    op.CATEGORY_WORD: "a",
    op.CATEGORY_NOT_DIGIT: "a",
    op.CATEGORY_NOT_SPACE: "a",
    op.CATEGORY_NOT_WORD: "-",
}


def of_set(items: Iterable[Any]) -> str:
    items = list(items)
    if items and items[0][0] is op.NEGATE:
        barred = {of_set([item]) for item in items[1:]}
        return next(character for character in "a-7 Zé汉" if character not in barred)
    for kind, value in items:
        if kind is op.LITERAL:
            return chr(value)
        if kind is op.RANGE:
            return chr(value[0])
        if kind is op.CATEGORY:
            return CATEGORIES[value]
    return ""


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Raises Hopeless inside once so much processor time is gone; `re` lets signals through."""

    def end(_: int, __: FrameType | None) -> None:
        raise Hopeless

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def taken(search: Callable[[Any, Any], object], pattern: re.Pattern[Any], text: Any) -> float:
    """Seconds of this thread's processor time."""
    started = time.thread_time()
    search(pattern, text)
    return time.thread_time() - started


def slow(pattern: re.Pattern[Any]) -> str:
    """The beginning of a text on which its time grows faster than the text; "": none was found."""
    by_length = [texts(pattern, length) for length in LENGTHS]
    for short, middle, long in zip(*by_length, strict=True):
        for search in SEARCHES:
            try:
                with ended_after(HOPELESS_S):
                    for text in (short[:100], short[:400]):  # what explodes does so early
                        search(pattern, text)
                    if taken(search, pattern, long) < FLOOR_S:
                        continue
                    first, second, third = (
                        min(taken(search, pattern, text) for _ in range(3)) for text in (short, middle, long)
                    )
            except Hopeless:
                return repr(short[:80])
            if third > FLOOR_S and second > GROWTH * first and third > GROWTH * second:
                return repr(short[:80])
    return ""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="nothing here ends a search that explodes")
def test_every_pattern_takes_time_in_proportion_to_the_text():
    found = {place: text for place, pattern in patterns().items() if (text := slow(pattern))}
    assert found == {}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="nothing here ends a search that explodes")
@pytest.mark.parametrize("what", OLD)
def test_a_pattern_that_would_stop_the_server_is_noticed(what):
    assert slow(OLD[what])


def test_every_pattern_is_compiled_where_it_is_found():
    assert {name: found for name, tree in sources() if (found := amiss(tree))} == {}
    for name, tree in sources():
        compiled = sum(call.attr == "compile" for call in calls_of_re(tree))
        assert compiled <= sum(place.startswith(f"{name}.") for place in patterns()), name


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Of this thread's processor time: others use this machine, and threads of earlier tests this process."""
    started = time.thread_time()
    yield
    assert time.thread_time() - started < seconds


@pytest.mark.parametrize(
    "line", ["# a" + " " * 1_500 + "b", "# " + "[" * 5_000, "# " + "<a" * 5_000, "# " + "[a](" * 5_000, "# {#" * 5_000]
)
def test_a_heading_of_marks_is_split_in_under_a_second(line):
    document = Document("a", "markdown", (Page(f"{line}\n\nwords\n\n" * 5),))
    with within(1):  # .1 to .3 s, mostly the tokenizer's; twice that in a process that has run other tests
        assert split(document, "d", max_tokens=100_000, tokenizer=WORDS)


def test_many_passages_far_above_a_heading_take_time_in_proportion():
    document = Document("a", "markdown", (Page("# One\n\n" + "word " * 100_000 + "\n\n# Two\n\nend"),))
    with within(10):  # 0.4 s with words of this tokenizer
        assert len(split(document, "d", max_tokens=100, tokenizer=WORDS)) > 900


@pytest.mark.parametrize(
    "hostile", [f"and {'a' * 3_990} b c d e", "@" * 4_000, "न" * 4_000, " " * 4_000, "hi" + " " * 3_900 + "x"]
)
def test_a_turn_of_hostile_characters_becomes_a_query_in_under_a_second(hostile):
    turn = Turn(Query("q", "q", "en"), Reply("a"))
    detect("What is the language of this text?")  # loads its profiles
    with within(1):
        ByTerms().rewrite(Conversation((turn,)), hostile)
        leans(hostile[:400], "en")
        believable(hostile[:600], Conversation((turn,)), hostile)


@pytest.mark.parametrize("head", ["<!-- --> " * 455, "<?xml " * 700, " " * 4_096, "<!--" * 1_024, "MZ" * 2_048])
def test_the_type_of_a_hostile_page_is_told_in_under_a_second(head, tmp_path):
    file = tmp_path / "a"
    file.write_text(head)
    with within(1):
        assert kind_of(file, "a") == "text"


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.sampled_from([*"[]()!*`{}#<>/ ab_\t", "](", "[a](b)", "{#id}", "</", "<b>"]), max_size=30).map("".join)
)
def test_headings_are_read_as_the_patterns_read_them_that_were_slow(line):
    found = OLD["the heading of a Markdown line"].match(f"## {line}")
    assert found
    title = " ".join(OLD["marks in a heading"].sub(r"\1", found[2]).split())
    (passage,) = split(Document("a", "markdown", (Page(f"## {line}\n\nwords"),)), "d", max_tokens=99, tokenizer=WORDS)
    assert passage.heading == title
