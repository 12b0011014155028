"""The one function that gives a new decoder its weights."""

from __future__ import annotations

import torch

from windlass.build.transformer.decoder import Block, Decoder


@torch.no_grad()
def initialise(model: Decoder, seed: int) -> None:
    """Fills every weight in place, reproducibly.

    Matrices that read the residual stream: uniform with variance 1/inputs, which keeps activations at unit scale.
    Matrices that write to it start at zero, so that each block begins as the identity and depth does not amplify
    noise (Zhang et al., arXiv 1901.09321). The embedding has unit variance, since RMSNorm follows; the head starts
    small, so that the first loss is that of a uniform guess.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)

    def uniform(weight: torch.Tensor) -> None:
        bound = (3.0 / weight.shape[1]) ** 0.5
        weight.uniform_(-bound, bound, generator=generator)

    tied_scale = model.config.hidden**-0.5 if model.config.tied else 1.0
    model.embedding.normal_(0.0, tied_scale, generator=generator)
    for block in model.blocks:
        assert isinstance(block, Block)
        for matrix in (block.attention.query, block.attention.key, block.attention.value, block.mlp.gate, block.mlp.up):
            uniform(matrix.weight)
        block.attention.output.weight.zero_()
        block.mlp.down.weight.zero_()
        block.attention_norm.weight.fill_(1.0)
        block.mlp_norm.weight.fill_(1.0)
    model.norm.weight.fill_(1.0)
    if model.head is not None:
        model.head.weight.normal_(0.0, 0.001, generator=generator)
