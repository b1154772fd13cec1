"""What was searched, as a person reads it. Pure.

Words of scripts without spaces are searched as characters and pairs of them: "删 除 删除 除文". Shown are the words of
the conversation that they come from.
"""

from __future__ import annotations

import re

from chatbot import Query

_SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_PIECE = re.compile(f"[{_SPACELESS}]{{1,2}}")
_AROUND = re.compile(  # what is no part of the word that a piece belongs to
    f"[^{_SPACELESS}]+|什么|怎么|如何|哪里|哪些|哪个|多少|为什么|时候|可以|需要|有没有"
    "|[的是了在有和与吗呢啊吧个谁哪我你您他她它们请能会要把被对从到也都还这那]"
)


def readable(query: Query) -> str:
    """`query.text` with whole words in place of the pieces before its utterance."""
    terms = query.text.removesuffix(query.utterance).split()
    if not query.text.endswith(query.utterance) or not any(map(_PIECE.fullmatch, terms)):
        return query.text
    said = [word for word in _AROUND.split(query.context.removeprefix(query.utterance)) if word]
    shown: dict[str, None] = {}
    for term in sorted(terms, key=lambda term: -len(term) if _PIECE.fullmatch(term) else 0):
        if not _PIECE.fullmatch(term):
            shown[term] = None
        elif not any(term in word for word in shown):
            shown[next((word for word in said if term in word), term)] = None
    ordered = sorted(shown, key=lambda word: min(n for n, term in enumerate(terms) if term in word))
    return " ".join([*ordered, query.utterance])
