"""The page: `RagChat` goes inside any `gr.Blocks`; `build_app` is the whole application; `mount` has FastAPI serve it.

Importing this loads no gradio; using either does.
"""

import contextlib
import os
from collections.abc import Iterator

__all__ = ["RagChat", "build_app", "mount"]


@contextlib.contextmanager
def without_proxies() -> Iterator[None]:
    """For the first import of gradio, which makes an HTTP client at once: it fails where a proxy is named that speaks
    SOCKS, and the page asks nothing of any other machine."""
    named = [name for name in os.environ if name.lower() in ("all_proxy", "http_proxy", "https_proxy")]
    kept = {name: os.environ.pop(name) for name in named}
    try:
        yield
    finally:
        os.environ |= kept


def __getattr__(name: str) -> object:
    with without_proxies():
        match name:
            case "RagChat":
                from ui.chat import RagChat

                return RagChat
            case "build_app":
                from ui.app import build_app

                return build_app
            case "mount":
                from ui.site import mount

                return mount
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
