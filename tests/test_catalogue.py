import dataclasses
import math
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatbot.catalogue import Catalogue, Entry
from chatbot.errors import HomeDamaged, NameTaken, UnknownDocument
from chatbot.index.lexical import Lexical, TfIdf
from chatbot.language import words
from chatbot.passage import Passage
from chatbot.scope import Scope


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    catalogue = Catalogue(tmp_path / "catalogue.db")
    yield catalogue
    catalogue.close()


def entry(name: str, id: str = "") -> Entry:
    return Entry(id or name, name, "text", 10, None, 0, "en", "2026-01-01T00:00:00+00:00", "")


def passages(name: str, *texts: str, id: str = "") -> list[Passage]:
    id = id or name
    return [Passage(f"{id}:{n}", id, name, text, page=n + 1, heading="Top") for n, text in enumerate(texts)]


def put(catalogue: Catalogue, name: str, *texts: str) -> None:
    catalogue.add(entry(name), passages(name, *texts))


def found(catalogue: Catalogue, text: str, k: int = 10) -> list[str]:
    return [id for id, _ in Lexical(catalogue).search(text, k)]


def test_what_was_added_comes_back_as_it_was_after_reopening(tmp_path: Path):
    path = tmp_path / "catalogue.db"
    first = Catalogue(path)
    put(first, "a.txt", "one", "two")
    put(first, "b.txt", "three")
    identity = first.identity
    first.close()
    again = Catalogue(path)
    assert [each.name for each in again.documents()] == ["b.txt", "a.txt"]
    assert again.find("a.txt") == again.get("a.txt") == dataclasses.replace(entry("a.txt"), passages=2)
    assert list(again.passages(["b.txt:0", "a.txt:1", "nowhere:0"]).values()) == [
        passages("b.txt", "three")[0],
        passages("a.txt", "one", "two")[1],
    ]
    assert again.passage_ids() == ["a.txt:0", "a.txt:1", "b.txt:0"]
    assert again.passage_ids("a.txt") == ["a.txt:0", "a.txt:1"]
    assert again.identity == identity != ""
    again.close()


SCHEMA_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, bytes INTEGER NOT NULL,
    pages INTEGER, passages INTEGER NOT NULL, language TEXT NOT NULL, added TEXT NOT NULL,
    notice TEXT NOT NULL
);
CREATE TABLE passages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, document_id TEXT NOT NULL REFERENCES documents (id),
    text TEXT NOT NULL, page INTEGER, heading TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL
);
CREATE INDEX passages_of_document ON passages (document_id);
CREATE VIRTUAL TABLE lexical USING fts5 (words, tokenize = 'ascii');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab (lexical, row);
INSERT INTO meta VALUES ('identity', 'it');
INSERT INTO documents VALUES
    (3, 'a', 'a.txt', 'text', 10, NULL, 2, 'en', '2026-01-01T00:00:00+00:00', ''),
    (5, 'b', 'b.txt', 'text', 10, NULL, 1, 'en', '2026-01-02T00:00:00+00:00', 'noted');
INSERT INTO passages VALUES
    (4, 'a:0', 'a', 'Alpha one', NULL, '', 0, 9), (5, 'a:1', 'a', 'alpha two', NULL, '', 10, 19),
    (9, 'b:0', 'b', 'alpha  ONE', NULL, '', 0, 10);
