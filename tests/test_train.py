"""Training: exact branches, RAG's losses, a loop that can be interrupted, and the commands on small random models."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chatbot import assemble
from chatbot.cli import main
from chatbot.conversation import Conversation, Query
from chatbot.embedders.base import Metric, Vectors
from chatbot.embedders.hashing import Hashing
from chatbot.errors import DiskFull, TrainingFailed
from chatbot.generate import Mixer, Mixing
from chatbot.generators.base import Generator
from chatbot.generators.causal import Causal
from chatbot.generators.scripted import Scripted
from chatbot.generators.seq2seq import Seq2Seq
from chatbot.history import from_messages
from chatbot.passage import Hit, Passage
from chatbot.prompt import Prompt, answer_prompts, chat_prompt, conversational
from chatbot.retrieve import Given
from chatbot.rows import Row
from chatbot.settings import load
from chatbot.train import commands
from chatbot.train.examples import Found, Maker, Weigher
from chatbot.train.generator import Example, Losses, Objective, Prior, batches
from chatbot.train.loop import CHECKPOINT, Progress, Schedule, run
from chatbot.train.model import Lora, ready
from chatbot.train.trainable import Branch, TrainableCausal
from tests.checkpoints import bart, save
from tests.conftest import fill


def prompt(passage: str | None, query: str) -> Prompt:
    return Prompt("Answer.", passage, (), query, "Text: ")


@pytest.fixture
def branches(tiny_llama: Path) -> TrainableCausal:
    torch.manual_seed(0)
    made = ready(str(tiny_llama), Lora(0))
    assert isinstance(made, TrainableCausal)
    return made


def asked(branches: TrainableCausal) -> list[Branch]:
    texts = [("a passage", "one?", "yes"), ("another passage", "two?", "perhaps not"), (None, "three?", "no")]
    texts += [("a passage", "what is in the text?", "the answer"), ("a passage", "four", "or none")]
    return [Branch(prompt(passage, query), tuple(branches.target(answer))) for passage, query, answer in texts]


def test_questions_that_share_a_passage_are_told_what_each_would_be_told_alone(branches: TrainableCausal) -> None:
    together = branches.log_probs(asked(branches))
    for branch, told in zip(asked(branches), together, strict=True):
        (alone,) = branches.log_probs([branch])
        assert told.shape == (len(branch.target), branches.model.config.vocab_size)
        torch.testing.assert_close(told, alone, atol=1e-4, rtol=1e-4)


def test_what_is_trained_is_what_the_chat_reads(branches: TrainableCausal, tiny_llama: Path) -> None:
    for branch in asked(branches):
        (trained,) = branches.log_probs([branch])
        decoding = Causal(str(tiny_llama), engine="transformers").read([branch.prompt])
        for token, row in zip(branch.target, trained, strict=True):
            torch.testing.assert_close(row, decoding.log_probs()[0], atol=1e-4, rtol=1e-4)
            decoding.push(token)


def example(branches: TrainableCausal, prior: Sequence[float], answer: str = "the answer") -> Example:
    prompts = (prompt("a passage", "what?"), prompt("another passage", "what?"), prompt(None, "what?"))
    return Example(1, prompts, tuple(map(math.log, prior)), tuple(branches.target(answer)))


@pytest.mark.parametrize("sequence", [False, True])
def test_the_loss_is_the_marginal_likelihood_written_out(branches: TrainableCausal, sequence: bool) -> None:
    one = example(branches, (0.6, 0.3, 0.1))
    loss, tokens = Losses(branches, (), Objective(sequence))([one])
    told = [branches.log_probs([Branch(each, one.targets)])[0].exp() for each in one.prompts]
    likelihoods = [[float(row[token]) for row, token in zip(each, one.targets, strict=True)] for each in told]
    if sequence:
        wanted = -math.log(sum(p * math.prod(each) for p, each in zip((0.6, 0.3, 0.1), likelihoods, strict=True)))
    else:
        columns = zip(*likelihoods, strict=True)
        wanted = -sum(math.log(0.6 * a + 0.3 * b + 0.1 * c) for a, b, c in columns)
    assert float(loss) == pytest.approx(wanted, rel=1e-4)
    assert float(tokens) == len(one.targets)


def test_a_branch_that_lacks_the_answer_is_taught_the_refusal(branches: TrainableCausal) -> None:
    one = example(branches, (0.6, 0.3, 0.1))
    refusal = tuple(branches.target("none"))
    lacking = Example(1, one.prompts, one.log_prior, one.targets, lacking=(1,))
    plain, _ = Losses(branches, refusal, Objective(refusing=0.5))([one])
    taught, _ = Losses(branches, refusal, Objective(refusing=0.5))([lacking])
    (told,) = branches.log_probs([Branch(one.prompts[1], refusal)])
    added = -sum(float(row[token]) for row, token in zip(told, refusal, strict=True))
    assert float(taught - plain) == pytest.approx(0.5 * added, rel=1e-4)


class Told:
    """Trainable without a model: a passage that holds the answer makes it likely, another does not."""

    model = nn.Linear(1, 1)
    limit = None

    def target(self, text: str) -> list[int]:
        return [int(text)]

    def length(self, prompt: Prompt) -> int:
        return 1

    def save(self, folder: Path, base: str) -> None: ...

    def log_probs(self, branches: Sequence[Branch]) -> list[Tensor]:
        return [self._of(branch) for branch in branches]

    def _of(self, branch: Branch) -> Tensor:
        holds = branch.prompt.passage == str(branch.target[0])
        return torch.full((1, 12), 0.9 if holds else 0.1).log()


class Words(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(size, size)
        nn.init.normal_(self.vectors.weight, std=0.1)

    def forward(self, texts: Sequence[str]) -> Tensor:
        return self.vectors(torch.tensor([int(text) for text in texts]))


def test_retrieval_improves_by_the_generators_loss_alone() -> None:
    """Twelve words, each answered by one of twelve passages, whose vectors stay as they are."""
    torch.manual_seed(0)
    size, told = 12, Told()
    vectors = torch.eye(size)
    examples = [
        Example(
            word, tuple(prompt(str(passage), str(word)) for passage in range(size)), (), (word,), query=str(word),
            vectors=vectors,
        )
        for word in range(size)
    ]  # fmt: skip
    prior = Prior(Words(size), temperature=0.2, no_passage=0.0)
    losses = Losses(told, (), Objective(), prior)

    def found() -> int:
        return int(
            (prior.encode([str(word) for word in range(size)]) @ vectors.T).argmax(1).eq(torch.arange(size)).sum()
        )

    before = found()
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.05)
    for _ in range(60):
        loss, _ = losses(examples)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < size / 2
    assert found() == size


def test_the_prior_has_the_gradient_of_the_formula() -> None:
    """d(-log p)/d s_z = (p(z | x) - p(z | x, y)) / temperature, for a reply of one token."""
    similarities = torch.tensor([0.5, 0.4, 0.1], dtype=torch.float64, requires_grad=True)

    class Same(nn.Module):
        def forward(self, texts: Sequence[str]) -> Tensor:
            return similarities.unsqueeze(0)

    prior = Prior(Same(), temperature=0.2, no_passage=0.0)
    prompts = tuple(prompt(str(number), "1") for number in range(3))
    one = Example(1, prompts, (), (1,), query="q", vectors=torch.eye(3, dtype=torch.float64))
    loss, _ = Losses(Told(), (), Objective(), prior)([one])
    loss.backward()
    weights = torch.softmax(similarities.detach() / 0.2, 0)
    likelihoods = torch.tensor([0.1, 0.9, 0.1], dtype=torch.float64)
    posterior = weights * likelihoods / (weights * likelihoods).sum()
    assert similarities.grad is not None
    torch.testing.assert_close(similarities.grad, (weights - posterior) / 0.2, atol=1e-6, rtol=1e-5)


def test_batches_keep_a_groups_examples_together_and_follow_from_the_seed(branches: TrainableCausal) -> None:
    examples = [Example(number, (), (), (), group=str(number // 4)) for number in range(16)]
    first, second = batches(examples, 4, 1), batches(examples, 4, 1)
    assert first == second != batches(examples, 4, 2)
    assert all(len({each.group for each in batch}) == 1 for batch in first)
    assert sorted(each.number for batch in first for each in batch) == list(range(16))


class Line(nn.Module):
    """y = w x, to be learned; `broken` from a step on."""

    def __init__(self, broken: float = math.inf) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.broken, self.seen = broken, 0

    def forward(self, batch: Sequence[float]) -> tuple[Tensor, Tensor]:
        self.seen += 1
        x = torch.tensor(batch)
        loss = ((self.w * x - 3 * x) ** 2).sum()
        return loss * (math.nan if self.seen > self.broken else 1), torch.tensor(float(len(batch)))


class Toy:
    def __init__(self, module: Line, measured: Sequence[Sequence[float]] = ()) -> None:
        self.module, self.measured = module, measured

    def epoch(self, number: int) -> Sequence[Any]:
        return [[float(index + number)] for index in range(1, 9)]

    def development(self) -> Sequence[Any]:
        return self.measured

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "w").write_text(str(float(self.module.w)))


SCHEDULE = Schedule(epochs=3, learning_rate=0.05, save_every=0)


class Interrupted(Exception): ...


def stop_at(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise Interrupted

    return report


def test_an_interrupted_training_goes_on_to_what_it_would_have_become(tmp_path: Path) -> None:
    whole, parts = Line(), Line()
    run(Toy(whole), SCHEDULE, tmp_path / "whole")
    for step in (5, 12):
        with pytest.raises(Interrupted):
            run(Toy(parts), SCHEDULE, tmp_path / "parts", stop_at(step))
        parts = Line()  # a new process knows nothing
    progress = run(Toy(parts), SCHEDULE, tmp_path / "parts")
    assert progress.step == progress.steps == 24
    assert float(parts.w) == pytest.approx(float(whole.w), abs=1e-6)


def test_a_finished_training_is_not_gone_over_again(tmp_path: Path) -> None:
    run(Toy(Line()), SCHEDULE, tmp_path)
    with pytest.raises(TrainingFailed, match="finished: give another --out"):
        run(Toy(Line()), SCHEDULE, tmp_path)


def test_a_diverging_loss_ends_in_one_line_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"the loss of step 6 is nan: lower --learning-rate"):
        run(Toy(Line(broken=5)), SCHEDULE, tmp_path)
    state = json.loads((tmp_path / CHECKPOINT / "progress.json").read_text())
    assert state["step"] == 5
    assert run(Toy(Line()), SCHEDULE, tmp_path).step == 24


def test_a_full_disk_ends_in_one_line_and_the_checkpoint_before_stays(small_disk: Path) -> None:
    with pytest.raises(Interrupted):
        run(Toy(Line()), SCHEDULE, small_disk, stop_at(5))
    filler = fill(small_disk, 0)
    with pytest.raises(DiskFull, match="is full: make room there"):
        run(Toy(Line()), SCHEDULE, small_disk)
    filler.unlink()
    assert sorted(path.name for path in small_disk.iterdir()) == [CHECKPOINT]
    assert run(Toy(Line()), SCHEDULE, small_disk).step == 24


def test_training_stops_when_the_development_split_gets_no_better_and_the_best_is_kept(tmp_path: Path) -> None:
    class Worse(Toy):
        def development(self) -> Sequence[Any]:
            return [[1.0]] if float(self.module.w) < 1 else [[9.0]]

    schedule = Schedule(epochs=9, learning_rate=0.2, measure_every=1, patience=3)
    progress = run(Worse(Line()), schedule, tmp_path)
    assert progress.step < progress.steps
    assert float((tmp_path / "w").read_text()) < 1


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(Toy(Line()), SCHEDULE, tmp_path, stop_at(2))

    class Other(Line):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Parameter(torch.zeros(1))

    with pytest.raises(TrainingFailed, match="checkpoint of another training"):
        run(Toy(Other()), SCHEDULE, tmp_path)


ROWS = [
    {
        "question": f"what colour is box {number}",
        "passages": [
            {"id": f"a{number}", "title": f"Boxes {number}", "text": f"box {number} is {colour}"},
            {"id": f"b{number}", "title": "Ways", "text": f"the way goes {number} miles"},
        ],
        "gold": [f"a{number}"],
        "answer": colour,
        "answerable": True,
    }
    for number, colour in enumerate(["red", "blue", "green", "red", "blue", "green"])
]
WITHOUT = {"question": "who owns the box", "passages": [{"id": "a0", "text": "box 0 is red"}], "answerable": False}
TURNS = [
    {
        "history": ["who", "me"],
        "utterance": "when",
        "rewrite": "when me",
    },
    {"history": ["a box", "yes"], "utterance": "red", "rewrite": "red box"},
]


def train(
    tmp_path: Path, model: Path, what: str, rows: Sequence[object], *flags: str, chosen: Sequence[str] = ()
) -> int:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["--home", str(tmp_path / "home"), "--set", f"generator={model}", "--set", "k=2"]
    out = ["--data", str(data), "--out", str(tmp_path / "out"), "--batch", "2", "--accumulate", "1"]
    return main([*given, *(part for each in chosen for part in ("--set", each)), "train", *what.split(), *out, *flags])


@pytest.mark.parametrize(
    "flags",
    [
        ("--alone",),
        ("--refusing", "0.3", "--smoothing", "0.1"),
        ("--loss", "sequence", "--held-out", "0.3"),
        ("--checkpointing", "--dropout", "0.1"),
    ],
)
def test_an_adapter_is_trained_and_the_chat_uses_it(
    flags: tuple[str, ...], tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, tiny_llama, "generator", [*ROWS, WITHOUT], "--learning-rate", "0.01", *flags) == 0, (
        capsys.readouterr().err
    )
    assert (tmp_path / "out" / "curve.json").is_file()
    prompts = [prompt("box 0 is red", "what colour is box 0")]
    plain = Causal(str(tiny_llama)).read(prompts).log_probs()
    adapted = Causal(str(tiny_llama), adapter=str(tmp_path / "out"))
    assert not torch.allclose(adapted.read(prompts).log_probs(), plain, atol=1e-3)
    assert adapted.refusal == TrainableCausal(None, _tokenizer(tiny_llama), None).target("Not in the text.")[0]


def test_all_weights_can_be_trained_into_a_model_of_its_own(tmp_path: Path, tiny_llama: Path) -> None:
    assert train(tmp_path, tiny_llama, "generator", ROWS, "--rank", "0", "--alone", "--learning-rate", "0.01") == 0
    trained = Causal(str(tmp_path / "out"))
    assert trained.refusal is not None
    prompts = [prompt("box 0 is red", "what colour is box 0")]
    assert not torch.allclose(trained.read(prompts).log_probs(), Causal(str(tiny_llama)).read(prompts).log_probs())


def test_rewrites_and_greetings_may_stand_among_the_questions(tmp_path: Path, tiny_llama: Path) -> None:
    greeting = {"question": "hello", "reply": "the answer"}
    rows = [*ROWS, *TURNS, greeting]
    assert train(tmp_path, tiny_llama, "generator", rows, "--learning-rate", "0.01", "--epochs", "8") == 0
    chat = chat_prompt(Conversation(), Query("hello", "", "en"))
    plain = Causal(str(tiny_llama)).read([chat]).log_probs()
    adapted = Causal(str(tiny_llama), adapter=str(tmp_path / "out")).read([chat]).log_probs()
    first = _tokenizer(tiny_llama)("the answer", add_special_tokens=False).input_ids[0]
    assert adapted[0, first] > plain[0, first]


def test_two_processes_learn_together_what_one_learns_and_speak_once(tmp_path: Path, tiny_llama: Path) -> None:
    data, root = tmp_path / "rows.jsonl", Path(__file__).parent.parent
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    given = ["--home", str(tmp_path / "home"), "--set", f"generator={tiny_llama}", "train", "generator", "--alone"]
    given += ["--data", str(data), "--development", str(data), "--batch", "1", "--learning-rate", "0.01", "--json"]
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "run.py"]
    together, alone = tmp_path / "together", tmp_path / "alone"
    flags = ["--accumulate", "1", "--out", str(together)]
    ran = subprocess.run([*launched, *given, *flags], cwd=root, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["steps"] == 3  # one object: the second process writes nothing
    assert main([*given, "--accumulate", "2", "--out", str(alone)]) == 0
    learned, expected = (
        [point["development"] for point in json.loads((folder / "curve.json").read_text()) if "development" in point]
        for folder in (together, alone)
    )
    assert learned == pytest.approx(expected, rel=1e-3)


def test_an_encoder_decoder_is_trained_and_the_chat_uses_it(tmp_path: Path) -> None:
    save(tmp_path / "bart", *bart())
    flags = ("--refusing", "0.3", "--learning-rate", "0.01")
    assert train(tmp_path, tmp_path / "bart", "generator", [*ROWS, WITHOUT], *flags) == 0
    prompts = [prompt("box 0 is red", "what colour is box 0")]
    plain = Seq2Seq(str(tmp_path / "bart")).read(prompts).log_probs()
    adapted = Seq2Seq(str(tmp_path / "bart"), str(tmp_path / "out"))
    assert adapted.refusal is not None
    assert not torch.allclose(adapted.read(prompts).log_probs(), plain, atol=1e-3)


def test_a_rewriter_is_trained(tmp_path: Path, tiny_llama: Path) -> None:
    assert train(tmp_path, tiny_llama, "rewriter", TURNS) == 0
    assert Causal(str(tiny_llama), adapter=str(tmp_path / "out")).refusal is None


@pytest.mark.parametrize("rows", [ROWS, TURNS], ids=["gold passages", "rewrites"])
def test_a_query_encoder_is_trained_and_passages_keep_their_vectors(
    rows: Sequence[object], tmp_path: Path, tiny_llama: Path
) -> None:
    from chatbot.embedders.sentence import SentenceEmbedder

    assert train(tmp_path, tiny_llama, "retriever", rows, "--learning-rate", "0.001") == 0
    before, after = SentenceEmbedder(), SentenceEmbedder(tmp_path / "out")
    assert (before.passages(["box 0 is red"]) * after.passages(["box 0 is red"])).sum() > 0.9999
    assert (before.queries(["which box"]) * after.queries(["which box"])).sum() < 0.9999


def test_matrices_for_reading_conversations_are_trained_and_kept_apart(tmp_path: Path, tiny_llama: Path) -> None:
    from chatbot.embedders.sentence import SentenceEmbedder

    flags = ("--rank", "4", "--layers", "1", "--ranking", "0.1", "--learning-rate", "0.01", "--epochs", "3")
    assert train(tmp_path, tiny_llama, "retriever", TURNS, *flags) == 0
    assert (tmp_path / "out" / "adapter_model.safetensors").stat().st_size < 200_000
    assert str(SentenceEmbedder().folder) not in (tmp_path / "out" / "adapter_config.json").read_text()
    talk = conversational(from_messages([("user", "who"), ("assistant", "me")]), "when")
    wanted = SentenceEmbedder().queries(["when me"])
    before = SentenceEmbedder().queries([talk]) @ wanted.T
    after = SentenceEmbedder(conversations=tmp_path / "out").queries([talk]) @ wanted.T
    assert after > before


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([*ROWS, {**ROWS[0], "answer": ""}], "row 7 has no 'answer' though it is answerable"),
        ([*ROWS, {**ROWS[0], "passages": [{"text": " "}]}], "row 7 has an empty passage"),
        ([*ROWS, {**ROWS[0], "answer": "long " * 600}], "row 7 has a prompt of"),
        ([*ROWS, {"question": "who", "answer": "me"}], "row 7 has no passages to be read alone"),
    ],
)
def test_a_bad_row_is_named(
    rows: Sequence[object], told: str, tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, tiny_llama, "generator", rows, "--alone") == 1
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("marginalia:")]
    assert len(err) == 1
    assert told in err[0]


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


class Windows(Hashing):
    """Reads a passage's sentences as windows of it; compares inner products, where it is not told otherwise."""

    def __init__(self, metric: Metric = "ip") -> None:
        super().__init__()
        self.metric = metric

    def parts(self, texts: Sequence[str]) -> list[Vectors]:
        return [self.passages([text, *text.split(". ")]) for text in texts]


