"""The page as a part of a web application: with its look, its headers, its limits and what stands before it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import gradio as gr
from fastapi import FastAPI
from gradio.utils import get_upload_folder
from starlette.middleware.cors import CORSMiddleware

from ui.app import App, build_app
from ui.assets import theme
from ui.chat import chats
from ui.front import Fixed, OwnNames, OwnOrigins, OwnRoutes, Uploads, checked

if TYPE_CHECKING:
    from chatbot import Chatbot


def mount(
    app: FastAPI,
    chatbot: Chatbot | gr.Blocks,
    path: str = "/",
    *,
    names: Sequence[str] | None = (),
    frames: Sequence[str] = (),
    root_path: str = "",
    max_file_mb: int | None = None,
    **options: Any,
) -> FastAPI:
    """Serves the page of a chatbot at `path` of a FastAPI application, as `marginalia serve` does; gives `app` back.

    The routes of the application itself stay as they are; with `path` "/", define them before. `chatbot`: or a page of
    your own that holds a `RagChat`. `names`, `frames`, `root_path`: see `mounted`. `max_file_mb`: of an upload; None:
    the chatbot's setting. `options`: those of `build_app`.
    """
    if isinstance(chatbot, gr.Blocks):
        if options:
            raise TypeError(f"{', '.join(options)}: these are for build_app; this page is built already")
        page, most = chatbot, max_file_mb or 100
    else:
        page, most = build_app(chatbot, **options), max_file_mb or chatbot.settings.max_file_mb
    site = mounted(page, most, names, frames=frames, root_path=root_path)
    own = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def with_the_page(host: FastAPI) -> AsyncIterator[Any]:
        async with own(host) as state, site.router.lifespan_context(site):
            try:
                yield state
            finally:  # before the host closes the chatbot
                for chat in chats(page):
                    await asyncio.to_thread(chat.close)

    app.router.lifespan_context = with_the_page
    app.mount(path, site)
    return app


def mounted(
    page: gr.Blocks,
    max_file_mb: int,
    names: Sequence[str] | None = None,
    *,
    addresses: bool = False,
    frames: Sequence[str] = (),
    root_path: str = "",
) -> FastAPI:
    """The page as an ASGI application that loads nothing from outside and tells nobody anything.

    `names`: it answers under this machine's own names and these alone; None: under any. `addresses`: and under any
    numeric one. `frames`: sites whose pages may show it in a frame. `root_path`: the prefix under which a proxy shows
    it, or the whole address, where the proxy takes that off. Raises SiteUnusable.
    """
    root_path = checked(frames, root_path)
    public = urlsplit(root_path)
    prefix, known = public.path, (*(names or ()), *([public.hostname] if public.hostname else ()))
    site = FastAPI(openapi_url=None)
    # the last that is added is the first that is asked
    site.add_middleware(CORSMiddleware, allow_origins=())  # where there is one, gradio adds none that is laxer
    site.add_middleware(Uploads, folder=Path(get_upload_folder()), max_file_mb=max_file_mb, prefix=prefix)
    if isinstance(page, App):
        site.add_middleware(OwnRoutes, prefix=prefix)
    site.add_middleware(OwnOrigins, names=known)
    if names is not None:
        site.add_middleware(OwnNames, names=known, addresses=addresses)
    site.add_middleware(Fixed, frames=frames)
    page.has_launched = True  # gradio then checks the paths that it is sent: see ui.guard
    return gr.mount_gradio_app(
        site,
        page,
        path="/",
        root_path=root_path or None,
        theme=theme(),
        footer_links=[],
        run_history=False,  # gradio would keep every question and reply, unencrypted, in the browser
        ssr_mode=False,
        max_file_size=f"{max_file_mb}mb",
        allowed_paths=None,
        show_error=False,  # what went wrong inside is told to the log
    )
