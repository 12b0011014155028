"""What each arithmetic of the engine changes in the answers of trained models, and of models with outliers.

A trained decoder reads text that was held out from its training, once in float32 and once by every policy: nats per
token by which the distribution moves (Kullback-Leibler), how often the likeliest token stays the same, and bits per
byte. Beside them stands PyTorch's own dynamic quantisation, with one scale for all activations of a product.

Large models have channels that are tens of times larger than the others (Dettmers et al., arXiv 2208.07339), small ones
do not. They are planted: a few weights of each norm, and rows of each `up`, times a power of two, and the columns that
read them divided by it. In float32 that changes no bit of any product, so it is the same function.

Encoders with outliers of their own are at hand: all-MiniLM-L6-v2, whose products are compared on real text.

    python -m bench.policies                                      trains a decoder for three minutes first
    python -m bench.policies --workspace FOLDER --model model@1   one that was trained with windlass
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from windlass.build.corpus import build_corpus, training_text
from windlass.build.tokenizer import train_tokenizer
from windlass.build.training.pretrain import pretrain
from windlass.build.training.settings import PretrainSettings
from windlass.build.transformer.block import Block
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_decoder
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.mlp import MLP
from windlass.core.artifacts import Artifact
from windlass.core.readers import PythonDocs
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.serve.encoders.embedder import MiniLM
from windlass.serve.engine.arithmetic.linears import BF16, POLICIES, prepare
from windlass.serve.engine.arithmetic.places import Product, Served
from windlass.serve.engine.arithmetic.quantised import Quantised

Make = Callable[[Tensor, Tensor | None], Product]
WINDOW = 256


class PyTorchInt8:
    """x W^T + b as `torch.ao.quantization.quantize_dynamic` computes it: one scale for the whole of x, one for W."""

    bytes = 0

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        scale = float(weight_NK.abs().max()) / 127
        with warnings.catch_warnings():  # quantized tensors are to leave PyTorch
            warnings.simplefilter("ignore")
            whole = torch.quantize_per_tensor(weight_NK.contiguous(), scale, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(whole, bias_N)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic(x.contiguous(), self._packed, True)


WAYS: dict[str, Make] = {
    "bf16": BF16,
    "int8": partial(Quantised, bits=8),
    "int4": partial(Quantised, bits=4),
    "PyTorch int8": PyTorchInt8,
}


# ---- decoders


@dataclass
class Moved:
    """What reading the held-out text in another arithmetic changed."""

    taken: str
    """What the engine makes of the policy here."""
    tokens: int
    bytes: int
    nats: float = 0.0
    moved: float = 0.0
    same: int = 0
    worst: float = 0.0

    def figures(self) -> dict[str, float]:
        return {
            "nats_per_token": self.moved / self.tokens,
            "worst_token": self.worst,
            "same_likeliest": self.same / self.tokens,
            "bits_per_byte": self.nats / math.log(2) / self.bytes,
        }

    def row(self) -> tuple[str, ...]:
        moved, worst, same, bits = self.figures().values()
        return f"{moved:.1e}", f"{worst:.1e}", f"{same:.2%}", f"{bits:.4f}", self.taken


def multiplied(decoder: Decoder, make: Make) -> Decoder:
    """A copy with every matrix in another arithmetic, whatever a trial would say."""
    changed = copy.deepcopy(decoder)
    for owner in list(changed.modules()):
        for name, one in list(owner.named_children()):
            if isinstance(one, Linear):
                setattr(owner, name, Served(make(one.weight, one.bias), slice(None)))
    if changed.head is None:
        changed.head = Served(make(changed.embedding, None), slice(None))
    return changed


def with_outliers(decoder: Decoder, size: int, channels: int, seed: int = 0) -> Decoder:
    """The same function with `channels` inputs of every product `size` times as large. `size`: a power of two."""
    changed = copy.deepcopy(decoder)
    rng = np.random.default_rng(seed)

    def plant(producer: Tensor, *readers: Tensor) -> None:
        """`producer`: a vector, or a matrix whose rows make the channels; `readers`: matrices (N, K) that see them."""
        chosen = torch.from_numpy(rng.choice(len(producer), channels, replace=False))
        producer[chosen] *= size
        for reader in readers:
            reader[:, chosen] /= size

    with torch.no_grad():
        for block in changed.blocks:
            assert isinstance(block, Block) and isinstance(block.mlp, MLP)
            seen = block.attention.query, block.attention.key, block.attention.value
            plant(block.attention_norm.weight, *(one.weight for one in seen))
            gate, up, down = block.mlp.gate, block.mlp.up, block.mlp.down
            plant(block.mlp_norm.weight, *(one.weight for one in (gate, up) if one is not None))
            if gate is not None:  # nothing stands between `up` and `down` but a product
                plant(up.weight, down.weight)
        if changed.head is not None:
            plant(changed.norm.weight, changed.head.weight)
    return changed


def held_out(ws: Workspace, model: Artifact, windows: int, length: int) -> tuple[Tensor, int]:
    """Token windows (windows, length), spread over the held-out text; UTF-8 bytes of all but each one's first token."""
    corpus, tokenizer = (ws.artifacts.get(model.parent(role)) for role in ("corpus", "tokenizer"))
    reader = Tokenizer.from_file(str(tokenizer.path / "tokenizer.json"))
    texts = training_text(corpus, "heldout")
    ids = [token for text in texts for token in reader.encode(text, add_special_tokens=False).ids]
    starts = np.linspace(0, len(ids) - length, windows).astype(int)
    rows = [ids[start : start + length] for start in starts]
    return torch.tensor(rows), sum(len(reader.decode(row[1:]).encode()) for row in rows)


