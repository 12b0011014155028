"""All blocks of a plain decoder in one call of `native/blocks.cpp`.

Plain is the shape that most open models have: pre-norm RMS norms, rotations (or none), SwiGLU, products with packed
weights. Anything else, and rows of an adapter, go through the modules, which give the same numbers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from windlass.build.transformer.attention import Sight
from windlass.build.transformer.block import Block
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.mlp import MLP
from windlass.serve.engine.arithmetic import native
from windlass.serve.engine.arithmetic.attention import Looking
from windlass.serve.engine.arithmetic.fused import FusedNorm, silu_gate
from windlass.serve.engine.arithmetic.linears import Served
from windlass.serve.engine.arithmetic.quantised import Quantised


class _Block(ctypes.Structure):
    """As in `blocks.cpp`."""

    _fields_ = (
        *(("attention_norm", ctypes.c_void_p), ("joined", native.Product)),
        *(("query_norm", ctypes.c_void_p), ("key_norm", ctypes.c_void_p), ("output", native.Product)),
        *(("mlp_norm", ctypes.c_void_p), ("gated", native.Product), ("down", native.Product), ("local", ctypes.c_long)),
    )


class Blocks:
    """A `ragged.Through` of one decoder."""

    def __init__(self, decoder: Decoder, layers: Sequence[_Block], norm: FusedNorm) -> None:
        """What `blocks_of` found. The decoder keeps what the layers point to."""
        self._kernel = native.library().windlass_blocks
        self._decoder, self._norm = decoder, norm
        self._layers = (_Block * len(layers))(*layers)
        self._narrow = max(max(one.output.inputs, one.down.inputs, one.joined.inputs) for one in layers)
        self._wide = max(max(one.joined.outputs, one.gated.outputs) for one in layers)

    def __call__(self, x_1TC: Tensor, sights: list[Sight]) -> Tensor:
        _, rows, hidden = x_1TC.shape
        both = (native.Sight * 2)()
        for layer, sight in zip(self._layers, sights, strict=True):
            looking = sight.together
            if not isinstance(looking, Looking) or looking.tokens != rows or x_1TC.dtype != torch.float32:
                return self._decoder.through(x_1TC, sights)
            both[layer.local] = looking.native
        stream, out_1TC = x_1TC.clone(memory_format=torch.contiguous_format), torch.empty(1, rows, hidden)
        narrow, wide = torch.empty(rows, self._narrow), torch.empty(rows, self._wide)
        self._kernel(
            *(self._layers, len(self._layers), both, self._norm.weight.data_ptr(), self._norm.norm.eps),
            *(stream.data_ptr(), rows, hidden, narrow.data_ptr(), wide.data_ptr(), out_1TC.data_ptr()),
        )
        return out_1TC


def blocks_of(decoder: Decoder) -> Blocks | None:
    """None where there are no native kernels, or `prepare` left anything that they do not know."""
    if native.unavailable() is not None or not isinstance(decoder.norm, FusedNorm):
        return None
    layers = [_plain(block, decoder.config.local(layer)) for layer, block in enumerate(decoder.blocks)]
    known = [layer for layer in layers if layer is not None]
    return Blocks(decoder, known, decoder.norm) if len(known) == len(layers) else None


def _plain(block: nn.Module, local: bool) -> _Block | None:
    if not isinstance(block, Block) or block.placement != "pre" or block.cross is not None:
        return None
    attention, mlp = block.attention, block.mlp
    if not isinstance(mlp, MLP) or mlp.gate is None or mlp.gating is not silu_gate:
        return None
    norms = [block.attention_norm, attention.query_norm, attention.key_norm, block.mlp_norm]
    weights = [norm.weight.data_ptr() if isinstance(norm, FusedNorm) else None for norm in norms]
    joined = _product(attention.query, attention.key, attention.value)
    output, gated, down = _product(attention.output), _product(mlp.gate, mlp.up), _product(mlp.down)
    if None in (joined, output, gated, down) or any(
        norm is not None and not isinstance(norm, FusedNorm) for norm in norms
    ):
        return None
    before, query, key, between = weights
    return _Block(before, joined, query, key, output, between, gated, down, local)


def _product(*maps: nn.Module) -> native.Product | None:
    """Of maps that are all of one product's outputs, in order."""
    served = [one for one in maps if isinstance(one, Served)]
    if len(served) < len(maps) or any(one.product is not served[0].product for one in served):
        return None
    product = served[0].product
    return product.native if isinstance(product, Quantised) else None
