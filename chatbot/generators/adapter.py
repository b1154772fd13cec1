"""What `train generator` leaves in a folder: LoRA matrices, and a note of how the generator is to be used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chatbot.errors import MissingModel
from chatbot.loading import NOT_LOADED

NOTE = "marginalia.json"  # the fields of `Note`, as far as they are known


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


@dataclass(frozen=True, slots=True)
class Note:
    """What a generator's training found out. None: nothing."""

    refusal: str | None = None  # what it says where a passage does not hold the answer
    epsilon: float | None = None  # what measured best: see `settings`
    least_confidence: float | None = None
    question_weight: float | None = None
    unread: tuple[str, ...] = ()  # languages, ISO 639-1, whose passages it cannot answer from

    def refusal_token(self, tokenizer: PreTrainedTokenizerBase) -> int | None:
        """The one that a refusal begins with."""
        if not self.refusal:
            return None
        first: int = tokenizer(self.refusal, add_special_tokens=False, split_special_tokens=True).input_ids[0]
        return first


def note_in(folder: str) -> Note:
    """The note in the folder of a model or an adapter. Raises MissingModel for one that cannot be read."""
    path = Path(folder) / NOTE
    if not path.is_file():
        return Note()
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        numbers = {name: noted.get(name) for name in ("epsilon", "least_confidence", "question_weight")}
        fitted = {name: None if number is None else float(number) for name, number in numbers.items()}
        return Note(noted.get("refusal"), **fitted, unread=tuple(map(str, noted.get("unread", ()))))
    except (ValueError, AttributeError, TypeError) as error:
        raise MissingModel(f"{str(path)!r} cannot be read: delete it, or train the generator again") from error
