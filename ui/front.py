"""What stands before gradio: who may ask, from where, for what, how much. Plain ASGI, so that streams pass through."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatbot import MarginaliaError

UPLOADS = 20  # files of the largest size that may wait at once: who hands in more has them moved on meanwhile
LEAST_FREE = 200_000_000  # bytes that an upload leaves on the disk, for the catalogue and the conversations
LARGEST_BODY = 4_000_000  # bytes of any other request: a question has 4,000 characters unless a setting says otherwise

# what the page, gradio's client and scripts ask for; the rest of gradio's routes serves apps of other kinds
_ROUTES = "assets config favicon.ico gradio_api manifest.json pwa_icon robots.txt static svelte theme.css"
_API_ROUTES = (
    "api app_id call cancel heartbeat info login_check openapi.json queue reset run startup-events theme.css token"
    " upload upload_progress user"
)

_HOST = re.compile(r"(?P<name>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_SITE = re.compile(r"(?:https?://)?[A-Za-z0-9_*.-]+(?::[0-9*]+)?/?|\*")
_PREFIX = re.compile("/|https?://[^/]")


class SiteUnusable(MarginaliaError):
    """A site or a prefix was given by which none can be meant."""


class OwnNames:
    """Turns away who came by a name that is not this page's.

    A page elsewhere can give its own name the address of this machine and would then read this one as if it were its
    own (DNS rebinding): the browser knows names, not addresses. `addresses`: any numeric one is the page's too, since a
    browser that was sent there by number is not misled by a name.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], addresses: bool = False) -> None:
        self._app = app
        self._names = {name.casefold().rstrip(".") for name in names}
        self._addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            hosts = headers.getlist("host")
            told = [host for line in headers.getlist("x-forwarded-host") for host in line.split(",")]  # by a proxy
            if len(hosts) != 1 or not all(self._is_own(host.strip()) for host in (*hosts, *told)):
                known = "http://localhost" + (" and at this machine's addresses" if self._addresses else "")
                line = f"This page answers at {known}. To serve it under another name: --name NAME"
                await _refuse(scope, receive, send, 421, line)
                return
        await self._app(scope, receive, send)

    def _is_own(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].casefold().strip("[]").rstrip(".")
        return name in self._names or is_loopback(name) or (self._addresses and _is_address(name))