@pytest.mark.parametrize("least_prior", [0.0, 0.15, 0.3])
def test_a_row_is_weighed_and_pruned_as_the_chat_does(
    branches: TrainableCausal, tmp_path: Path, least_prior: float
) -> None:
    texts = ["the box is red. the road is long", "a box. the sea is wide and deep", "the moon shines at night. no box"]
    passages = tuple(Passage(str(place), "d", "D", text) for place, text in enumerate(texts))
    row = Row(1, (), "what colour is the box", passages, ("red",))
    chosen = load(tmp_path, overrides={"k": 3, "least_prior": least_prior, "no_passage": 0.1}, environment={})
    embed = Windows()
    temperature, no_passage = assemble.prior(chosen, embed.metric)

    found = Given(passages, embed, k=3, temperature=temperature, no_passage=no_passage)
    query = Query(row.question, row.question, "en")
    told = found.retrieve(query)
    chat = Mixer(Scripted(), answer_prompts(Conversation(), query, told.hits), told.prior, Mixing(1.0, least_prior))

    (weighed,) = Weigher(embed, 3, temperature, no_passage).weigh([row])
    trained = Maker(branches, "none", least_prior).mixture(row, weighed)
    assert trained.prompts == tuple(chat.prompts)
    torch.testing.assert_close(torch.tensor(trained.log_prior, dtype=torch.float64), chat.log_prior)
    assert trained.vectors is not None
    assert len(trained.vectors) == len(trained.prompts) - 1


