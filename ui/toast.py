"""Short notes over the page, which gradio shows for queued events only and heads in English."""

from __future__ import annotations

import gradio as gr

from ui.i18n import Texts, said
from ui.render import escape


def warn(text: str, words: Texts) -> None:
    """`text`: the page's own, or what the library says of a failure."""
    gr.Warning(escape(said(text, words)))


def inform(text: str) -> None:
    gr.Info(escape(text))
