import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import chromadb
import httpx
import numpy as np
import pytest

from chatbot.catalogue import Catalogue, Entry
from chatbot.embedders.base import Vectors
from chatbot.embedders.hashing import Hashing
from chatbot.errors import HomeDamaged, StoreUnreachable, WrongSetting
from chatbot.index.base import Space
from chatbot.index.chroma import Chroma, Dense
from chatbot.passage import Passage

Where = str | Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, url = start_server(tmp_path_factory.mktemp("server"))
    yield url
    process.kill()
    process.wait()


@pytest.fixture(params=["folder", "server"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    return tmp_path / "chroma" if request.param == "folder" else request.getfixturevalue("server")


@pytest.fixture
def store(where: Where, request: pytest.FixtureRequest) -> Iterator[Chroma]:
    store = Chroma(where, "an embedder", owner=f"{abs(hash(request.node.name)):x}")
    yield store
    store.close()


def start_server(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    chroma = Path(sys.executable).parent / "chroma"
    process = subprocess.Popen(
        [chroma, "run", "--path", folder, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            httpx.get(f"{url}/api/v2/heartbeat").raise_for_status()
            return process, url
        except httpx.HTTPError:
            time.sleep(0.1)
    process.kill()
    raise AssertionError("chroma run did not answer within 30 s")


def unit(rows: int, dimensions: int = 32, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def names(rows: int) -> list[str]:
    return [f"p{n}" for n in range(rows)]


def test_search_ranks_as_brute_force_does(store: Chroma):
    vectors, queries = unit(1500), unit(20, seed=1)
    store.upsert(names(1500), "d", vectors)
    for query in queries:
        cosines = vectors @ query
        best = np.argsort(-cosines)[:100]
        ranking = store.search(query, 100)
        assert len(ranking) == 100
        assert len({id for id, _ in ranking} & {f"p{n}" for n in best}) >= 95
        assert [score for _, score in ranking] == sorted((score for _, score in ranking), reverse=True)
        assert all(score == pytest.approx(cosines[int(id[1:])], abs=1e-4) for id, score in ranking)


def test_an_empty_store_finds_nothing_and_a_small_one_all_it_has(store: Chroma):
    assert (store.search(unit(1)[0], 5), store.ids(), store.count()) == ([], set(), 0)
    store.upsert(names(3), "d", unit(3))
    assert {id for id, _ in store.search(unit(1)[0], 50)} == {"p0", "p1", "p2"}
    assert store.search(unit(1)[0], 0) == []


def test_upserting_an_id_again_replaces_its_vector(store: Chroma):
    store.upsert(["p"], "d", unit(1, seed=1))
    store.upsert(["p"], "d", unit(1, seed=2))
    assert store.count() == 1
    assert np.allclose(store.parts(["p"])["p"], unit(1, seed=2), atol=1e-6)


def test_windows_count_half_and_a_passage_without_any_by_its_whole_alone(store: Chroma):
    passages = [unit(1 + 3 * (n % 2), seed=n) for n in range(200)]
    query = unit(1, seed=1000)[0]
    store.upsert(names(200), "d", passages)
    ranking = store.search(query, 200)
    assert [score for _, score in ranking] == sorted((score for _, score in ranking), reverse=True)
    for id, score in ranking:
        whole, *windows = passages[int(id[1:])] @ query
        assert score == pytest.approx((whole + max(windows)) / 2 if windows else whole, abs=2e-3)
    found = store.parts(["p1", "p2", "unheard"])
    assert {id: parts.shape for id, parts in found.items()} == {"p1": (4, 32), "p2": (1, 32)}
    assert np.allclose(found["p1"], passages[1], atol=2e-2)


def test_a_passage_that_is_replaced_by_a_short_one_loses_its_windows(store: Chroma):
    store.upsert(["p"], "d", [unit(3)])
    store.upsert(["p"], "d", [unit(1, seed=2)])
    assert store.parts(["p"])["p"].shape == (1, 32)


def test_deleting_vectors_leaves_the_others(store: Chroma):
    store.upsert(names(6), ["a", "b", "a", "b", "a", "b"], unit(6))
    store.delete_ids(["p0", "p2", "p4", "p1", "unheard"])
    store.delete_ids([])
    assert store.ids() == {"p3", "p5"}
    assert {id for id, _ in store.search(unit(1)[0], 10)} == {"p3", "p5"}


def test_collections_share_nothing_and_go_alone(store: Chroma):
    store.upsert(["p"], "d", unit(1), "")
    store.upsert(["q"], "d", unit(1), "0123456789ab")
    assert (store.ids(), store.ids("0123456789ab")) == ({"p"}, {"q"})
    assert [id for id, _ in store.search(unit(1)[0], 9, "0123456789ab")] == ["q"]
    assert sorted(store.collections()) == ["", "0123456789ab"]
    store.drop("0123456789ab")
    store.drop("0123456789ab")
    assert (store.collections(), store.ids(), store.ids("0123456789ab")) == ([""], {"p"}, set())


def test_a_collection_made_again_by_another_process_is_used(server: str):
    ours, theirs = (Chroma(server, "an embedder", "both") for _ in range(2))
    for key in ("", "0123456789ab"):
        ours.upsert(["old"], "d", unit(1), key)
        theirs.drop(key)
        theirs.upsert(["new"], "d", unit(1), key)
        assert ours.ids(key) == {"new"}


def test_more_than_a_batch_goes_in_and_out(tmp_path: Path):
    store = Chroma(tmp_path, "an embedder")
    store.upsert(names(10_001), "d", unit(10_001, dimensions=4))
    assert store.ids() == set(names(10_001))
    store.delete_ids(names(10_000))
    assert store.ids() == {"p10000"}
    store.close()


def test_vectors_are_given_by_id_and_absent_ids_are_left_out(store: Chroma):
    vectors = unit(5)
    store.upsert(names(5), "d", vectors)
    rows = store.parts(["p4", "absent", "p0", "p4"])
    assert set(rows) == {"p0", "p4"}
    assert np.allclose(rows["p4"], vectors[4:], atol=1e-6) and np.allclose(rows["p0"], vectors[:1], atol=1e-6)
    assert rows["p0"].dtype == np.float32
    assert store.parts([]) == {}


def test_another_embedder_or_owner_shares_nothing_and_only_ones_own_past_is_dropped(where: Where):
    new, old, other = Chroma(where, "new", "me"), Chroma(where, "old", "me"), Chroma(where, "old", "you")
    old.upsert(["p"], "d", unit(1, dimensions=8), "0123456789ab")
    new.drop_others(["old"])
    assert old.ids("0123456789ab") == {"p"}
    old.upsert(["p"], "d", unit(1, dimensions=8))
    other.upsert(["q"], "d", unit(1, dimensions=8))
    assert new.count() == 0
    new.drop_others()
    assert other.ids() == {"q"}
    assert Chroma(where, "old", "me").count() == Chroma(where, "old", "me").count("0123456789ab") == 0
    assert Chroma(where, "new", "me").count() == 0


def test_vectors_are_there_after_reopening(tmp_path: Path):
    store = Chroma(tmp_path, "an embedder")
    store.upsert(names(2), "d", unit(2))
    store.close()
    again = Chroma(tmp_path, "an embedder")
    assert again.ids() == {"p0", "p1"}
    again.close()


def test_a_collection_that_measures_otherwise_is_refused(tmp_path: Path):
    store = Chroma(tmp_path, "an embedder")
    client = chromadb.PersistentClient(str(tmp_path), chromadb.Settings(anonymized_telemetry=False))
    (collection,) = client.list_collections()
    client.delete_collection(collection.name)
    client.create_collection(collection.name, embedding_function=None, configuration={"hnsw": {"space": "l2"}})
    with pytest.raises(HomeDamaged, match="'l2', not cosine"):
        Chroma(tmp_path, "an embedder")
    client.close()
    store.close()


def test_a_damaged_folder_is_named_in_one_line(tmp_path: Path):
    (tmp_path / "chroma.sqlite3").write_bytes(b"no database" * 1000)
    with pytest.raises(HomeDamaged) as error:
        Chroma(tmp_path, "an embedder")
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_server_that_does_not_answer_is_named_in_one_line(tmp_path: Path):
    process, url = start_server(tmp_path)
    store = Chroma(url, "an embedder")
    store.upsert(["p"], "d", unit(1))
    process.kill()
    process.wait()
    calls: list[Callable[[], object]] = [lambda: store.search(unit(1)[0], 1), store.ids]
    for call in [*calls, lambda: Chroma(url, "an embedder")]:
        with pytest.raises(StoreUnreachable, match=url) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("url", ["ftp://host:1", "http://", "http://host:port", "http://host:8000/path"])
def test_an_address_that_is_none_is_refused(url: str):
    with pytest.raises(WrongSetting, match="http://host:port"):
        Chroma(url, "an embedder")


class Counting(Hashing):
    """Counts the queries it embeds."""

    def __init__(self) -> None:
        super().__init__()
        self.queried = 0

    def queries(self, texts: Sequence[str]) -> Vectors:
        self.queried += len(texts)
        return super().queries(texts)


def corpus(folder: Path, *texts: str) -> Catalogue:
    catalogue = Catalogue(folder / "catalogue.db")
    entry = Entry("d", "d.txt", "text", 1, None, len(texts), "en", "2026-01-01T00:00:00+00:00")
    catalogue.add(entry, [Passage(f"p{n}", "d", "d.txt", text) for n, text in enumerate(texts)])
    return catalogue


def test_dense_search_finds_by_meaning_and_embeds_each_text_once(store: Chroma, tmp_path: Path):
    embedder = Counting()
    texts = ["days of leave", "cost of travel", "年假有多少天"]
    catalogue = corpus(tmp_path, *texts)
    store.upsert(names(3), "d", embedder.passages(texts))
    dense = Dense(lambda: Space(embedder, store), catalogue)
    assert [dense.search(text, 3)[0][0] for text in texts] == names(3)
    ids = ["p2", "p0", "absent", "p1"]
    expected = embedder.passages(texts)[[2, 0, 1]] @ embedder.passages(["leave days"])[0]
    similarities = dense.similarities("leave days", ids)
    assert similarities == pytest.approx([expected[0], expected[1], 0, expected[2]], abs=1e-6)
    assert dense.search("leave days", 1) == [("p0", pytest.approx(similarities[1], abs=1e-6))]
    assert dense.similarities("leave days", []) == []
    assert dense.similarities("leave days", ["absent"]) == [0.0]
    assert embedder.queried == 4
    catalogue.close()


def test_before_every_vector_is_there_none_is_searched_but_all_are_compared(store: Chroma, tmp_path: Path):
    embedder, texts = Hashing(), ["days of leave", "cost of travel"]
    catalogue = corpus(tmp_path, *texts)
    store.upsert(["p0"], "d", embedder.passages(texts[:1]))
    dense = Dense(lambda: Space(embedder, store, whole=False), catalogue)
    assert dense.search("leave", 5) == []
    expected = embedder.passages(texts) @ embedder.queries(["travel leave"])[0]
    assert dense.similarities("travel leave", names(2)) == pytest.approx(list(expected), abs=1e-6)
    catalogue.close()
