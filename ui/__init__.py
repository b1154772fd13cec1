"""The page: `RagChat` goes inside any `gr.Blocks`; `build_app` is the whole application; `mount` has FastAPI serve it.

Importing this loads no gradio; using either does.
"""

__all__ = ["RagChat", "build_app", "mount"]


def __getattr__(name: str) -> object:
    if name == "RagChat":
        from ui.chat import RagChat

        return RagChat
    if name == "build_app":
        from ui.app import build_app

        return build_app
    if name == "mount":
        from ui.site import mount

        return mount
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
