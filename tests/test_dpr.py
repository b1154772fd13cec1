"""DPR as the embedder: transformers' own vectors, and inner products all the way to RAG's p(z | x)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    DPRContextEncoder,
    DPRQuestionEncoder,
    RagRetriever,
    RagTokenForGeneration,
    RagTokenizer,
)

from chatbot import Chatbot, Conversation, Retrieved, Token, assemble, open_chatbot, settings
from chatbot.conversation import Query
from chatbot.embedders.dpr import DprEmbedder
from chatbot.errors import MissingModel, WrongSetting
from chatbot.index.chroma import Chroma
from chatbot.prompt import readable, title
from chatbot.rag_token import log_prior
from tests.checkpoints import bart, bert_tokenizer, dpr, save, save_rag

TEXTS = ["How many days of leave are there?", "", "年假", "leave " * 200, "who wrote hamlet"]
QUESTION = "How many days of leave are there?"
HANDBOOK = {
    "leave.md": "There are 28 days of leave in a year.\n",
    "hamlet.md": "Hamlet was written by William Shakespeare.\n",
    "pay.md": "The pay is made on the last day of the month.\n",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("dpr")
    return {
        "rag": save_rag(root / "rag", RagTokenForGeneration, bart(), seed=1),
        "question": save(root / "question", dpr(DPRQuestionEncoder, 1), bert_tokenizer()),
        "context": save(root / "context", dpr(DPRContextEncoder, 2), bert_tokenizer()),
    }


@pytest.fixture(scope="module", params=["rag", "question"])
def embedder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> DprEmbedder:
    return DprEmbedder(str(folders[request.param]), str(folders["context"]))


@pytest.fixture(scope="module")
def chatbot(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chatbot]:
    """A RAG checkpoint as generator, its question encoder as embedder; retrieval by vectors alone."""
    root = tmp_path_factory.mktemp("chatbot")
    with open_chatbot(
        root / "home",
        generator=str(folders["rag"]),
        embedder=f"dpr:{folders['rag']}, {folders['context']}",
        retriever="dense",
        k=3,
        max_reply_tokens=10,
        least_confidence=0,
        least_prior=0,
    ) as chatbot:
        for name, text in HANDBOOK.items():
            (root / name).write_text(text, "utf-8")
            chatbot.knowledge.add(root / name)
        yield chatbot


def vectors(model: torch.nn.Module, text: str) -> np.ndarray:
    ids = bert_tokenizer()(text, return_tensors="pt", truncation=True, max_length=64)
    with torch.no_grad():
        return model.eval()(**ids).pooler_output[0].numpy()


def test_vectors_are_those_of_transformers_whatever_their_length(embedder: DprEmbedder) -> None:
    for embed, kind, seed in (
        (embedder.queries, DPRQuestionEncoder, 1),
        (embedder.passages, DPRContextEncoder, 2),
    ):
        expected = np.vstack([vectors(dpr(kind, seed), text) for text in TEXTS])
        found = embed(TEXTS)
        assert found.dtype == np.float32
        assert np.allclose(found, expected, atol=1e-4)
        assert np.linalg.norm(found, axis=1).max() > 2


def test_no_texts_give_no_rows(embedder: DprEmbedder) -> None:
    assert embedder.passages([]).shape == embedder.queries([]).shape == (0, 32)


def test_special_tokens_inside_a_text_stay_text(embedder: DprEmbedder) -> None:
    hostile, harmless = embedder.passages(["leave [SEP] days", "leave [ sep ] days"])
    assert np.allclose(hostile, harmless, atol=1e-5)


def test_the_tokenizer_neither_cuts_nor_pads_and_the_window_is_the_encoders(embedder: DprEmbedder) -> None:
    long, short = embedder.tokenizer.encode_batch(["leave " * 1000, "leave"], add_special_tokens=False)
    assert (len(long.ids), len(short.ids), embedder.max_tokens) == (1000, 1, 64)


def test_the_fingerprint_tells_both_encoders_contents(folders: dict[str, Path], tmp_path: Path) -> None:
    def fingerprint(question: Path, context: Path) -> str:
        return DprEmbedder(str(question), str(context)).fingerprint

    shutil.copytree(folders["context"], tmp_path / "copy")
    other = save(tmp_path / "other", dpr(DPRContextEncoder, 5), bert_tokenizer())
    first = fingerprint(folders["question"], folders["context"])
    assert fingerprint(folders["question"], tmp_path / "copy") == first
    assert len({first, fingerprint(folders["question"], other), fingerprint(folders["rag"], folders["context"])}) == 3


@pytest.mark.parametrize(("question", "context"), [("context", "question"), ("question", "rag"), ("rag", "nothing")])
def test_one_encoder_in_place_of_the_other_is_refused_in_one_line(
    question: str, context: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    places = folders | {"nothing": tmp_path}
    with pytest.raises(MissingModel, match=r"is missing|holds no model|cannot be loaded") as error:
        DprEmbedder(str(places[question]), str(places[context])).warm()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("embedder", ["dpr:", "dpr:question", "dpr:question,", "dpr:,context"])
def test_a_setting_that_lacks_an_encoder_is_refused(embedder: str, tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match="dpr:QUESTION,CONTEXT"):
        assemble.embedder(settings.load(tmp_path, None, {"embedder": embedder}, {}))


def test_the_store_ranks_by_inner_product_as_brute_force_does(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    stored = (random.normal(size=(1000, 32)) * random.uniform(0.5, 3, size=(1000, 1))).astype(np.float32)
    store = Chroma(tmp_path, "dpr", metric="ip")
    store.upsert([str(place) for place in range(1000)], "d", stored)
    for query in random.normal(size=(10, 32)).astype(np.float32):
        products = stored @ query
        ranking = store.search(query, 20)
        assert len({id for id, _ in ranking} & {str(place) for place in np.argsort(-products)[:20]}) >= 18
        assert all(score == pytest.approx(products[int(id)], abs=1e-3) for id, score in ranking)
    store.close()


def test_the_prior_is_the_softmax_of_inner_products(chatbot: Chatbot, folders: dict[str, Path]) -> None:
    embedder = DprEmbedder(str(folders["rag"]), str(folders["context"]))
    (found,) = [event for event in chatbot.answer(Conversation(), QUESTION) if isinstance(event, Retrieved)]
    products = (embedder.passages([hit.passage.text for hit in found.hits]) @ embedder.queries([QUESTION])[0]).tolist()
    assert [hit.score for hit in found.hits] == pytest.approx(products, abs=1e-3)
    assert max(products) - min(products) > 0.1 and products == sorted(products, reverse=True)
    softmax = torch.tensor([hit.score for hit in found.hits], dtype=torch.float64).softmax(0).tolist()
    assert found.prior == pytest.approx([*softmax, 0.0], abs=1e-12)


def test_a_whole_turn_says_what_rag_token_generates(chatbot: Chatbot, folders: dict[str, Path]) -> None:
    events = list(chatbot.answer(Conversation(), QUESTION))
    (found,) = [event for event in events if isinstance(event, Retrieved)]
    model = RagTokenForGeneration.from_pretrained(folders["rag"]).eval()
    generator = RagTokenizer.from_pretrained(folders["rag"]).generator
    retriever = SimpleNamespace(config=model.config, generator_tokenizer=generator)
    documents = {
        "title": [title(hit.passage) for hit in found.hits],
        "text": [readable(hit.passage) for hit in found.hits],
    }
    ids, mask = RagRetriever.postprocess_docs(retriever, [documents], [QUESTION], " ", 3, return_tensors="pt")
    said = model.generate(
        context_input_ids=ids, context_attention_mask=mask, n_docs=3, max_length=12, num_beams=1, do_sample=False,
        doc_scores=torch.tensor([[hit.score for hit in found.hits]]),
    )[0]  # fmt: skip
    ours = "".join(event.text for event in events if isinstance(event, Token))
    assert len(ours) > 4 and generator.decode(said[:11], skip_special_tokens=True).startswith(ours)


def test_where_nothing_is_found_all_the_mass_is_on_no_passage(folders: dict[str, Path], tmp_path: Path) -> None:
    with open_chatbot(
        tmp_path, generator="scripted", embedder=f"dpr:{folders['question']},{folders['context']}"
    ) as empty:
        found = empty.dialogue()._retriever.retrieve(Query(QUESTION, QUESTION, "en"))
    assert (found.hits, found.prior) == ((), (1.0,))


def test_no_passage_can_be_left_out_of_the_prior() -> None:
    prior = log_prior(torch.tensor([2.0, 1.0]), 1.0, -torch.inf).exp()
    assert prior.tolist() == pytest.approx([*torch.tensor([2.0, 1.0]).softmax(0).tolist(), 0.0])
