"""What tests share: a small random model, chatbots without weights, and the default generator, fetched once."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chatbot import Chatbot, open_chatbot

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 2 layers with a byte-level tokenizer and a chat template, as `save_pretrained` leaves them."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-llama")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend.train_from_iterator(
        ["the question and the answer are in the text of the passage"],
        trainers.BpeTrainer(
            vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=2, bos_token_id=1, pad_token_id=2,
        initializer_range=0.6,  # wide, so that the branches disagree
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of small random models of other architectures, with the small Llama's tokenizer."""

    def make(architecture: str) -> Path:
        import torch
        import transformers

        folder = tmp_path_factory.getbasetemp() / f"tiny-{architecture}"
        if not folder.exists():
            shutil.copytree(tiny_llama, folder, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
            size = {"hidden_size": 32, "vocab_size": 320, "num_hidden_layers": 2, "initializer_range": 0.3}
            if architecture not in ("Mamba", "Rwkv"):
                size |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
            if architecture == "Mistral":
                size |= {"sliding_window": 16}
            config = getattr(transformers, f"{architecture}Config")(**size, bos_token_id=1, eos_token_id=2)
            torch.manual_seed(0)
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if not mount or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    for _ in range(50):  # a process that has ended may hold it a moment longer
        if subprocess.run(["umount", disk], capture_output=True).returncode == 0:
            return
        time.sleep(0.2)
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path, leave: int) -> Path:
    """All of it but so many bytes."""
    free = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(bytes(max(0, free - leave)))
    return disk / "filler"


@pytest.fixture
def open_scripted(tmp_path: Path) -> Iterator[Callable[..., Chatbot]]:
    """Opens chatbots without weights over one home; all are closed at the end."""
    opened: list[Chatbot] = []

    def open_one(**settings: object) -> Chatbot:
        chosen = {"generator": "scripted", "embedder": "hashing", "no_passage": 0.05} | settings
        opened.append(open_chatbot(tmp_path / "home", **chosen))
        return opened[-1]

    yield open_one
    for chatbot in opened:
        chatbot.close()


@pytest.fixture(scope="session")
def default_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `models` folder with the default generator, fetched as a first start does. Skips without a network."""
    from chatbot import models
    from chatbot.errors import MissingModel

    folder = tmp_path_factory.mktemp("models")
    try:
        models.fetch(models.DEFAULT, folder)
    except MissingModel as error:
        pytest.skip(str(error))
    return folder


class Noting:
    """A compiled graph that notes the shapes of what it is asked."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self.shapes: set[tuple[tuple[int, ...], ...]] = set()

    def create_infer_request(self) -> Any:
        request = self._graph.create_infer_request()

        class Noted:
            get_output_tensor = request.get_output_tensor

            @staticmethod
            def infer(inputs: Sequence[Any], **options: Any) -> None:
                self.shapes.add(tuple(tuple(each.shape) for each in inputs))
                request.infer(inputs, **options)

        return Noted()