def test_the_command_weighs_and_prunes_by_the_settings(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Example] = []
    monkeypatch.setattr(assemble, "embedder", lambda chosen: Windows())

    def noted(given: Sequence[Example], size: int, seed: int) -> list[list[Example]]:
        read.extend(given)
        return batches(given, size, seed)

    monkeypatch.setattr(commands, "batches", noted)
    assert train(tmp_path, tiny_llama, "generator", ROWS, "--held-out", "0.3", chosen=["least_prior=0.5"]) == 0
    assert {example.log_prior for example in read} == {(0.0, -math.inf)}  # the best, and, of inner products, no other


TEXTS = ("the box is red. the road is long", "a box. the sea is wide and deep", "the moon shines at night. no box")


class Encoding(nn.Module):
    """A query encoder as it is before it learns."""

    def __init__(self, embed: Windows) -> None:
        super().__init__()
        self._embed = embed

    def forward(self, texts: Sequence[str]) -> Tensor:
        return torch.from_numpy(self._embed.queries(texts))


def chats_loss(
    by: Generator, prompts: Sequence[Prompt], prior: Sequence[float], mixing: Mixing, targets: Sequence[int]
) -> float:
    """-log p(targets | x), as the chat would find it while saying them."""
    mixer = Mixer(by, prompts, prior, mixing)
    decoding, loss = mixer.read(), 0.0
    log_weights = mixer.log_prior
    for token in targets:
        vote = mixer.vote(decoding, log_weights)
        loss -= float(vote.mixture[token])
        _, log_weights = mixer.push(decoding, vote, token)
    return loss


