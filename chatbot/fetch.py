"""A web address becomes a file, fetched with limits on size, time and redirects.

A page may be asked for by a stranger, so addresses of this machine and of private networks are refused unless
allowed: each host name is resolved once, every address that it has is checked, and the connection goes to what
was checked, so that the name cannot mean another machine a moment later. What a page names is not fetched.
Proxies of the environment are not used, since they would resolve the name again.
"""

import asyncio
import re
import socket
import zlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

import httpx

from chatbot.errors import UnreadableDocument

TIMEOUT_S = 30.0
MOST_REDIRECTS = 5
_NAMED = 120  # characters of a name or of an address in a message; a longer one keeps its beginning and its end
_LOGIN = re.compile(r"(?<=//)[^/?#]*@")  # "me:secret@"
_HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; Marginalia)", "Accept-Encoding": "gzip", "Accept": "*/*"}
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last four bytes
_UNICAST = IPv6Network("2000::/3")  # all of IPv6 that is given out to the public; what follows is set apart within it
# IANA's registries of special-purpose addresses, as of 2026-11; Python's own table changes with its version
_SPECIAL_4 = tuple(map(IPv4Network, (
    "0.0.0.0/8",        # this network
    "10.0.0.0/8",       # private
    "100.64.0.0/10",    # shared by a provider's customers
    "127.0.0.0/8",      # this machine
    "169.254.0.0/16",   # link-local, and the clouds' metadata
    "172.16.0.0/12",    # private
    "192.0.0.0/24",     # protocol assignments
    "192.0.2.0/24",     # documentation
    "192.31.196.0/24",  # AS112, answered by whoever is near
    "192.52.193.0/24",  # multicast tunnels
    "192.88.99.0/24",   # relays of 6to4
    "192.168.0.0/16",   # private
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",    # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",   # documentation
    "224.0.0.0/4",      # multicast
    "240.0.0.0/4",      # reserved, and broadcast
)))  # fmt: skip
_SPECIAL_6 = tuple(map(IPv6Network, (
    "2001::/23",        # protocol assignments: Teredo, benchmarks, ORCHID and others
    "2001:db8::/32",    # documentation
    "2002::/16",        # 6to4: an IPv4 address in disguise
    "2620:4f:8000::/48",  # AS112
    "3fff::/20",        # documentation
)))  # fmt: skip
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
            f"{_shown(address)} did not come within {timeout_s:g} seconds: try again later, or save and give the file"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError) as error:
        raise UnreadableDocument(
            f"{_shown(address)} cannot be reached ({_reason(error)}): check the address and the network"
        ) from error


def name_of(address: str) -> str:
    """The address as a document's name: without scheme, password and fragment, printable and not too long.

    Raises UnreadableDocument, in one line, where it is no web address.
    """
    url = _url(address)
    text = f"{_host(url)}{f':{url.port}' if url.port else ''}{url.path}{f'?{url.query.decode()}' if url.query else ''}"
    return _short("".join(character if character.isprintable() else "\ufffd" for character in text).rstrip("/"))


def is_public(number: IPv4Address | IPv6Address) -> bool:
    """Whether a page that anybody may read can lie there: not in a range set apart, nor as IPv4 in disguise."""
    if isinstance(number, IPv4Address):
        return not any(number in network for network in _SPECIAL_4)
    if number in _NAT64:
        return is_public(IPv4Address(int(number) & 0xFFFFFFFF))
    return number in _UNICAST and not any(number in network for network in _SPECIAL_6)


async def _fetch(address: str, into: Path, max_bytes: int, timeout_s: float, private_addresses: bool) -> str:
    name, url = name_of(address), _url(address)
    async with asyncio.timeout(timeout_s), httpx.AsyncClient(trust_env=False, timeout=None) as client:
        for _ in range(MOST_REDIRECTS + 1):
            machine = await _checked(url, private_addresses)
            request = client.build_request(
                "GET",
                url.copy_with(host=machine, username=None, password=None),
                headers=_HEADERS | {"Host": url.netloc.decode()},
                extensions={"sni_hostname": url.raw_host.decode().rstrip(".")},  # whose certificate must be shown
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
    raise UnreadableDocument(f"{_shown(address)} is redirected more than {MOST_REDIRECTS} times: give the last address")


def _url(address: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        url = base.join(address) if base else httpx.URL(address.strip())
        url.raw_host.decode().encode("idna")  # as the resolver will: UnicodeError where a label is empty or too long
        usable = url.scheme in ("http", "https") and bool(url.raw_host) and 0 < _port(url) < 65_536
    except (httpx.InvalidURL, UnicodeError):
        usable = False
    if not usable:
        raise UnreadableDocument(f"{_shown(address)} is no web address: write it as https://example.org/page")
    return url


def _port(url: httpx.URL) -> int:
    return (443 if url.scheme == "https" else 80) if url.port is None else url.port


def _host(url: httpx.URL) -> str:
    try:
        return url.host
    except UnicodeError:  # "xn--" before what decodes to nothing that may be in a name
        return url.raw_host.decode()


def _shown(address: str) -> str:
    return repr(_short(_LOGIN.sub("", address, count=1)))


def _short(text: str) -> str:
    return text if len(text) <= _NAMED else f"{text[: _NAMED // 2]}…{text[1 - _NAMED // 2 :]}"


async def _checked(url: httpx.URL, private_addresses: bool) -> str:
    """The number of the machine that the URL's host means. Raises UnreadableDocument where that is not public."""
    resolver = ThreadPoolExecutor(1)  # of its own: closing the loop waits for its pool, however long a name takes
    resolve = partial(socket.getaddrinfo, url.raw_host.decode(), _port(url), type=socket.SOCK_STREAM)
    try:
        found = await asyncio.get_running_loop().run_in_executor(resolver, resolve)
    finally:
        resolver.shutdown(wait=False)
    numbers = [str(sockaddr[0]).partition("%")[0] for *_, sockaddr in found]
    for number in numbers:
        if not (private_addresses or is_public(ip_address(number))):
            raise UnreadableDocument(
                f"{_short(_host(url))!r} lies on this machine or a private network ({number}): "
                "save the page and give the file, or set private_addresses = true"
            )
    return min(numbers, key=lambda number: ":" in number)  # IPv4 first: many networks have no other


async def _save(response: httpx.Response, into: Path, address: str, max_bytes: int) -> None:
    if response.status_code >= 400:
        raise UnreadableDocument(
            f"{_shown(address)} answered {response.status_code} {_short(response.reason_phrase)}: check it in a browser"
        )
    size = 0
    with into.open("wb") as file:
        async for part in _unpacked(response, address, max_bytes):
            size += len(part)
            if size > max_bytes:
                raise UnreadableDocument(
                    f"{_shown(address)} has more than the {max_bytes / _MEGABYTE:.1f} MB that are read: "
                    "give a smaller page, or raise the setting max_file_mb"
                )
            file.write(part)


async def _unpacked(response: httpx.Response, address: str, max_bytes: int) -> AsyncIterator[bytes]:
    """The body; never more than one byte above the limit at once, however well it was packed.

    A packed body may have several members, and zeros after any (RFC 1952, as gzip reads it); it must have a whole one.
    """
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing in ("identity", ""):
        async for part in response.aiter_raw():
            yield part
        return
    if packing not in ("gzip", "x-gzip"):
        raise UnreadableDocument(f"{_shown(address)} comes packed as {packing[:20]!r}: save the page and give the file")
    unpacker = zlib.decompressobj(wbits=31)
    async for part in response.aiter_raw():
        while part:
            if unpacker.eof:
                part = part.lstrip(b"\0")
                if not part:
                    break
                unpacker = zlib.decompressobj(wbits=31)
            try:
                yield unpacker.decompress(part, max_bytes + 1)
            except zlib.error as error:
                raise UnreadableDocument(f"{_shown(address)} comes damaged ({error}): try again later") from error
            part = unpacker.unconsumed_tail or unpacker.unused_data
    if not unpacker.eof:
        raise UnreadableDocument(f"{_shown(address)} comes damaged (it ends early): try again later")


def _reason(error: Exception) -> str:
    return _short(" ".join((str(error) or type(error).__name__).split()))
