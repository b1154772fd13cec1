"""Small random checkpoints of the architectures that cannot be fetched here, as `save_pretrained` leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartTokenizer,
    BertTokenizer,
    DPRConfig,
    DPRContextEncoder,
    DPRQuestionEncoder,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    RagTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

TEXT = [
    "Hamlet is a tragedy by William Shakespeare, who was born in Stratford.",
    "the question and the answer are in the text of the passage",
    "How many days of leave are there? There are 28 days of leave in a year / title // who wrote it?",
]
DISAGREEING = 0.5  # standard deviation of the weights: wide, so that the branches disagree


def bart(seed: int = 3, **chosen: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A random BART of 2 layers, and a byte-level tokenizer with BART's special tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=340, special_tokens=special, initial_alphabet=alphabet)
    )
    learned = json.loads(backend.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = BartTokenizer(vocab=learned["vocab"], merges=merges)
    torch.manual_seed(seed)
    layers = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 48))}
    heads = {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
    settings = {"max_position_embeddings": 320, "init_std": DISAGREEING, "prefix": " "} | layers | heads | chosen
    return BartForConditionalGeneration(BartConfig(vocab_size=len(tokenizer), d_model=32, **settings)), tokenizer


def t5(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A random T5 of 2 layers, and a Unigram tokenizer with T5's special tokens.

    Its pieces are written out: a trained Unigram model is another one each time.
    """
    words = sorted({f"▁{word}" for line in TEXT for word in line.split()})
    pieces = [(special, 0.0) for special in ("<pad>", "</s>", "<unk>")]
    pieces += [(piece, -3.0) for piece in ("▁", "ing", "er", "ed", *words)]
    pieces += [(character, -6.0) for character in "abcdefghijklmnopqrstuvwxyzHSTW0123456789.,?/:"]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=2)
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer) + 7,  # more than the tokenizer has, as in the published checkpoints
        d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0, initializer_factor=2.0,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    model.lm_head.weight.data *= 0.1  # or one token takes all the mass
    return model, tokenizer


def bert_tokenizer() -> PreTrainedTokenizerBase:
    characters = "abcdefghijklmnopqrstuvwxyz0123456789.,?/[]"
    words = ["the", "of", "leave", "days", "hamlet", "who", "wrote"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *characters, *(f"##{c}" for c in characters)]
    return BertTokenizer(vocab={piece: place for place, piece in enumerate(pieces)})


def dpr(kind: type[DPRContextEncoder] | type[DPRQuestionEncoder], seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = DPRConfig(
        vocab_size=len(bert_tokenizer()), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=64, initializer_range=0.15,
    )  # fmt: skip
    return kind(config)


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_rag(
    folder: Path,
    kind: type[RagTokenForGeneration] | type[RagSequenceForGeneration],
    generator: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    seed: int = 0,
) -> Path:
    """A whole RAG checkpoint in Hugging Face's format, as facebook/rag-token-nq is."""
    model, tokenizer = generator
    question = dpr(DPRQuestionEncoder, seed)
    config = RagConfig.from_question_encoder_generator_configs(
        question.config,
        model.config,
        n_docs=3,
        decoder_start_token_id=model.config.decoder_start_token_id,
        pad_token_id=model.config.pad_token_id,
        eos_token_id=model.config.eos_token_id,
    )
    kind(config=config, question_encoder=question, generator=model).save_pretrained(folder)
    RagTokenizer(bert_tokenizer(), tokenizer).save_pretrained(folder)
    return folder
