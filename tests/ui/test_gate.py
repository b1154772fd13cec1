"""What a stranger with a script can do at the page: each function of it is called by its index, with everything.

No browser: requests of the shapes that gradio takes, to the page as `serve` has it and as hosts mount it.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from chatbot import Answered, Conversation
from chatbot.errors import UnusableUtterance
from tests.ui.standin import StandIn
from ui import RagChat, build_app
from ui.app import SESSIONS
from ui.line import WAITING
from ui.server import mounted

SECRET = "the host's own secret"
Site = Callable[[StandIn], FastAPI]


def served(chatbot: StandIn) -> FastAPI:
    return mounted(build_app(chatbot), 5)


def mounted_by_a_host(chatbot: StandIn) -> FastAPI:
    return gr.mount_gradio_app(FastAPI(), build_app(chatbot), "/")


def embedded(chatbot: StandIn) -> FastAPI:
    with gr.Blocks() as page:
        gr.Markdown("# Help desk")
        RagChat(chatbot, choose_scope=True)
    return gr.mount_gradio_app(FastAPI(), page, "/")


def embedded_in_a_page_within_a_page(chatbot: StandIn) -> FastAPI:
    with gr.Blocks() as chat:
        RagChat(chatbot, choose_scope=True)
    with gr.Blocks() as page:
        chat.render()
    return gr.mount_gradio_app(FastAPI(), page, "/")


SITES: tuple[Site, ...] = (served, mounted_by_a_host, embedded, embedded_in_a_page_within_a_page)


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that gradio puts uploads in."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    return tmp_path / "uploads"


class Stranger:
    """A client that calls functions by their index, or by the name that gradio gave them."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    @property
    def functions(self) -> list[dict[str, Any]]:
        return [each for each in self.client.get("/config").json()["dependencies"] if each["backend_fn"]]

    def predict(self, function: dict[str, Any], data: list[Any], session: str = "stranger", **more: Any) -> str:
        body = {"fn_index": function["id"], "data": data, "session_hash": session, **more}
        sent = json.dumps(body)  # httpx would write no half of a character
        headers = {"Content-Type": "application/json"}
        return self.client.post("/gradio_api/run/predict", content=sent, headers=headers).text

    def join(self, function: dict[str, Any], data: list[Any], session: str = "stranger", **more: Any) -> str:
        body = {"fn_index": function["id"], "data": data, "session_hash": session, **more}
        said = self.client.post("/gradio_api/queue/join", json=body).text
        return said + self.client.get("/gradio_api/queue/data", params={"session_hash": session}).text

    def call(self, function: dict[str, Any], data: list[Any]) -> str:
        address = f"/gradio_api/call/{function['api_name']}"
        answer = self.client.post(address, json={"data": data})
        if "event_id" not in answer.text:
            return answer.text
        return self.client.get(f"{address}/{answer.json()['event_id']}").text


@pytest.fixture(params=SITES, ids=lambda site: site.__name__)
def stranger(request: pytest.FixtureRequest, uploads: Path, chatbot: StandIn) -> Iterator[Stranger]:
    with TestClient(request.param(chatbot), base_url="http://127.0.0.1") as client:
        yield Stranger(client)


@pytest.fixture
def chatbot() -> StandIn:
    return StandIn()


