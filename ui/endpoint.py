"""The endpoint by which programs ask: each client's utterances are one conversation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import gradio as gr

from chatbot import Answered, Conversation, Event, MarginaliaError, Scope
from ui.line import Closed, Full, Line

if TYPE_CHECKING:
    from chatbot import Chatbot


def offer_endpoint(chatbot: Chatbot, api_name: str, scope: Scope, line: Line) -> None:
    """To be called where the components of the page are laid out."""

    async def ask(utterance: str, conversation: Conversation) -> tuple[str, dict[str, Any], Conversation]:
        def last_event() -> Event:
            *_, last = chatbot.answer(conversation, utterance, scope=scope)
            return last

        try:
            last = await asyncio.wrap_future(line.put("program", last_event))
        except Full as error:
            raise gr.Error("Too many are asking just now: ask again in a minute", print_exception=False) from error
        except Closed as error:
            raise gr.Error("The server is stopping: ask again once it is back", print_exception=False) from error
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
        concurrency_limit=None,  # the line bounds them, and those that gradio's queue is passed by
    )
