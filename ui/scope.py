"""What a chat searches: the part that a visitor chose of what the host allows. Pure."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from chatbot import Scope
from ui import render
from ui.i18n import Texts

FIELDS = ("collections", "documents", "kinds", "languages")
FIRST_YEAR, LAST_YEAR = 1970, 2999  # while a year is being typed it is 2, 20, 202


def narrowed(allowed: Scope, chosen: Scope) -> Scope:
    """The chosen part of what is allowed; nothing outside that is searched, whatever a browser sends."""
    after = [each for each in (allowed.added_after, chosen.added_after) if each]
    before = [each for each in (allowed.added_before, chosen.added_before) if each]
    return Scope(
        *(_inside(getattr(allowed, field), getattr(chosen, field)) for field in FIELDS),
        max(after, default=None),
        min(before, default=None),
    )


def _inside(allowed: tuple[str, ...], chosen: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each for each in chosen if each in allowed) or allowed if allowed else chosen


def holds(scope: Scope, entry: render.Entry) -> bool:
    asked = (
        (scope.collections, entry.collection),
        (scope.documents, entry.id),
        (scope.kinds, entry.kind),
        (scope.languages, entry.language),
    )
    added = datetime.fromisoformat(entry.added)
    return (
        all(value in field or not field for field, value in asked)
        and (scope.added_after is None or scope.added_after <= added)
        and (scope.added_before is None or added < scope.added_before)
    )


def gone(scope: Scope, knowledge: Any) -> bool:
    """Whether something that it names was deleted, or renamed, since it was chosen."""
    names = {each.name for each in knowledge.collections()} if scope.collections else set()
    ids = {each.id for each in knowledge.documents()} if scope.documents else set()
    return not names.issuperset(scope.collections) or not ids.issuperset(scope.documents)


def said(scope: Scope, words: Texts) -> str:
    """What is searched, in one line."""
    parts = list(scope.collections)
    if count := len(scope.documents):
        parts.append(words["scope.one" if count == 1 else "scope.several"].format(count=count))
    parts += [*scope.kinds, *scope.languages]
    if scope.added_after:
        parts.append(words["scope.after"].format(day=scope.added_after.date()))
    if scope.added_before:
        parts.append(words["scope.before"].format(day=scope.added_before.date() - timedelta(days=1)))
    return words["scope"].format(what=words["scope.between"].join(parts) or words["scope.everything"])


def midnight(day: object, later: int = 0) -> datetime | None:
    """The start of an ISO day, or of one some days later, where this machine is; None for what is not yet a day."""
    try:
        parsed = date.fromisoformat(str(day))
    except ValueError:
        return None
    if not FIRST_YEAR <= parsed.year <= LAST_YEAR:
        return None
    parsed += timedelta(days=later)
    return datetime(parsed.year, parsed.month, parsed.day).astimezone()
