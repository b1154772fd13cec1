"""(conversation, utterance) -> Query: what to search for this turn.

Only a turn that leans on what was said before is rewritten, by the generator itself (RAG-Token over one branch is
plain decoding), and a rewrite that brings in words nobody said is not believed: the query is then the last
utterance that stood alone and this one together. The raw utterance is searched beside whatever comes of it.
"""

from __future__ import annotations

import re
from typing import Protocol

from chatbot.conversation import Conversation, Query
from chatbot.generate import generate
from chatbot.generators.base import Generator
from chatbot.language import detect, words
from chatbot.prompt import rewrite_prompt
from chatbot.sampling import Sampling

SMALL_TALK = re.compile(
    r"\W*(hi|hello|hey|good (morning|afternoon|evening|night|day)|thanks?( you)?( very much| so much| a lot)?"
    r"|cheers|bye|goodbye"
    r"|ok(ay)?|great|cool|nice|你好|您好|早上好|晚上好|谢谢|多谢|再见|好的|嗨|hallo|danke|tschüss|bonjour|salut|merci|hola|gracias)"
    r"(\W+(there|all|everyone|again|你|您|了|啊))?\W*",
    re.IGNORECASE,
)
LEANS = {
    "en": re.compile(
        r"\b(it|its|itself|they|them|their|theirs|he|him|his|she|her|hers|this|that|these|those|else|above|previous|again"
        r"|the same|the former|the latter|the others?|tell me more|say more|more about|may one)\b"
        r"|\b(this|that|which|another|first|second|third|last|next|other|any|each) ones?\b"
        r"|\b(?<!is )(?<!are )there\b(?! is| are)"
        r"|^\W*(and|but|or|so|also|then|what about|how about|why|what else|which|who else|when|where|how come)\b"
        r"(\W*\w+){0,3}\W*$"
        r"|^\W*(and|but|also|what about|how about)\b",
        re.IGNORECASE,
    ),
    "zh": re.compile(
        "[它他她]|[这那此该其]|上述|上面|前者|后者|第[一二三四五]|同样|另外|其他|还有|然后|为什么[？?]?$|呢[？?]?$|^(那|而|但)"
    ),
}
SHORT = {"en": 3, "zh": 6}  # a follow-up of so few words (in Chinese: characters) is taken to lean on what came before


class Rewriter(Protocol):
    def rewrite(self, conversation: Conversation, utterance: str) -> Query: ...


class Verbatim:
    """Searches every utterance as it was typed."""

    def rewrite(self, conversation: Conversation, utterance: str) -> Query:
        return Query(utterance, utterance, detect(utterance, conversation.language))


class ByGenerator:
    """Greetings search nothing; a turn that leans on the conversation is rewritten by the generator."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def rewrite(self, conversation: Conversation, utterance: str) -> Query:
        language = detect(utterance, conversation.language)
        if SMALL_TALK.fullmatch(utterance):
            return Query(utterance, "", language)
        asked = [turn for turn in conversation.turns if turn.query.text]
        if not asked or not leans(utterance, language):
            return Query(utterance, utterance, language)
        rewritten = self._generate(conversation, utterance, language)
        if not believable(rewritten, conversation, utterance):
            alone = [turn for turn in asked if not turn.query.rewritten] or asked
            rewritten = f"{alone[-1].utterance} {utterance}"
        return Query(utterance, rewritten, language)

    def _generate(self, conversation: Conversation, utterance: str, language: str) -> str:
        prompt = rewrite_prompt(conversation, utterance, language)
        text = ""
        for token in generate(self._generator, [prompt], [1.0], Sampling(max_tokens=48)):
            text += token.text
            if "\n" in text.strip():
                break
        return text.strip().partition("\n")[0].strip()


def leans(utterance: str, language: str) -> bool:
    """Whether a turn seems to need the conversation to be understood. Errs towards yes."""
    size = len(re.findall(r"\w", utterance)) if language == "zh" else len(re.findall(r"\w+", utterance))
    pattern = LEANS.get(language, LEANS["en"])
    return size <= SHORT.get(language, SHORT["en"]) or bool(pattern.search(utterance))


def believable(rewritten: str, conversation: Conversation, utterance: str) -> bool:
    """Whether a rewrite is of a question's length, keeps what was asked, and adds only words that were said."""
    if not rewritten or len(rewritten) > 2 * len(utterance) + 200:
        return False
    said = " ".join(f"{turn.utterance} {turn.query.text} {turn.reply.text}" for turn in conversation.turns)
    if any(rewritten == turn.query.text for turn in conversation.turns):
        return False
    return _terms(rewritten) <= _terms(f"{utterance} {said}") | FUNCTION_WORDS


def _terms(text: str) -> set[str]:
    """Words; of Chinese and Japanese the characters, since another order makes other pairs of them."""
    return {word for word in words(text) if len(word) == 1 or word.isascii()}


FUNCTION_WORDS = frozenset(
    words(
        "a an the of in on at to for from by with about as into is are was were be been do does did has have had can "
        "could will would should may might what which who whom whose when where why how and or not no than then "
        "many much "
        "的 是 了 在 有 和 与 吗 什么 怎么 如何 哪 个 谁 多少 为什么 时候"
    )
)
