"""What the page says of a failure, in the page's language: every message that can come has its words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ui.i18n import failures, said, texts

CHATBOT = Path(__file__).parent.parent / "chatbot"
PATHS = [  # of modules that a question, a file or an address comes through
    *sorted((CHATBOT / "parse").glob("*.py")),
    *(
        CHATBOT / f"{name}.py"
        for name in (
            "catalogue",
            "dialogue",
            "errors",
            "fetch",
            "history",
            "ingestion",
            "knowledge",
            "splitter",
            "stores",
            "upkeep",
        )
    ),
    CHATBOT / "embedders" / "process.py",
    *(CHATBOT / "generators" / f"{name}.py" for name in ("causal", "seq2seq")),
]
# What is for whoever set the page up, or for our own code, is in English.
OF_OTHERS = ("MissingModel", "WrongSetting", "HomeDamaged", "HomeInUse", "ValueError", "OSError", "TypeError")
OF_COMMANDS = "holds no conversation"  # a file given to `ask --conversation`
WHOLE = re.compile(r"[a-z{].* .*", re.DOTALL)


def constants(tree: ast.Module) -> dict[str, ast.expr]:
    """A module's own, by name."""
    return {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def written(node: ast.expr | None, known: dict[str, ast.expr]) -> list[str]:
    """The texts that an expression may be, "{}" for each value in them."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(part.value if isinstance(part, ast.Constant) else "{}" for part in parts)]
        case ast.Name(id=name) if name in known:
            return written(known[name], {})
        case ast.IfExp(body=one, orelse=other):
            return written(one, known) + written(other, known)
    return []


def messages(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    known = constants(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=[text])) if name not in OF_OTHERS:
                yield from written(text, known)
            case ast.Return(value=ast.Call(func=ast.Name(id="DiskFull"), args=[text])):
                yield from written(text, known)
            case ast.Call(func=ast.Name(id="replace"), keywords=keywords):
                for keyword in keywords:
                    if keyword.arg in ("message", "problem"):
                        yield from written(keyword.value, known)
            case ast.Assign(targets=[ast.Name(id="why" | "notice")], value=value):
                yield from written(value, known)
            case ast.Dict(keys=[ast.Constant(value="error")], values=[text]):
                yield from written(text, known)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="notices"), attr="append"), args=[text]):
                yield from written(text, known)
            case ast.Call(func=ast.Name(id="_refusal"), args=[_, what, remedy]):
                yield from (f"{{}} {one}: {other}" for one in written(what, known) for other in written(remedy, known))
            case ast.Tuple(elts=[what, remedy]) if path.name == "formats.py":
                yield from (f"{{}} {one}: {other}" for one in written(what, known) for other in written(remedy, known))
    if path.name == "__init__.py":  # what a kind without text is told
        values = known["_NO_TEXT"].values  # type: ignore[attr-defined]
        yield from (f"{{}} {text}" for value in values for text in written(value, known))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_message_of_a_failure_has_chinese_words(path: Path) -> None:
    found = [text for text in messages(path) if WHOLE.fullmatch(text) and text not in ("{} {}", "{} {}: {}")]
    found = [text for text in found if OF_COMMANDS not in text]
    assert [text for text in found if text not in failures("zh")] == []


def test_the_chinese_words_keep_every_value_and_no_english() -> None:
    for template, translated in failures("zh").items():
        holes = template.count("{}")
        assert re.findall(r"[A-Za-z]{4,} [a-z]{2,} [a-z]{2,}", translated) == [], translated
        values = [f"<{number}>" for number in range(holes)]
        assert all(translated.format(*values).count(value) == 1 for value in values), translated


@pytest.mark.parametrize(
    ("message", "chinese"),
    [
        (
            "'报告.pdf' is encrypted: save a copy without the password and give that",
            "'报告.pdf' 已加密：请另存一份不带密码的副本",
        ),
        (
            "'a: b.xls' is an old Excel file (.xls): save it as .xlsx and give that",
            "'a: b.xls' 是旧版 Excel 文件（.xls）：请另存为 .xlsx 后提供",
        ),
        ("'a.bin' is a program: give a PDF file", "'a.bin' 是程序：请提供以下类型的文件：PDF"),
        (
            "1 of 3 pages were read by OCR, 2 of 3 pages had no text",
            "3 页中有 1 页由 OCR 识别，3 页中有 2 页没有文字",
        ),
        ("what nobody has thought of", "what nobody has thought of"),
    ],
)
def test_a_failure_is_told_in_the_language_of_the_page(message: str, chinese: str) -> None:
    assert said(message, texts("zh")) == chinese
    assert said(message, texts("en")) == message


@given(st.sampled_from(sorted(failures("zh"))), st.text())
def test_whatever_a_file_is_called_its_failure_can_be_told(template: str, name: str) -> None:
    message = template.replace("{}", name or "x")
    assert isinstance(said(message, texts("zh")), str)