class OwnOrigins:
    """Turns away what a page of another site has a browser send. `names`: that this one is known by before a proxy.

    Reading is not its matter: without CORS headers a browser shows no other site what it gets here.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = {name.casefold().rstrip(".") for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        changes = scope["type"] == "websocket" or (
            scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS")
        )
        if changes and not self._is_own(Headers(scope=scope)):
            line = "This page takes requests from itself and from programs, not from pages of other sites"
            await _refuse(scope, receive, send, 403, line)
            return
        await self._app(scope, receive, send)

    def _is_own(self, headers: Headers) -> bool:
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is not None:  # which browsers send to this machine and over https
            return site in ("same-origin", "none")
        if origin is None:  # no browser
            return True
        scheme, _, place = origin.casefold().rpartition("://")
        default = {"http": ":80", "https": ":443"}.get(scheme, "")
        hosts = {headers.get("host", ""), headers.get("x-forwarded-host", "").partition(",")[0].strip()} - {""}
        same = {place, place.removesuffix(default)} & {host.casefold().removesuffix(default) for host in hosts}
        return bool(scheme and (same or _name_of(place) in self._names))


class OwnRoutes:
    """Answers what the page, gradio's client and scripts ask for: gradio's other routes, which fetch, record or keep
    files for apps of other kinds, are not there. No request but an upload is longer than `LARGEST_BODY`."""

    def __init__(self, app: ASGIApp, prefix: str = "") -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await _refuse(scope, receive, send, 404, "")
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        first, second = steps_of(scope, self._prefix)
        if first not in ("", *_ROUTES.split()) or (first == "gradio_api" and second not in _API_ROUTES.split()):
            await _refuse(scope, receive, send, 404, "There is nothing here")
            return
        if second == "upload":
            await self._app(scope, receive, send)
            return
        line = f"A request has {LARGEST_BODY:,} bytes at most"
        if _length(scope) > LARGEST_BODY:
            await _refuse(scope, receive, send, 413, line)
            return
        had = 0

        async def receive_little() -> Message:
            nonlocal had
            message = await receive()
            had += len(message.get("body", b""))
            if had > LARGEST_BODY:
                raise HTTPException(413, line)
            return message

        await self._app(scope, receive_little, send)


class Uploads:
    """Bounds what lies in `folder` or is on its way there: files that were handed in and that no event has taken."""

    def __init__(self, app: ASGIApp, folder: Path, max_file_mb: int, prefix: str = "") -> None:
        self._app, self._folder, self._prefix = app, folder, prefix
        self._most = UPLOADS * max_file_mb * 1_000_000
        self._coming = 0  # bytes that were announced and have not come yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or steps_of(scope, self._prefix) != ("gradio_api", "upload"):
            await self._app(scope, receive, send)
            return
        size = _length(scope)
        if refusal := self._refusal(size):
            await _refuse(scope, receive, send, *refusal)
            return
        left = size
        self._coming += size

        async def receive_counted() -> Message:
            nonlocal left
            message = await receive()
            if message["type"] == "http.disconnect" and left:
                raise MultiPartException("The upload broke off")  # at which gradio removes what had come
            came = min(left, len(message.get("body", b"")))
            self._coming, left = self._coming - came, left - came
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._coming -= left

    def _refusal(self, size: int) -> tuple[int, str] | None:
        if size < 0:
            return 411, "An upload says how long it is: send Content-Length"
        if size > self._most:
            most = f"{self._most // 1_000_000:,} MB"
            return (
                413,
                f"Files of {size / 1e6:,.0f} MB at once are too much, {most} is the most: hand in a few at a time",
            )
        if size + self._coming + size_of(self._folder) > self._most:
            return 507, "Too many files are on their way just now: try again later"
        place = next(folder for folder in (self._folder, *self._folder.absolute().parents) if folder.exists())
        if size + self._coming + LEAST_FREE > shutil.disk_usage(place).free:
            return 507, "The disk is nearly full: free some space on the machine that this page runs on"
        return None


class Fixed:
    """Adds to every answer the headers that hold the page to itself. `frames`: sites that may show it in a frame."""

    POLICY = (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; img-src 'self' data: blob:; "
        "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors "
    )

    def __init__(self, app: ASGIApp, frames: Sequence[str] = ()) -> None:
        self._app = app
        self._headers = [
            (b"content-security-policy", (self.POLICY + " ".join(("'self'", *frames))).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def checked(frames: Sequence[str], root_path: str) -> str:
    """The root path without a slash at its end. Raises SiteUnusable."""
    for site in frames:
        if not _SITE.fullmatch(site):
            raise SiteUnusable(f"{site!r} is no site that could show the page: write it as https://example.org")
    if root_path and not _PREFIX.match(root_path):
        raise SiteUnusable(f"{root_path!r} is no place where a proxy could show the page: write it as /chat")
    return root_path.rstrip("/")


def is_loopback(host: str) -> bool:
    """Of an address, or of a name that browsers take to be this machine without asking anybody."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def steps_of(scope: Scope, prefix: str = "") -> tuple[str, str]:
    """The first two steps of the path below where the page is mounted. `prefix`: that a proxy may have left there."""
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    if prefix and path.startswith(prefix.rstrip("/") + "/"):
        path = path.removeprefix(prefix.rstrip("/"))
    first, _, rest = path.lstrip("/").partition("/")
    return first, rest.partition("/")[0]


def size_of(folder: Path) -> int:
    """Bytes of the files in it, however deep."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # taken meanwhile
                total += (Path(place) / name).lstat().st_size
    return total


def _length(scope: Scope) -> int:
    """What the request says; -1 where it says nothing that is a length."""
    said = Headers(scope=scope).get("content-length", "")
    return int(said) if said.isascii() and said.isdigit() and len(said) <= 18 else -1


def _name_of(place: str) -> str:
    try:
        return (urlsplit(f"//{place}").hostname or "").rstrip(".")
    except ValueError:  # no address at all
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, line: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    else:
        await PlainTextResponse(f"{line}\n", status_code=status)(scope, receive, send)
