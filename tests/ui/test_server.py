"""Which requests the page's server answers; the rest of it is tested in the browser."""

from __future__ import annotations

import gradio as gr
import pytest
from starlette.testclient import TestClient

from ui.server import mounted


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:7860", 200),
        ("127.0.0.1", 200),
        ("[::1]:7860", 200),
        ("LOCALHOST.", 200),
        ("docs.example.org", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.168.0.7", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_the_page_answers_under_its_own_names_alone(host: str, status: int):
    site = mounted(gr.Blocks(), 5, names=["Docs.Example.org"])
    answer = TestClient(site).get("/", headers={"host": host})
    assert answer.status_code == status
    assert status == 200 or "--name" in answer.text
