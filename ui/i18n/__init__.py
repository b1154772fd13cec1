"""The interface's own words, in English and Chinese.

gradio's `I18n` belongs to `launch()`, which is the host's, and does not reach the texts that Python produces: so the
page asks the browser's Accept-Language when it loads and sets its words itself. gradio's own words follow the browser.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

LANGUAGES = ("en", "zh")

Texts = Mapping[str, str]


@cache
def texts(language: str) -> Texts:
    """`language`: one of LANGUAGES."""
    return dict(json.loads((files(__name__) / f"{language}.json").read_text(encoding="utf-8")))


def preferred(accept_language: str) -> str:
    """The language of LANGUAGES that an Accept-Language header likes best; English where it names none."""
    liked = []
    for position, item in enumerate(accept_language.split(",")):
        tag, _, parameters = item.strip().partition(";")
        language = tag.strip().lower().partition("-")[0]
        if language in LANGUAGES:
            liked.append((-_quality(parameters), position, language))
    return min(liked)[2] if liked else LANGUAGES[0]


def _quality(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    try:
        return float(value) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0


@cache
def failures(language: str) -> Texts:
    """What the library says of failures and of files, in English with "{}" for each value -> the same in another
    language. Empty for English, which the library speaks."""
    file = files(__name__) / f"failures.{language}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def said(message: str, words: Texts) -> str:
    """A message of the library in the language of `words`; as it is where that has none.

    It is known again by its text, so that what was kept of an earlier start, or came from the process that reads
    files, is told in the language of whoever looks.
    """
    for template, translated in _most_told_first(words["language"]):
        values = _values(template, message)
        if values is not None:
            return translated.format(*(said(value, words) if value != message else value for value in values))
    return message


@cache
def _most_told_first(language: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(failures(language).items(), key=lambda pair: -len(pair[0])))


def _values(template: str, message: str) -> list[str] | None:
    """What stands in a message at each "{}" of the template; None where it is another's."""
    first, *others = template.split("{}")
    if not others:
        return [] if message == template else None
    if not message.startswith(first) or not message.endswith(others[-1]):
        return None
    values, place, end = [], len(first), len(message) - len(others[-1])
    for literal in others[:-1]:
        found = message.find(literal, place, end)
        if found < 0:
            return None
        values.append(message[place:found])
        place = found + len(literal)
    return [*values, message[place:end]] if place <= end else None
