"""Which requests the page's server answers; the rest of it is tested in the browser."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import gradio as gr
import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from chatbot import Conversation
from tests.ui.standin import StandIn, stocked
from tests.ui.test_chat import page_of
from tests.ui.test_whole_page import Halting
from ui import build_app, mount
from ui.chat import chats
from ui.front import LARGEST_BODY, UPLOADS, SiteUnusable
from ui.i18n import texts
from ui.run import Broken
from ui.server import mounted
from ui.thread import Asking


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:7860", 200),
        ("127.0.0.1", 200),
        ("[::1]:7860", 200),
        ("LOCALHOST.", 200),
        ("docs.example.org", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("evillocalhost", 421),
        ("evil.localhost.example", 421),
        ("evil-docs.example.org", 421),
        ("evil.example@localhost", 421),
        ("localhost evil.example", 421),
        ("localhost:80:80", 421),
        ("chat.localhost", 200),
        ("192.168.0.7", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_the_page_answers_under_its_own_names_alone(host: str, status: int):
    site = mounted(gr.Blocks(), 5, names=["Docs.Example.org"])
    answer = TestClient(site).get("/", headers={"host": host})
    assert answer.status_code == status
    assert status == 200 or "--name" in answer.text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("192.168.1.5:7860", 200),
        ("[fe80::1]:7860", 200),
        ("0.0.0.0", 200),
        ("studio", 200),
        ("evil.example", 421),
        ("192.168.1.5.evil.example", 421),
        ("1.5", 421),
        ("evilstudio", 421),
    ],
)
def test_on_a_network_the_page_answers_at_numeric_addresses_too(host: str, status: int):
    site = mounted(gr.Blocks(), 5, names=["studio"], addresses=True)
    assert TestClient(site).get("/", headers={"host": host}).status_code == status


def test_a_name_that_a_proxy_passes_on_and_a_second_host_are_looked_at_too():
    client = TestClient(mounted(gr.Blocks(), 5, names=["docs.example.org"]), base_url="http://localhost")
    assert client.get("/", headers={"x-forwarded-host": "docs.example.org"}).status_code == 200
    assert client.get("/", headers={"x-forwarded-host": "evil.example"}).status_code == 421
    twice = [("host", "localhost"), ("host", "evil.example")]
    assert client.get("/", headers=twice).status_code == 421


def test_a_websocket_passes_no_guard():
    site = mounted(gr.Blocks(), 5, names=())
    routes = len(site.router.routes)

    @site.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()

    site.router.routes.insert(0, site.router.routes.pop(routes))  # before gradio's, which is at "/"
    for headers in ({"host": "evil.example"}, {"host": "localhost", "origin": "http://evil.example"}):
        with pytest.raises(WebSocketDisconnect), TestClient(site).websocket_connect("/talk", headers=headers):
            pass
    with TestClient(site).websocket_connect("/talk", headers={"host": "localhost"}):
        pass


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    return tmp_path / "uploads"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost:7860"}, 200),
        ({"origin": "http://localhost:7860", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "https://docs.example.org"}, 200),
        ({"origin": "https://docs.example.org", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://localhost:8000"}, 403),
        ({"origin": "http://localhost:7860", "sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost:7860.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
    ],
)
def test_pages_of_other_sites_send_nothing(uploads: Path, headers: dict[str, str], status: int):
    site = mounted(build_app(StandIn()), 5, names=["docs.example.org"])
    with TestClient(site, base_url="http://localhost:7860") as client:
        files = {"files": ("a.txt", b"text")}
        assert client.post("/gradio_api/upload", files=files, headers=headers).status_code == status
        asked = client.post("/gradio_api/call/ask", json={"data": ["Hello?"]}, headers=headers)
        assert asked.status_code == status
        assert status == 200 or list(uploads.rglob("*")) == []


@pytest.mark.parametrize("origin", ["http://localhost:8000", "http://127.0.0.1:7860", "https://evil.example", "null"])
def test_no_other_origin_may_read_the_page(origin: str):
    client = TestClient(mounted(build_app(StandIn()), 5, names=()), base_url="http://localhost:7860")
    asking = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    for answer in (
        client.get("/config", headers={"origin": origin}),
        client.options("/gradio_api/queue/join", headers={"origin": origin} | asking),
    ):
        assert "access-control-allow-origin" not in answer.headers


def test_what_lies_in_the_folder_of_uploads_is_bounded_and_said_in_one_line(uploads: Path):
    with TestClient(mounted(build_app(StandIn()), 1, names=()), base_url="http://localhost") as client:

        def upload(size: int) -> tuple[int, str]:
            answer = client.post("/gradio_api/upload", files={"files": (f"{size}.txt", b"x" * size)})
            return answer.status_code, answer.text

        assert upload(900_000)[0] == 200
        status, said = upload(UPLOADS * 1_000_000)
        assert (status, said.count("\n")) == (413, 1)
        for n in range(UPLOADS):
            assert upload(900_001 + n)[0] == 200
        status, said = upload(990_000)
        assert status == 200
        status, said = upload(991_000)
        assert (status, said.count("\n")) == (507, 1)
        assert upload(1_100_000)[0] in (400, 413, 507)
        assert sum(each.stat().st_size for each in uploads.rglob("*") if each.is_file()) < UPLOADS * 1_000_000
        pieces = client.post(
            "/gradio_api/upload", content=iter([b"x"]), headers={"content-type": "multipart/form-data"}
        )
        assert pieces.status_code == 411


def test_an_upload_that_breaks_off_leaves_nothing_behind(uploads: Path):
    site = mounted(build_app(StandIn()), 5, names=())
    head = b'--b\r\ncontent-disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
    messages = [{"type": "http.request", "body": head + b"x" * 100_000, "more_body": True}, {"type": "http.disconnect"}]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/gradio_api/upload",
        "query_string": b"",
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", b"multipart/form-data; boundary=b"),
            (b"content-length", b"200000"),
        ],
    }

    async def broken_off() -> None:
        async def receive() -> dict[str, object]:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(_: object) -> None: ...

        await site(scope, receive, send)

    with ThreadPoolExecutor(1) as elsewhere:  # the tests' browser has a loop running in this thread
        elsewhere.submit(anyio.run, broken_off).result()
    assert [each for each in uploads.rglob("*") if each.is_file()] == []


def test_nothing_but_uploads_is_large_and_what_the_page_does_not_use_is_not_there():
    with TestClient(mounted(build_app(StandIn()), 5, names=()), base_url="http://localhost") as client:
        long = {"data": ["x" * LARGEST_BODY]}
        assert client.post("/gradio_api/call/ask", json=long).status_code == 413
        pieces = (b" " * 100_000 for _ in range(100))
        kind = {"content-type": "application/json"}
        assert client.post("/gradio_api/call/ask", content=pieces, headers=kind).status_code == 413
        for path in (
            "file=https://example.org/a.txt",
            "proxy=https://example.hf.space/",
            "deep_link?session_hash=x",
            "component_server",
            "vibe-edit",
            "dev/reload",
        ):
            assert client.get(f"/gradio_api/{path}").status_code == 404, path
        assert client.get("/monitoring/summary").status_code == 404


def test_only_named_sites_show_the_page_in_a_frame():
    def policy(**options: object) -> str:
        return TestClient(mounted(gr.Blocks(), 5, **options)).get("/").headers["content-security-policy"]

    assert policy().endswith("frame-ancestors 'self'")
    assert policy(frames=["https://intranet.example.org"]).endswith("'self' https://intranet.example.org")
    for wrong in ("https://a.example; script-src *", "a b", "", "javascript:x"):
        with pytest.raises(SiteUnusable, match="no site"):
            mounted(gr.Blocks(), 5, frames=[wrong])
    with pytest.raises(SiteUnusable, match="write it as /chat"):
        mounted(gr.Blocks(), 5, root_path="chat")


def test_a_page_in_a_hosts_app_has_it_all_and_the_hosts_own_routes_stay_as_they_are():
    host, chatbot = FastAPI(), StandIn()

    @host.get("/health")
    def health() -> str:
        return "well"

    assert mount(host, chatbot, "/chat", frames=["https://portal.example.org"]) is host
    with TestClient(host, base_url="http://localhost") as client:
        page = client.get("/chat/")
        assert "frame-ancestors 'self' https://portal.example.org" in page.headers["content-security-policy"]
        assert "#6f6a63" in client.get("/chat/theme.css").text  # the theme's
        assert client.get("/chat/config").json()["root"] == "http://localhost/chat"
        assert "content-security-policy" not in client.get("/health").headers
        assert client.get("/health", headers={"host": "evil.example"}).status_code == 200
        assert client.get("/chat/", headers={"host": "evil.example"}).status_code == 421
        asked = client.post("/chat/gradio_api/call/ask", json={"data": ["Hello?"]})
        told = client.get(f"/chat/gradio_api/call/ask/{asked.json()['event_id']}").text
        assert "could not find this" in told


@pytest.mark.parametrize("build", [build_app, page_of])
def test_as_a_hosts_app_ends_what_is_in_progress_is_cut_off_before_the_host_closes_anything(monkeypatch, build):
    monkeypatch.setattr("ui.replies.CLOSING_SECONDS", 0.2)
    asking, ended = Asking("Which hotels?", Conversation(), texts("en")), []

    @asynccontextmanager
    async def lifespan(_):
        yield
        ended.append(asking.run.ended)

    host, chatbot = FastAPI(lifespan=lifespan), Halting(knowledge=stocked().knowledge)
    page = build(chatbot)
    mount(host, page, "/chat")
    with TestClient(host, base_url="http://localhost"):
        (chat,) = chats(page)
        chat._replies.begin(asking)
        assert asking.run.ended is None
    chatbot.go_on.set()
    assert ended == [Broken("cut_off")]


def test_behind_a_proxy_that_takes_a_prefix_off_the_page_asks_below_it():
    site = mounted(build_app(StandIn()), 5, names=["example.org"], root_path="/docs/")
    with TestClient(site, base_url="http://example.org") as client:
        assert client.get("/config").json()["root"] == "http://example.org/docs"
        assert client.get("/docs/config").json()["root"] == "http://example.org/docs"  # one that leaves it there
    whole = mounted(build_app(StandIn()), 5, names=(), root_path="https://example.org/docs")
    with TestClient(whole, base_url="http://localhost") as client:
        assert client.get("/config").json()["root"] == "https://example.org/docs"
        own = {"host": "example.org", "origin": "https://example.org"}
        assert client.post("/gradio_api/call/ask", json={"data": ["Hello?"]}, headers=own).status_code == 200
