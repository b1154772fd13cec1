"""A model made ready to learn: LoRA matrices beside its weights, or all of its weights; and what is saved of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from chatbot.errors import WrongSetting
from chatbot.generators.seq2seq import is_encoder_decoder, load
from chatbot.train.trainable import Trainable, TrainableCausal, TrainableSeq2Seq

REFUSAL = "Not in the text."  # what a branch learns to say whose passage does not hold the answer


@dataclass(frozen=True, slots=True)
class Lora:
    """Of every linear layer. Full fine-tuning instead: rank 0."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0


def ready(folder: str, lora: Lora, before: Path | None = None, checkpointing: bool = False) -> Trainable:
    """`before`: the folder of an adapter to go on from. Raises MissingModel."""
    if is_encoder_decoder(folder):
        if not lora.rank and AutoConfig.from_pretrained(folder).model_type == "rag":
            raise WrongSetting(f"{folder!r} is a whole RAG checkpoint: train an adapter for it, with --rank above 0")
        loaded = load(folder, packed=False)
        return TrainableSeq2Seq(_learning(loaded.model, lora, before, checkpointing, "SEQ_2_SEQ_LM"), loaded)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # frozen weights are held in bf16 where that is fast; what learns is in float32
    dtype = torch.bfloat16 if lora.rank and _has_bf16() else torch.float32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)  # type: ignore[arg-type]
    model = _learning(model, lora, before, checkpointing, "CAUSAL_LM")
    return TrainableCausal(model, tokenizer, getattr(model.config, "max_position_embeddings", None))


def _learning(model: Any, lora: Lora, before: Path | None, checkpointing: bool, kind: str) -> Any:
    """The model with what is to learn switched on."""
    model.train().requires_grad_(True)
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    if before is not None:
        model = PeftModel.from_pretrained(model, str(before), is_trainable=True)
    elif lora.rank:
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear", task_type=kind
        )
        model = get_peft_model(model, config)
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):  # autocast sees to it, in a quarter less memory
            module.cast_input_dtype_enabled = model.dtype == torch.float32
    return model


def _has_bf16() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())
