"""Web addresses, served by this machine: which the setting allows, and which is refused without it."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest

from chatbot.errors import UnreadableDocument
from chatbot.fetch import fetch, is_public, name_of

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
