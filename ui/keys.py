"""The keys under which the tabs of a browser find their conversations again."""

from __future__ import annotations

import re
import secrets

OWN_KEY = "own('sessionStorage', 'marginalia')"  # in a script of `ui.assets.keeping`: the tab's, made where it has none

_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what History takes


def new_key() -> str:
    return secrets.token_hex(16)


def usable(key: object) -> str:
    """The key that a browser sent; empty where it cannot be one."""
    return key if isinstance(key, str) and _KEY.fullmatch(key) else ""
