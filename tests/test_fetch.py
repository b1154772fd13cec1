"""Web addresses, served by this machine: which the setting allows, and which is refused without it."""

import gzip
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.errors import UnreadableDocument
from chatbot.fetch import fetch, is_address, is_public, name_of

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def serving() -> Iterator[Callable[[dict[str, Answer]], str]]:
    """Answers by path in, the address of the server out."""
    servers = []

    def serve(answers: dict[str, Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    answers[self.path](self)
                except OSError:  # the client has gone, as it should
                    return

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def page(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def endless(request: BaseHTTPRequestHandler) -> None:
    page(b"")(request)
    while True:
        request.wfile.write(b"more and more " * 1_000)


def slow(request: BaseHTTPRequestHandler) -> None:
    page(b"")(request)
    for _ in range(200):
        request.wfile.write(b".")
        time.sleep(0.05)


def slow_headers(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(200):
        request.wfile.write(f"X-{number}: a\r\n".encode())
        time.sleep(0.05)


def refusal(address: str, into: Path, **limits: object) -> str:
    with pytest.raises(UnreadableDocument) as caught:
        fetch(address, into, **({"max_bytes": 1_000_000, "private_addresses": True} | limits))
    assert "\n" not in str(caught.value) and ": " in str(caught.value)
    return str(caught.value)


def test_an_address_gives_its_content_and_a_name(serving, tmp_path):
    address = serving({"/a/b.html?x=1": page(b"<p>Words</p>")})
    name = fetch(f"{address}/a/b.html?x=1#end", tmp_path / "f", max_bytes=99, private_addresses=True)
    assert (tmp_path / "f").read_bytes() == b"<p>Words</p>"
    assert name == address.removeprefix("http://") + "/a/b.html?x=1"


def test_this_machine_is_refused_unless_allowed_however_it_is_written(serving, tmp_path):
    port = serving({"/": page(b"secret")}).rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
        message = refusal(f"http://{host}:{port}/", tmp_path / "f", private_addresses=False)
        assert "lies on this machine or a private network" in message or "cannot be reached" in message
    assert "set private_addresses = true" in refusal(
        f"http://127.0.0.1:{port}/", tmp_path / "f", private_addresses=False
    )
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    "number",
    ["10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "127.0.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "240.0.0.1", "::", "::1", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "2002:7f00:1::",
     "64:ff9b::7f00:1", "2001:0:7f00:1::"],
)  # fmt: skip
def test_addresses_that_are_not_public_are_known(number):
    assert not is_public(ip_address(number))


@pytest.mark.parametrize("number", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_known(number):
    assert is_public(ip_address(number))


def test_each_redirect_is_checked_and_the_name_is_what_was_asked_for(serving, tmp_path):
    address = serving({
        "/old": page(b"", 302, Location="new"),
        "/new": page(b"Words"),
        "/file": page(b"", 302, Location="file:///etc/passwd"),
        "/loop": page(b"", 301, Location="/loop"),
        "/odd": page(b"", 301, Location="http://[/"),
    })  # fmt: skip
    assert fetch(f"{address}/old", tmp_path / "f", max_bytes=99, private_addresses=True).endswith("/old")
    assert (tmp_path / "f").read_bytes() == b"Words"
    assert "'file:///etc/passwd' is no web address" in refusal(f"{address}/file", tmp_path / "g")
    assert "is redirected more than 5 times" in refusal(f"{address}/loop", tmp_path / "g")
    assert refusal(f"{address}/odd", tmp_path / "g")
    assert not (tmp_path / "g").exists()


def test_a_public_host_cannot_redirect_to_this_machine(serving, tmp_path, monkeypatch):
    private = serving({"/secret": page(b"secret")})
    public = serving({"/": page(b"", 302, Location=f"{private.replace('127.0.0.1', '127.0.0.2')}/secret")})
    monkeypatch.setattr("chatbot.fetch.is_public", lambda number: str(number) == "127.0.0.1")
    assert "private network (127.0.0.2)" in refusal(f"{public}/", tmp_path / "f", private_addresses=False)


def test_an_endless_body_is_left_at_the_limit(serving, tmp_path):
    address = serving({"/": endless})
    assert "has more than the 1.0 MB" in refusal(f"{address}/", tmp_path / "f")
    assert (tmp_path / "f").stat().st_size <= 1_000_000


def test_a_body_that_unpacks_to_too_much_is_left_at_the_limit(serving, tmp_path):
    bomb = gzip.compress(bytes(50_000_000))
    address = serving({
        "/": page(gzip.compress(b"Words"), Content_Encoding="gzip"),
        "/bomb": page(bomb, Content_Encoding="gzip"),
        "/br": page(b"x", Content_Encoding="br"),
        "/bad": page(b"x" * 99, Content_Encoding="gzip"),
    })  # fmt: skip
    fetch(f"{address}/", tmp_path / "f", max_bytes=99, private_addresses=True)
    assert (tmp_path / "f").read_bytes() == b"Words"
    assert "has more than the 1.0 MB" in refusal(f"{address}/bomb", tmp_path / "g")
    assert "comes packed as 'br'" in refusal(f"{address}/br", tmp_path / "g")
    assert "comes damaged" in refusal(f"{address}/bad", tmp_path / "g")


@pytest.mark.parametrize("answer", [slow, slow_headers])
def test_a_server_that_drips_is_left_in_time(serving, tmp_path, answer):
    address, started = serving({"/": answer}), time.monotonic()
    assert "did not come within 0.3 seconds" in refusal(f"{address}/", tmp_path / "f", timeout_s=0.3)
    assert time.monotonic() - started < 3


def test_what_is_not_there_says_so(serving, tmp_path):
    address = serving({"/": page(b"no", 404)})
    assert "answered 404" in refusal(f"{address}/", tmp_path / "f")
    assert "cannot be reached" in refusal("http://127.0.0.1:1/", tmp_path / "f")
    for wrong in ("ftp://example.org/", "http://", "https:///a", "http://[::1", "file:///etc/passwd"):
        assert "is no web address" in refusal(wrong, tmp_path / "f")


def test_a_name_shows_neither_password_nor_what_cannot_be_printed_and_is_short():
    assert name_of("https://me:secret@example.org/a/") == "example.org/a"
    assert name_of("https://example.org/%0A%E2%80%AEx") == "example.org/\ufffd\ufffdx"
    long = name_of(f"https://example.org/{'a' * 500}/end.html")
    assert (
        len(long) == 120
        and long.startswith("example.org/aaa")
        and long.endswith("…" + long[61:])
        and "end.html" in long
    )


# Names that mean several machines, and every range that is set apart


def resolving(numbers: list[str]) -> Callable[..., list[tuple[object, ...]]]:
    def resolve(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        host.encode("idna")  # as the real one does first
        return [
            (socket.AF_INET6 if ":" in n else socket.AF_INET, socket.SOCK_STREAM, 6, "", (n, port)) for n in numbers
        ]

    return resolve


@pytest.mark.parametrize(
    "numbers", [["93.184.215.14", "10.0.0.1"], ["93.184.215.14", "fec0::1"], ["fd00::1", "1.1.1.1"]]
)
def test_a_host_is_refused_if_any_of_its_addresses_is_private(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", resolving(numbers))
    message = refusal("http://example.org/", tmp_path / "f", private_addresses=False)
    assert "'example.org' lies on this machine or a private network" in message


def test_a_host_is_reached_by_ipv4_where_it_has_both(serving, tmp_path, monkeypatch):
    port = serving({"/": page(b"Words")}).rpartition(":")[2]
    monkeypatch.setattr("socket.getaddrinfo", resolving(["::2", "127.0.0.1"]))
    fetch(f"http://example.org.:{port}/", tmp_path / "f", max_bytes=99, private_addresses=True)
    assert (tmp_path / "f").read_bytes() == b"Words"


def test_a_name_that_is_slow_to_resolve_is_left_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: time.sleep(2))
    started = time.monotonic()
    assert "did not come within 0.1 seconds" in refusal("http://example.org/", tmp_path / "f", timeout_s=0.1)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "network",
    # https://www.iana.org/assignments/iana-ipv4-special-registry and .../iana-ipv6-special-registry
    ["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
     "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
     "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "255.255.255.255/32",
     "::1/128", "::/128", "::ffff:0:0/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001::/32",
     "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:2::/48", "2001:3::/32", "2001:4:112::/48", "2001:10::/28",
     "2001:20::/28", "2001:30::/28", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16",
     "fc00::/7", "fe80::/10",
     # besides: multicast, IPv4-compatible, IPv4-translated, site-local, and private IPv4 behind NAT64
     "224.0.0.0/4", "ff00::/8", "::/96", "::ffff:0:0:0/96", "fec0::/10", "64:ff9b::a00:0/104", "64:ff9b::a9fe:0/112"],
)  # fmt: skip
def test_no_address_of_a_special_range_is_public(network):
    net = ip_network(network)
    for number in (net[0], net[net.num_addresses // 2], net[-1]):
        assert not is_public(number), number


@pytest.mark.parametrize(
    "number",
    ["1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
     "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.0.3.0", "192.167.255.255",
     "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "2001:200::", "2001:db7:ffff::", "2001:db9::",
     "2003::", "2620:4f:7fff::", "2620:4f:8001::", "3ffe::", "3fff:1000::", "64:ff9b::808:808"],
)  # fmt: skip
def test_an_address_beside_a_special_range_is_public(number):
    assert is_public(ip_address(number))


def test_python_calls_no_address_private_that_we_call_public():
    numbers = random.Random(0)
    for _ in range(5_000):
        for number in (IPv4Address(numbers.getrandbits(32)), IPv6Address(numbers.getrandbits(128))):
            assert not is_public(number) or (number.is_global and not number.is_reserved and not number.is_multicast)


# Addresses as strangers write them


HOSTS = [
    "[::1", "::1]", "[::1]", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[v1.x]", "0x7f.1", "2130706433", "127.1",
    "017700000001", "127.0.0.1.", "localhost.", "exa%6dple.org", "%00", "%2f", "..", ".", ".example.org",
    "example.org.", "a" * 64, "a." * 150, "xn--", "xn--a", "xn--zzzzzz99", "xn--i-7iq.example", "ü" * 60,
    "日本.example", "\u2488.example", "ex\u00adample.org", "\u0663.example", "1.2.3", "1.2.3.4.5", "999.1.1.1",
    "a b", "a_b", "-a-", "*", "\ud800", "\u202eexample", "me:secret@example.org", "@", "a@b@c", "",
]  # fmt: skip
SCHEMES = ["http://", "https://", "HTTP://", "http:/", "http:", "//", "ftp://", "http://me:secret@", " http://", ""]
PORTS = ["", ":", ":0", ":80", ":-1", ":99999", ":65536", ":1_0", ":\u0663", ":a", ":1e3", ": 80", ":" + "9" * 5_000]
PATHS = ["", "/", "/a?b#c", "\\@b", "/%zz", "/../..", "?", "#"]
ADDRESSES = st.text(max_size=30) | st.tuples(
    st.sampled_from(SCHEMES),
    st.sampled_from(HOSTS) | st.text(max_size=12),
    st.sampled_from(PORTS),
    st.sampled_from(PATHS) | st.text(max_size=8),
).map("".join)


def outcome(act: Callable[[], str]) -> str:
    try:
        said = act()
    except UnreadableDocument as error:
        said = str(error)
        assert ": " in said and len(said) < 600
    assert said.splitlines() == [said]
    return said


@settings(max_examples=300, deadline=None)
@given(ADDRESSES)
def test_any_text_as_an_address_gives_a_name_or_one_line(address):
    outcome(lambda: name_of(address))


def test_any_address_is_fetched_or_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", resolving(["127.0.0.3"]))

    @settings(max_examples=60, deadline=None)
    @given(ADDRESSES)
    def check(address: str) -> None:
        outcome(lambda: fetch(address, tmp_path / "f", max_bytes=9, private_addresses=True))

    check()


def test_any_redirect_is_followed_or_refused_in_one_line(serving, tmp_path, monkeypatch):
    location = b""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\n\r\n")

    base = serving({"/": answer})
    real, scripted = socket.getaddrinfo, resolving(["127.0.0.3"])
    monkeypatch.setattr(
        "socket.getaddrinfo", lambda host, *a, **k: (real if host == "127.0.0.1" else scripted)(host, *a, **k)
    )

    @settings(max_examples=50, deadline=None)
    @given(ADDRESSES.map(lambda text: text.encode(errors="surrogatepass")) | st.binary(max_size=20))
    def check(written: bytes) -> None:
        nonlocal location
        location = written
        outcome(lambda: fetch(f"{base}/", tmp_path / "f", max_bytes=9, private_addresses=True))

    check()


# Packed bodies


@pytest.mark.parametrize("cut", [0, 1, 5, 12, -9, -8, -1])
def test_a_packed_body_that_ends_early_is_an_error(serving, tmp_path, cut):
    address = serving({"/": page(gzip.compress(b"Words, words")[:cut], Content_Encoding="gzip")})
    assert "comes damaged (it ends early)" in refusal(f"{address}/", tmp_path / "f")


def test_all_members_of_a_packed_body_are_read_within_the_limit(serving, tmp_path):
    members = [gzip.compress(b"Words "), gzip.compress(b""), gzip.compress(b"and more")]
    address = serving({
        "/": page(b"".join(members), Content_Encoding="gzip"),
        "/padded": page(b"\0\0".join([*members, b"\0" * 100_000]), Content_Encoding="x-gzip"),
        "/short": page(b"".join(members)[:-3], Content_Encoding="gzip"),
        "/garbage": page(members[0] + b"more", Content_Encoding="gzip"),
        "/bomb": page(gzip.compress(bytes(400_000)) * 3, Content_Encoding="gzip"),
    })  # fmt: skip
    for path in ("/", "/padded"):
        fetch(f"{address}{path}", tmp_path / "f", max_bytes=14, private_addresses=True)
        assert (tmp_path / "f").read_bytes() == b"Words and more"
    assert "comes damaged (it ends early)" in refusal(f"{address}/short", tmp_path / "g")
    assert "comes damaged" in refusal(f"{address}/garbage", tmp_path / "g")
    assert "has more than the 0.0 MB" in refusal(f"{address}/", tmp_path / "g", max_bytes=13)
    assert "has more than the 1.0 MB" in refusal(f"{address}/bomb", tmp_path / "g")


@pytest.mark.parametrize("packing", ["deflate", "br", "zstd", "gzip, gzip", "x" * 5_000])
def test_a_body_packed_as_was_not_asked_for_is_refused(serving, tmp_path, packing):
    address = serving({"/": page(b"x", Content_Encoding=packing)})
    assert f"comes packed as {packing[:20]!r}" in refusal(f"{address}/", tmp_path / "f")


def test_a_packed_body_reads_the_same_however_it_is_cut_into_parts(serving, tmp_path):
    body, size = b"", 1

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in [*(body[start : start + size] for start in range(0, len(body), size)), b""]:
            request.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")

    address = serving({"/": answer})

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.integers(1, 50))
    def check(texts: list[bytes], cut: int) -> None:
        nonlocal body, size
        body, size = b"".join(gzip.compress(text) for text in texts), cut
        fetch(f"{address}/", tmp_path / "f", max_bytes=1_000, private_addresses=True)
        assert (tmp_path / "f").read_bytes() == b"".join(texts)

    check()


def test_a_packed_body_that_drips_is_left_in_time(serving, tmp_path):
    def drip(request: BaseHTTPRequestHandler) -> None:
        page(b"", Content_Encoding="gzip")(request)
        for _ in range(200):
            request.wfile.write(gzip.compress(b""))
            time.sleep(0.05)

    address, started = serving({"/": drip}), time.monotonic()
    assert "did not come within 0.3 seconds" in refusal(f"{address}/", tmp_path / "f", timeout_s=0.3)
    assert time.monotonic() - started < 3


def test_no_message_shows_a_password_or_all_of_a_long_address(tmp_path):
    for address in ("http://me:secret@127.0.0.1:1/", "http://me:secret@[::1/", "http://me:secret@example.org:0/a@b"):
        assert "secret" not in refusal(address, tmp_path / "f")
    assert len(refusal(f"http://127.0.0.1:1/{'a' * 50_000}", tmp_path / "f")) < 300


def test_five_redirects_are_followed_and_not_a_sixth(serving, tmp_path):
    address = serving({f"/{n}": page(b"", 302, Location=f"/{n - 1}") for n in range(1, 7)} | {"/0": page(b"Words")})
    assert fetch(f"{address}/5", tmp_path / "f", max_bytes=99, private_addresses=True).endswith("/5")
    assert (tmp_path / "f").read_bytes() == b"Words"
    assert "is redirected more than 5 times" in refusal(f"{address}/6", tmp_path / "f")


def test_an_address_is_told_from_a_path_by_its_scheme():
    assert all(map(is_address, ("http://a", "HTTPS://a")))
    assert not any(map(is_address, ("", "a/http://", "http:/a", "ftp://a", "https", "C:\\http://")))
