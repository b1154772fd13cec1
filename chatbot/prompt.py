"""The words put to a generator, per language. A prompt keeps its parts apart, in the order they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from chatbot.conversation import Conversation, Query
from chatbot.passage import Hit, Passage

_NUMBER_SIGNS = re.compile(r"^#+ +", re.MULTILINE)
_HEADING = re.compile(r"^#+ .*$", re.MULTILINE)
TURNS = 2  # earlier turns that a branch reads: each is read again in every branch


@dataclass(frozen=True, slots=True)
class Prompt:
    """One branch. What stands before `conversation` depends on the passage alone, so it can be cached."""

    instruction: str
    passage: str | None  # None: the "no passage" branch
    conversation: tuple[tuple[str, str], ...]  # (utterance, reply), oldest first
    query: str
    label: str = ""  # put before the passage
    title: str = field(default="", compare=False)  # of the passage's document, for models trained with titles


@dataclass(frozen=True, slots=True)
class Words:
    """Everything the program itself says to a generator, or to a person in a reply, in one language."""

    answer: str
    text: str
    chat: str
    nothing_found: str
    unsure: str  # followed by a quotation
    no_documents: str
    add_by_command: str  # said after it on the command line
    listening: str  # to a turn that searches nothing, where the generator has no words of its own
    unsourced: str  # said under a reply that cites nothing
    cut: Mapping[str, str]  # the notice that this part of a prompt did not fit the window
    looped: str  # the notice that a reply said the same again and again


WORDS = {
    "en": Words(
        answer="Answer the question briefly with words from the text.",
        text="Text: ",
        chat="You are a friendly assistant that answers questions about documents. Reply in one short sentence.",
        nothing_found="The documents don't hold an answer to this.",
        unsure="I can't answer this reliably from the documents. The closest passage says: ",
        no_documents="There are no documents to search.",
        add_by_command="Add some with the command `ingest`, then ask again.",
        listening="What would you like to know from your documents?",
        unsourced="This was said without a source.",
        cut={
            "conversation": "Earlier turns were left out: the conversation is longer than the model can read.",
            "passage": "Part of the passages was not read: they are longer than the model can read.",
        },
        looped="The reply was ended here because it repeated itself.",
    ),
    "zh": Words(
        answer="请用文中的话简短地回答问题。",
        text="文字：",
        chat="你是一个友好的助手，回答有关用户文档的问题。请用一句话回答。",
        nothing_found="文档中没有这个问题的答案。",
        unsure="我无法根据文档可靠地回答。最接近的段落写道：",
        no_documents="没有可检索的文档。",
        add_by_command="请先用命令 `ingest` 添加，然后再提问。",
        listening="您想从文档中了解什么？",
        unsourced="此回复没有出处。",
        cut={
            "conversation": "对话太长，模型读不完：较早的几轮没有读。",
            "passage": "段落太长，模型读不完：有一部分没有读。",
        },
        looped="回答开始重复，因此在此结束。",
    ),
}


def words_for(language: str) -> Words:
    """English for a language that has none of its own."""
    return WORDS.get(language, WORDS["en"])


def answer_prompts(
    conversation: Conversation, query: Query, hits: Sequence[Hit], reads: Sequence[Sequence[int]] | None = None
) -> list[Prompt]:
    """One a branch. `reads`: the hits that each reads, see `branches`; None: each alone, and "no passage" last.

    A question that stands alone is put alone: to a small model, what was said before is one more thing to mix up.
    """
    put = words_for(query.language)
    told = _recent(conversation) if query.leans or query.rewritten else ()
    reads = [*([place] for place in range(len(hits))), []] if reads is None else reads
    branches = [_together([hits[place].passage for place in places]) for places in reads]
    return [Prompt(put.answer, text, told, query.question, put.text, name) for text, name in branches]


def _together(passages: Sequence[Passage]) -> tuple[str | None, str]:
    """What one branch reads, one passage behind the other, and the titles; None for no passage."""
    if not passages:
        return None, ""
    return "\n\n".join(map(readable, passages)), ", ".join(dict.fromkeys(map(title, passages)))


def chat_prompt(conversation: Conversation, query: Query) -> Prompt:
    """For a turn that searches nothing, such as a greeting."""
    return Prompt(words_for(query.language).chat, None, _recent(conversation), query.utterance)


def readable(passage: Passage) -> str:
    """The passage under its headings, which often name what it is about, without Markdown's marks for them."""
    text = _NUMBER_SIGNS.sub("", passage.text)
    last = passage.heading.rpartition(" › ")[2]
    return text if not last or text.startswith(last) else f"{passage.heading}\n{text}"


