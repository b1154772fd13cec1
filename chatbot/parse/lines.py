"""Which line breaks end a paragraph, and which only the width of the paper called for."""

import re

NARROW = 40  # columns: shorter lines are headings, table cells or verse, and stay alone
_ITEM = re.compile(r"\s*(?:[•◦▪■●○·–—*+>|=#-]|\d{1,2}(?:\.\d{1,2})*[.)]?\s|\(?[a-zA-Z0-9]\)|```|~~~|:\s)")


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