def file_value(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_no_function_of_the_page_takes_a_file_that_was_not_handed_in(
    stranger: Stranger, chatbot: StandIn, uploads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    handed_in = stranger.client.post("/gradio_api/upload", files={"files": ("mine.txt", b"my own")}).json()[0]
    (uploads / "link.txt").symlink_to(secret)
    asked_for: list[str] = []
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: (asked_for.append(host), resolve(host, *rest, **more))[1]
    )
    paths = [
        str(secret),
        str(Path(handed_in).parent / ".." / ".." / ".." / "secret.txt"),
        str(uploads / "link.txt"),
        "http://files.example/a.txt",
        "https://files.example/a.txt",
    ]
    shapes = [lambda each: each, lambda each: [each], lambda each: {"a": [each]}]
    for number, function in enumerate(stranger.functions):
        width = max(1, len(function["inputs"]))
        for turn, path in enumerate(paths):
            said = stranger.predict(function, [shapes[(number + turn) % 3](file_value(path))] * width)
            assert "error" in said or not function["inputs"], function
            assert SECRET not in said
        for place in range(width):  # each input alone
            stranger.predict(function, [file_value(str(secret)) if place == each else "" for each in range(width)])
        for send, path in itertools.product(
            (stranger.join, stranger.call), (str(secret), "http://files.example/a.txt")
        ):
            assert SECRET not in send(function, [file_value(path)] * width)
    chatbot.ingestion.wait(10)
    assert [each.name for each in chatbot.knowledge.documents()] == []
    assert [path for path in uploads.rglob("*") if not path.is_symlink() and path.is_file()] == [Path(handed_in)]
    assert [host for host in asked_for if host == "files.example"] == []
    for path in (secret, uploads / "link.txt"):
        assert SECRET not in stranger.client.get(f"/gradio_api/file={path}").text


def test_what_was_handed_in_becomes_a_document(uploads: Path, chatbot: StandIn):
    with TestClient(served(chatbot), base_url="http://127.0.0.1") as client:
        stranger = Stranger(client)
        path = client.post("/gradio_api/upload", files={"files": ("mine.txt", b"Dogs on Fridays.")}).json()[0]
        files = [each for each in stranger.functions if each["api_name"] == "_add"]
        assert "error" not in json.loads(stranger.predict(files[0], [[file_value(path)], False, "general", "me", None]))
        chatbot.ingestion.wait(10)
    assert [each.name for each in chatbot.knowledge.documents()] == ["mine.txt"]


def test_what_no_page_would_send_is_refused_in_one_line_and_does_no_harm(
    stranger: Stranger, chatbot: StandIn, capfd: pytest.CaptureFixture[str]
):
    chatbot.knowledge.put("kept.md", "Dogs may come on Fridays.")
    odd: list[Any] = [None, 3, True, "x", [], {}, [[1]], {"key": {"path": 1}}, {"meta": 3, "path": 3}, {"meta": 3}]
    odd += ["half \ud83d", ["\udc00", {"\ud800": "\ud800"}]]  # of a character, which a text cut in two may end in
    told: list[Any] = [None, [], "key", {}, {"key": None, "turn": "0", "value": []}, {"turn": 10**30, "rating": []}]
    told += [{"key": file_value("/etc/hostname")}, file_value("/etc/hostname"), {"key": "\ud800", "value": "\ud800"}]
    for function in stranger.functions:
        width = len(function["inputs"])
        for n, value in enumerate(odd):
            stranger.predict(function, [value] * width, trigger_id=0, event_data=told[n % len(told)])
            stranger.predict(function, [value] * (width - 1) if n % 2 else [], event_data=told[(n + 1) % len(told)])
    for number in (-1, 10**9):
        for session in ("stranger", None):
            body = {"fn_index": number, "data": [], "session_hash": session}
            for route in ("run/predict", "queue/join"):
                assert 400 <= stranger.client.post(f"/gradio_api/{route}", json=body).status_code < 500
    assert "Traceback" not in "".join(capfd.readouterr())
    assert [each.name for each in chatbot.knowledge.documents()] == ["kept.md"]


def test_requests_past_the_queue_have_the_same_limit(uploads: Path):
    at_once: list[int] = []
    running = 0

    class Counting(StandIn):
        def answer(self, *given: Any, **more: Any) -> Iterator[Any]:
            nonlocal running
            running += 1
            at_once.append(running)
            try:
                yield from super().answer(*given, **more)
            finally:
                running -= 1

    with TestClient(served(Counting()), base_url="http://127.0.0.1") as client:
        stranger = Stranger(client)
        ask = next(each for each in stranger.functions if each["api_name"] == "ask")
        with ThreadPoolExecutor(WAITING + 40) as pool:
            asked = range(WAITING + 40)
            said = [*pool.map(lambda n: stranger.predict(ask, ["When?", None], session=f"s{n}"), asked)]
        assert max(at_once) == 1
        assert 1 + WAITING <= sum("could not find this" in each for each in said) < len(asked)
        assert all("Too many are asking" in each for each in said if "could not find" not in each)
        assert "could not find this" in stranger.call(ask, ["When?"])


def test_a_question_too_long_to_be_answered_is_not_kept(uploads: Path):
    class Strict(StandIn):
        def answer(self, conversation: Conversation, utterance: str, **more: Any) -> Iterator[Any]:
            if len(utterance) > self.settings.max_utterance:
                raise UnusableUtterance("the question is too long: shorten it")
            yield from super().answer(conversation, utterance, **more)

    chatbot = Strict()
    with TestClient(served(chatbot), base_url="http://127.0.0.1") as client:
        stranger = Stranger(client)
        begin = next(each for each in stranger.functions if each["api_name"] == "_begin")
        for key, utterance in (("long", "x" * 3_900_000), ("short", "When?")):
            stranger.predict(begin, [*[None] * (len(begin["inputs"]) - 2), key, utterance], session=key)
        assert [(key, title) for key, title, _ in chatbot.history.list()] == [("short", "When?")]


def test_strangers_reach_neither_each_others_files_nor_conversations(uploads: Path, chatbot: StandIn, tmp_path: Path):
    (tmp_path / "theirs.txt").write_text("Their file.")
    chatbot.knowledge.put("theirs.txt", "Another one.")
    chatbot.ingestion.submit([(tmp_path / "theirs.txt", "theirs.txt")], owner="them")
    chatbot.ingestion.wait(10)
    turn = next(
        event.turn for event in chatbot.answer(Conversation(), "Their question?") if isinstance(event, Answered)
    )
    chatbot.history.save("theirs", Conversation((turn,)))
    before = chatbot.ingestion.batches(), chatbot.history.load("theirs")
    with TestClient(mounted(build_app(chatbot, shared=True), 5), base_url="http://127.0.0.1") as client:
        stranger = Stranger(client)
        for function in stranger.functions:
            if function["api_name"] in ("_delete", "_delete_collection"):  # these are everybody's, in the page too
                continue
            for value in (None, "", "mine"):
                for key in ("", "mine"):
                    said = stranger.predict(function, [value] * len(function["inputs"]), event_data={"key": key})
                    assert "Their question?" not in said, function
    assert (chatbot.ingestion.batches(), chatbot.history.load("theirs")) == before


def test_a_host_has_one_endpoint_more_and_its_own_events_are_private(chatbot: StandIn):
    with gr.Blocks() as page:
        chat = RagChat(chatbot)
        chat.on_change(lambda conversation: None, [chat.conversation], [])
    assert [each.api_name for each in page.fns.values() if each.api_visibility == "public"] == ["ask"]


def test_sessions_are_few_and_small(uploads: Path, chatbot: StandIn):
    page = build_app(chatbot)
    with TestClient(mounted(page, 5), base_url="http://127.0.0.1") as client:
        stranger = Stranger(client)
        ask = next(each for each in stranger.functions if each["api_name"] == "ask")
        for n in range(3):
            stranger.predict(ask, ["When?", None], session=f"s{n}")
        sessions = page.state_holder
        assert sessions.capacity == SESSIONS
        assert [*sessions.session_data] == ["s0", "s1", "s2"]
        assert not any(session.config_values for session in sessions.session_data.values())
