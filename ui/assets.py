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


def keeping(arguments: str, body: str) -> str:
    """A function for gradio's `js`: its body can `read` and `write` what the browser keeps, by store and name.

    Where the browser keeps nothing, as for a page in another site's frame, the tab's memory does as long as it is open.
    """
    return f"""({arguments}) => {{
  const memory = window.marginaliaKept ??= {{}};
  const read = (store, name) => {{
    try {{ return window[store].getItem(name) ?? memory[name] ?? ''; }} catch {{ return memory[name] ?? ''; }}
  }};
  const write = (store, name, value) => {{
    memory[name] = value;
    try {{ window[store].setItem(name, value); }} catch {{ /* memory has it */ }}
  }};
  const own = (store, name) => {{
    const key = read(store, name)
      || [...crypto.getRandomValues(new Uint8Array(16))].map(b => b.toString(16).padStart(2, '0')).join('');
    write(store, name, key);
    return key;
  }};
  {body}
}}"""


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