@pytest.mark.parametrize("learning", [False, True], ids=["", "a query encoder learns"])
@pytest.mark.parametrize("metric", ["cosine", "ip"])
@pytest.mark.parametrize("question_weight", [0.0, 2.0])
@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_what_is_minimised_is_minus_what_the_chat_makes_of_the_answer(
    branches: TrainableCausal,
    tiny_llama: Path,
    tmp_path: Path,
    epsilon: float,
    question_weight: float,
    metric: Metric,
    learning: bool,
) -> None:
    passages = tuple(Passage(str(place), "d", "D", text) for place, text in enumerate(TEXTS))
    row = Row(1, (("the moon", "it shines"),), "what colour is the box", passages, ("red",))
    given = {"k": 3, "least_prior": 0.1, "question_weight": question_weight, "epsilon": epsilon}
    given["temperature_of_prior"] = 0.5  # so that the others' prior tells
    chosen, embed = load(tmp_path, overrides=given, environment={}), Windows(metric)
    by = Causal(str(tiny_llama), judges_questions=question_weight > 0)
    temperature, no_passage = assemble.prior(chosen, embed.metric)

    (weighed,) = Weigher(embed, 3, temperature, no_passage).weigh([row])
    trained = Maker(branches, "none", 0.1).mixture(row, weighed)
    prior = Prior(Encoding(embed), temperature, no_passage) if learning else None
    losses = Losses(branches, (), Objective(sequence=epsilon == 0), prior, question_weight=question_weight)

    query = Query(row.question, row.question, "en")
    told = Given(passages, embed, k=3, temperature=temperature, no_passage=no_passage).retrieve(query)
    prompts = answer_prompts(Conversation(), query, told.hits)
    wanted = chats_loss(by, prompts, told.prior, assemble.mixing(chosen, by), trained.targets)
    assert float(losses([trained])[0]) == pytest.approx(wanted, abs=1e-3)