INSERT INTO lexical (rowid, words) VALUES (4, 'alpha one'), (5, 'alpha two'), (9, 'alpha one');
PRAGMA application_id = 0x4D617267;
PRAGMA user_version = 1;
"""


def test_a_catalogue_of_the_first_version_is_taken_over(tmp_path: Path):
    with sqlite3.connect(tmp_path / "catalogue.db") as first:
        first.executescript(SCHEMA_1)
    first.close()
    catalogue = Catalogue(tmp_path / "catalogue.db")
    assert catalogue.identity == "it"
    assert [(each.id, each.collection, each.notice) for each in catalogue.documents()] == [
        ("b", "default", "noted"),
        ("a", "default", ""),
    ]
    assert sorted(found(catalogue, "alpha")) == ["a:0", "a:1"]  # "alpha ONE" says what "Alpha one" does
    assert catalogue.cut_otherwise("now") == ["b", "a"]
    put(catalogue, "c.txt", "alpha three")
    catalogue.delete("a")
    assert sorted(found(catalogue, "alpha")) == ["b:0", "c.txt:0"]
    assert catalogue.faults() == []
    catalogue.close()
    Catalogue(tmp_path / "catalogue.db").close()


def test_a_migration_that_is_broken_off_leaves_the_first_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with sqlite3.connect(tmp_path / "catalogue.db") as first:
        first.executescript(SCHEMA_1)
    first.close()
    with monkeypatch.context() as broken:
        broken.setattr("chatbot.catalogue._fingerprint", lambda passage: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Catalogue(tmp_path / "catalogue.db")
    catalogue = Catalogue(tmp_path / "catalogue.db")
    assert len(catalogue.documents()) == 2 and catalogue.faults() == []
    catalogue.close()


def test_faults_are_found_and_mended(catalogue: Catalogue, tmp_path: Path):
    put(catalogue, "a.txt", "alpha", "beta")
    put(catalogue, "b.txt", "gamma")
    assert catalogue.faults() == []
    with sqlite3.connect(tmp_path / "catalogue.db") as other:
        other.execute("DELETE FROM lexical WHERE rowid = 1")
        other.execute("UPDATE documents SET passages = 7 WHERE name = 'b.txt'")
    assert catalogue.faults() == [
        "1 documents with another number of passages than they say",
        "1 passages without words",
    ]
    catalogue.mend()
    assert catalogue.faults() == []
    assert found(catalogue, "alpha") == ["a.txt:0"]
    assert catalogue.get("b.txt").passages == 1


def test_replacing_shows_the_old_or_the_new_and_never_both_or_neither(catalogue: Catalogue):
    put(catalogue, "a.txt", "version 0")
    stop, seen = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            seen.append((len(catalogue.documents()), len(found(catalogue, "version"))))

    looking = [threading.Thread(target=look) for _ in range(3)]
    for thread in looking:
        thread.start()
    old = "a.txt"
    for version in range(1, 40):
        new = f"id-{version}"
        catalogue.add(entry("a.txt", new), passages("a.txt", f"version {version}", id=new), replacing=old)
        old = new
    stop.set()
    for thread in looking:
        thread.join()
    assert len(seen) > 20 and set(seen) == {(1, 1)}


def test_an_addition_that_fails_half_way_leaves_nothing(catalogue: Catalogue):
    put(catalogue, "a.txt", "alpha")
    twice = passages("b.txt", "beta") * 2
    with pytest.raises(sqlite3.IntegrityError):
        catalogue.add(entry("b.txt"), twice, replacing="a.txt")
    assert [each.name for each in catalogue.documents()] == ["a.txt"]
    assert (found(catalogue, "alpha"), found(catalogue, "beta")) == (["a.txt:0"], [])


def test_a_name_is_given_once(catalogue: Catalogue):
    put(catalogue, "a.txt", "alpha")
    with pytest.raises(NameTaken, match=r"'a\.txt'"):
        catalogue.add(entry("a.txt", "other"), passages("a.txt", "beta", id="other"))


def test_deleting_removes_the_passages_and_the_words(catalogue: Catalogue):
    put(catalogue, "a.txt", "alpha common")
    put(catalogue, "b.txt", "beta common")
    assert catalogue.delete("a.txt").name == "a.txt"
    assert catalogue.passage_ids() == ["b.txt:0"]
    assert found(catalogue, "alpha common") == ["b.txt:0"]
    assert set(catalogue.occurrences(["alpha", "beta", "common"])) == {"beta", "common"}
    with pytest.raises(UnknownDocument, match=r"'a\.txt'"):
        catalogue.delete("a.txt")


def test_after_scrubbing_no_byte_of_a_deleted_text_is_left(tmp_path: Path):
    catalogue = Catalogue(tmp_path / "catalogue.db")
    put(catalogue, "kept.txt", *("kept words " * 20 for _ in range(20)))
    put(catalogue, "secret.txt", *(f"zanzibarsecret passage {n}" for n in range(50)))
    catalogue.delete("secret.txt")
    catalogue.scrub()
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    catalogue.close()
    assert b"kept" in held and b"zanzi" not in held


def test_thousands_of_ids_are_looked_up_at_once_in_their_order(catalogue: Catalogue):
    put(catalogue, "a.txt", *(f"text {n}" for n in range(3000)))
    ids = [f"a.txt:{n}" for n in range(2999, -1, -1)] * 3 + [f"gone:{n}" for n in range(40_000)]
    assert list(catalogue.passages(ids)) == ids[:3000]


def test_meta_values_are_kept(catalogue: Catalogue):
    assert catalogue.meta("colour") is None
    catalogue.set_meta("colour", "red")
    catalogue.set_meta("colour", "blue")
    assert catalogue.meta("colour") == "blue"


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")


def _newer(path: Path) -> None:
    Catalogue(path).close()
    with sqlite3.connect(path) as ours:
        ours.execute("PRAGMA user_version = 99")


def _overwritten(path: Path) -> None:
    Catalogue(path).close()
    path.write_bytes(b"no database at all" * 1000)


def _cut(path: Path) -> None:
    catalogue = Catalogue(path)
    put(catalogue, "a.txt", *("words " * 100 for _ in range(100)))
    catalogue.close()
    path.write_bytes(path.read_bytes()[:8192])


@pytest.mark.parametrize("damage", [_foreign, _newer, _overwritten, _cut, Path.mkdir])
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, damage):
    path = tmp_path / "catalogue.db"
    damage(path)
    with pytest.raises(HomeDamaged, match=r"catalogue\.db") as error:
        catalogue = Catalogue(path)
        catalogue.documents()
        catalogue.passages(["a.txt:0", "a.txt:99"])
    assert "\n" not in str(error.value)


CHINESE = ("公司每年提供十五天带薪年假。", "加班费按小时计算。", "北京大学成立于1898年。")
JAPANESE = ("東京大学は1877年に設立されました。", "有給休暇は年に二十日です。", "カメラは別売りです。")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("年假有多少天?", CHINESE[0]),
        ("加班费怎么算", CHINESE[1]),
        ("北京大学什么时候成立的", CHINESE[2]),
        ("東京大学はいつ設立", JAPANESE[0]),
        ("有給休暇は何日ですか", JAPANESE[1]),
        ("ｶﾒﾗ", JAPANESE[2]),
    ],
)
def test_chinese_and_japanese_queries_find_their_passage_first(catalogue: Catalogue, query: str, expected: str):
    put(catalogue, "handbook", *CHINESE, *JAPANESE)
    best = found(catalogue, query)[0]
    assert catalogue.passages([best])[best].text == expected


def test_headings_and_the_documents_name_are_searched(catalogue: Catalogue):
    put(catalogue, "Travel policy 2024.pdf", "Trains are preferred.")
    put(catalogue, "other.pdf", "Something else.")
    put(catalogue, "third.pdf", "Something third.")
    assert found(catalogue, "travel policies") == ["Travel policy 2024.pdf:0"]
    assert len(found(catalogue, "top")) == 3


def test_a_query_without_words_or_with_unknown_words_finds_nothing(catalogue: Catalogue):
    put(catalogue, "a.txt", "alpha")
    assert [found(catalogue, text) for text in ("", "?!", "🙂", "unheard")] == [[], [], [], []]
    assert found(catalogue, "alpha", k=0) == []


OPERATORS = [*"\"'*^:-+(){}🙂\0\ud800", "NEAR", "AND", "OR", "NOT", "words"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    catalogue = Catalogue(tmp_path_factory.mktemp("shared") / "catalogue.db")
    put(catalogue, "a.txt", "alpha and beta or gamma not near", "東京大学の歴史", 'quotes " and NEAR(words)')
    return catalogue


@given(st.lists(st.sampled_from(OPERATORS) | st.text(max_size=5)).map(" ".join) | st.text())
def test_no_text_is_a_syntax_error(shared: Catalogue, text: str):
    assert all(score > 0 for _, score in Lexical(shared).search(text, 5))


def test_a_very_long_query_is_searched(shared: Catalogue):
    assert "a.txt:1" in found(shared, "".join(map(chr, range(0x4E00, 0x8E00))) + " alpha")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12), min_size=1, max_size=12),
    query=st.sets(st.sampled_from("abcdefgh"), min_size=1),
)
def test_scores_are_bm25_written_the_slow_way(tmp_path_factory, texts: list[list[str]], query: set[str]):
    catalogue = Catalogue(tmp_path_factory.mktemp("bm25") / "catalogue.db")
    catalogue.add(entry("d"), passages("d", *map(" ".join, texts)), distinct=False)
    scores = dict(Lexical(catalogue).search(" ".join(query), 100))
    catalogue.close()
    indexed = [Counter(words(f"d Top {' '.join(text)}")) for text in texts]
    assert scores == pytest.approx(_bm25(indexed, set(words(" ".join(query)))), rel=1e-6)


def _bm25(texts: list[Counter[str]], query: set[str], k1: float = 1.2, b: float = 0.75) -> dict[str, float]:
    """As in FTS5's documentation, with its floor for words in more than half of the texts."""
    average = sum(text.total() for text in texts) / len(texts)
    scores = {}
    for n, text in enumerate(texts):
        for word in query & text.keys():
            holding = sum(word in other for other in texts)
            idf = max(math.log((len(texts) - holding + 0.5) / (holding + 0.5)), 1e-6)
            share = text[word] * (k1 + 1) / (text[word] + k1 * (1 - b + b * text.total() / average))
            scores[f"d:{n}"] = scores.get(f"d:{n}", 0) + idf * share
    return scores


