"""Encoder-decoders and RAG checkpoints, held to transformers' own classes on the same token ids and scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    RagRetriever,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    RagTokenizer,
)

from chatbot import assemble, settings
from chatbot.beam import beam
from chatbot.errors import MissingModel, UnusableUtterance
from chatbot.generate import Mixing, generate
from chatbot.generators.base import Decoding, Generator
from chatbot.generators.causal import Causal
from chatbot.generators.seq2seq import Seq2Seq, encode, is_encoder_decoder, load
from chatbot.likelihood import rag_sequence_nll, rag_token_nll
from chatbot.prompt import Prompt
from chatbot.rag_token import marginalize
from chatbot.sampling import Sampling
from chatbot.train.generator import Example, Losses, Objective
from chatbot.train.trainable import TrainableSeq2Seq
from tests.checkpoints import bart, save, save_rag, t5

QUESTION = "who wrote hamlet?"
DOCUMENTS = {
    "title": ["Hamlet", '"Leave"', "The year"],
    "text": [
        "Hamlet is a tragedy by William Shakespeare.",
        "There are 28 days of leave.  The answer is in the text of the passage.",
        "year",
    ],
}
PROMPTS = [
    Prompt("Answer.", text, (), QUESTION, "Text: ", title)
    for title, text in zip(DOCUMENTS["title"], DOCUMENTS["text"], strict=True)
]
NO_PASSAGE = Prompt("Answer.", None, (), QUESTION)
SCORES = torch.tensor([[1.3, 0.4, 0.9]])
PRIOR = SCORES[0].double().softmax(0).tolist()
MODELS = ["bart", "t5", "rag-token-bart", "rag-sequence-bart", "rag-token-t5", "rag-sequence-t5"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("seq2seq")
    for name, made in (("bart", bart), ("t5", t5)):
        save(root / name, *made())
        save_rag(root / f"rag-token-{name}", RagTokenForGeneration, made())
        save_rag(root / f"rag-sequence-{name}", RagSequenceForGeneration, made())
    return {name: root / name for name in MODELS}


@pytest.fixture(params=MODELS)
def generator(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Seq2Seq:
    return Seq2Seq(str(folders[request.param]))


@dataclass
class Noting:
    """A generator that notes the ids of the reply, which a `Token` does not have."""

    generator: Generator
    ids: list[int] = field(default_factory=list)

    @property
    def end_tokens(self) -> frozenset[int]:
        return self.generator.end_tokens

    def read(self, prompts: Sequence[Prompt]) -> Decoding:
        decoding = self.generator.read(prompts)
        advance = decoding.push

        def push(token: int) -> str:
            self.ids.append(token)
            return advance(token)

        decoding.push = push  # type: ignore[method-assign]
        return decoding


def reply_ids(generator: Generator, prompts: Sequence[Prompt], prior: Sequence[float], most: int, epsilon: float = 1):
    noting = Noting(generator)
    tokens = list(generate(noting, prompts, prior, Sampling(max_tokens=most), Mixing(epsilon)))
    return noting.ids, tokens


def context(folder: Path, question: str = QUESTION) -> tuple[Tensor, Tensor]:
    """What RagRetriever would give the generator for DOCUMENTS: ids and mask, both (3, 300)."""
    config = RagTokenForGeneration.config_class.from_pretrained(folder)
    tokenizer = RagTokenizer.from_pretrained(folder).generator
    retriever = SimpleNamespace(config=config, generator_tokenizer=tokenizer)
    prefix = getattr(config.generator, "prefix", None)
    return RagRetriever.postprocess_docs(retriever, [DOCUMENTS], [question], prefix, 3, return_tensors="pt")


def start_of(model: RagTokenForGeneration | RagSequenceForGeneration) -> int:
    return int(model.generator.config.decoder_start_token_id)


def without_end(model: PreTrainedModel, generated: list[int]) -> list[int]:
    """What `generate` said, without its start, its end and, for BART, the end that it puts at the longest length."""
    said, end = generated[1:], model.generation_config.eos_token_id
    return said[: said.index(end)] if end in said else said


def test_every_row_is_a_distribution(generator: Seq2Seq) -> None:
    log_probs = generator.read([*PROMPTS, NO_PASSAGE]).log_probs()
    assert torch.allclose(log_probs.exp().sum(dim=1), torch.ones(4), atol=1e-5)


def test_asking_twice_for_the_probabilities_does_not_advance(generator: Seq2Seq) -> None:
    decoding = generator.read(PROMPTS)
    assert torch.equal(decoding.log_probs(), decoding.log_probs())


def test_branches_read_together_equal_branches_read_alone(generator: Seq2Seq) -> None:
    prompts = [*PROMPTS, NO_PASSAGE]
    together, alone = generator.read(prompts), [generator.read([prompt]) for prompt in prompts]
    assert not torch.allclose(together.log_probs()[0], together.log_probs()[1], atol=0.1)
    for token in (20, 33, 20, 47):
        rows = torch.cat([decoding.log_probs() for decoding in alone])
        assert torch.allclose(together.log_probs(), rows, atol=1e-4)
        for decoding in (together, *alone):
            decoding.push(token)


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_a_single_branch_says_what_transformers_generates(name: str, folders: dict[str, Path]) -> None:
    tokenizer, model = (kind.from_pretrained(folders[name]) for kind in (AutoTokenizer, AutoModelForSeq2SeqLM))
    ids, _ = reply_ids(Seq2Seq(str(folders[name])), PROMPTS[:1], [1.0], 12)
    text = f"Answer.\n\nQuestion: {QUESTION}\nText: {DOCUMENTS['text'][0]}"
    expected = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=12, do_sample=False)[0].tolist()
    assert ids[:11] == without_end(model, expected)[:11] and len(ids) > 3


def test_a_first_token_that_the_model_is_made_to_say_is_read_and_not_said(tmp_path: Path) -> None:
    model, tokenizer = bart()
    model.generation_config.forced_bos_token_id = 0
    folder = save(tmp_path, model, tokenizer)
    ids, _ = reply_ids(Seq2Seq(str(folder)), [NO_PASSAGE], [1.0], 6)
    read = tokenizer(f"Answer.\n\nQuestion: {QUESTION}", return_tensors="pt")
    assert model.eval().generate(**read, max_new_tokens=8, do_sample=False)[0].tolist()[:8] == [2, 0, *ids]


def test_a_rag_checkpoints_own_generation_settings_say_how_a_reply_starts(tmp_path: Path) -> None:
    folder = save_rag(tmp_path, RagTokenForGeneration, bart())
    model = RagTokenForGeneration.from_pretrained(folder).eval()
    model.generation_config.forced_bos_token_id = 0
    model.save_pretrained(folder)
    ids, mask = context(folder)
    expected = model.generate(
        context_input_ids=ids, context_attention_mask=mask, doc_scores=SCORES, n_docs=3,
        max_length=12, num_beams=1, do_sample=False,
    )[0].tolist()  # fmt: skip
    ours, _ = reply_ids(Seq2Seq(str(folder)), PROMPTS, PRIOR, 9)
    assert expected[:2] == [2, 0] and ours == without_end(model, expected)[1:10]


@pytest.mark.parametrize("name", ["rag-token-bart", "rag-token-t5"])
def test_a_rag_checkpoint_reads_the_ids_that_its_retriever_would_make(name: str, folders: dict[str, Path]) -> None:
    loaded = Seq2Seq(str(folders[name]))._load()
    ids, mask = context(folders[name])
    expected = [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]
    assert [encode(loaded, prompt).ids for prompt in PROMPTS] == expected


@pytest.mark.parametrize("name", ["rag-token-bart", "rag-token-t5"])
def test_the_mixture_is_that_of_rag_token(name: str, folders: dict[str, Path]) -> None:
    model = RagTokenForGeneration.from_pretrained(folders[name]).eval()
    ids, mask = context(folders[name])
    reply = [11, 40, 7, 25, 63]
    with torch.no_grad():
        expected = model(
            context_input_ids=ids, context_attention_mask=mask, doc_scores=SCORES, n_docs=3, do_marginalize=True,
            decoder_input_ids=torch.tensor([[start_of(model), *reply]]),
        ).logits[0]  # fmt: skip
    decoding = Seq2Seq(str(folders[name])).read(PROMPTS)
    for step, token in enumerate([*reply, 0]):
        mixture = marginalize(torch.tensor(PRIOR).log(), decoding.log_probs().double())
        assert torch.allclose(mixture.float(), expected[step], atol=1e-4)
        decoding.push(token)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", MODELS[2:])
def test_the_losses_are_those_of_rag_token_and_rag_sequence(
    name: str, smoothing: float, folders: dict[str, Path]
) -> None:
    """Their labels are the decoder's input; the targets are the labels shifted left, and padding does not count."""
    sequence = name.startswith("rag-sequence")
    kind, loss = (RagSequenceForGeneration, rag_sequence_nll) if sequence else (RagTokenForGeneration, rag_token_nll)
    model = kind.from_pretrained(folders[name]).eval()
    model.config.label_smoothing = smoothing
    model.config.bos_token_id = 77  # none is said; without one, their RAG-Sequence cannot score T5
    pad = model.config.generator.pad_token_id
    labels = torch.tensor([[start_of(model), 11, 40, 25, 2], [start_of(model), 9, 2, pad, pad]])
    ids, mask = (torch.cat([context(folders[name], q)[n] for q in (QUESTION, "how many days?")]) for n in (0, 1))
    scores = torch.cat([SCORES, SCORES.flip(1)])
    with torch.no_grad():
        theirs = model(context_input_ids=ids, context_attention_mask=mask, doc_scores=scores, n_docs=3, labels=labels)
    targets = torch.cat([labels[:, 1:], torch.full((2, 1), pad)], dim=1)
    log_probs = theirs.logits.view(2, 3, 5, -1).log_softmax(-1)
    ours = loss(scores.log_softmax(-1), log_probs, targets, targets != pad, smoothing)
    assert torch.allclose(ours, theirs.loss, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", MODELS[2:])
def test_what_training_minimises_is_their_loss(name: str, smoothing: float, folders: dict[str, Path]) -> None:
    sequence = name.startswith("rag-sequence")
    model = (RagSequenceForGeneration if sequence else RagTokenForGeneration).from_pretrained(folders[name]).eval()
    model.config.label_smoothing = smoothing
    model.config.bos_token_id = 77
    targets = (11, 40, 25, 2)
    loaded = load(str(folders[name]), packed=False)
    labels = torch.tensor([[*loaded.start, *targets]])
    ids, mask = context(folders[name], QUESTION)
    with torch.no_grad():
        theirs = model(context_input_ids=ids, context_attention_mask=mask, doc_scores=SCORES, n_docs=3, labels=labels)
        example = Example(1, tuple(PROMPTS), tuple(SCORES[0].log_softmax(0).tolist()), targets)
        trainable = TrainableSeq2Seq(loaded.model, loaded)
        ours, tokens = Losses(trainable, (), Objective(sequence, smoothing))([example])
    assert float(tokens) == len(targets)
    assert torch.allclose(ours, theirs.loss, rtol=1e-5)


@pytest.mark.parametrize("name", ["rag-token-bart", "rag-token-t5"])
@pytest.mark.parametrize(
    ("question", "scores"),
    [
        (QUESTION, SCORES),
        ("how many days?", SCORES.flip(1)),
        ("the year", 3 * SCORES),
        ("where was he born?", 0 * SCORES),
    ],
)
def test_greedy_ids_are_those_of_rag_token(name: str, question: str, scores: Tensor, folders: dict[str, Path]) -> None:
    model = RagTokenForGeneration.from_pretrained(folders[name]).eval()
    ids, mask = context(folders[name], question)
    expected = model.generate(
        context_input_ids=ids, context_attention_mask=mask, doc_scores=scores, n_docs=3,
        max_length=16, num_beams=1, do_sample=False,
    )[0].tolist()  # fmt: skip
    prompts = [replace(prompt, query=question) for prompt in PROMPTS]
    ours, _ = reply_ids(Seq2Seq(str(folders[name])), prompts, scores[0].double().softmax(0).tolist(), 14)
    assert ours == without_end(model, expected)[:14] and len(ours) > 3


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize(("name", "question"), [("rag-token-bart", QUESTION), ("rag-token-t5", "how many days?")])
def test_the_best_beam_is_that_of_rag_token(name: str, question: str, width: int, folders: dict[str, Path]) -> None:
    """Theirs without a bonus for length, and going on until no beam can overtake, as ours."""
    model = RagTokenForGeneration.from_pretrained(folders[name]).eval()
    ids, mask = context(folders[name], question)
    expected = model.generate(
        context_input_ids=ids, context_attention_mask=mask, doc_scores=SCORES, n_docs=3,
        max_length=8, num_beams=width, do_sample=False, length_penalty=0.0, early_stopping="never",
    )[0].tolist()  # fmt: skip
    prompts = [replace(prompt, query=question) for prompt in PROMPTS]
    best, *_ = beam(Seq2Seq(str(folders[name])), prompts, PRIOR, width, max_tokens=6 if "bart" in name else 7)
    assert list(best.ids) == without_end(model, expected)


def test_a_decoding_and_its_fork_do_not_touch_each_other(generator: Seq2Seq) -> None:
    first = generator.read(PROMPTS)
    early = first.fork()
    first.push(20)
    first.log_probs()
    second = first.fork()
    for decoding, tokens in ((first, (33, 34)), (second, (47, 48)), (early, (20, 47, 48))):
        for token in tokens:
            decoding.push(token)
    alone = generator.read(PROMPTS)
    for token in (20, 47, 48):
        alone.push(token)
    assert torch.allclose(second.log_probs(), alone.log_probs(), atol=1e-5)
    assert torch.allclose(early.log_probs(), alone.log_probs(), atol=1e-5)
    assert not torch.allclose(first.log_probs(), alone.log_probs(), atol=0.1)


@pytest.mark.parametrize("name", ["rag-sequence-bart", "rag-sequence-t5"])
def test_a_reply_at_epsilon_zero_is_as_likely_as_rag_sequence_says(name: str, folders: dict[str, Path]) -> None:
    model = RagSequenceForGeneration.from_pretrained(folders[name]).eval()
    model.config.bos_token_id = 77
    ids, mask = context(folders[name])
    ours, tokens = reply_ids(Seq2Seq(str(folders[name])), PROMPTS, PRIOR, 8, epsilon=0.0)
    with torch.no_grad():
        loss = model(
            context_input_ids=ids, context_attention_mask=mask, doc_scores=SCORES, n_docs=3,
            labels=torch.tensor([[start_of(model), *ours]]),
        ).loss  # fmt: skip
    log_likelihood = sum(
        math.log(sum(a * math.exp(likely) for a, likely in zip(token.prior, token.log_likelihoods, strict=True)))
        for token in tokens
    )
    assert len(ours) == 8 and log_likelihood == pytest.approx(-float(loss), abs=1e-3)


def test_the_same_words_under_two_titles_are_read_once(folders: dict[str, Path]) -> None:
    twice = [PROMPTS[0], replace(PROMPTS[0], title="A copy"), NO_PASSAGE]
    (first,) = generate(Seq2Seq(str(folders["rag-token-bart"])), twice, [0.3, 0.3, 0.4], Sampling(max_tokens=1))
    assert first.prior == pytest.approx((0.6, 0.0, 0.4))


def test_no_passage_takes_part_without_a_passages_mark(folders: dict[str, Path]) -> None:
    loaded = Seq2Seq(str(folders["rag-token-bart"]))._load()
    assert loaded.tokenizer.decode(encode(loaded, NO_PASSAGE).ids) == f"<s> {QUESTION}</s>"


def test_earlier_turns_stand_before_the_question(folders: dict[str, Path]) -> None:
    prompt = replace(PROMPTS[0], conversation=(("the question", "the answer"),))
    for name, expected in {
        "rag-token-bart": f"text of it // the question\nthe answer\n{QUESTION}</s>",
        "bart": f"Question: the question\nAnswer: the answer\nQuestion: {QUESTION}\nText: text of it</s>",
    }.items():
        loaded = Seq2Seq(str(folders[name]))._load()
        assert loaded.tokenizer.decode(encode(loaded, replace(prompt, passage="text of it")).ids).endswith(expected)


def test_a_reply_is_never_longer_than_asked(generator: Seq2Seq) -> None:
    for most in (1, 6):
        assert len(reply_ids(generator, PROMPTS, PRIOR, most)[0]) <= most


def test_tokens_come_one_by_one_and_spell_what_the_tokenizer_decodes(generator: Seq2Seq) -> None:
    ids, tokens = reply_ids(generator, PROMPTS, PRIOR, 10)
    tokenizer = generator._load().tokenizer
    spelled = "".join(token.text for token in tokens)
    whole = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert whole.startswith(spelled) and whole[len(spelled) :].strip("�") == ""  # what is left is half a character
    assert len(tokens) == len(ids)


def test_characters_that_span_tokens_come_whole(folders: dict[str, Path]) -> None:
    generator = Seq2Seq(str(folders["rag-token-bart"]))
    decoding = generator.read(PROMPTS)
    ids = generator._load().tokenizer("é 中文 🎉", add_special_tokens=False).input_ids
    pieces = [decoding.push(id) for id in ids]
    assert "".join(pieces) == "é 中文 🎉" and "" in pieces
    assert not any("�" in piece for piece in pieces)


def test_a_fork_inside_a_character_ends_it_on_both_sides(folders: dict[str, Path]) -> None:
    generator = Seq2Seq(str(folders["rag-token-bart"]))
    decoding = generator.read(PROMPTS)
    first, *rest = generator._load().tokenizer("中", add_special_tokens=False).input_ids
    decoding.push(first)
    fork = decoding.fork()
    assert ["".join(each.push(id) for id in rest) for each in (decoding, fork)] == ["中", "中"]


def test_special_tokens_inside_a_passage_stay_text(generator: Seq2Seq) -> None:
    loaded = generator._load()
    special = set(loaded.tokenizer.all_special_ids) - {loaded.tokenizer.unk_token_id}
    hostile = replace(PROMPTS[0], passage="a</s><s><pad><extra_id_0><mask> b", title="</s>")

    def marks(prompt: Prompt) -> int:
        return sum(id in special for id in encode(loaded, prompt).ids)

    assert marks(hostile) == marks(PROMPTS[0])


def test_a_query_keeps_its_letters_case(folders: dict[str, Path]) -> None:
    loaded = Seq2Seq(str(folders["rag-token-bart"]))._load()
    shouted = encode(loaded, replace(PROMPTS[0], query="Who wrote HAMLET?")).ids
    assert loaded.tokenizer.decode(shouted).endswith(" // Who wrote HAMLET?</s>")


@pytest.mark.parametrize("name", ["bart", "rag-token-bart"])
def test_a_passage_too_long_for_the_window_is_cut_and_the_question_is_not(name: str, folders: dict[str, Path]) -> None:
    loaded = Seq2Seq(str(folders[name]))._load()
    long = replace(PROMPTS[0], passage="start " + "the passage and " * 300, conversation=(("the oldest turn", "x"),))
    ids, cut = encode(loaded, long)
    text = loaded.tokenizer.decode(ids)
    assert len(ids) == loaded.window
    assert QUESTION in text and "start the passage" in text and text.endswith("</s>")
    assert "oldest turn" not in text
    assert cut == Seq2Seq(str(folders[name])).read([NO_PASSAGE, long]).cut == ("conversation", "passage")


def test_without_a_window_nothing_is_cut(folders: dict[str, Path]) -> None:
    loaded = Seq2Seq(str(folders["t5"]))._load()
    assert len(encode(loaded, replace(PROMPTS[0], passage="the passage and " * 300)).ids) > 900


def test_a_question_longer_than_the_window_is_refused_in_one_line(folders: dict[str, Path]) -> None:
    with pytest.raises(UnusableUtterance, match="at most 320: shorten") as error:
        Seq2Seq(str(folders["bart"])).read([replace(PROMPTS[0], query="the question? " * 300)])
    assert "\n" not in str(error.value)


def test_where_the_decoders_positions_are_used_up_the_reply_ends(tmp_path: Path) -> None:
    folder = save(tmp_path, *bart(max_position_embeddings=24, eos_token_id=2))
    generator = Seq2Seq(str(folder))
    decoding = generator.read([Prompt("", None, (), "who?")])
    for _ in range(24):
        assert torch.isfinite(decoding.log_probs()).all()
        decoding.push(20)
    assert decoding.log_probs().argmax().item() in generator.end_tokens
    assert decoding.log_probs().exp().sum() == 1


@pytest.mark.parametrize("broken", ["empty", "no weights", "no tokenizer"])
def test_what_cannot_be_loaded_is_named_in_one_line(broken: str, tmp_path: Path, folders: dict[str, Path]) -> None:
    for file in folders["bart"].iterdir():
        wanted = {"empty": "", "no weights": "json", "no tokenizer": "config.json model.safetensors"}[broken]
        if any(file.name.endswith(name) for name in wanted.split()) and not (
            broken == "no tokenizer" and file.name.startswith("tokenizer")
        ):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(MissingModel, match=r"generator .*cannot be loaded") as error:
        Seq2Seq(str(tmp_path)).warm()
    assert "\n" not in str(error.value)


def test_the_kind_of_model_is_told_from_its_configuration(folders: dict[str, Path], tiny_llama: Path) -> None:
    assert all(is_encoder_decoder(str(folder)) for folder in folders.values())
    for folder, kind in ((tiny_llama, Causal), (folders["t5"], Seq2Seq), (folders["rag-token-t5"], Seq2Seq)):
        chosen = settings.load(folder / "home", overrides={"generator": str(folder)}, environment={})
        assert isinstance(assemble.generator(chosen), kind)


def test_a_rag_checkpoint_brings_its_epsilon_unless_one_is_set(folders: dict[str, Path]) -> None:
    def epsilon(name: str, **chosen: object) -> float:
        return assemble.epsilon(settings.load("nowhere", None, chosen, {}), Seq2Seq(str(folders[name])))

    assert epsilon("rag-sequence-bart") == epsilon("rag-sequence-t5") == 0.0
    assert epsilon("rag-token-bart") == 1.0
    assert epsilon("bart") == 1.0
    assert epsilon("rag-sequence-bart", epsilon=0.3) == 0.3
    assert epsilon("rag-sequence-bart", epsilon=1) == 1.0
