"""What every embedder must do, then what each is for."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from chatbot.conversation import Conversation
from chatbot.embedders import compiled
from chatbot.embedders.base import Embedder, similarity
from chatbot.embedders.cross import CrossEncoder
from chatbot.embedders.hashing import Hashing
from chatbot.embedders.sentence import SentenceEmbedder
from chatbot.errors import MissingModel
from chatbot.loading import has_openvino
from chatbot.prompt import BETWEEN, conversational
from tests.conftest import Noting

TEXTS = ["How many days of leave are there?", "", "年假有多少天?", "word " * 2000, "🙂"]


@pytest.fixture(scope="module", params=[Hashing, SentenceEmbedder])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return request.param()


@pytest.fixture(scope="module")
def minilm() -> SentenceEmbedder:
    return SentenceEmbedder(threads=1)


def test_rows_are_unit_vectors_in_single_precision(embedder: Embedder):
    for vectors in (embedder.passages(TEXTS), embedder.queries(TEXTS)):
        assert vectors.dtype == np.float32
        assert vectors.shape[0] == len(TEXTS)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_give_no_rows(embedder: Embedder):
    assert embedder.passages([]).shape == (0, embedder.passages(["a"]).shape[1])


def test_a_texts_vector_does_not_depend_on_its_neighbours(embedder: Embedder):
    alone = np.vstack([embedder.passages([text]) for text in TEXTS])
    assert np.allclose(embedder.passages(TEXTS), alone, atol=1e-5)
    assert np.allclose(embedder.passages(TEXTS[::-1])[::-1], alone, atol=1e-5)


def test_the_parts_of_a_text_begin_with_its_whole(embedder: Embedder):
    parts = embedder.parts(TEXTS)
    assert np.allclose([each[0] for each in parts], embedder.passages(TEXTS), atol=1e-3)
    assert all(len(each) != 2 and each.dtype == np.float32 for each in parts)
    assert embedder.parts([]) == []


def test_many_threads_get_what_one_gets(embedder: Embedder):
    texts = [f"number {n} " + "and so on " * (n % 7) for n in range(24)]
    embedder.queries(texts[:1])
    with ThreadPoolExecutor(4) as pool:
        together = np.vstack(list(pool.map(lambda text: embedder.queries([text]), texts)))
    assert np.allclose(together, embedder.queries(texts), atol=1e-5)


def test_the_tokenizer_neither_cuts_nor_pads(embedder: Embedder):
    long, short = embedder.tokenizer.encode_batch(["word " * 1000, "word"], add_special_tokens=False)
    assert (len(long.ids), len(short.ids)) == (1000, 1)
    assert embedder.max_tokens == 256


def test_a_hashing_embedder_brings_texts_with_the_same_words_together():
    query, near, far = Hashing().passages(["leave days", "days of leave", "cost of travel"])
    assert query @ near > query @ far


def test_the_default_model_brings_paraphrases_together(minilm: SentenceEmbedder):
    (query,) = minilm.queries(["How long may I be on holiday?"])
    near, far = minilm.passages(["Employees have 30 days of vacation.", "The printer is on the second floor."])
    assert query @ near > 0.3 > query @ far


def test_the_default_models_vectors_are_those_of_sentence_transformers(
    minilm: SentenceEmbedder, monkeypatch: pytest.MonkeyPatch
):
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(minilm.folder), device="cpu")
    read_whole = [text for text in TEXTS if len(minilm.tokenizer.encode(text).ids) <= minilm.max_tokens]
    assert 1 < len(read_whole) < len(TEXTS)
    wanted = reference.encode(read_whole)
    assert (minilm.passages(read_whole) * wanted).sum(axis=1).min() > 0.9995  # bfloat16, where there is that
    monkeypatch.setattr(compiled, "has_openvino", lambda: False)
    assert np.allclose(SentenceEmbedder(threads=1).passages(read_whole), wanted, atol=1e-5)


def test_fingerprint_tokenizer_and_limit_need_neither_the_library_nor_the_weights():
    program = (
        "import sys; from chatbot.embedders.sentence import SentenceEmbedder; embedder = SentenceEmbedder();"
        "embedder.fingerprint, embedder.tokenizer, embedder.max_tokens;"
        "print({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_loading_is_silent(capfd: pytest.CaptureFixture[str]):
    SentenceEmbedder(threads=1).warm()
    assert capfd.readouterr() == ("", "")


def _model(folder: Path, weights: bytes, limit: int = 128) -> Path:
    folder.mkdir()
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": limit}))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_the_fingerprint_tells_the_content_and_not_the_place(tmp_path: Path):
    weights = bytes(3_000_000)
    first = _model(tmp_path / "first", weights)
    shutil.copytree(first, tmp_path / "copy")
    same = SentenceEmbedder(tmp_path / "copy")
    trained = SentenceEmbedder(_model(tmp_path / "trained", b"\1" + weights[:-2] + b"\1"))
    configured = SentenceEmbedder(_model(tmp_path / "configured", weights, limit=64))
    fingerprint = SentenceEmbedder(first).fingerprint
    assert same.fingerprint == fingerprint
    assert len({fingerprint, trained.fingerprint, configured.fingerprint}) == 3
    assert configured.max_tokens == 64


@pytest.mark.parametrize("model", ["no/such/folder", "not a hub id!"])
def test_a_model_that_is_nowhere_is_named_in_one_line(model: str):
    with pytest.raises(MissingModel, match=model) as error:
        SentenceEmbedder(model).fingerprint  # noqa: B018
    assert "\n" not in str(error.value)


def test_a_folder_without_a_model_is_named_in_one_line(tmp_path: Path):
    embedder = SentenceEmbedder(_model(tmp_path / "broken", b"no weights"))
    with pytest.raises(MissingModel, match="broken") as error:
        embedder.warm()
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def read_conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA matrices for the default embedder, of random numbers."""
    from peft import LoraConfig, get_peft_model
    from sentence_transformers import SentenceTransformer

    folder = tmp_path_factory.mktemp("query-encoder")
    model = SentenceTransformer(str(SentenceEmbedder().folder), device="cpu", local_files_only=True)[0].model
    config = LoraConfig(r=2, target_modules=["query"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(str(folder))
    return folder


def test_only_queries_that_hold_a_conversation_are_read_by_what_learned_to(read_conversations: Path):
    plain, taught = SentenceEmbedder(threads=1), SentenceEmbedder(threads=1, conversations=read_conversations)
    alone, talk = "When was it opened?", conversational(Conversation(), "When?") + BETWEEN + "The Globe."
    assert np.allclose(taught.passages([talk]), plain.passages([talk]), atol=1e-6)
    assert np.allclose(taught.queries([alone]), plain.queries([alone]), atol=1e-6)
    assert not np.allclose(taught.queries([talk]), plain.queries([talk]), atol=1e-3)
    assert np.allclose(taught.queries([alone, talk]), np.vstack([taught.queries([alone]), taught.queries([talk])]))
    assert taught.fingerprint == plain.fingerprint  # passages keep their vectors


def test_matrices_of_another_model_are_refused_in_one_line(tmp_path: Path, read_conversations: Path):
    shutil.copytree(read_conversations, tmp_path / "other")
    (tmp_path / "other" / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(MissingModel, match="query_encoder"):
        SentenceEmbedder(threads=1, conversations=tmp_path / "other").queries([BETWEEN])


def test_a_cross_encoder_scores_each_text_by_itself(tmp_path: Path):
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(SentenceEmbedder().folder)
    tokenizer.save_pretrained(tmp_path / "cross")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path / "cross")
    cross, texts = CrossEncoder(str(tmp_path / "cross")), ["a bridge", "", "it was opened in 1599"]
    scores = cross.scores("When was it opened?", texts)
    assert len(set(scores)) == 3
    assert np.allclose(scores, [cross.scores("When was it opened?", [text])[0] for text in texts], atol=1e-4)
    assert cross.scores("When?", []) == []


def test_a_folder_without_a_cross_encoder_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MissingModel, match="reranker"):
        CrossEncoder(str(tmp_path)).scores("q", ["a"])


def test_a_text_longer_than_the_model_reads_is_read_to_its_end() -> None:
    embedder = SentenceEmbedder()
    filler = "The committee met on Tuesday and spoke of the budget for roads and of the new bridge. " * 20
    told = f"{filler}Pandas eat bamboo in the mountains of Sichuan."
    assert len(embedder.tokenizer.encode(told).ids) > embedder.max_tokens
    question = embedder.queries(["What do pandas eat?"])[0]
    short, long, without = embedder.passages(["Pandas eat bamboo.", told, filler])
    assert question @ long > question @ without + 0.02
    assert float(np.linalg.norm(long)) == pytest.approx(1, abs=1e-5)
    assert embedder.passages(["Pandas eat bamboo."])[0] == pytest.approx(short, abs=1e-5)


def test_a_text_of_two_subjects_has_a_window_for_each(minilm: SentenceEmbedder) -> None:
    pandas, budget = "Pandas eat bamboo in the mountains. " * 13, "The committee met and spoke of the budget. " * 13
    query, other = minilm.queries(["What do pandas eat?", "What did the committee speak of?"])
    ((whole, first, second),) = minilm.parts([pandas + budget])
    assert first @ query > whole @ query > second @ query
    assert second @ other > whole @ other > first @ other
    (short,) = minilm.parts(["Pandas eat bamboo."])
    assert short.shape == (1, 384)


def test_a_passage_matches_by_the_mean_of_its_whole_and_its_best_window() -> None:
    query = np.array([1, 0], dtype=np.float32)
    parts = np.array([[0.6, 0.8], [1, 0], [0, 1]], dtype=np.float32)
    assert similarity(parts, query) == pytest.approx(0.8)
    assert similarity(parts[:1], query) == pytest.approx(0.6)


def encoder(**of: int) -> BertModel:
    return BertModel(BertConfig(vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, **of)).eval()


@torch.inference_mode()
def test_a_compiled_encoder_says_what_torch_says() -> None:
    model = encoder()
    ids = torch.randint(90, (3, 20))
    mask = (torch.arange(20) < torch.tensor([[20], [7], [1]])).long()
    wanted = model(input_ids=ids, attention_mask=mask)["last_hidden_state"]
    assert compiled.compile(model)
    got = model(input_ids=ids, attention_mask=mask)["last_hidden_state"]
    assert got is not wanted
    assert torch.allclose(got[mask > 0], wanted[mask > 0], atol=0.05)
    assert not torch.equal(got, wanted)


@torch.inference_mode()
def test_texts_of_all_lengths_reach_the_compiled_graph_in_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps what it builds for each."""
    made: list[Noting] = []
    build = compiled.compiled
    monkeypatch.setattr(compiled, "compiled", lambda *given: made.append(Noting(build(*given))) or made[-1])
    model = encoder(max_position_embeddings=60)
    forward = model.forward
    assert compiled.compile(model)
    for length in range(1, 61):  # as long as it reads
        ids, mask = torch.randint(90, (1, length)), torch.ones(1, length, dtype=torch.long)
        got, wanted = (by(input_ids=ids, attention_mask=mask)["last_hidden_state"] for by in (model, forward))
        assert torch.allclose(got, wanted, atol=0.05)
    assert len({shapes[0] for shapes in made[0].shapes if shapes[0][0] == 1}) == 4


@torch.inference_mode()
def test_where_openvino_gives_other_numbers_torch_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = encoder(), encoder()
    forward = model.forward
    monkeypatch.setattr(compiled, "_compiled", lambda _: other.forward)
    assert not compiled.compile(model)
    assert model.forward == forward


def test_what_openvino_cannot_convert_stays_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(compiled, "_compiled", fails)
    assert not compiled.compile(encoder())


def test_a_decoder_stays_with_torch() -> None:
    config = LlamaConfig(
        vocab_size=90, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    assert not compiled.compile(LlamaModel(config).eval())


def test_the_default_model_is_compiled_where_openvino_is_installed(minilm: SentenceEmbedder) -> None:
    minilm.warm()
    assert ("forward" in vars(minilm._loaded[0].model)) == has_openvino()


def test_openvino_is_loaded_without_what_reports_that_it_was() -> None:
    program = (
        "import sys; from chatbot.embedders.sentence import SentenceEmbedder; SentenceEmbedder(threads=1).warm();"
        "print(sorted(name for name in sys.modules if name.startswith('openvino_telemetry')))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


AT_ONCE = """
import sys, threading
from pathlib import Path
from chatbot import assemble
from chatbot.embedders.sentence import SentenceEmbedder
from chatbot.settings import load
thread = threading.Thread(target=SentenceEmbedder(threads=1).warm)
thread.start()
assemble.generator(load(sys.argv[1], overrides={"generator": sys.argv[2]}))
thread.join()
"""


def test_embedder_and_generator_may_be_loaded_by_two_threads_at_once(tiny_llama: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", AT_ONCE, str(tmp_path), str(tiny_llama)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and "Traceback" not in run.stderr, run.stderr