def title(passage: Passage) -> str:
    """The document's name without its folders and its suffix."""
    return PurePosixPath(passage.document).stem


def excerpt(passage: Passage, length: int = 300) -> str:
    """The passage's text on one line, cut between words, without its heading."""
    text = " ".join(_HEADING.sub("", passage.text).split())
    if len(text) <= length:
        return text
    return f"{text[:length].rpartition(' ')[0] or text[:length]} …"


def _recent(conversation: Conversation) -> tuple[tuple[str, str], ...]:
    """The latest turns that asked something: small generators take up what is said after a greeting."""
    asked = [turn for turn in conversation.turns if turn.query.text]
    return tuple((turn.query.question, turn.reply.text) for turn in asked[-TURNS:])


QUESTIONS = {  # worked examples: (a text, a question that it answers)
    "en": (
        "Write one short question that the text answers. Only write the question.",
        (
            ("The canteen opens at noon and serves soup on Fridays.", "When does the canteen open?"),
            ("The bridge was built by Anna Berg in 1911, of steel.", "Who built the bridge?"),
        ),
    ),
    "zh": (
        "写一个可以用这段文字回答的简短问题。只写问题。",
        (
            ("食堂中午开门，星期五有汤。", "食堂几点开门？"),
            ("这座桥是1911年由王明用钢建造的。", "这座桥是谁建造的？"),
        ),
    ),
}


def question_prompt(text: str, language: str) -> Prompt:
    """To make a question of a text."""
    instruction, examples = QUESTIONS.get(language, QUESTIONS["en"])
    return Prompt(instruction, None, examples, text)


def conversational(conversation: Conversation, utterance: str) -> str:
    """A turn with what was said before it, for a query encoder that learned to read that.

    The latest reply, then what the person said, latest first, as far as there is room: an encoder that cuts, cuts
    what is oldest.
    """
    turns = conversation.turns[::-1]
    replies = [" ".join(turn.reply.text.split())[:SAID_LENGTH] for turn in turns[:2]]
    said = [" ".join(turn.utterance.split())[:SAID_LENGTH] for turn in turns]
    parts = [" ".join(utterance.split())[:ENCODED_LENGTH], *replies[:1], *said, *replies[1:]]
    room = ENCODED_LENGTH
    kept: list[str] = []
    for part in filter(None, parts):
        if kept and len(part) > room:
            break
        kept.append(part)
        room -= len(part)
    return BETWEEN.join(kept)


REWRITES = {  # worked examples: (what was said, the question that stands alone)
    "en": (
        "Rewrite the last question so that it can be understood alone. Only answer with the question.",
        (
            (
                "Q: Who wrote Hamlet?\nA: William Shakespeare.\nQ: When was he born?",
                "When was William Shakespeare born?",
            ),
            (
                "Q: How do solar panels work?\nA: They turn sunlight into electricity.\nQ: And what do they cost?",
                "What do solar panels cost?",
            ),
            (
                "Q: Which courses does the school offer?\nA: Painting and music.\nQ: When does the second one start?",
                "When does the music course start?",
            ),
        ),
    ),
    "zh": (
        "把最后一个问题改写成不看对话也能理解的完整问题。只回答改写后的问题。",
        (
            ("问：《哈姆雷特》是谁写的？\n答：莎士比亚。\n问：他是哪年出生的？", "莎士比亚是哪年出生的？"),
            ("问：太阳能板怎么工作？\n答：把阳光变成电。\n问：要多少钱？", "太阳能板要多少钱？"),
        ),
    ),
}
RECALLED = 3  # earlier turns that a rewrite may draw on
REPLY_LENGTH = 200  # characters of each reply that it sees
BETWEEN = " [SEP] "  # turns that a query encoder reads: it is BERT's mark, and tells a conversation from a lone text
SAID_LENGTH = 120  # characters of each earlier utterance that a query encoder reads
ENCODED_LENGTH = 400  # characters of all that it reads: about 90 tokens, so that it takes milliseconds


def rewrite_prompt(conversation: Conversation, utterance: str, language: str, worked: bool = True) -> Prompt:
    """Worked examples as earlier turns, then what was said, ending with the utterance.

    `worked`: a generator that was trained to rewrite needs no examples, and takes half the time without.
    """
    instruction, examples = REWRITES.get(language, REWRITES["en"])
    question, answer = ("问：", "答：") if language == "zh" else ("Q: ", "A: ")
    lines = [
        line
        for turn in conversation.turns[-RECALLED:]
        for line in (
            question + turn.query.question[:REPLY_LENGTH],
            answer + " ".join(turn.reply.text.split())[:REPLY_LENGTH],
        )
    ]
    return Prompt(instruction, None, examples if worked else (), "\n".join([*lines, question + utterance]))
