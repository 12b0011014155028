"""A peer of `bench.pretrain`: the plain PyTorch training loop that a person writes who knows how, after nanoGPT's.

One readable model (Llama's shape), `torch.compile` over the whole of it with its loss inside, bfloat16 by autocast,
fused scaled-dot-product attention, fused AdamW with decay on matrices only, clipping, gradients set to None.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from bench._pretrain_job import Job, OnStep
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, job: Job) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = job.heads, job.kv_heads, job.head_dim
        self.sizes = [job.heads * job.head_dim, job.kv_heads * job.head_dim, job.kv_heads * job.head_dim]
        self.qkv = nn.Linear(job.hidden, sum(self.sizes), bias=False)
        self.out = nn.Linear(job.heads * job.head_dim, job.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, _ = x.shape
        q, k, v = self.qkv(x).split(self.sizes, dim=2)
        q = turn(q.view(B, T, self.heads, self.head_dim).transpose(1, 2), cos, sin)
        k = turn(k.view(B, T, self.kv_heads, self.head_dim).transpose(1, 2), cos, sin)
        v = v.view(B, T, self.kv_heads, self.head_dim).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv_heads < self.heads)
        return self.out(y.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    def __init__(self, job: Job) -> None:
        super().__init__()
        self.up = nn.Linear(job.hidden, 2 * job.ffn, bias=False)
        self.down = nn.Linear(job.ffn, job.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, job: Job) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(job.hidden, 1e-5), nn.RMSNorm(job.hidden, 1e-5)
        self.attention, self.mlp = Attention(job), MLP(job)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class Model(nn.Module):
    cos: Tensor
    sin: Tensor

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.embedding = nn.Embedding(job.vocabulary, job.hidden)
        self.blocks = nn.ModuleList(Block(job) for _ in range(job.layers))
        self.norm = nn.RMSNorm(job.hidden, 1e-5)
        self.head = nn.Linear(job.hidden, job.vocabulary, bias=False)
        angles = torch.outer(torch.arange(job.context), 10_000.0 ** -(torch.arange(0, job.head_dim, 2) / job.head_dim))
        self.register_buffer("cos", angles.cos().repeat(1, 2), persistent=False)
        self.register_buffer("sin", angles.sin().repeat(1, 2), persistent=False)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        x = self.embedding(tokens)
        T = tokens.shape[1]
        for block in self.blocks:
            x = block(x, self.cos[:T], self.sin[:T])
        logits = self.head(self.norm(x))
        return logits if targets is None else F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


@torch.no_grad()
def start(model: Model, weights: dict[str, Tensor]) -> None:
    """Takes up the common starting weights, which stand under Hugging Face's names."""
    model.embedding.weight.copy_(weights["model.embed_tokens.weight"])
    model.norm.weight.copy_(weights["model.norm.weight"])
    model.head.weight.copy_(weights["lm_head.weight"])
    for i, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        at = f"model.layers.{i}."
        block.norm1.weight.copy_(weights[at + "input_layernorm.weight"])
        block.norm2.weight.copy_(weights[at + "post_attention_layernorm.weight"])
        block.attention.qkv.weight.copy_(torch.cat([weights[f"{at}self_attn.{p}_proj.weight"] for p in "qkv"]))
        block.attention.out.weight.copy_(weights[at + "self_attn.o_proj.weight"])
        block.mlp.up.weight.copy_(torch.cat([weights[f"{at}mlp.{p}_proj.weight"] for p in ("gate", "up")]))
        block.mlp.down.weight.copy_(weights[at + "mlp.down_proj.weight"])


def train(job: Job, on_step: OnStep) -> nn.Module:
    """Trains as `job` says, telling `on_step` the loss of each step; the trained model."""
    model = Model(job)
    start(model, job.weights())
    compiled = torch.compile(model)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": job.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=job.rate, betas=job.betas, fused=True)
    windows = job.windows()
    for step in range(job.steps):
        for group in optimizer.param_groups:
            group["lr"] = job.rate * job.multiplier(step)
        batch = torch.from_numpy(windows[step * job.batch : (step + 1) * job.batch].astype("int64"))
        with torch.autocast("cpu", torch.bfloat16):
            loss = compiled(batch[:, :-1], batch[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), job.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        on_step(loss.item())
    return model