def test_questions_are_judged_as_the_chat_judges_them(branches: TrainableCausal, tiny_llama: Path) -> None:
    told = (("who owns it", "the house of the king"),)
    queries = ["one?", "what is in the text of the passage?", "the question and " * 8]
    prompts = [replace(prompt(text, query), conversation=said) for query in queries for said in ((), told)
               for text in ("a passage", "another passage", None)]  # fmt: skip
    target = tuple(branches.target("the answer"))
    found = branches.judged([Branch(each, target, judges=True) for each in prompts])
    by = Causal(str(tiny_llama), judges_questions=True)
    for start in range(0, len(prompts), 3):
        wanted = by.read(prompts[start : start + 3]).log_question
        torch.testing.assert_close(torch.stack([each for _, each in found[start : start + 3]]), wanted)
        assert all(each is not None and each.requires_grad for _, each in found[start : start + 3])
    plain = branches.log_probs([Branch(each, target) for each in prompts])
    for (log_probs, _), each in zip(found, plain, strict=True):
        torch.testing.assert_close(log_probs, each)


def test_a_question_without_words_or_of_a_branch_alone_is_not_judged(branches: TrainableCausal) -> None:
    target = tuple(branches.target("the answer"))
    asked = [Branch(prompt("a passage", ""), target, judges=True), Branch(prompt("a passage", "who?"), target)]
    assert [log_question for _, log_question in branches.judged(asked)] == [None, None]


