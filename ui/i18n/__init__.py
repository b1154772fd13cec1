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
