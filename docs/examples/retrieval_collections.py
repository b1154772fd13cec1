"""Two collections of conversations in BEIR's files, for `eval retrieval`: those of docs/retrieval.md.

    python docs/examples/retrieval_collections.py --qrecc qrecc_dev.jsonl --mtrag mtrag_s.jsonl
        --others corpus.jsonl ... --out FOLDER

Writes qrecc/ and mtrag/, each with corpus.jsonl, queries-dev.jsonl and queries-test.jsonl (a `history` beside each
`text`, and a person's rewrite where there is one), and qrels, for mtrag/ by answers and by topics;
and larger/, the corpora of both and of --others (BEIR's corpus.jsonl) together. Conversations stand on one side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

Row = dict[str, Any]
WORDS = 80  # of a reply that makes a passage; from 8 on
LIKE_THE_BEST = 0.85  # share of the best passage's words in common with the reply that another relevant one has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--qrecc", "--mtrag", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="corpora that make both harder")
    given = parser.parse_args()
    everything: dict[str, Row] = {}
    for name, corpus, queries, qrels in (("qrecc", *qrecc(read(given.qrecc))), ("mtrag", *mtrag(read(given.mtrag)))):
        folder = given.out / name
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "corpus.jsonl", corpus.values())
        for part in ("dev", "test"):
            write(folder / f"queries-{part}.jsonl", (row for row in queries if side(row["conversation"]) == part))
            for kind, relevant in qrels.items():
                lines = [
                    f"{row['_id']}\t{id}\t1"
                    for row in queries
                    if side(row["conversation"]) == part
                    for id in relevant[row["_id"]]
                ]
                (folder / f"qrels{kind}-{part}.tsv").write_text(
                    "\n".join(["query-id\tcorpus-id\tscore", *lines, ""]), "utf-8"
                )
        everything |= corpus
    (given.out / "larger").mkdir(exist_ok=True)
    for place, file in enumerate(given.others):
        everything |= {f"{place}-{row['_id']}": {**row, "_id": f"{place}-{row['_id']}"} for row in read(file)}
    write(given.out / "larger" / "corpus.jsonl", everything.values())


def qrecc(rows: Sequence[Row]) -> tuple[dict[str, Row], list[Row], Mapping[str, Mapping[str, Sequence[str]]]]:
    """(corpus, queries, relevant ids). Each answer and each earlier reply is a passage; a turn's own is relevant."""
    corpus = {
        row["_id"]: row for told in rows for text in [*told["history"][1::2], told["answer"]] if (row := passage(text))
    }
    queries = [
        {
            "_id": f"q{number}",
            "text": row["utterance"],
            "history": row["history"],
            "rewrite": row["rewrite"],
            "conversation": [*row["history"], row["utterance"]][0],
        }
        for number, row in enumerate(rows)
        if passage(row["answer"])
    ]
    relevant = {
        query["_id"]: [found["_id"]] for query in queries if (found := passage(rows[int(query["_id"][1:])]["answer"]))
    }
    return corpus, queries, {"": relevant}


def passage(reply: str) -> Row | None:
    """None for a reply of fewer than 8 words."""
    words = reply.split()
    text = " ".join(words[:WORDS])
    return {"_id": key(text), "title": "", "text": text} if len(words) >= 8 else None


def mtrag(rows: Sequence[Row]) -> tuple[dict[str, Row], list[Row], Mapping[str, Mapping[str, Sequence[str]]]]:
    """Relevant by topic: what the set gives with a turn; by answer: what of that shares most words with the reply."""
    texts = {found["document_id"]: found["text"] for row in rows for found in row["contexts"]}
    corpus = {id[:16]: {"_id": id[:16], "title": "", "text": text} for id, text in texts.items()}
    queries, topics, answers = [], {}, {}
    for row in (row for row in rows if row["contexts"]):
        id, told = row["task_id"], [turn["text"] for turn in row["input"]]
        queries.append({"_id": id, "text": told[-1], "history": told[:-1], "conversation": row["conversation_id"]})
        shared = {
            found["document_id"][:16]: common(row["targets"][0]["text"], found["text"]) for found in row["contexts"]
        }
        topics[id] = list(shared)
        answers[id] = [each for each, share in shared.items() if share >= LIKE_THE_BEST * max(shared.values())]
    return corpus, queries, {"-answers": answers, "-topics": topics}


def common(reply: str, text: str) -> float:
    """Share of the reply's words, and pairs of words, that the text has."""
    said, held = terms(reply), terms(text)
    return (said & held).total() / max(1, said.total())


def terms(text: str) -> Counter[object]:
    words = re.findall(r"\w+", text.casefold())
    return Counter([*words, *pairwise(words)])


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def side(conversation: str) -> str:
    """Always the same for a conversation: 15 % to test."""
    return "test" if int(key(conversation)[:8], 16) / 16**8 < 0.15 else "dev"


def read(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines() if line]


def write(file: Path, rows: Iterable[Row]) -> None:
    with file.open("w", encoding="utf-8") as output:
        output.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    main()
