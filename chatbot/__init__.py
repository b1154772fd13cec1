"""Chat with documents: a RAG-Token generator that says which source each part of its reply came from.

    from chatbot import Conversation, open_chatbot

    with open_chatbot(home="my-home") as chatbot:
        chatbot.knowledge.add("handbook.pdf")
        for event in chatbot.answer(Conversation(), "How many days of leave are there?"):
            ...

Importing this package loads neither torch nor chromadb nor gradio; opening a chatbot does.
"""

from typing import TYPE_CHECKING

from chatbot.conversation import Asked, Citation, Conversation, Query, Reply, Turn
from chatbot.errors import MarginaliaError
from chatbot.events import Answered, Event, Retrieved, Rewritten, Token
from chatbot.passage import Document, Hit, Page, Passage
from chatbot.scope import DEFAULT as DEFAULT_COLLECTION
from chatbot.scope import EVERYTHING, Scope

if TYPE_CHECKING:
    from chatbot.assemble import Chatbot, open_chatbot

__all__ = [
    "DEFAULT_COLLECTION",
    "EVERYTHING",
    "Answered",
    "Asked",
    "Chatbot",
    "Citation",
    "Conversation",
    "Document",
    "Event",
    "Hit",
    "MarginaliaError",
    "Page",
    "Passage",
    "Query",
    "Reply",
    "Retrieved",
    "Rewritten",
    "Scope",
    "Token",
    "Turn",
    "open_chatbot",
]


def __getattr__(name: str) -> object:
    if name in ("Chatbot", "open_chatbot"):
        from chatbot import assemble

        return getattr(assemble, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
