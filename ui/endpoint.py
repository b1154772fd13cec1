"""The endpoint by which programs ask: each client's utterances are one conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from chatbot import Answered, Conversation, MarginaliaError, Scope
from ui.run import Busy, Turns

if TYPE_CHECKING:
    from chatbot import Chatbot


def offer_endpoint(chatbot: Chatbot, api_name: str, scope: Scope, limits: dict[str, Any], turns: Turns) -> None:
    """To be called where the components of the page are laid out. `limits`: of gradio's queue. `turns`: of all ways."""

    def ask(utterance: str, conversation: Conversation) -> tuple[str, dict[str, Any], Conversation]:
        try:
            with turns.one(queued=False):
                *_, last = chatbot.answer(conversation, utterance, scope=scope)
        except Busy as error:
            raise gr.Error(f"Too many wait: ask by the queue, at /call/{api_name}", print_exception=False) from error
        except MarginaliaError as error:
            raise gr.Error(str(error), print_exception=False) from error
        if not isinstance(last, Answered):
            raise RuntimeError(f"a turn ended with {last!r}")
        return last.turn.reply.text, last.turn.as_json(), conversation.plus(last.turn)

    conversation = gr.State(Conversation())
    utterance, reply = gr.Textbox(visible=False, label="utterance"), gr.Textbox(visible=False, label="reply")
    sources = gr.JSON(visible=False, label="sources")
    gr.Button(visible=False).click(
        ask,
        [utterance, conversation],
        [reply, sources, conversation],
        api_name=api_name,
        api_description="Answers an utterance; the client's earlier ones are the conversation. Gives the reply "
        "and, as JSON, its query, citations and passages.",
        **limits,
    )
