"""Hugging Face's own RAG-Token beside ours: a checkpoint with random weights, the same K prompts, the same loop.

Published checkpoints of it (facebook/rag-token-nq) are BART-large; a base one says the same in a third of the memory.
Both read K passages, without "no passage", which a RAG checkpoint does not know, and without a conversation, so that
every prompt fits the 300 tokens to which `RagRetriever` pads it. The question encoder is not measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.bench.systems import NUMBER, REPLY_TOKENS, TEXT, Ours, Timing, prompts
from chatbot.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from chatbot.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Shape:
    """Of encoder and decoder alike."""

    name: str
    layers: int
    hidden: int
    inner: int
    heads: int
    vocabulary: int = 50_265


BART_BASE = Shape("bart-base", 6, 768, 3072, 12)
BART_LARGE = Shape("bart-large", 12, 1024, 4096, 16)


def checkpoint(folder: Path, shape: Shape) -> None:
    """A whole RAG-Token checkpoint with random weights, as `save_pretrained` leaves it."""
    import torch
    from transformers import (
        BartConfig,
        BartForConditionalGeneration,
        BertTokenizer,
        DPRConfig,
        DPRQuestionEncoder,
        RagConfig,
        RagTokenForGeneration,
        RagTokenizer,
    )
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    sides = ("encoder", "decoder")
    sizes = {"layers": shape.layers, "ffn_dim": shape.inner, "attention_heads": shape.heads}
    each: dict[str, Any] = {f"{side}_{name}": size for side in sides for name, size in sizes.items()}
    generator = BartForConditionalGeneration(BartConfig(vocab_size=shape.vocabulary, d_model=shape.hidden, **each))
    small: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    question = DPRQuestionEncoder(DPRConfig(vocab_size=5, max_position_embeddings=8, **small))
    special: dict[str, Any] = {
        f"{which}_token_id": getattr(generator.config, f"{which}_token_id") for which in ("pad", "eos")
    }
    config = RagConfig.from_question_encoder_generator_configs(
        question.config, generator.config, decoder_start_token_id=generator.config.decoder_start_token_id, **special
    )
    RagTokenForGeneration(config=config, question_encoder=question, generator=generator).save_pretrained(folder)
    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    of_questions = BertTokenizer(vocab={piece: place for place, piece in enumerate(pieces)})
    tokenizers: Any = RagTokenizer(of_questions, _tokenizer(shape.vocabulary))  # type: ignore[no-untyped-call]
    tokenizers.save_pretrained(folder)


def _tokenizer(vocabulary: int) -> Any:
    """BART's kind, which knows the words of the bench; the rest of its vocabulary is made up."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BartTokenizer

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    learned = json.loads(backend.to_str())["model"]
    known = learned["vocab"] | {f"<{number}>": number for number in range(len(learned["vocab"]), vocabulary)}
    merges: Any = [tuple(merge) for merge in learned["merges"]]
    return BartTokenizer(vocab=known, merges=merges)


def put(k: int) -> list[Prompt]:
    """K passages and the question, in the layout that RAG models are trained with."""
    return [replace(prompt, conversation=(), title="harbour") for prompt in prompts(k) if prompt.passage]


class OursSeq2Seq(Ours):
    """The product's loop over the checkpoint."""

    def __init__(self, chosen: Settings, k: int) -> None:
        super().__init__(chosen, put(k), warm=False)

    def step_bytes(self) -> int:
        from transformers import RagConfig

        config = RagConfig.from_pretrained(self._chosen.generator)
        tokenizer = tokenizer_of(self._chosen.generator)
        return step_bytes(config.generator, context(config, tokenizer, self._prompts)[1])


class HuggingFaceRag:
    """`RagTokenForGeneration.generate`, greedy, float32.

    It takes no streamer, so the first token's time is that of another reply, of one token. It ignores `max_new_tokens`;
    with `max_length` and `min_length` alike, end tokens are passed over. Prompts are padded as `RagRetriever` does it.
    """

    def __init__(self, chosen: Settings, k: int) -> None:
        import torch
        from transformers import RagTokenForGeneration

        from chatbot.assemble import cores

        torch.set_num_threads(min(chosen.threads or cores(), cores()))
        self._model: Any = RagTokenForGeneration.from_pretrained(chosen.generator, dtype=torch.float32)
        self._model.eval()  # type: ignore[no-untyped-call]
        self._tokenizer = tokenizer_of(chosen.generator)
        self._prompts = put(k)

    def reply(self) -> Timing:
        return Timing(self._seconds(1), self._seconds(REPLY_TOKENS), REPLY_TOKENS)

    def step_bytes(self) -> int:
        _, mask = context(self._model.config, self._tokenizer, self._prompts)
        return step_bytes(self._model.config.generator, mask)

    def _seconds(self, tokens: int) -> float:
        import torch

        started = time.perf_counter()
        ids, mask = context(self._model.config, self._tokenizer, self._prompts)
        said = self._model.generate(
            context_input_ids=ids, context_attention_mask=mask, doc_scores=torch.zeros(1, len(ids)), n_docs=len(ids),
            max_length=tokens + 1, min_length=tokens + 1, num_beams=1, do_sample=False,
        )  # fmt: skip
        assert said.shape == (1, tokens + 1)  # with the start token
        return time.perf_counter() - started


def tokenizer_of(checkpoint: str) -> Any:
    """The generator's."""
    from transformers import RagTokenizer

    return RagTokenizer.from_pretrained(checkpoint).generator  # type: ignore[no-untyped-call]


def context(config: Any, tokenizer: Any, wanted: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    """What `RagRetriever` gives the generator, which needs packages that are not here: ids and mask, (K, 300)."""
    texts = [f"{each.title}{config.title_sep}{each.passage}{config.doc_sep}{each.query}" for each in wanted]
    read = tokenizer(
        texts, max_length=config.max_combined_length, padding="max_length", truncation=True, return_tensors="pt"
    )
    return read["input_ids"], read["attention_mask"]


def step_bytes(config: Any, mask: Tensor) -> int:
    """What a decoder's step must read, half-way through the reply: BartConfig, the prompts' mask -> bytes.

    A layer has six square matrices to read (queries, keys, values and output for the reply; queries and output for the
    prompt, whose keys and values are kept) and two of the inner size; then comes the head.
    """
    hidden, inner, layers = config.d_model, config.decoder_ffn_dim, config.decoder_layers
    weights = layers * (6 * hidden**2 + 2 * hidden * inner) + config.vocab_size * hidden
    kept = int(mask.sum()) + len(mask) * REPLY_TOKENS // 2
    return int(NUMBER * (weights + layers * 2 * hidden * kept))