def measured(exact: Decoder, tokens_BT: Tensor, size: int) -> dict[str, Moved]:
    """`size`: UTF-8 bytes of what is predicted, all tokens but the first of each row."""
    models = {"fp32": exact} | {name: multiplied(exact, make) for name, make in WAYS.items()}
    count = tokens_BT[:, 1:].numel()
    found = {name: Moved(taken(exact, name), count, size) for name in models}
    with torch.inference_mode():
        for rows_BT in tokens_BT.split(8):
            expected_NV: Tensor | None = None
            for name, model in models.items():
                logp_NV = model(rows_BT)[:, :-1].float().log_softmax(-1).flatten(0, 1)
                expected_NV = logp_NV if expected_NV is None else expected_NV
                apart_N = F.kl_div(logp_NV, expected_NV, log_target=True, reduction="none").sum(-1)
                one = found[name]
                one.nats -= float(logp_NV.gather(1, rows_BT[:, 1:].reshape(-1, 1)).sum())
                one.moved += float(apart_N.sum())
                one.worst = max(one.worst, float(apart_N.max()))
                one.same += int((logp_NV.argmax(-1) == expected_NV.argmax(-1)).sum())
    return found


def taken(decoder: Decoder, policy: str) -> str:
    """The policy that the engine's trial leaves in force, and what it saw."""
    if policy not in POLICIES:
        return ""
    report = prepare(copy.deepcopy(decoder), policy)
    return report.policy if report.policy != policy or policy == "fp32" else f"{policy} ({report.divergence:.1e})"


def extremes(decoder: Decoder, tokens_BT: Tensor) -> float:
    """The largest input of any product, as a multiple of the root mean square of its inputs."""
    most = 0.0

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal most
        most = max(most, float(inputs[0].abs().max() / inputs[0].square().mean().sqrt()))

    hooks = [one.register_forward_pre_hook(look) for one in decoder.modules() if isinstance(one, Linear)]
    with torch.inference_mode():
        decoder(tokens_BT[:4])
    for hook in hooks:
        hook.remove()
    return most


# ---- an encoder


