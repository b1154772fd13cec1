"""The page in a real browser: needs Chromium (apt-get install chromium fonts-noto-cjk), or MARGINALIA_CHROMIUM=path."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("playwright", reason="pip install playwright")

import gradio as gr
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from ui.server import listen, mounted

CHROMIUM = os.environ.get("MARGINALIA_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)
Visit = Callable[..., Page]

expect.set_options(timeout=15_000)


def serving(page: gr.Blocks, max_file_mb: int = 5, **options: Any) -> AbstractContextManager[str]:
    """The page's address while it is served as `ui.server.serve` does."""
    return serving_site(mounted(page, max_file_mb, names=(), **options))


@contextmanager
def serving_site(site: Any) -> Iterator[str]:
    """An ASGI application's address while it is served."""
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(site, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no Chromium: apt-get install chromium, or set MARGINALIA_CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield browser
        browser.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    with ExitStack() as servers:
        yield lambda page, **options: servers.enter_context(serving(page, **options))


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens an address in a browser of its own, or in that of `beside`. Nothing may be asked of any other machine."""
    hosts: set[str | None] = set()
    dialogs: list[str] = []
    contexts = []

    def open_page(address: str, *, beside: Page | None = None, locale: str = "en-US") -> Page:
        context = beside.context if beside else browser.new_context(locale=locale)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(address)
        page.locator(".mg-chat textarea").first.wait_for()
        return page

    yield open_page
    for context in dict.fromkeys(contexts):
        context.close()
    assert hosts - {None, ""} == {"127.0.0.1"}
    assert dialogs == []
