"""The whole path on the real default weights: MiniLM and SmolLM2, fetched and converted as a first start does."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatbot import Answered, Chatbot, Conversation, Token, Turn, open_chatbot
from chatbot.assemble import sample_folder

LIGHTHOUSE = (
    "# The lighthouse of Port Ellery\n\n"
    "The lighthouse of Port Ellery was built in 1873 by the engineer Agnes Thorburn.\n\n"
    "# The harbour café\n\nThe harbour café of Port Ellery serves smoked mackerel on Fridays."
)


@pytest.fixture(scope="module")
def chatbot(default_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chatbot]:
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(default_models, home / "models", dirs_exist_ok=True)
    with open_chatbot(home, max_reply_tokens=48) as opened:
        list(opened.knowledge.add_all([sample_folder()]))
        yield opened


def ask(chatbot: Chatbot, utterance: str, conversation: Conversation | None = None) -> tuple[Turn, list[Token]]:
    *before, last = chatbot.answer(conversation or Conversation(), utterance)
    assert isinstance(last, Answered)
    return last.turn, [event for event in before if isinstance(event, Token)]


def test_the_sample_documents_answer_a_first_question_with_their_source(chatbot: Chatbot) -> None:
    turn, tokens = ask(chatbot, "How do I delete a document?")
    assert "delete in the row of that document" in turn.reply.text.lower()
    cited = {citation.passage_id for citation in turn.reply.citations}
    assert cited == {turn.hits[0].passage.id}
    assert turn.hits[0].passage.document.endswith("documents.md")
    for token in tokens:
        joint = [a * math.exp(likelihood) for a, likelihood in zip(token.prior, token.log_likelihoods, strict=True)]
        assert token.posterior == pytest.approx([share / sum(joint) for share in joint], abs=1e-6)


def test_upload_ask_cite_delete_ask_again(chatbot: Chatbot, tmp_path: Path) -> None:
    (tmp_path / "ellery.md").write_text(LIGHTHOUSE)
    added = chatbot.knowledge.add(tmp_path / "ellery.md")
    question = "In which year was the lighthouse of Port Ellery built?"
    turn, _ = ask(chatbot, question)
    assert "1873" in turn.reply.text
    assert turn.reply.citations[0].passage_id.startswith(added.document_id)
    assert chatbot._generator.cache.size > 0
    chatbot.knowledge.delete(added.document_id)
    assert chatbot._generator.cache.size == 0
    again, _ = ask(chatbot, question)
    assert again.reply.abstained
    assert "1873" not in again.reply.text
    assert all(hit.passage.document_id != added.document_id for hit in again.hits)


def test_follow_ups_over_three_turns_find_the_passage_they_mean(chatbot: Chatbot, tmp_path: Path) -> None:
    (tmp_path / "ellery.md").write_text(LIGHTHOUSE)
    added = chatbot.knowledge.add(tmp_path / "ellery.md")
    conversation = Conversation()
    for utterance, heading in (
        ("Who built the lighthouse of Port Ellery?", "The lighthouse of Port Ellery"),
        ("And when was it built?", "The lighthouse of Port Ellery"),
        ("And what does the café there serve?", "The harbour café"),
    ):
        turn, _ = ask(chatbot, utterance, conversation)
        assert turn.hits[0].passage.heading == heading, turn.query
        conversation = conversation.plus(turn)
    assert all(turn.query.rewritten for turn in conversation.turns[1:])
    chatbot.knowledge.delete(added.document_id)


def test_chinese_questions_find_the_chinese_guide(chatbot: Chatbot) -> None:
    turn, _ = ask(chatbot, "如何删除文档？")
    assert turn.query.language == "zh"
    assert "zh/文档.md" in [hit.passage.document for hit in turn.hits[:2]]


def test_no_reply_repeats_one_to_another_question(chatbot: Chatbot, tmp_path: Path) -> None:
    """A small model says again what it said last, to an emoji or to a question that it has nothing for."""
    (tmp_path / "ellery.md").write_text(LIGHTHOUSE)
    added = chatbot.knowledge.add(tmp_path / "ellery.md")
    conversation = Conversation()
    asked = (
        "In which year was the lighthouse of Port Ellery built?",
        "👍",
        "why?",
        "In which year was the lighthouse of Port Ellery built?",
    )
    for utterance in asked:
        turn, _ = ask(chatbot, utterance, conversation)
        conversation = conversation.plus(turn)
    built, thumb, why, again = (turn.reply for turn in conversation.turns)
    assert "1873" in built.text and again.text == built.text
    assert "1873" not in thumb.text and not thumb.sourced
    assert why.text != built.text
    chatbot.knowledge.delete(added.document_id)
