"""(conversation, utterance) -> Query: what to search for this turn.

Only a turn that leans on what was said before is rewritten: by words of the conversation, or by the generator itself
(RAG-Token over one branch is plain decoding), whose rewrite is not believed where it brings in words nobody said. The
raw utterance is searched beside whatever comes of it. See docs/retrieval.md for what each finds and costs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from chatbot.conversation import Conversation, Query, Turn
from chatbot.errors import UnusableUtterance
from chatbot.generate import generate
from chatbot.generators.base import Generator
from chatbot.language import detect, words
from chatbot.prompt import conversational, rewrite_prompt
from chatbot.sampling import Sampling

SMALL_TALK = re.compile(
    r"\A\W*(hi|hello|hey|good (morning|afternoon|evening|night|day)|thanks?( you)?( very much| so much| a lot)?"
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
        r"(?:\W*+\w++){0,3}+\W*$"
        r"|^\W*(and|but|also|what about|how about)\b",
        re.IGNORECASE,
    ),
    "zh": re.compile(
        "[它他她]|[这那此该其]|上述|上面|前者|后者|第[一二三四五]|同样|另外|其他|还有|然后|为什么[？?]?$|呢[？?]?$|^(那|而|但)"
    ),
}
_WORD, _CHARACTER = re.compile(r"\w+"), re.compile(r"\w")
TOLD = 9  # earlier utterances that history terms come from: see docs/retrieval.md
MOST_TERMS = 4  # history terms: see docs/retrieval.md
LONG = 400  # characters: who writes so much says what it is about
SHORT = {"en": 5, "zh": 8}  # a follow-up of so few words (in Chinese: characters) is taken to lean on what came before


class Rewriter(Protocol):
    def rewrite(self, conversation: Conversation, utterance: str) -> Query: ...


class Vocabulary(Protocol):
    """What an index knows of words."""

    def importance(self, words: Sequence[str]) -> Mapping[str, float]:
        """How much each of these words, as `language.words` gives them, tells one passage from the others: idf.

        Words that occur in no passage are left out.
        """


class Counted:
    """The vocabulary of texts at hand, where there is no index."""

    def __init__(self, texts: Iterable[str]) -> None:
        held = [set(words(text)) for text in texts]
        self._texts = len(held)
        self._holding = Counter(word for each in held for word in each)

    def importance(self, words: Sequence[str]) -> dict[str, float]:
        return {word: math.log(1 + self._texts / self._holding[word]) for word in words if word in self._holding}


class Verbatim:
    """Searches every utterance as it was typed; a greeting searches nothing."""

    def rewrite(self, conversation: Conversation, utterance: str) -> Query:
        return _where_needed(conversation, utterance, lambda conversation, utterance, language: utterance)


class ByTerms:
    """Puts the words of earlier utterances that tell most before a turn that leans on them.

    Historical query expansion (Lin et al. 2020, arXiv 2005.02230), with a word's importance in the index in place of
    thresholds on BM25's score: those are of a collection, and a person's documents are of any size.
    """

    def __init__(self, vocabulary: Vocabulary | None = None) -> None:
        """`vocabulary`: None where no index is known; all words but the commonest then count the same."""
        self._vocabulary = vocabulary

    def rewrite(self, conversation: Conversation, utterance: str) -> Query:
        return _where_needed(conversation, utterance, self._write)

    def _write(self, conversation: Conversation, utterance: str, language: str) -> str:
        told = " ".join(turn.utterance for turn in _earlier(conversation)[-TOLD:])
        known = set(words(utterance)) | FUNCTION_WORDS
        spelt: dict[str, str] = {}  # by its stem; the latest spelling
        for word in _WORD.findall(told):
            spelt |= dict.fromkeys((stem for stem in words(word) if stem not in known), word)
        importance = dict.fromkeys(spelt, 1.0) if self._vocabulary is None else self._vocabulary.importance(list(spelt))
        best = sorted(importance, key=lambda stem: -importance[stem])[:MOST_TERMS]
        terms = dict.fromkeys(_spelling(stem, word) for stem, word in spelt.items() if stem in best)
        return " ".join([*terms, utterance])


class ByGenerator:
    """Asks the generator for a question that stands alone. `worked`: with examples, which a trained one needs not."""

    def __init__(self, generator: Generator, worked: bool = True) -> None:
        self._generator = generator
        self._worked = worked

    def forget(self) -> None:
        """Drop what its generator keeps of what it read."""
        if (forget := getattr(self._generator, "forget", None)) is not None:
            forget()

    def rewrite(self, conversation: Conversation, utterance: str) -> Query:
        return _where_needed(conversation, utterance, self._write)

    def _write(self, conversation: Conversation, utterance: str, language: str) -> str:
        """The raw utterance where what comes is no rewrite of it, or all this is more than the generator reads."""
        try:
            rewritten = self._generate(conversation, utterance, language)
        except UnusableUtterance:
            return utterance
        return rewritten if believable(rewritten, conversation, utterance) else utterance

    def _generate(self, conversation: Conversation, utterance: str, language: str) -> str:
        prompt = rewrite_prompt(conversation, utterance, language, self._worked)
        text = ""
        for token in generate(self._generator, [prompt], [1.0], Sampling(max_tokens=48)):
            text += token.text
            if "\n" in text.strip():
                break
        return text.strip().partition("\n")[0].strip()


def _spelling(stem: str, word: str) -> str:
    """The word as it was written; of a run of characters without spaces, those that the stem is."""
    return word if len(words(word)) == 1 else stem


Write = Callable[[Conversation, str, str], str]  # conversation, utterance, language -> the text to search


def _where_needed(conversation: Conversation, utterance: str, write: Write) -> Query:
    """A greeting, or a turn without a word, searches nothing; only one that leans on the conversation is rewritten."""
    language = detect(utterance, conversation.language)
    if SMALL_TALK.fullmatch(utterance) or not words(utterance):
        return Query(utterance, "", language)
    earlier = _earlier(conversation)
    if not earlier:
        return Query(utterance, utterance, language)
    if (asked := _asked_before(earlier, utterance)) is not None:
        return asked
    context = conversational(conversation, utterance)
    if not leans(utterance, language):
        return Query(utterance, utterance, language, context=context)
    return Query(utterance, write(conversation, utterance, language), language, context=context, leans=True)


def _asked_before(earlier: Sequence[Turn], utterance: str) -> Query | None:
    """The query of the same question, where that stood alone and was answered: it is searched as it was then."""
    same = (
        turn.query
        for turn in reversed(earlier)
        if turn.utterance == utterance and not (turn.query.leans or turn.query.edited or turn.reply.abstained)
    )
    return next(same, None)


def _earlier(conversation: Conversation) -> list[Turn]:
    """The turns that asked something."""
    return [turn for turn in conversation.turns if turn.query.text]


def leans(utterance: str, language: str) -> bool:
    """Whether a turn seems to need the conversation to be understood. Errs towards yes, but for pasted text."""
    if len(utterance) > LONG:
        return False
    size = len((_CHARACTER if language == "zh" else _WORD).findall(utterance))
    pattern = LEANS.get(language, LEANS["en"])
    return size <= SHORT.get(language, SHORT["en"]) or bool(pattern.search(utterance))


def believable(rewritten: str, conversation: Conversation, utterance: str) -> bool:
    """Whether it is of a question's length, keeps half of the words that ask, and adds only words that were said."""
    if not rewritten or len(rewritten) > 2 * len(utterance) + 200:
        return False
    said = " ".join(f"{turn.utterance} {turn.query.text} {turn.reply.text}" for turn in conversation.turns)
    if any(rewritten == turn.query.text for turn in conversation.turns):
        return False
    pointing = LEANS.get(detect(utterance, conversation.language), LEANS["en"])
    asked = _terms(pointing.sub(" ", utterance)) - FUNCTION_WORDS
    if 2 * len(asked & _terms(rewritten)) < len(asked):
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
