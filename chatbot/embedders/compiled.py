"""An encoder of transformers run by OpenVINO on a CPU: the same vectors, two to three times as many in a second.

Only what `forward` computes changes hands; tokenizing and pooling stay with sentence-transformers. Where OpenVINO does
not give what torch gives, torch goes on.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from chatbot.loading import NOT_LOADED, compiled, has_openvino, openvino, rounded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENCODERS = ("bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta")  # kinds of transformers
TRIED = (((101, 2129, 102), (101, 102)), ((2003,) * 40, (2000, 2001) * 9))  # token ids, of two batches
LIKE = 0.99  # least cosine between what both give for a token: in bfloat16, MiniLM's differ by .0005

Forward = Callable[..., dict[str, Tensor]]


def compile(model: PreTrainedModel) -> bool:
    """Whether `model.forward` is OpenVINO's from now on, for encoders. It does not see what is learned after that."""
    if model.config.model_type not in ENCODERS or model.device.type != "cpu" or not has_openvino():
        return False
    try:
        forward = _compiled(model)
        alike = all(_alike(model, forward, ids) for ids in TRIED)
    except NOT_LOADED:
        return False
    if alike:
        model.forward = forward
    return alike


class _Traced(torch.nn.Module):
    """Token ids and mask -> what the last layer says of each token."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self._model = model
        self._typed = "token_type_ids" in inspect.signature(model.forward).parameters

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        types = {"token_type_ids": torch.zeros_like(ids)} if self._typed else {}
        said: Tensor = self._model(input_ids=ids, attention_mask=mask, **types).last_hidden_state
        return said


def _compiled(model: PreTrainedModel) -> Forward:
    library = openvino()
    ids = torch.ones(2, 16, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: it is held to the model below
        graph = library.convert_model(_Traced(model).eval(), example_input=(ids, torch.ones_like(ids)))
    chosen = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,
    }
    encoder = compiled(graph, chosen)

    longest = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    filler = getattr(model.config, "pad_token_id", None) or 0

    def forward(input_ids: Tensor, attention_mask: Tensor, **_: Any) -> dict[str, Tensor]:
        length = input_ids.shape[1]
        more = max(0, min(rounded(length), longest) - length)
        given = F.pad(input_ids, (0, more), value=filler), F.pad(attention_mask, (0, more))
        request = encoder.create_infer_request()  # its own: any thread may call
        request.infer([each.numpy() for each in given], share_inputs=True)
        said = torch.from_numpy(request.get_output_tensor(0).data)
        return {"last_hidden_state": said[:, :length].clone()}

    return forward


@torch.inference_mode()
def _alike(model: PreTrainedModel, forward: Forward, texts: Sequence[Sequence[int]]) -> bool:
    ids = pad_sequence([torch.tensor(text) % model.config.vocab_size for text in texts], batch_first=True)
    mask = pad_sequence([torch.ones(len(text), dtype=torch.long) for text in texts], batch_first=True)
    wanted, got = (by(input_ids=ids, attention_mask=mask)["last_hidden_state"] for by in (model, forward))
    return bool((F.cosine_similarity(wanted.float(), got, dim=-1)[mask > 0] > LIKE).all())
