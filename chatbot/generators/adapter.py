"""What `train generator` leaves in a folder: LoRA matrices, and a note of what the generator learned to refuse with."""

from __future__ import annotations

import json
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chatbot.errors import MissingModel
from chatbot.loading import NOT_LOADED

NOTE = "marginalia.json"  # {"refusal": text or null}


def adapted(model: PreTrainedModel, adapter: str) -> PreTrainedModel:
    """The model with the adapter's matrices added to its weights: it then costs what it did without."""
    try:
        whole: PreTrainedModel = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except NOT_LOADED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MissingModel(
            f"adapter {adapter!r} does not fit the generator ({reason}): "
            "give --set adapter= one that was trained for it, or none"
        ) from error
    return whole


def refusal(tokenizer: PreTrainedTokenizerBase, folder: str) -> int | None:
    """The token that a refusal begins with, by the note in a folder of a model or an adapter; None without a note."""
    note = Path(folder) / NOTE
    if not note.is_file():
        return None
    try:
        text = json.loads(note.read_text(encoding="utf-8"))["refusal"]
        if text is None:
            return None
        first: int = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids[0]
        return first
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise MissingModel(f"{str(note)!r} cannot be read: delete it, or train the generator again") from error
