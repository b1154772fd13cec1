"""Rows for `train rewriter` and `train retriever` of public sets of people's rewrites, as the defaults' were made.

    python docs/examples/rewriting_rows.py --qrecc qrecc_train.jsonl --canard canard_dev.jsonl --chinese zh_train.jsonl
        --without qrecc_dev.jsonl --out rows

Writes rows/rewriter.jsonl (QReCC, and a sample of the Chinese rows), rows/encoder.jsonl (QReCC and CANARD, English:
the default embedder knows no Chinese) and rows/encoder-dev.jsonl. Rows without a history are left out, since nothing
could be learned from them, and conversations that begin as one of `--without` does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--qrecc", "--canard", "--chinese", "--without", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--chinese-rows", type=int, default=2_000)
    given = parser.parse_args()
    measured = read(given.without)
    heads = {head(row) for row in measured}
    qrecc = [row for row in read(given.qrecc) if row["history"] and head(row) not in heads]
    canard = [untitled(row) for row in read(given.canard) if side(row["dialogue"]) == "train"]
    canard = [row for row in canard if row["history"] and head(row) not in heads]
    chinese = random.Random(0).sample(read(given.chinese), given.chinese_rows)
    given.out.mkdir(exist_ok=True)
    write(given.out / "rewriter.jsonl", shuffled([*qrecc, *chinese]))
    write(given.out / "encoder.jsonl", shuffled([*qrecc, *canard]))
    write(
        given.out / "encoder-dev.jsonl", shuffled(row for row in measured if row["history"] and not tested(row))[:300]
    )


def untitled(row: Row) -> Row:
    """CANARD's history begins with the titles of article and section, which nobody said."""
    return {**row, "history": row["history"][2:]}


def head(row: Row) -> str:
    return str([*row["history"], row["utterance"]][0])


def tested(row: Row) -> bool:
    return side(head(row)) == "test"


def side(key: str) -> str:
    """Test, development or training, always the same for a conversation."""
    share = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 16**8
    return "test" if share < 0.15 else "dev" if share < 0.2 else "train"


def shuffled(rows: Iterable[Row]) -> list[Row]:
    kept = list(rows)
    random.Random(0).shuffle(kept)
    return kept


def read(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def write(file: Path, rows: Sequence[Row]) -> None:
    with file.open("w", encoding="utf-8") as output:
        for row in rows:
            kept = {name: row[name] for name in ("history", "utterance", "rewrite")}
            output.write(json.dumps(kept, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
