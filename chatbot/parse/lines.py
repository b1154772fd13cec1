"""Characters and lines: which stay, and which line breaks only the width of the paper called for."""

import re

NARROW = 40  # columns: shorter lines are headings, table cells or verse, and stay alone
_ITEM = re.compile(r"\A\s*+(?:[•◦▪■●○·–—*+>|=#-]|\d{1,2}(?:\.\d{1,2})*[.)]?\s|\(?[a-zA-Z0-9]\)|```|~~~|:\s)")
_NEWLINES = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
# C0 and C1 but tab and newline, byte order marks, and what Unicode promises never to be a character
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Newlines become \\n, control characters go, lone surrogates become U+FFFD; all else stays as it is.

    What is clean stays as it is, so that places in it hold.
    """
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", _NEWLINES.sub("\n", text)))


def width(line: str) -> int:
    """Columns of a terminal: Chinese, Japanese and Korean characters take two."""
    return len(line) + sum(map(is_cjk, line))


def is_cjk(character: str) -> bool:
    return (
        "\u2e80" <= character <= "\u9fff"
        or "\uac00" <= character <= "\ud7af"
        or "\uf900" <= character <= "\ufaff"
        or "\uff00" <= character <= "\uffef"
    )


def goes_on(line: str, following: str, full: float = NARROW) -> bool:
    """Whether `following` goes on with `line`, which then has `full` columns and is words, not figures."""
    return (
        bool(following.strip())
        and width(line) >= full
        and sum(map(str.isalpha, line)) > 0.6 * len(line)
        and not _ITEM.match(following)
    )
