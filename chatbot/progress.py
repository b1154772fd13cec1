"""How far something is, for whoever waits for it."""

from collections.abc import Callable

Progress = Callable[[float, str], None]  # (share done in [0, 1], what is being done)


def silent(done: float, doing: str) -> None:
    """For nobody."""