def products_of(encoder: Any, texts: list[str]) -> Iterator[tuple[Linear, Tensor]]:
    """Each linear map of MiniLM with what it is given when these texts are embedded."""
    taken: dict[Linear, Tensor] = {}

    def keep(one: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(one, Linear)
        taken[one] = inputs[0].flatten(0, -2).clone()

    maps = [one for one in encoder._encoder.modules() if isinstance(one, Linear)]
    hooks = [one.register_forward_pre_hook(keep) for one in maps]
    encoder.embed(texts)
    for hook in hooks:
        hook.remove()
    yield from taken.items()


def errors_in_minilm(texts: list[str]) -> tuple[list[tuple[object, ...]], dict[str, float]]:
    """Root mean square error of the products in each arithmetic, relative to the product: the median and the worst."""
    errors: dict[str, list[float]] = {name: [] for name in WAYS}
    with torch.inference_mode():
        for one, x in products_of(MiniLM.load(), texts):
            expected = F.linear(x, one.weight, one.bias)
            size = (expected - expected.mean(0)).square().mean().sqrt()  # a bias is no achievement
            for name, make in WAYS.items():
                difference = make(one.weight, one.bias)(x) - expected
                errors[name].append(float(difference.square().mean().sqrt() / size))
    rows = [(name, f"{np.median(found):.4f}", f"{max(found):.4f}") for name, found in errors.items()]
    return rows, {name: max(found) for name, found in errors.items()}


# ---- together


def trained(ws: Workspace) -> Artifact:
    """A decoder on this Python's documentation, in three minutes."""
    corpus = build_corpus(ws, PythonDocs())
    return pretrain(ws, corpus, train_tokenizer(ws, corpus, 4096, allow_smaller=True), PretrainSettings())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="one with a trained decoder (default: train one)")
    parser.add_argument("--model", default="model", help="the decoder's artifact")
    parser.add_argument("--windows", type=int, default=32, help=f"of {WINDOW} held-out tokens")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 32, 64], help="of outliers; powers of two")
    parser.add_argument("--channels", type=int, default=2, help="outliers among the inputs of each product")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch, Workspace(args.workspace or Path(scratch)) as ws:
        model = ws.artifacts.get(args.model) if args.workspace else trained(ws)
        decoder = load_decoder(model.path).eval().requires_grad_(False)
        tokens_BT, size = held_out(ws, model, args.windows, min(WINDOW, decoder.config.context))
        corpus = ws.artifacts.get(model.parent("corpus"))
        texts = [text[:600] for text in itertools.islice(training_text(corpus, "heldout"), 32)]
    print(f"{model.ref}: {decoder.config.parameters:,} weights; {tokens_BT.numel():,} held-out tokens, {size:,} bytes")
    figures: dict[int, dict[str, dict[str, float]]] = {}
    for times in args.sizes:
        planted = decoder if times == 1 else with_outliers(decoder, times, args.channels)
        what = "as trained" if times == 1 else f"{args.channels} inputs of every product times {times}"
        print(f"\n{what}; the largest input of a product is {extremes(planted, tokens_BT):.0f} root mean squares")
        found = measured(planted, tokens_BT, size)
        figures[times] = {name: one.figures() for name, one in found.items()}
        head = ("", "nats/token", "worst token", "same likeliest", "bits/byte", "the engine takes")
        print(table(head, [(name, *one.row()) for name, one in found.items()], right=(1, 2, 3, 4)))
    rows, worst = errors_in_minilm(texts)
    print("\nall-MiniLM-L6-v2: error of its products on held-out text, relative")
    print(table(("", "median", "worst product"), rows, right=(1, 2)))
    last = figures[args.sizes[-1]]
    ratio = last["int8"]["nats_per_token"] / last["PyTorch int8"]["nats_per_token"]
    line = {"bench": "policies", "ratio": round(ratio, 4), "against": "PyTorch's dynamic int8, nats per token"}
    print(json.dumps(line | {"outliers": figures, "minilm_worst_product": worst}))


if __name__ == "__main__":
    main()
