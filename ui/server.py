"""The page on the network: at an address of its own, under its own names."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from chatbot import MarginaliaError
from ui.app import App, build_app
from ui.front import is_loopback
from ui.site import mounted

if TYPE_CHECKING:
    from chatbot import Chatbot

__all__ = ["AddressUnusable", "listen", "mounted", "serve"]

_HEARING_S = 0.3  # that a page has to hear of it
_FORGOTTEN_S = 3600.0  # what nobody took in so long was left behind when a process was killed


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
    frames: Sequence[str] = (),
    root_path: str = "",
) -> None:
    """Serves at an address that `listen` gave, until interrupted. `names`, `frames`, `root_path`: see `mounted`."""
    host, port = listener.getsockname()[:2]
    private = is_loopback(host)
    os.environ["GRADIO_TEMP_DIR"] = str(_uploads(chatbot.settings.home))  # gradio's own is shared by all who use it
    page = build_app(
        chatbot,
        language=language,
        examples=examples,
        concurrency_limit=concurrency_limit,
        shared=not private or bool(names),
    )
    site = mounted(
        page,
        chatbot.settings.max_file_mb,
        names if private else (*names, *_machine()),
        addresses=not private,
        frames=frames,
        root_path=root_path,
    )
    config = uvicorn.Config(
        site,
        log_level="warning",
        timeout_graceful_shutdown=3,  # an open tab holds its connection for ever
    )
    shown = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host
    print(f"Marginalia is at http://{shown}:{port}  (Ctrl-C stops it)", flush=True)
    with listener, contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again once it has closed
        _Server(config, page).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Cuts off what is in progress before it closes the connections, so that the pages hear of it."""

    def __init__(self, config: uvicorn.Config, page: App) -> None:
        super().__init__(config)
        self._page = page

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(self._page.chat.close)
        await asyncio.sleep(_HEARING_S)
        logging.getLogger("uvicorn.error").addFilter(_unexpected)
        await super().shutdown(sockets)


def _unexpected(record: logging.LogRecord) -> bool:
    """Not that open tabs' connections were cut at the end, which uvicorn tells as errors, with a traceback of each."""
    cut = record.exc_info is not None and record.exc_info[0] is asyncio.CancelledError
    return not cut and "timeout graceful shutdown exceeded" not in record.getMessage()


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


def _machine() -> tuple[str, ...]:
    """The names that others on the network know this machine by."""
    name = socket.gethostname()
    short = name.partition(".")[0]
    return name, short, f"{short}.local"


def _uploads(home: Path) -> Path:
    """Where files lie between their upload and the event that takes them."""
    folder = home / "uploads"
    for path in folder.rglob("*") if folder.exists() else ():
        with contextlib.suppress(FileNotFoundError):  # another process of this home may have taken it
            if path.is_file() and path.stat().st_mtime < time.time() - _FORGOTTEN_S:
                path.unlink()
    return folder
