"""How the page looks: files of ours that go to the browser, the theme, and the list that two parts of the application
are made of."""

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


def theme() -> gr.themes.ThemeClass:
    """Quiet, with fonts that the visitor's machine has."""
    sans = ("ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC")
    return gr.themes.Base(
        primary_hue="slate",
        neutral_hue="stone",
        radius_size="md",
        font=[*sans, "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    ).set(
        body_text_color_subdued="#6f6a63",
        body_text_color_subdued_dark="#a8a29a",
        body_background_fill="#faf9f6",
        body_background_fill_dark="#171614",
        block_background_fill_dark="#1f1e1b",
        background_fill_primary_dark="#1f1e1b",
        background_fill_secondary_dark="#262420",
        input_background_fill_dark="#1f1e1b",
    )
