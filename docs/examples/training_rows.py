"""Public question sets to rows for `train generator` and `eval answers`, as the default adapter's were made.

    python docs/examples/training_rows.py --squad dev.json --qed qed.jsonl --clapnq answerable.jsonl unanswerable.jsonl
        --mtrag mtrag_s.jsonl --out rows

Writes rows/train.jsonl (one passage a row), rows/second.jsonl (the same and more long answers, for a second training,
with --talk FILE greetings too) and, for each set, rows/<set>-dev.jsonl and rows/<set>-test.jsonl (five
passages where the set has that many). No article, title or conversation stands on two sides.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chatbot.embedders.sentence import SentenceEmbedder

Row = dict[str, Any]
SETS = ("squad", "qed", "clapnq", "mtrag")
EMBEDDER = SentenceEmbedder()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--squad", "--qed", "--mtrag", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--clapnq", type=Path, nargs=2, required=True, help="answerable, unanswerable")
    parser.add_argument("--talk", type=Path, help="rows {question, reply}, such as small_talk.jsonl beside this file")
    given = parser.parse_args()
    chance = random.Random(7)
    rows = [*squad(given.squad, chance), *qed(given.qed, chance), *clapnq(*given.clapnq), *mtrag(given.mtrag)]
    given.out.mkdir(exist_ok=True)
    learned = [row for part, row in rows if part == "train"]
    first = picked(learned)
    write(given.out / "train.jsonl", first)
    talk = [json.loads(line) for line in given.talk.read_text("utf-8").splitlines()] if given.talk else []
    write(given.out / "second.jsonl", [*first, *longer(learned, first), *talk, *talk])
    for name in SETS:
        for part, seed in (("test", 5), ("dev", 6)):
            kept = [row for side, row in rows if side == part and row["source"] == name]
            random.Random(seed).shuffle(kept)  # so that the first N are of all articles
            write(given.out / f"{name}-{part}.jsonl", kept)


def squad(file: Path, chance: random.Random) -> Iterator[tuple[str, Row]]:
    """SQuAD 2.0. Ten articles to learn from, two to choose by, the rest to measure on.

    To learn: each question with its paragraph; and a third of them with one of the paragraphs most like it, refused.
    """
    articles = sorted(json.loads(file.read_text("utf-8"))["data"], key=lambda article: article["title"])
    random.Random(1).shuffle(articles)
    for number, article in enumerate(articles):
        part = "train" if number < 10 else "dev" if number < 12 else "test"
        title = article["title"].replace("_", " ")
        passages = [
            {"id": f"squad/{title}/{place}", "title": title, "text": paragraph["context"].strip()}
            for place, paragraph in enumerate(article["paragraphs"])
        ]
        asked = [
            (place, each["question"].strip(), list(dict.fromkeys(answer["text"] for answer in each["answers"])))
            for place, paragraph in enumerate(article["paragraphs"])
            for each in paragraph["qas"]
        ]
        nearest = ranked([question for _, question, _ in asked], [passage["text"] for passage in passages])
        for (place, question, answers), order in zip(asked, nearest, strict=True):
            others = [other for other in order if other != place]
            gold = [passages[place]["id"]] if answers else []
            if part == "train":
                yield part, row(question, [passages[place]], answers, gold, "squad")
                if chance.random() < 0.35:
                    yield part, row(question, [passages[chance.choice(others[:3])]], [], [], "squad-other")
            else:
                five = [place, *others[:4]]
                chance.shuffle(five)
                yield part, row(question, [passages[each] for each in five], answers, gold, "squad")


def qed(file: Path, chance: random.Random) -> Iterator[tuple[str, Row]]:
    """QED: questions of Natural Questions, each with its paragraph."""
    given = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    passages = [
        {"id": f"qed/{number}", "title": plain(each["title_text"]), "text": plain(each["paragraph_text"])}
        for number, each in enumerate(given)
    ]
    parts = [side(each["title_text"]) for each in given]
    questions = [plain(each["question_text"]) for each in given]
    nearest = ranked(questions, [passage["text"] for passage in passages])
    for number, each in enumerate(given):
        said = [plain(answer["string"]) for answers in each["original_nq_answers"] for answer in answers]
        answers = sorted(dict.fromkeys(said), key=len)
        if not answers:
            continue
        others = [
            other for other in nearest[number]
            if passages[other]["text"] != passages[number]["text"] and parts[other] == parts[number]
        ]  # fmt: skip
        gold = [passages[number]["id"]]
        if parts[number] == "train":
            yield "train", row(questions[number], [passages[number]], answers[:1], gold, "qed")
            if chance.random() < 0.5:
                chance.choice(others[:3])  # tried: also refused with another paragraph
        else:
            five = [number, *others[:4]]
            chance.shuffle(five)
            yield parts[number], row(questions[number], [passages[each] for each in five], answers, gold, "qed")


def clapnq(answerable: Path, unanswerable: Path) -> Iterator[tuple[str, Row]]:
    """ClapNQ: questions of Natural Questions with answers of several sentences."""
    for file in (answerable, unanswerable):
        for line in file.read_text("utf-8").splitlines():
            each = json.loads(line)
            given = each["passages"][0]
            passage = {"id": f"clapnq/{each['id']}", "title": plain(given["title"]), "text": plain(given["text"])}
            answers = [plain(output["answer"]) for output in each["output"] if output["answer"].strip()]
            if file == unanswerable or answers:
                answers = answers if file == answerable else []
                gold = [passage["id"]] if answers else []
                yield side(given["title"]), row(plain(each["input"]), [passage], answers, gold, "clapnq")


def mtrag(file: Path) -> Iterator[tuple[str, Row]]:
    """MTRAG-S: conversations. To learn, the passage most like question and answer stands for all that were given."""
    for line in file.read_text("utf-8").splitlines():
        each = json.loads(line)
        part, kind = side(each["conversation_id"]), each["Answerability"][0]
        *told, question = (message["text"] for message in each["input"])
        if not each["contexts"] or kind == "PARTIAL" or len(told) % 2:
            continue
        answers = [] if kind == "UNANSWERABLE" else [each["targets"][0]["text"].strip()]
        passages = [
            {"id": f"mtrag/{context['document_id'][:12]}/{place}", "title": "", "text": context["text"].strip()}
            for place, context in enumerate(each["contexts"][:5])
        ]
        if part != "train":
            yield part, row(question, passages, answers, [], "mtrag", told)
            continue
        if answers and len(answers[0].split()) > 90:
            continue
        if answers:
            (order,) = ranked([f"{question} {answers[0]}"], [passage["text"] for passage in passages])
            passages = [passages[order[0]]]
            if len(passages[0]["text"].split()) > 350:
                continue
        yield part, row(question, passages[:1], answers, [], "mtrag", told[-4:])


def picked(rows: Sequence[Row]) -> list[Row]:
    """What two cores learn in an hour: all of SQuAD and QED, fewer of the others, none of the longest."""
    chance = random.Random(3)
    talks = [row for row in rows if row["source"] == "mtrag"]
    chance.shuffle(talks)
    refused = [row for row in rows if row["source"] == "clapnq" and not row["answerable"]]
    chance.shuffle(refused)
    kept = [each for each in rows if wanted(each, chance)]
    kept += [each for each in refused if words(each) < 200][:60]
    short = [each for each in talks if words(each) < 220 and len(" ".join(each["history"]).split()) < 160]
    return kept + short[:90]


def longer(rows: Sequence[Row], first: Sequence[Row]) -> list[Row]:
    """More answers of MTRAG-S that were not learned from yet, and ClapNQ's once more."""
    known = {(row["question"], row["passages"][0]["id"]) for row in first}
    talks = [
        row
        for row in rows
        if row["source"] == "mtrag"
        and row["answerable"]
        and (row["question"], row["passages"][0]["id"]) not in known
        and words(row) < 260
        and len(" ".join(row["history"]).split()) < 200
        and len(row["answers"][0].split()) < 80
    ]
    random.Random(21).shuffle(talks)
    return talks[:220] + [row for row in first if row["source"] == "clapnq" and row["answerable"]]


