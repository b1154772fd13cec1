"""A decoder of the Llama and Qwen kinds in int8 on a CPU: what transformers computes, with less between the products.

K branches share one reading of the weights, so the weights are what must be small: int8, with a scale for each row.
Activations are rounded to 8 bits as they come (`torch.ops.quantized.linear_dynamic`, hardly slower for 8 rows than for
one where the processor has VNNI), with one scale for all, so none may stand out. Behind a norm, each channel is divided
by a factor and its weights multiplied by it (SmoothQuant, Xiao et al. 2023); of the inner activations, the channels
that grow largest stay float32 (LLM.int8(), Dettmers et al. 2022). Queries, keys and values are one product, gate and
up another. The keys and values of all branches lie in one buffer.

In shapes: B rows, N tokens of all rows, H hidden size, F inner size, Q query heads, K key heads, D head size,
V vocabulary.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from chatbot.generators.engine import Rows
from chatbot.generators.reference import weights

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
GROWTH = 128  # slots by which a buffer grows

FEW = 12  # tokens that may share a scale; of more, what rounding left over is multiplied too, as if by 16 bits
WIDE = 32  # inner channels that are not rounded
PROBE = 256  # tokens from which the size of activations is learned

Product = Callable[[Tensor], Tensor]  # (N, in) -> (N, out)
Pack = Callable[["Linear"], Product]
Peaks = Mapping[nn.Module, Tensor]  # (in,) of each nn.Linear


def fits(model: PreTrainedModel) -> bool:
    """Whether this module computes what the model does."""
    config = model.config
    plain = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    sliding = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        type(model).__name__ in ARCHITECTURES
        and plain
        and not sliding
        and rope.get("rope_type", "default") == "default"
        and rope.get("partial_rotary_factor", 1) == 1
        and config.hidden_act == "silu"
        and model.device.type == "cpu"
    )


def has_int8() -> bool:
    return {"x86", "fbgemm", "onednn"} & set(torch.backends.quantized.supported_engines) != set()


@dataclass(frozen=True, slots=True)
class Layer:
    norm: Tensor  # (H,)
    qkv: Product  # H -> (Q + 2 K) D, queries and keys in pairs that are turned
    norm_heads: Tensor | None  # (Q + K, D), of queries and keys: Qwen3
    out: Product  # Q D -> H
    norm_mlp: Tensor  # (H,)
    gate_up: Product  # H -> 2 F
    down: Product  # F - WIDE -> H
    down_wide: Tensor  # (WIDE, H), float32


class Lean:
    """Copies what it needs of the model, so that the model can be let go."""

    def __init__(self, model: PreTrainedModel, *, int8: bool = True) -> None:
        config = model.config
        decoder: Any = model.model
        peaks = peaks_of(model)
        self.weight_bytes, self.number_bytes = 0, 4

        def pack(linear: Linear) -> Product:
            self.weight_bytes += linear.weight.numel() * (1 if int8 else 4)
            return in_int8(linear) if int8 else in_float(linear)

        self.fingerprint = f"lean {'int8' if int8 else 'float32'} {weights(model)}"
        self.query_heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.hidden_size: int = config.hidden_size
        self._epsilon: float = config.rms_norm_eps
        self._frequencies = decoder.rotary_emb.inv_freq.detach().float().clone()  # (D / 2,)
        self._embedding = decoder.embed_tokens.weight.detach().to(torch.float16 if int8 else torch.float32).clone()
        self.layers = [self._layer(layer, pack, peaks) for layer in decoder.layers]
        head = _taken(model.lm_head)
        to_head = factors(peaks[model.lm_head], head.weight)
        self.weight_bytes += sum(layer.down_wide.nbytes for layer in self.layers)
        self._norm, self._head = decoder.norm.weight.detach() / to_head, pack(head.taking(to_head))

    @torch.inference_mode()
    def read(self, rows: Sequence[Sequence[int]], before: Sequence[Sequence[Tensor]], tail: int = 1) -> Rows:
        return _Batch(self, rows, before, tail)

    def hidden(self, ids: Tensor, positions: Tensor, attend: Callable[[int, Tensor], Tensor]) -> Tensor:
        """(N,), (N,) -> (N, H). `attend`: layer, its queries, keys and values (N, Q + 2 K, D) -> (N, Q D)."""
        x = F.embedding(ids, self._embedding).float()
        heads = self.query_heads + 2 * self.key_heads
        turns = self._turns(positions)
        for number, layer in enumerate(self.layers):
            qkv = layer.qkv(self._normed(x, layer.norm)).view(-1, heads, self.size)
            if layer.norm_heads is not None:
                normed = qkv[:, : len(layer.norm_heads)]
                normed.copy_(F.rms_norm(normed, (self.size,), None, self._epsilon) * layer.norm_heads)
            qkv = torch.view_as_complex(qkv.view(-1, heads, self.size // 2, 2))
            x += layer.out(attend(number, torch.view_as_real(qkv * turns).view(-1, heads, self.size)))
            gate, up = layer.gate_up(self._normed(x, layer.norm_mlp)).chunk(2, dim=1)
            inner = F.silu(gate) * up
            x += layer.down(inner[:, :-WIDE])
            x.addmm_(inner[:, -WIDE:], layer.down_wide)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """(B, H) -> (B, V)"""
        return self._head(self._normed(hidden, self._norm))

    def _turns(self, positions: Tensor) -> Tensor:
        """(N,) -> (N, Q + 2 K, D / 2), complex: a rotation for queries and keys, none for values."""
        angles = positions[:, None].float() * self._frequencies
        turned = torch.polar(torch.ones_like(angles), angles)[:, None]
        heads = self.query_heads + self.key_heads
        still = torch.ones_like(turned).expand(-1, self.key_heads, -1)
        return torch.cat([turned.expand(-1, heads, -1), still], dim=1)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[1],), weight, self._epsilon)

    def _layer(self, layer: Any, pack: Pack, peaks: Peaks) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        queries, keys, values = map(_taken, (attention.q_proj, attention.k_proj, attention.v_proj))
        seen, gate, up, down = map(_taken, (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        turned = joined([self._in_pairs(queries), self._in_pairs(keys)])

        qkv = joined([turned, values])
        order = peaks[mlp.down_proj].argsort()  # the largest last
        gate_up = joined([Linear(each.weight[order], each.bias[order]) for each in (gate, up)])
        to_qkv = factors(peaks[attention.q_proj], qkv.weight)
        to_mlp = factors(peaks[mlp.gate_proj], gate_up.weight)
        return Layer(
            norm=layer.input_layernorm.weight.detach() / to_qkv,
            qkv=pack(qkv.taking(to_qkv)),
            norm_heads=self._norm_heads(attention),
            out=pack(seen),
            norm_mlp=layer.post_attention_layernorm.weight.detach() / to_mlp,
            gate_up=pack(gate_up.taking(to_mlp)),
            down=pack(Linear(down.weight[:, order[:-WIDE]], down.bias)),
            down_wide=down.weight[:, order[-WIDE:]].t().contiguous(),
        )

    def _in_pairs(self, linear: Linear) -> Linear:
        """Its outputs reordered from a head's first and second half to pairs, which a complex product turns."""
        order = self._pairs(len(linear.weight))
        return Linear(linear.weight[order], linear.bias[order])

    def _norm_heads(self, attention: Any) -> Tensor | None:
        if not hasattr(attention, "q_norm"):
            return None
        heads, order = (self.query_heads, self.key_heads), self._pairs(self.size)
        norms = zip((attention.q_norm, attention.k_norm), heads, strict=True)
        return torch.cat([norm.weight.detach()[order].expand(count, -1) for norm, count in norms])

    def _pairs(self, outputs: int) -> Tensor:
        return torch.arange(outputs).view(-1, 2, self.size // 2).transpose(1, 2).flatten()


@dataclass(frozen=True, slots=True)
class Linear:
    weight: Tensor  # (out, in), float32
    bias: Tensor  # (out,)

    def taking(self, divided_by: Tensor) -> Linear:
        """For inputs that were divided by (in,)."""
        return Linear(self.weight * divided_by, self.bias)


def _taken(linear: nn.Linear) -> Linear:
    weight = linear.weight.detach().float()
    return Linear(weight, torch.zeros(len(weight)) if linear.bias is None else linear.bias.detach().float())


def joined(linears: Sequence[Linear]) -> Linear:
    """One product for several of the same input."""
    return Linear(torch.cat([each.weight for each in linears]), torch.cat([each.bias for each in linears]))


def factors(peaks: Tensor, weight: Tensor) -> Tensor:
    """What to divide each input channel by: (in,), (out, in) -> (in,). Half of what stands out goes to the weights."""
    return (peaks.clamp(min=1e-5) / weight.abs().amax(dim=0).clamp(min=1e-5)).sqrt()


@torch.inference_mode()
def peaks_of(model: PreTrainedModel) -> Peaks:
    """The largest number that each input channel of each product saw, over tokens drawn at random."""
    peaks: dict[nn.Module, Tensor] = {}

    def note(linear: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        peaks[linear] = inputs[0][0, 1:].abs().amax(0).float()  # without the first token, which is read alone

    hooks = [each.register_forward_pre_hook(note) for each in model.modules() if isinstance(each, nn.Linear)]
    random = torch.Generator().manual_seed(0)
    model(torch.randint(model.config.vocab_size, (1, PROBE), generator=random))
    for hook in hooks:
        hook.remove()
    return peaks


def in_float(linear: Linear) -> Product:
    return lambda x: F.linear(x, linear.weight, linear.bias)


def in_int8(linear: Linear) -> Product:
    scales = linear.weight.abs().amax(dim=1).clamp(min=1e-8).double() / 127
    zeros = torch.zeros(len(linear.weight), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch means to move this elsewhere; up to 2.13 it is here
        quantized = torch.quantize_per_channel(linear.weight, scales, zeros, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(quantized, None)
    multiply, seven_bits = torch.ops.quantized.linear_dynamic, not _has_vnni()
    bias = linear.bias if linear.bias.any() else None

    def product(x: Tensor) -> Tensor:
        x = x.contiguous()
        y: Tensor = multiply(x, packed, seven_bits)
        if len(x) > FEW:
            rounded = torch.quantize_per_tensor_dynamic(x, torch.quint8, seven_bits).dequantize()
            y += multiply(x - rounded, packed, seven_bits)
        return y if bias is None else y.add_(bias)

    return product


def _has_vnni() -> bool:
    """Without it, sums of products of 8 bits with 8 bits overflow: activations then get 7."""
    return bool(torch.cpu._is_vnni_supported())


class _Batch:
    """Rows end at the same slot and begin where their length has it; a row's first slot is its position 0."""

    def __init__(
        self, engine: Lean, rows: Sequence[Sequence[int]], before: Sequence[Sequence[Tensor]], tail: int
    ) -> None:
        self._engine = engine
        self._lengths = [len(row) for row in rows]
        past = [sum(memory.shape[3] for memory in memories) for memories in before]
        self._read = self._end = max(length + behind for length, behind in zip(self._lengths, past, strict=True))
        self._starts = [self._end - length - behind for length, behind in zip(self._lengths, past, strict=True)]
        heads, size = engine.key_heads, engine.size
        self._slots = torch.empty(len(engine.layers), 2, len(rows), heads, self._end + GROWTH, size)
        for row, (start, memories) in enumerate(zip(self._starts, before, strict=True)):
            self._slots[:, :, row, :, :start] = 0
            for memory in memories:
                self._slots[:, :, row, :, start : start + memory.shape[3]] = memory
                start += memory.shape[3]
        self._lasts = torch.zeros(len(rows), tail, engine.hidden_size)  # of each row's last tokens
        firsts = [row for row in range(len(rows)) if not past[row]]
        if firsts:  # a first token's numbers are far larger: with one scale for all, the others' would be rounded away
            self._extend([_Piece(row, self._starts[row], rows[row][:1]) for row in firsts])
        rests = [(row, list(ids[1:] if row in firsts else ids)) for row, ids in enumerate(rows)]
        if pieces := [_Piece(row, self._end - len(ids), ids) for row, ids in rests if ids]:
            self._extend(pieces)
        self._hidden = self._lasts[:, -1]
        first = torch.tensor(self._starts)[:, None, None, None]
        slots = torch.arange(self._end)
        self._mask = torch.zeros(len(rows), 1, 1, self._end).masked_fill(slots < first, -torch.inf)
        self._positions = self._end - first.flatten()  # of the next token

    def logits(self) -> Tensor:
        with torch.inference_mode():
            return self._engine.logits(self._hidden)

    def tail(self) -> Tensor:
        with torch.inference_mode():
            return self._engine.logits(self._lasts.flatten(0, 1)).view(*self._lasts.shape[:2], -1)

    def memory(self, row: int) -> Tensor:
        return self._slots[:, :, row, :, self._read - self._lengths[row] : self._read]

    @torch.inference_mode()
    def step(self, token: int) -> None:
        if self._end == self._slots.shape[4]:
            grown = self._slots.new_empty(*self._slots.shape[:4], self._end + GROWTH, self._slots.shape[5])
            grown[..., : self._end, :] = self._slots
            self._slots = grown
        self._mask = F.pad(self._mask, (0, 1))
        ids = self._positions.new_full((len(self._lengths),), token)
        self._hidden = self._engine.hidden(ids, self._positions, self._attend_to_all)
        self._end += 1
        self._positions = self._positions + 1

    def fork(self) -> Rows:
        other = copy.copy(self)
        other._slots = self._slots.clone()
        return other

    def _attend_to_all(self, number: int, turned: Tensor) -> Tensor:
        """A token in each row, at the slot behind the last: (B, Q + 2 K, D) -> (B, Q D)."""
        heads, kept = self._engine.key_heads, self._slots[number]
        query, key, value = torch.split(turned, [self._engine.query_heads, heads, heads], dim=1)
        kept[0, :, :, self._end] = key
        kept[1, :, :, self._end] = value
        # queries that share a key are like tokens of one head: (B, K, Q / K, D)
        grouped = query.reshape(len(query), heads, -1, self._engine.size)
        keys, values = kept[:, :, :, : self._end + 1]
        return F.scaled_dot_product_attention(grouped, keys, values, self._mask).flatten(1)

    def _extend(self, pieces: Sequence[_Piece]) -> None:
        lengths = [len(piece.ids) for piece in pieces]
        starts = [self._starts[piece.row] for piece in pieces]
        masks = [self._causal(piece) for piece in pieces]

        def attend(number: int, turned: Tensor) -> Tensor:
            parts = zip(pieces, masks, torch.split(turned, lengths), strict=True)
            return torch.cat([self._attend_to_own(number, piece, mask, part) for piece, mask, part in parts])

        hidden = self._engine.hidden(
            torch.tensor([id for piece in pieces for id in piece.ids]),
            torch.cat(
                [torch.arange(len(piece.ids)) + piece.slot - start for piece, start in zip(pieces, starts, strict=True)]
            ),
            attend,
        )
        for piece, own in zip(pieces, torch.split(hidden, lengths), strict=True):
            from_end = self._end - piece.slot  # tokens from its first one on
            kept = own[max(0, from_end - self._lasts.shape[1]) :]
            place = self._lasts.shape[1] - min(from_end, self._lasts.shape[1])
            self._lasts[piece.row, place : place + len(kept)] = kept

    def _causal(self, piece: _Piece) -> Tensor:
        """Which slots of its row each query may look at: (Q / K times n, slots)."""
        own, behind = len(piece.ids), piece.slot - self._starts[piece.row]
        allowed = torch.ones(own, behind + own, dtype=torch.bool).tril(behind)
        mask = torch.zeros(own, behind + own).masked_fill(~allowed, -torch.inf)
        return mask.repeat(self._engine.query_heads // self._engine.key_heads, 1)

    def _attend_to_own(self, number: int, piece: _Piece, mask: Tensor, turned: Tensor) -> Tensor:
        """n tokens of one row, which see their row up to themselves: (n, Q + 2 K, D) -> (n, Q D)."""
        heads, kept = self._engine.key_heads, self._slots[number, :, piece.row]
        query, key, value = torch.split(turned.transpose(0, 1), [self._engine.query_heads, heads, heads])
        end = piece.slot + len(piece.ids)
        kept[0, :, piece.slot : end] = key
        kept[1, :, piece.slot : end] = value
        grouped = query.reshape(1, heads, -1, self._engine.size)  # (1, K, Q / K times n, D)
        keys, values = kept[:, None, :, self._starts[piece.row] : end]
        seen = F.scaled_dot_product_attention(grouped, keys, values, mask)
        return seen.view(self._engine.query_heads, -1, self._engine.size).transpose(0, 1).reshape(len(piece.ids), -1)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tokens to be read into a row from a slot on."""

    row: int
    slot: int
    ids: Sequence[int]