class Judging(Told):
    """Besides, each branch's likelihood of the question is given."""

    def __init__(self, log_question: Tensor) -> None:
        self._log_question = log_question

    def judged(self, branches: Sequence[Branch]) -> list[tuple[Tensor, Tensor | None]]:
        return list(zip(self.log_probs(branches), self._log_question, strict=True))


def test_the_questions_likelihood_has_the_gradient_of_the_formula() -> None:
    """d(-log p)/d s_z = p(z | x) - p(z | x, y), where s_z holds the weight times log p(q | z)."""
    log_question = torch.tensor([-1.0, -1.5, -3.0], dtype=torch.float64, requires_grad=True)
    prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    one = Example(1, tuple(prompt(str(number), "1") for number in range(3)), tuple(prior.log().tolist()), (1,))
    loss, _ = Losses(Judging(log_question), (), Objective(), question_weight=2.0)([one])
    loss.backward()
    weights = torch.softmax(prior.log() + 2 * log_question.detach(), 0)
    likelihoods = torch.tensor([0.1, 0.9, 0.1], dtype=torch.float64)
    posterior = weights * likelihoods / (weights * likelihoods).sum()
    assert log_question.grad is not None
    torch.testing.assert_close(log_question.grad, 2 * (weights - posterior), atol=1e-6, rtol=1e-5)


