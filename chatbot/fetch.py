"""A web address becomes a file, fetched with limits on size, time and redirects.

A page may be asked for by a stranger, so addresses of this machine and of private networks are refused unless
allowed: each host name is resolved once, every address that it has is checked, and the connection goes to what
was checked, so that the name cannot mean another machine a moment later. What a page names is not fetched.
Proxies of the environment are not used, since they would resolve the name again.
"""

import asyncio
import socket
import zlib
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path

import httpx

from chatbot.errors import UnreadableDocument

TIMEOUT_S = 30.0
MOST_REDIRECTS = 5
_NAMED = 120  # characters of a name; a longer address keeps its beginning and its end
_HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; Marginalia)", "Accept-Encoding": "gzip", "Accept": "*/*"}
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last four bytes
_MEGABYTE = 1_000_000


def is_address(text: str) -> bool:
    """Whether `text` is a web address rather than a path."""
    return text.lower().startswith(("http://", "https://"))


def fetch(
    address: str, into: Path, *, max_bytes: int, timeout_s: float = TIMEOUT_S, private_addresses: bool = False
) -> str:
    """Writes what the address holds to the file `into`; the document's name, such as "example.org/a/b.html".

    What the content is, its reader tells. Not for a thread that runs an event loop. Raises UnreadableDocument,
    in one line: not http or https, refused, unreachable, not there, larger than `max_bytes` (unpacked), or slower
    than `timeout_s` altogether.
    """
    try:
        return asyncio.run(_fetch(address, into, max_bytes, timeout_s, private_addresses))
    except TimeoutError as error:
        raise UnreadableDocument(
            f"{address!r} did not come within {timeout_s:g} seconds: try again later, or save it and give the file"
        ) from error
    except (httpx.HTTPError, OSError) as error:
        raise UnreadableDocument(
            f"{address!r} cannot be reached ({_reason(error)}): check the address and the network"
        ) from error


def name_of(address: str) -> str:
    """The address as a document's name: without scheme, password and fragment, printable and not too long."""
    url = _url(address)
    text = f"{url.host}{f':{url.port}' if url.port else ''}{url.path}{f'?{url.query.decode()}' if url.query else ''}"
    name = "".join(character if character.isprintable() else "\ufffd" for character in text).rstrip("/")
    return name if len(name) <= _NAMED else f"{name[: _NAMED // 2]}…{name[1 - _NAMED // 2 :]}"


async def _fetch(address: str, into: Path, max_bytes: int, timeout_s: float, private_addresses: bool) -> str:
    name, url = name_of(address), _url(address)
    async with asyncio.timeout(timeout_s), httpx.AsyncClient(trust_env=False, timeout=None) as client:
        for _ in range(MOST_REDIRECTS + 1):
            machine = await _checked(url, private_addresses)
            request = client.build_request(
                "GET",
                url.copy_with(host=machine, username=None, password=None),
                headers=_HEADERS | {"Host": url.netloc.decode()},
                extensions={"sni_hostname": url.raw_host.decode()},  # whose certificate must be shown
            )
            response = await client.send(request, stream=True)
            try:
                if response.has_redirect_location:
                    url = _url(response.headers["location"], url)
                    continue
                await _save(response, into, address, max_bytes)
                return name
            finally:
                await response.aclose()
    raise UnreadableDocument(f"{address!r} is redirected more than {MOST_REDIRECTS} times: give the last address")


def _url(address: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        url = base.join(address) if base else httpx.URL(address.strip())
        usable = url.scheme in ("http", "https") and bool(url.raw_host)
    except (httpx.InvalidURL, UnicodeError):
        usable = False
    if not usable:
        raise UnreadableDocument(f"{address!r} is no web address: write it as https://example.org/page")
    return url


async def _checked(url: httpx.URL, private_addresses: bool) -> str:
    """The number of the machine that the URL's host means. Raises UnreadableDocument where that is not public."""
    port = url.port or (443 if url.scheme == "https" else 80)
    host = url.raw_host.decode().strip("[]")
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    numbers = [str(sockaddr[0]).partition("%")[0] for *_, sockaddr in found]
    for number in numbers:
        if not (private_addresses or is_public(ip_address(number))):
            raise UnreadableDocument(
                f"{url.host!r} lies on this machine or a private network ({number}): "
                "save the page and give the file, or set private_addresses = true"
            )
    return min(numbers, key=lambda number: ":" in number)  # IPv4 first: many networks have no other


def is_public(number: IPv4Address | IPv6Address) -> bool:
    if isinstance(number, IPv6Address):
        if number in _NAT64:
            return is_public(IPv4Address(int(number) & 0xFFFFFFFF))
        for inner in (number.ipv4_mapped, number.sixtofour, *(number.teredo or ())):
            if inner is not None:
                return False  # an IPv4 address in disguise
    return number.is_global and not (number.is_multicast or number.is_reserved)


async def _save(response: httpx.Response, into: Path, address: str, max_bytes: int) -> None:
    if response.status_code >= 400:
        raise UnreadableDocument(
            f"{address!r} answered {response.status_code} {response.reason_phrase}: check it in a browser"
        )
    size = 0
    with into.open("wb") as file:
        async for part in _unpacked(response, address, max_bytes):
            size += len(part)
            if size > max_bytes:
                raise UnreadableDocument(
                    f"{address!r} has more than the {max_bytes / _MEGABYTE:.1f} MB that are read: "
                    "give a smaller page, or raise the setting max_file_mb"
                )
            file.write(part)


async def _unpacked(response: httpx.Response, address: str, max_bytes: int) -> AsyncIterator[bytes]:
    """The body; never more than one byte above the limit at once, however well it was packed."""
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "gzip", "x-gzip", ""):
        raise UnreadableDocument(f"{address!r} comes packed as {packing[:20]!r}: save the page and give the file")
    unpacker = zlib.decompressobj(wbits=31) if "gzip" in packing else None
    async for part in response.aiter_raw():
        if unpacker is None:
            yield part
            continue
        try:
            yield unpacker.decompress(part, max_bytes + 1)
        except zlib.error as error:
            raise UnreadableDocument(f"{address!r} comes damaged ({error}): try again later") from error


def _reason(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())