def wanted(row: Row, chance: random.Random) -> bool:
    match row["source"]:
        case "squad" | "qed":
            return True
        case "squad-other":
            return chance.random() < 0.4
        case "clapnq":
            return row["answerable"] and words(row) < 260
    return False


def words(row: Row) -> int:
    return len(row["passages"][0]["text"].split())


def ranked(questions: Sequence[str], texts: Sequence[str]) -> list[list[int]]:
    """The places of the texts for each question, most similar first."""
    similarities = EMBEDDER.queries(questions) @ EMBEDDER.passages(texts).T
    return [[int(place) for place in np.argsort(-each)] for each in similarities]


def side(key: str) -> str:
    """Test, development or training, always the same for a title or a conversation."""
    share = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 16**8
    return "test" if share < 0.15 else "dev" if share < 0.2 else "train"


def plain(text: str) -> str:
    """Natural Questions' tokens put together again."""
    text = text.replace("`` ", '"').replace("``", '"').replace(" ''", '"').replace("''", '"')
    text = re.sub(r" ([.,;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[$#]) ", r"\1", text)
    text = re.sub(r" ('s|'t|'re|'ve|'d|'ll|n't)\b", r"\1", text)
    text = re.sub(r"(\w) - (\w)", r"\1-\2", text)
    text = re.sub(r"(\d) -- (\d)", r"\1-\2", text)
    return re.sub(r"\s+", " ", text).strip()


def row(
    question: str, passages: Sequence[Row], answers: Sequence[str], gold: Sequence[str], source: str,
    history: Sequence[str] = (),
) -> Row:  # fmt: skip
    return {
        "history": list(history), "question": question, "passages": list(passages), "answers": list(answers),
        "answerable": bool(answers), "gold": list(gold), "source": source,
    }  # fmt: skip


def write(file: Path, rows: Sequence[Row]) -> None:
    with file.open("w", encoding="utf-8") as output:
        output.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    main()