def test_tf_idf_is_the_cosine_written_the_slow_way(catalogue: Catalogue):
    texts = ["a b b c", "b c d", "a a a e e", "f"]
    put(catalogue, "doc", *texts)
    indexed = [Counter(words(f"Top {text}")) for text in texts]

    def weights(counts: Counter[str]) -> dict[str, float]:
        holding = {word: sum(word in other for other in indexed) for word in counts}
        return {w: (1 + math.log(n)) * math.log(1 + len(texts) / holding[w]) for w, n in counts.items() if holding[w]}

    query = weights(Counter(words("b a b nowhere")))
    expected = {}
    for n, counts in enumerate(indexed):
        text = weights(counts)
        lengths = math.sqrt(sum(w * w for w in query.values()) * sum(w * w for w in text.values()))
        if dot := sum(weight * text.get(word, 0) for word, weight in query.items()):
            expected[f"doc:{n}"] = dot / lengths
    ranking = TfIdf(catalogue).search("b a b nowhere", 10)
    assert dict(ranking) == pytest.approx(expected)
    assert [score for _, score in ranking] == pytest.approx(sorted(expected.values(), reverse=True))
    assert TfIdf(catalogue).search("nowhere", 10) == []


def test_a_word_tells_more_the_fewer_passages_hold_it(catalogue: Catalogue):
    put(catalogue, "d", "rare common", "common", "common else")
    found = Lexical(catalogue).importance([*words("rare common"), "nowhere"])
    assert found == pytest.approx({"rare": math.log(4), "common": math.log(2)})


def test_the_moment_of_its_adding_is_after_and_not_before_it(catalogue: Catalogue):
    put(catalogue, "a.txt", "harbour")
    moment = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))  # of another zone: midnight in UTC
    second = timedelta(seconds=1)
    for scope, within in (
        (Scope(added_after=moment), True),
        (Scope(added_after=moment + second), False),
        (Scope(added_before=moment), False),
        (Scope(added_before=moment + second), True),
        (Scope(added_after=moment + second / 2, added_before=moment + second), True),  # to the second
    ):
        assert [each.name for each in catalogue.documents(scope)] == ["a.txt"] * within
        assert [id for id, _ in Lexical(catalogue).search("harbour", 3, scope)] == ["a.txt:0"] * within
