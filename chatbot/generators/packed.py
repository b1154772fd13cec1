"""The linear layers of a transformers model on a CPU, in float32, with their weights laid out once for oneDNN.

`nn.Linear` goes to MKL, which rearranges the weights anew for every product: for five rows of BART's decoder that takes
three to five times as long as the product itself on a processor of AMD (LOG.md, 2026-11-23). Nothing is rounded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def can_pack() -> bool:
    return bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def pack(module: nn.Module, rows: int) -> None:
    """Put `Packed` in the place of every float32 `nn.Linear`. `rows`: of a typical product; any number will do."""
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear and child.weight.dtype is torch.float32:
            setattr(module, name, Packed(child, rows))
        else:
            pack(child, rows)


class Packed(nn.Module):
    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return product