def test_what_judges_no_question_is_trained_as_the_chat_runs_it(tmp_path: Path) -> None:
    """An encoder-decoder reads the question before the passage."""
    save(tmp_path / "bart", *bart())
    made, by = ready(str(tmp_path / "bart"), Lora(0)), Seq2Seq(str(tmp_path / "bart"))
    made.model.eval()
    prompts, prior = [prompt("box 0 is red", "what?"), prompt(None, "what?")], (0.75, 0.25)
    one = Example(1, tuple(prompts), tuple(map(math.log, prior)), tuple(made.target("red")))
    loss, _ = Losses(made, (), Objective(), question_weight=2.0)([one])
    assert float(loss) == pytest.approx(
        chats_loss(by, prompts, prior, Mixing(question_weight=2.0), one.targets), abs=1e-3
    )


@pytest.mark.parametrize("metric", ["cosine", "ip"])
def test_a_query_encoder_that_learns_begins_with_the_prior_of_the_chat(metric: Metric) -> None:
    embed, passages = Windows(metric), tuple(Passage(str(place), "d", "D", text) for place, text in enumerate(TEXTS))
    row = Row(1, (), "what colour is the box", passages, ("red",))
    (found,) = Weigher(embed, 3, 0.5, 0.1).weigh([row])
    (prior,) = Prior(Encoding(embed), 0.5, 0.1)(
        [row.question], [[torch.from_numpy(each) for each in found.vectors]], [4]
    )
    torch.testing.assert_close(prior, torch.tensor(found.log_prior), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("gold", "lacking"), [("", []), ("1", ["the sea is deep"])])
