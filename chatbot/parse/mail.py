"""Mail: .eml as any mail program saves it, .mht(ml) as browsers save pages; subject, people and date, then the text.

The plain text is read, else the HTML. A message attached to a message is read where it lies, under its own subject.
Other attachments are named, not read. Nothing that a mail names is fetched.
"""

import re
from collections.abc import Iterator, Sequence
from email import message_from_binary_file, policy
from email.message import EmailMessage
from pathlib import Path
from typing import cast

from chatbot.errors import UnreadableDocument
from chatbot.parse.plain import decode
from chatbot.parse.web import whole
from chatbot.passage import Document, Page

_HEADERS = ("From", "To", "Cc", "Date")
_PREFERRED = ("text/plain", "multipart/", "text/html", "")  # of what says the same in several ways
_RULE = re.compile(r"^[ \t]*[-=_*]{2,}[ \t]*$", re.M)
_LONGEST_HEADER = 20_000  # characters; some 500 recipients
_DEEPEST = 60  # parts in parts; each message in a message takes two or three


def read(path: Path, name: str) -> Document:
    with path.open("rb") as file:
        message = message_from_binary_file(file, policy=policy.default)
    text = "\n\n".join(_message(message, name, 1))
    return Document(name, "eml", (Page(text),), attached(list(_attached(message))))


def head(subject: str, headers: Sequence[tuple[str, str]], level: int = 1) -> str:
    """The subject as a heading of this level, then the headers that say something."""
    title = f"{'#' * min(level, 6)} {' '.join(subject.split())}" if subject.strip() else ""
    said = "\n".join(f"{header}: {' '.join(value.split())}" for header, value in headers if value.strip())
    return "\n\n".join(filter(None, [title, said]))


def attached(names: Sequence[str]) -> str:
    """The notice for attachments."""
    return f"{len(names)} attached, not read: {', '.join(names)}" if names else ""


def undecorated(text: str) -> str:
    """The text without lines of dashes and the like, which would make headings of the lines above them."""
    return _RULE.sub("", text)


def _message(message: EmailMessage, name: str, depth: int) -> Iterator[str]:
    headers = [(header, _header(message, header)) for header in _HEADERS]
    level = (depth + 1) // 2  # a message lies in a part of the one around it
    yield from filter(None, [head(_header(message, "Subject"), headers, level)])
    yield from _texts(message, name, depth)


def _header(message: EmailMessage, wanted: str) -> str:
    """Its value decoded, or what its first characters say: the parser is slow with long ones."""
    raw = next((str(value) for header, value in message.raw_items() if header.lower() == wanted.lower()), "")
    return str(policy.default.header_factory(wanted, "".join(raw.splitlines())[:_LONGEST_HEADER]))


def _texts(part: EmailMessage, name: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise UnreadableDocument(f"{name!r} nests mails more than {_DEEPEST} deep: save the one that matters alone")
    kind, inner = part.get_content_type(), [each for each in part.iter_parts() if isinstance(each, EmailMessage)]
    if kind == "multipart/alternative":
        ranked = sorted(inner, key=_rank)
        yield from next(filter(None, ([*_texts(each, name, depth + 1)] for each in ranked)), [])
    elif kind == "message/rfc822":
        for each in inner:
            yield from _message(each, name, depth + 1)
    elif kind == "message/delivery-status":  # its parts have headers alone
        yield "\n\n".join(filter(None, (head("", each.items()) for each in inner)))
    elif part.is_multipart():
        for each in inner:
            yield from _texts(each, name, depth + 1)
    elif _is_text(part):
        text = decode(cast(bytes, part.get_payload(decode=True)), name, str(part.get_content_charset("")))
        if text := (whole(text) if kind == "text/html" else undecorated(text)).strip():
            yield text


def _rank(part: EmailMessage) -> int:
    return next(rank for rank, start in enumerate(_PREFERRED) if part.get_content_type().startswith(start))


def _is_text(part: EmailMessage) -> bool:
    """Also one that should have parts, which its boundary does not tell apart."""
    kind = part.get_content_type()
    return part.get_content_maintype() in ("text", "multipart") and kind != "text/css" and not part.get_filename()


def _attached(message: EmailMessage) -> Iterator[str]:
    """The names of files, or what they are; pictures that the text shows in place have an id, and are none."""
    for part in message.walk():
        shown = part.get_content_maintype() == "image" and part.get("Content-ID")
        if part.is_multipart() or _is_text(part) or part.get_content_type() == "text/css":
            continue
        if not shown or part.get_content_disposition() == "attachment":
            yield " ".join((part.get_filename() or part.get_content_type()).split())
