"""The page on the network: at an address of its own, under its own names, with headers that hold it to itself."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatbot import MarginaliaError
from ui.app import build_app
from ui.assets import theme

if TYPE_CHECKING:
    from chatbot import Chatbot


class AddressUnusable(MarginaliaError):
    """The page's address cannot be had: another program is at the port, or it is not this machine's."""


def serve(
    chatbot: Chatbot,
    listener: socket.socket,
    *,
    language: str | None = None,
    examples: Sequence[str] = (),
    concurrency_limit: int | None = 1,
    names: Sequence[str] = (),
) -> None:
    """Serves at an address that `listen` gave, until interrupted. `names`: see `mounted`."""
    host, port = listener.getsockname()[:2]
    private = _is_loopback(host)
    page = build_app(
        chatbot,
        language=language,
        examples=examples,
        concurrency_limit=concurrency_limit,
        shared=not private or bool(names),
    )
    config = uvicorn.Config(
        mounted(page, chatbot.settings.max_file_mb, names if private or names else None),
        log_level="warning",
        timeout_graceful_shutdown=3,  # an open tab holds its connection for ever
    )
    shown = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host
    print(f"Marginalia is at http://{shown}:{port}  (Ctrl-C stops it)", flush=True)
    with listener, contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again once it has closed
        uvicorn.Server(config).run(sockets=[listener])


def mounted(page: gr.Blocks, max_file_mb: int, names: Sequence[str] | None = None) -> FastAPI:
    """The page as an ASGI application that loads nothing from outside and tells nobody anything.

    `names`: it answers under this machine's own names and these alone; None: under any.
    """
    site = FastAPI(openapi_url=None)
    site.add_middleware(_Headers)
    if names is not None:
        site.add_middleware(_OwnNames, names=names)
    return gr.mount_gradio_app(
        site,
        page,
        path="/",
        theme=theme(),
        footer_links=[],
        run_history=False,  # gradio would keep every question and reply, unencrypted, in the browser
        ssr_mode=False,
        max_file_size=f"{max_file_mb}mb",
        allowed_paths=None,
    )


def listen(host: str, port: int) -> socket.socket:
    """Bound here rather than by the server, so that a port in use is one clear line."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise AddressUnusable(f"port {port} on {host!r} cannot be used ({why}): choose another with --port") from error
    return listener


class _OwnNames:
    """Turns away who came by a name that is not this page's.

    A page elsewhere can give its own name the address 127.0.0.1 and would then read this one as if it were its own
    (DNS rebinding): the browser knows names, not addresses.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self._app = app
        self._names = {name.casefold() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_own(Headers(scope=scope).get("host", "")):
            refusal = "This page answers at http://localhost. To serve it under another name: --name NAME\n"
            await PlainTextResponse(refusal, status_code=421)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_own(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:  # not an address at all
            return False
        return name in self._names or name.endswith(".localhost") or _is_loopback(name)


class _Headers:
    """Adds to every answer the headers that hold the page to itself. Plain ASGI, so that streams are not buffered."""

    POLICY = (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; img-src 'self' data: blob:; "
        "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'"
    )

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", self.POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
