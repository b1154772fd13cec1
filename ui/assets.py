"""Files of ours that go to the browser, and the list that two parts of the application are made of."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import gradio as gr


def stylesheet() -> str:
    return asset("style.css")


def asset(name: str) -> str:
    return (files("ui") / name).read_text(encoding="utf-8")


def listing(**options: Any) -> gr.HTML:
    """Rows with events `open`, `rename` and `remove`: see `render.documents`, `.collections` and `.conversations`."""
    return gr.HTML("", js_on_load=asset("list.js"), apply_default_css=False, elem_classes="mg-app", **options)
