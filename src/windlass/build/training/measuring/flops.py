"""How much arithmetic training on a batch needs, counted from the shapes of model and batch.

A weight that multiplies a vector costs 6 floating-point operations: a product and a sum, once forward and twice
backward (Kaplan et al., arXiv 2001.08361, section 2.1; Chowdhery et al., arXiv 2204.02311, appendix B). One that is not
trained costs 4: nobody asks for its own gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from windlass.build.training.data.batches import IGNORE, Batch
from windlass.build.transformer.block import Block
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.model import Model


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of forward and backward pass."""

    matrices: float
    """Of weights with vectors."""
    attention: float
    """Of queries with keys and of scores with values, for the pairs that causality and window let see each other.
    Boundaries of packed documents are not considered, as is usual."""

    @property
    def total(self) -> float:
        return self.matrices + self.attention

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.matrices + other.matrices, self.attention + other.attention)


def training_flops(model: nn.Module, batch: Batch) -> Flops:
    """What training on `batch` needs. Of experts, those count that a token visits; of the head, the counted targets. Of
    a model with a head of its own behind a transformer, only the transformer counts."""
    if not isinstance(model, Model):
        inner = next(module for module in model.modules() if isinstance(module, Model))
        return _stack(inner, inner.config, batch.sequences, round(batch.inputs_BT.numel() / batch.sequences))
    config, heads = model.config, model.config.heads * model.config.head_dim
    rows, length = batch.sequences, round(batch.inputs_BT.numel() / batch.sequences)
    if isinstance(model, EncoderDecoder):
        assert batch.source_BS is not None, "an encoder-decoder reads a source"
        source = batch.source_BS.shape[1]
        first, second = config.halves
        pairs = 12 * heads * config.decoder_layers * rows * length * source
        own = _stack(model.encoder, first, rows, source) + _stack(model.decoder, second, rows, length)
        return own + _cross(model.decoder, rows * source, rows * length) + _head(model, batch) + Flops(0.0, pairs)
    body = _stack(model, config, rows, length)
    if batch.source_BS is not None:  # pairs of texts: both are read, and no token is predicted
        return body + _stack(model, config, *batch.source_BS.shape)
    return body + _head(model, batch)


def _stack(model: nn.Module, config: TransformerConfig, rows: int, length: int) -> Flops:
    """The blocks without cross-attention, over `rows` sequences."""
    each = sum(
        _cost(parameter) * _share(config, parameter)
        for block in _blocks(model)
        for name, parameter in block.named_parameters()
        if not name.startswith("cross")
    )
    seen = sum(config.seen(layer, length) for layer in range(config.layers))
    return Flops(each * rows * length, 12 * config.heads * config.head_dim * seen * rows * length)


def _cross(decoder: nn.Module, sources: int, targets: int) -> Flops:
    """Maps of the cross-attention: keys and values of every source position, the rest of every target position."""
    total = 0.0
    for block in _blocks(decoder):
        assert block.cross is not None
        for name, parameter in block.cross.named_parameters():
            if parameter.ndim == 2:
                total += _cost(parameter) * (sources if name.startswith(("key", "value")) else targets)
    return Flops(total, 0.0)


def _head(model: Model, batch: Batch) -> Flops:
    config = model.config
    weights = config.vocab_size * config.hidden + config.head_transform * config.hidden**2
    each = 6.0 if model.output_weight.requires_grad else 4.0
    return Flops(each * weights * int((batch.targets_BT != IGNORE).sum()), 0.0)


def _cost(parameter: nn.Parameter) -> float:
    return (6.0 if parameter.requires_grad else 4.0) * parameter.numel()


def _share(config: TransformerConfig, parameter: nn.Parameter) -> float:
    """How often a parameter of a block multiplies each vector: vectors never, the weights of all experts in part."""
    if parameter.ndim == 3 and config.experts is not None:
        return config.experts.active / config.experts.count
    return float(parameter.ndim == 2)


def _blocks(model: nn.Module) -> list[Block]:
    return [module for module in model.modules() if isinstance(module, Block)]
