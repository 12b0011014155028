"""The hidden vectors of a plain decoder in one call of `native/blocks.cpp`: what an engine does in every step.

Plain is the shape that most open models have: pre-norm RMS norms, rotations (or no positions), SwiGLU, products with
packed weights. Anything else, and rows of an adapter, go through the modules, which give the same numbers.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from windlass.build.transformer.block import Block
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.mlp import MLP
from windlass.build.transformer.ragged import Parts
from windlass.serve.engine.arithmetic import native
from windlass.serve.engine.arithmetic.attention import sight_of, table
from windlass.serve.engine.arithmetic.fused import FusedNorm, silu_gate
from windlass.serve.engine.arithmetic.places import Served
from windlass.serve.engine.arithmetic.quantised import Quantised

_POINTER, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float


class _Block(ctypes.Structure):
    """As in `blocks.cpp`."""

    _fields_ = (
        *(("attention_norm", _POINTER), ("joined", native.Product)),
        *(("query_norm", _POINTER), ("key_norm", _POINTER), ("output", native.Product)),
        *(("mlp_norm", _POINTER), ("gated", native.Product), ("down", native.Product), ("local", _LONG)),
    )


class _Decoder(ctypes.Structure):
    """As in `blocks.cpp`."""

    _fields_ = (
        *(("embedding", _POINTER), ("embedding_scale", _FLOAT), ("blocks", ctypes.POINTER(_Block)), ("count", _LONG)),
        *(("hidden", _LONG), ("norm", _POINTER), ("eps", _FLOAT)),
    )


class Blocks:
    """`Decoder.hidden_of_parts` of one decoder, for float32 caches."""

    def __init__(self, decoder: Decoder, layers: Sequence[_Block], norm: FusedNorm) -> None:
        """What `blocks_of` found."""
        config = decoder.config
        self._kernel = native.library().windlass_hidden
        self._decoder = decoder  # which keeps what the pointers lead to
        self._hidden = config.hidden
        self._narrow = max(config.hidden, *(max(one.output.inputs, one.down.inputs) for one in layers))
        self._wide = max(max(one.joined.outputs, one.gated.outputs) for one in layers)
        self._native = _Decoder(
            *(decoder.embedding.data_ptr(), config.embedding_scale, (_Block * len(layers))(*layers), len(layers)),
            *(config.hidden, norm.weight.data_ptr(), norm.norm.eps),
        )
        self._reach = 0
        self._turn(min(config.context, 512))

    def __call__(self, tokens: Sequence[int], parts: Parts) -> Tensor:
        """The hidden vectors, (T, C). The caches hold the tokens afterwards."""
        places, ids = table(parts), array("q", tokens)
        if places is None or len(ids) != parts.total:
            raise ValueError(
                f"{len(ids)} tokens are read into caches of other numbers than float32, or as {parts.total}"
            )
        if (
            reach := max(cache.length + new for cache, new in zip(parts.caches, parts.lengths, strict=True))
        ) > self._reach:
            self._turn(min(self._decoder.config.context, 2 * reach))
        for sight in self._sights:
            sight.parts, sight.count = places.buffer_info()[0], len(parts.caches)
        rows = len(ids)
        out_TC = torch.empty(rows, self._hidden)
        room = [torch.empty(rows, width) for width in (self._hidden, self._narrow, self._wide)]
        self._kernel(
            *(ctypes.byref(self._native), self._sights, ids.buffer_info()[0], rows),
            *(tensor.data_ptr() for tensor in room),
            out_TC.data_ptr(),
        )
        for cache, new in zip(parts.caches, parts.lengths, strict=True):
            cache.advance(new)
        return out_TC

    def _turn(self, reach: int) -> None:
        """Prepares rotations of so many places."""
        config, self._reach = self._decoder.config, reach
        kinds: list[tuple[Tensor, Tensor] | tuple[None, None]] = [(None, None), (None, None)]
        if config.position == "rope":
            places = torch.arange(reach)
            kinds = [self._decoder.turned(local, places, False) for local in (False, True)]
        self._sights = (native.Sight * 2)(*(sight_of(config, bool(i), *kind) for i, kind in enumerate(kinds)))
        for sight in self._sights:
            sight.by_place = True
        self._rotations = kinds  # to which the sights point


def blocks_of(decoder: Decoder) -> Blocks | None:
    """None where there are no native kernels, or for a decoder, as `prepare` left it, that is not plain."""
    config, norm = decoder.config, decoder.norm
    if native.unavailable() is not None or not isinstance(norm, FusedNorm) or config.attention_cap is not None:
        return None
    scaled = config.rope_scaling is not None and config.rope_scaling.kind == "longrope"  # turns a place in two ways
    if config.position not in ("rope", "none") or scaled or decoder.embedding_norm is not None or config.token_types:
        return None
    if not decoder.embedding.is_contiguous() or decoder.head is None or _product(decoder.head) is None:
        return None
    layers = [_plain(block, config.local(layer)) for layer, block in enumerate(decoder.blocks)]
    known = [layer for layer in layers if layer is not None]
    return Blocks(decoder, known, norm) if len(known) == len(layers) else None


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
    strange = any(not isinstance(norm, FusedNorm | None) for norm in norms)
    if strange or joined is None or output is None or gated is None or down is None:
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