def test_passages_that_read_alike_are_weighed_and_taught_as_one(
    gold: str, lacking: Sequence[str], branches: TrainableCausal, tiny_llama: Path
) -> None:
    texts = ("a red box", "a red box", "the sea is deep", "a road")
    passages = tuple(Passage(str(place), "d", "D", text) for place, text in enumerate(texts))
    row = Row(1, (), "what is in the red box", passages, ("red",), gold=frozenset(gold))
    prior = (0.2, 0.2, 0.35, 0.05, 0.2)
    made = Found(passages, tuple(map(math.log, prior)), Hashing().parts(texts))
    trained = Maker(branches, "none", 0.3).mixture(row, made)
    prompts = answer_prompts(
        Conversation(), Query(row.question, row.question, "en"), [Hit(each, 0) for each in passages]
    )
    wanted = chats_loss(Causal(str(tiny_llama)), prompts, prior, Mixing(least_prior=0.3), trained.targets)
    assert float(Losses(branches, (), Objective())([trained])[0]) == pytest.approx(wanted, abs=1e-3)
    assert [trained.prompts[place].passage for place in trained.lacking] == lacking


def test_a_query_encoder_is_asked_nothing_where_no_passage_is_read() -> None:
    one = Example(1, (prompt(None, "q"),), (0.0,), (1,), query="0", vectors=())
    loss, _ = Losses(Told(), (), Objective(), Prior(Words(1), temperature=0.2, no_passage=0.0))([one])
    assert float(loss) == pytest.approx(-math.log(0.1))


def curve_of(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "curve.json").read_text())


def test_a_generator_learns_with_its_questions_weight_and_notes_it_for_the_chat(
    tmp_path: Path, tiny_llama: Path
) -> None:
    losses = {}
    for name, flags, chosen in (
        ("none", (), ()),
        ("set", (), ("question_weight=2",)),
        ("taken over", ("--from", str(tmp_path / "set")), ()),
        ("taken away", ("--from", str(tmp_path / "set")), ("question_weight=0",)),
    ):
        flat = "temperature_of_prior=0.5"
        assert train(tmp_path, tiny_llama, "generator", ROWS, *flags, chosen=(flat, *chosen)) == 0
        (tmp_path / "out").rename(tmp_path / name)
        losses[name] = curve_of(tmp_path / name)[0]["loss"]
    noted = {name: Causal(str(tiny_llama), adapter=str(tmp_path / name)).default_question_weight for name in losses}
    assert noted == {"none": 0, "set": 2, "taken over": 2, "taken away": 0}
    assert losses["none"] != pytest.approx(losses["set"], rel=1e-3)
    assert losses["taken over"] != pytest.approx(losses["taken away"], rel=1e-3)


def test_a_query_encoder_learns_along_beside_rows_that_search_nothing(tmp_path: Path, tiny_llama: Path) -> None:
    from chatbot.embedders.sentence import SentenceEmbedder

    rows = [*ROWS, *TURNS, {"question": "hello", "reply": "the answer"}]
    assert train(tmp_path, tiny_llama, "generator", rows, "--train-query-encoder", "--learning-rate", "0.001") == 0
    before, after = SentenceEmbedder(), SentenceEmbedder(tmp_path / "out" / "embedder")
    assert (before.queries(["which box"]) * after.queries(["which box"])).sum() < 0.9999


@pytest.mark.parametrize("what", ["retriever", "generator --train-query-encoder"])
@pytest.mark.parametrize("embedder", ["hashing", "dpr:a,b"])
def test_a_query_encoder_is_trained_of_embedders_of_cosines_alone(
    what: str, embedder: str, tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, tiny_llama, what, ROWS, chosen=[f"embedder={embedder}", "query_encoder=none"]) == 1
    assert "a query encoder is trained of sentence-transformers models" in capsys.readouterr().err
