"""The one function that gives a new model its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from windlass.build.transformer.attention import Attention
from windlass.build.transformer.block import Block
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.mlp import MLP
from windlass.build.transformer.model import Model
from windlass.build.transformer.moe import MoE
from windlass.build.transformer.norm import LayerNorm, RMSNorm
from windlass.build.transformer.stack import Stack


@torch.no_grad()
def initialise(model: Model, seed: int) -> None:
    """Fills every weight in place, reproducibly.

    Matrices that read the residual stream: uniform with variance 1/inputs, which keeps activations at unit scale.
    Whatever writes to it last starts at zero, so that each block begins as the identity and depth does not amplify
    noise (Zhang et al., arXiv 1901.09321). The embedding has unit variance once scaled, since a norm follows; the
    head starts small, so that the first loss is that of a uniform guess. An embedding that is the head too is as
    small: while blocks add nothing, each token's own score would otherwise be the root of the width above all others.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    config = model.config
    scale = 1.0 / (config.hidden * config.logit_scale if config.tied else config.embedding_scale)
    model.embedding.normal_(0.0, scale, generator=generator)
    for stack in (model.encoder, model.decoder) if isinstance(model, EncoderDecoder) else (model,):
        fill_stack(stack, scale * config.embedding_scale, generator)
    if isinstance(model, Encoder) and model.transform is not None:
        _uniform(model.transform.dense.weight, generator)
    if model.head is not None:
        model.head.weight.normal_(0.0, 0.001, generator=generator)
    if model.head_bias is not None:
        model.head_bias.zero_()


@torch.no_grad()
def fill_stack(stack: Stack, scale: float, generator: torch.Generator) -> None:
    """Everything between embedding and head. `scale`: the deviation of the embedded tokens."""
    for table in (stack.positions, stack.token_types):
        if table is not None:  # smaller than the tokens, which they are added to
            table.normal_(0.0, scale / 2, generator=generator)
    if stack.relative is not None:
        stack.relative.zero_()
    for module in stack.modules():
        if isinstance(module, RMSNorm):
            module.weight.fill_(0.0 if module.offset else 1.0)
        elif isinstance(module, LayerNorm):
            module.weight.fill_(1.0)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, Linear) and module.bias is not None:
            module.bias.zero_()
    for block in stack.blocks:
        assert isinstance(block, Block)
        _fill_block(block, generator)


def _fill_block(block: Block, generator: torch.Generator) -> None:
    readers: list[Tensor] = []
    writers: list[Tensor] = []
    for attention in (block.attention, block.cross):
        if isinstance(attention, Attention):
            readers += [attention.query.weight, attention.key.weight, attention.value.weight]
            writers.append(attention.output.weight)
    for part in (block.mlp, block.mlp.shared if isinstance(block.mlp, MoE) else None):
        if isinstance(part, MLP):
            readers += [*([part.gate.weight] if part.gate else []), part.up.weight]
            writers.append(part.down.weight)
        elif isinstance(part, MoE):
            readers += [part.router.weight, *([part.gate] if part.gate is not None else []), part.up]
            readers += [part.shared_gate.weight] if part.shared_gate is not None else []
            writers.append(part.down)
    for weight in readers:
        _uniform(weight, generator)
    for attention in (block.attention, block.cross):
        if isinstance(attention, Attention):  # T5 does not scale its scores: there the queries start small instead
            attention.query.weight.mul_(attention.head_dim**-0.5 / attention.scale)
    afters: list[nn.Module | None] = [block.attention_after_norm, block.mlp_after_norm]
    if block.placement == "sandwich":
        # A norm behind the part would blow its zeros up: there the norm itself is what starts at zero.
        for weight in writers:
            _uniform(weight, generator)
        for norm in afters:
            if isinstance(norm, RMSNorm | LayerNorm):
                norm.weight.fill_(-1.0 if isinstance(norm, RMSNorm) and norm.offset else 0.0)
    else:
        for weight in writers:
            weight.zero_()


def _uniform(weight: Tensor, generator: torch.Generator) -> None:
    """Variance 1/inputs."""
    bound = (3.0 / weight.shape[-1]) ** 0.5
    weight.uniform_(-bound, bound, generator=generator)
