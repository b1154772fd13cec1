"""A decoder of the Llama and Qwen kinds in int8 on a CPU, as graphs that OpenVINO runs.

K branches share one reading of the weights, so the weights are what must be small: int8, with a scale for each row.
OpenVINO rounds activations to 8 bits as they come, with a scale for each GROUP of a token's channels, so nothing that
stands out spoils the rest.

There are two graphs, each with its own copy of the weights. One reads: it takes the keys and values of what stands
before and gives those of what it read. One steps: it keeps keys and values inside, as its state, which saves copying
them, but its attention takes queries one by one, which would make reading slow.

Rows are padded on the left, as in reference.py, and more than they need: a slot of the state is not a position.

In shapes: B rows, T tokens, S slots, Q query heads, K key heads, D head size, V vocabulary.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from chatbot.generators.engine import Rows
from chatbot.generators.reference import weight_bytes, weights
from chatbot.loading import compiled, openvino, rounded

if TYPE_CHECKING:
    from openvino import Node

GROUP = 32  # channels of a token that share a scale; with 64 the divergence from float32 grows by a third
PIECE = 64  # tokens of each row that are read at once: what a graph needs for more it never gives back; see LOG.md
HIDDEN = -1e30  # what is added to a score that does not count; finite, for padding sees nothing


class OpenVino:
    """Copies what it needs of the model, so that the model can be let go. `lean.fits` says which models it runs."""

    def __init__(self, model: PreTrainedModel, *, int8: bool = True) -> None:
        library = openvino()
        precision = library.Core().get_property("CPU", "INFERENCE_PRECISION_HINT") if int8 else library.Type.f32
        name = precision.get_type_name()
        chosen = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": name,  # bfloat16 where the processor multiplies it
            "KV_CACHE_PRECISION": name,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if int8 else 0,
            "ENABLE_CPU_PINNING": False,
        }
        kept = _Weights(int8)
        self.reading, self.stepping = (compiled(_Graph(model, kept, reads).build(), chosen) for reads in (True, False))
        self.weight_bytes = weight_bytes(model) // (4 if int8 else 1)  # the model is in float32
        self.number_bytes: int = precision.size
        self.kept_as = torch.float16 if int8 else torch.float32
        config = model.config
        self.layers: int = config.num_hidden_layers
        self.key_heads: int = config.num_key_value_heads
        self.size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.names = [name for layer in range(self.layers) for name in names_of(layer)]
        version = library.__version__.partition("-")[0]
        self.fingerprint = f"openvino {version} {'int8' if int8 else 'float32'} {name} {weights(model)}"

    @torch.inference_mode()
    def read(self, rows: Sequence[Sequence[int]], before: Sequence[Sequence[Tensor]], tail: int = 1) -> Rows:
        return _Batch(self, rows, before, tail)


class _Batch:
    def __init__(
        self, engine: OpenVino, rows: Sequence[Sequence[int]], before: Sequence[Sequence[Tensor]], tail: int
    ) -> None:
        self._engine = engine
        self._stepping: Any = None  # a request, from the first step on
        self._lengths = [len(row) for row in rows]
        read = [sum(memory.shape[3] for memory in memories) for memories in before]
        past, width = rounded(max(read)), rounded(max(self._lengths))
        self._past, self._width = past, width
        self._slots = _joined(engine, before, past, width)
        ids = torch.zeros(len(rows), width, dtype=torch.int32)
        self._seen = torch.full((len(rows), 1, 1, past + width), HIDDEN)  # added to the scores of each slot
        for row, (tokens, behind) in enumerate(zip(rows, read, strict=True)):
            ids[row, width - len(tokens) :] = torch.tensor(tokens, dtype=torch.int32)
            self._seen[row, :, :, past - behind : past] = 0
            self._seen[row, :, :, past + width - len(tokens) :] = 0
        positions = ((self._seen == 0).cumsum(dim=3, dtype=torch.int32) - 1).clamp(min=0).flatten(1)
        self._positions = positions[:, -1:]  # of the last token
        request, logits = engine.reading.create_infer_request(), []
        for start in range(0, width, PIECE):
            end = min(start + PIECE, width)
            place = positions[:, past + start : past + end]
            logits.append(self._read(request, ids[:, start:end], place, start, rounded(tail)))
        told = torch.cat(logits, dim=1)[:, -tail:]
        self._tail = F.pad(told, (0, 0, tail - told.shape[1], 0))
        self._logits = told[:, -1].clone()  # so that the rest can go

    def _read(self, request: Any, ids: Tensor, positions: Tensor, start: int, tail: int) -> Tensor:
        """Reads the tokens from `start` on, and keeps what it made of them; logits of those among the last `tail`."""
        before, end = self._past + start, self._past + start + ids.shape[1]
        later = torch.ones(ids.shape[1], end, dtype=torch.bool).triu(before + 1)
        mask = self._seen[..., :end].masked_fill(later, HIDDEN)
        first = max(0, self._width - tail - start)
        wanted = torch.arange(min(first, ids.shape[1]), ids.shape[1], dtype=torch.int32)
        asked = wanted if len(wanted) else torch.zeros(1, dtype=torch.int32)  # a graph gives no empty logits
        logits = self._run(request, ids, positions, mask, asked, *(each[..., :before, :] for each in self._slots))
        for number, place in enumerate(self._slots):
            made = torch.from_numpy(request.get_output_tensor(1 + number).data)
            place[..., before:end, :] = in_range(made, place.dtype)
        return logits[:, : len(wanted)]

    def logits(self) -> Tensor:
        return self._logits

    def tail(self) -> Tensor:
        return self._tail

    def memory(self, row: int) -> Tensor:
        own = torch.stack([each[row, :, each.shape[2] - self._lengths[row] :] for each in self._slots])
        return own.view(self._engine.layers, 2, *own.shape[1:])

    @torch.inference_mode()
    def step(self, token: int) -> None:
        if self._stepping is None:
            self._stepping = self._engine.stepping.create_infer_request()
            self._remember(dict(zip(self._engine.names, map(_tensor, self._slots), strict=True)))
            self._slots, self._tail = [], torch.empty(0)
        self._seen = F.pad(self._seen, (0, 1))
        self._positions = self._positions + 1
        rows = torch.arange(len(self._seen), dtype=torch.int32)
        self._logits = self._run(
            self._stepping, torch.full_like(self._positions, token), self._positions, self._seen, rows
        )

    def fork(self) -> Rows:
        other = copy.copy(self)
        if self._stepping is not None:
            other._stepping = self._engine.stepping.create_infer_request()
            other._remember({each.name: each.state for each in self._stepping.query_state()})
        return other

    def _remember(self, states: Mapping[str, Any]) -> None:
        for each in self._stepping.query_state():
            each.state = states[each.name]

    def _run(self, request: Any, *inputs: Tensor) -> Tensor:
        request.infer([_tensor(each) for each in inputs], share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data).clone()


def _tensor(numbers: Tensor) -> Any:
    return openvino().Tensor(numbers.contiguous().numpy(), shared_memory=True)


def _joined(engine: OpenVino, before: Sequence[Sequence[Tensor]], past: int, width: int) -> list[Tensor]:
    """Each row's memories, one behind the other, padded on the left to `past` slots, and room for `width` more:
    keys and values of each layer, (B, K, past + width, D)."""
    shape = (len(before), engine.key_heads, past + width, engine.size)
    slots = [torch.empty(shape, dtype=engine.kept_as) for _ in engine.names]
    for row, memories in enumerate(before):
        end = past
        for memory in reversed(memories):
            for each, kept in zip(slots, memory.flatten(0, 1), strict=True):
                each[row, :, end - kept.shape[1] : end] = kept
            end -= memory.shape[3]
        for each in slots:
            each[row, :, :end] = 0
    return slots


def in_range(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    bound = torch.finfo(dtype).max
    return numbers.clamp(-bound, bound).to(dtype)


def names_of(layer: int) -> tuple[str, str]:
    return f"keys {layer}", f"values {layer}"


class _Weights:
    """Matrices as the graphs store them, each once however many take it."""

    def __init__(self, int8: bool) -> None:
        self.int8 = int8
        self._op = importlib.import_module("openvino.opset15")
        self._made: dict[Tensor, tuple[Any, ...]] = {}  # by identity

    def node(self, weight: Tensor) -> Node:
        """(out, in), as float32"""
        if weight not in self._made:
            self._made[weight] = self._rounded(weight.detach().float())
        numbers, *scales = (self._op.constant(each, shared_memory=True) for each in self._made[weight])
        for each in scales:
            numbers = self._op.convert(self._op.multiply(self._op.convert(numbers, "f16"), each), "f32")
        return numbers

    def _rounded(self, weight: Tensor) -> tuple[Any, ...]:
        if not self.int8:
            return (weight.numpy(),)
        scales = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-5) / 127
        return (weight / scales).round().to(torch.int8).numpy(), scales.half().numpy()


class _Graph:
    """The decoder in OpenVINO's operations, in the shapes that its CPU plugin knows and joins into larger ones."""

    def __init__(self, model: PreTrainedModel, weights: _Weights, reads: bool) -> None:
        library = openvino()
        config, self._model, self._weights, self._reads = model.config, model, weights, reads
        self._ov, self._op = library, importlib.import_module("openvino.opset15")
        self._queries: int = config.num_attention_heads
        self._keys: int = config.num_key_value_heads
        self._size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._assigned: list[Node] = []  # when it steps: the state
        self._given: list[Node] = []  # when it reads: keys and values of what stands before, layer by layer
        self._read: list[Node] = []  # and of what it read

    def build(self) -> Any:
        """ids and positions (B, T), mask (B, 1, T, S) -> logits.

        To read, also which tokens' logits are wanted (n,), and keys and values of what stands before -> logits
        (B, n, V), and those of what was read. To step, each row's number (B,) -> logits (B, V).
        """
        op, decoder = self._op, self._decoder
        whole, real = self._ov.Type.i32, self._ov.Type.f32
        ids, positions = op.parameter([-1, -1], whole), op.parameter([-1, -1], whole)
        mask, rows, wanted = (op.parameter(*each) for each in (([-1, 1, -1, -1], real), ([-1], whole), ([-1], whole)))
        turn = self._turning(positions)
        batch = self._gathered(op.shape_of(ids, "i64"), [0])
        nothing = op.broadcast(self._number(0.0), op.concat([batch, self._whole([self._keys, 0, self._size])], 0))
        x = op.gather(self._weights.node(decoder.embed_tokens.weight), ids, self._whole(0))
        for number, layer in enumerate(decoder.layers):
            attention, mlp = layer.self_attn, layer.mlp
            h = self._normed(x, layer.input_layernorm)
            queries = turn(self._heads(h, attention.q_proj, self._queries, getattr(attention, "q_norm", None)))
            keys = turn(self._heads(h, attention.k_proj, self._keys, getattr(attention, "k_norm", None)))
            values = self._heads(h, attention.v_proj, self._keys)
            keys_name, values_name = names_of(number)
            keys = self._kept(keys_name, keys, nothing, rows)
            values = self._kept(values_name, values, nothing, rows)
            seen = op.transpose(self._looked(queries, keys, values, mask), self._whole([0, 2, 1, 3]))
            together = op.reshape(seen, self._whole([0, 0, self._queries * self._size]), True)
            x = op.add(x, self._product(together, attention.o_proj))
            h = self._normed(x, layer.post_attention_layernorm)
            inner = op.multiply(op.swish(self._product(h, mlp.gate_proj)), self._product(h, mlp.up_proj))
            x = op.add(x, self._product(inner, mlp.down_proj))
        last = op.gather(x, wanted if self._reads else self._whole(-1), self._whole(1))
        logits = self._product(self._normed(last, decoder.norm), self._model.lm_head)
        results = [op.result(each) for each in (logits, *self._read)]
        inputs = [ids, positions, mask, *([wanted, *self._given] if self._reads else [rows])]
        return self._ov.Model(results, self._assigned, inputs)

    @property
    def _decoder(self) -> Any:
        return self._model.model

    def _turning(self, positions: Node) -> Callable[[Node], Node]:
        """What turns (B, heads, T, D) by positions."""
        op, half = self._op, self._size // 2
        frequencies = op.constant(self._decoder.rotary_emb.inv_freq.detach().float()[None, None].numpy())
        angles = op.multiply(op.unsqueeze(op.convert(positions, "f32"), self._whole(2)), frequencies)
        angles = op.unsqueeze(op.concat([angles, angles], 2), self._whole(1))
        cosines, sines = op.cos(angles), op.sin(angles)

        def turn(x: Node) -> Node:
            first, second = op.variadic_split(x, self._whole(3), self._whole([half, half])).outputs()
            across = op.concat([op.multiply(second, self._number(-1.0)), first], -1)
            return op.add(op.multiply(x, cosines), op.multiply(across, sines))

        return turn

    def _heads(self, x: Node, linear: Any, count: int, norm: Any = None) -> Node:
        """(B, T, H) -> (B, count, T, D)"""
        heads = self._op.reshape(self._product(x, linear), self._whole([0, 0, count, self._size]), True)
        if norm is not None:
            heads = self._normed(heads, norm)
        return self._op.transpose(heads, self._whole([0, 2, 1, 3]))

    def _kept(self, name: str, new: Node, nothing: Node, rows: Node) -> Node:
        """All that was read under this name with what is new: (B, K, S, D); to step, (B, Q, S, D)."""
        op = self._op
        shape = [-1, self._keys, -1, self._size]
        if self._reads:
            self._given.append(op.parameter(shape, self._ov.Type.f16 if self._weights.int8 else self._ov.Type.f32))
            self._read.append(new)
            every = op.concat([op.convert(self._given[-1], "f32"), new], 2)
        else:
            past = op.read_value(nothing, name, self._ov.Type.f32, self._ov.PartialShape(shape))
            every = op.concat([op.gather(past, rows, self._whole(0)), new], 2)
            self._assigned.append(op.assign(every, name))
        if self._reads or self._queries == self._keys:  # to read, query heads that share keys are joined instead
            return every
        sizes = op.shape_of(every, "i64")
        shared = self._whole([self._queries // self._keys])
        wide = op.concat([self._gathered(sizes, [0, 1]), shared, self._gathered(sizes, [2, 3])], 0)
        spread = op.broadcast(op.unsqueeze(every, self._whole(2)), wide, broadcast_spec="BIDIRECTIONAL")
        return op.reshape(spread, self._whole([0, self._queries, -1, self._size]), True)

    def _looked(self, queries: Node, keys: Node, values: Node, mask: Node) -> Node:
        """What the queries, (B, Q, T, D), find."""
        op, shared = self._op, self._queries // self._keys
        if not self._reads or shared == 1:
            return op.scaled_dot_product_attention(queries, keys, values, mask)
        joined = op.reshape(queries, self._whole([0, self._keys, -1, self._size]), True)
        seen = op.scaled_dot_product_attention(joined, keys, values, op.concat([mask] * shared, 2))
        return op.reshape(seen, self._whole([0, self._queries, -1, self._size]), True)

    def _normed(self, x: Node, norm: Any) -> Node:
        op = self._op
        mean = op.reduce_mean(op.power(x, self._number(2.0)), self._whole([-1]), True)
        scale = op.divide(self._number(1.0), op.sqrt(op.add(mean, self._number(norm.variance_epsilon))))
        return op.multiply(op.multiply(x, scale), op.constant(norm.weight.detach().float().numpy()))

    def _product(self, x: Node, linear: Any) -> Node:
        y = self._op.matmul(x, self._weights.node(linear.weight), False, True)
        return y if linear.bias is None else self._op.add(y, self._op.constant(linear.bias.detach().float().numpy()))

    def _gathered(self, x: Node, indices: Sequence[int]) -> Node:
        return self._op.gather(x, self._whole(indices), self._whole(0))

    def _whole(self, numbers: int | Sequence[int]) -> Node:
        return self._op.constant(torch.tensor(numbers).numpy())

    def _number(self, number: float) -> Node:
        return self._op.constant(torch.tensor(number).numpy())
