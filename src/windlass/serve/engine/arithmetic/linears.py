"""How an engine multiplies: `prepare` gives every matrix of a decoder the arithmetic of one policy.

| policy | weights          | activations      | bytes a weight |
|--------|------------------|------------------|----------------|
| fp32   | as they are      | as they are      | 4              |
| bf16   | bfloat16, packed | bfloat16         | 2              |
| int8   | 8 bits, blocks   | 8 bits, blocks   | 1.03           |
| int4   | 4 bits, blocks   | 8 bits, blocks   | 0.56           |

A decoder writes one token per sequence by reading every weight once, so bytes a weight are what its speed hangs on.
Weights are packed once, in the order in which the product reads them; matrices that read the same vector (query, key
and value; gate and up) become one.

No kernel is trusted unseen: before a policy is taken, each kind of its products is compared with float32 on weights of
this very model, and then the whole model's distribution with what float32 says. A policy that fails, or that this
machine cannot do, gives way to the next more exact one, and the `Report` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.linear import Linear
from windlass.core.errors import InputError
from windlass.core.memory import keep_freed_memory
from windlass.serve.engine.arithmetic import native
from windlass.serve.engine.arithmetic.fused import fuse
from windlass.serve.engine.arithmetic.packed import no_packing
from windlass.serve.engine.arithmetic.places import Product, error_of, places
from windlass.serve.engine.arithmetic.quantised import Quantised, lay_together


class BF16:
    """Both factors rounded to bfloat16, sums in float32 (oneDNN), weights in the order its kernel reads them."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        self.bytes = 2 * weight_NK.numel()
        self._bias = None if bias_N is None else bias_N.bfloat16()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight_NK.bfloat16().contiguous(), _TYPICAL_BATCH)

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x.bfloat16(), self._weight, self._bias, "none", [], "")
        return out.to(x.dtype)


_TYPICAL_BATCH = 8
"""Rows that oneDNN chooses the order of packed weights for; any other number is computed from it too."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """A policy, and what it has to prove."""

    make: Callable[[Tensor, Tensor | None], Product]
    unable: Callable[[], str | None]
    """Why this machine cannot do it."""
    error: float
    """Of one product: root mean square of what float32 says differently, relative to the product's own."""
    divergence: float
    """Nats per token by which the model's distribution may differ from that of float32 (Kullback-Leibler)."""


def _no_bf16() -> str | None:
    if reason := no_packing():
        return reason
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "this processor has no bfloat16 arithmetic"
    return None


_CHOICES: dict[str, _Choice] = {
    "int4": _Choice(partial(Quantised, bits=4), native.unavailable, error=0.15, divergence=0.5),
    "int8": _Choice(partial(Quantised, bits=8), native.unavailable, error=0.02, divergence=0.005),
    "bf16": _Choice(BF16, _no_bf16, error=0.01, divergence=0.01),
}
"""The less exact before the more exact, which stand in for them."""
_KEPT = 1 << 24
"""Bytes: blocks that the activations of a step need are kept, a request's cache is given back."""
POLICIES = (*_CHOICES, "fp32")
AUTOMATIC = "int8"
"""Where "auto" begins: 4 bits are a choice that somebody has to make."""


@dataclass(frozen=True, slots=True)
class Report:
    """What `prepare` did."""

    asked: str
    policy: str
    """The policy in force."""
    reasons: tuple[str, ...]
    """Why not what was asked for; one sentence for each policy that was passed over."""
    products: int
    """Matrix products of one pass."""
    bytes: int
    """Weights that one pass reads."""
    divergence: float
    """Nats per token by which the model's distribution differs from that of float32 on the trial's tokens."""

    def __str__(self) -> str:
        text = f"linear maps in {self.policy}"
        if choice := _CHOICES.get(self.policy):
            why = "the fastest that passes its trial" if self.asked == "auto" else "as asked"
            moved = f"{max(self.divergence, 0):.1g} nats a token from float32, {choice.divergence:g} may be"
            text += f", {why} ({moved})"
        return "; ".join([f"{text}: {self.products} products, {self.bytes / 1e6:,.0f} MB a pass", *self.reasons])


def likely(policy: str) -> str:
    """What `policy` comes to on this machine, unless its trial fails. Raises `InputError` for an unknown one."""
    return next(name for name in _candidates(policy) if name == "fp32" or not _CHOICES[name].unable())


def _candidates(policy: str) -> tuple[str, ...]:
    """What is to be tried, in this order."""
    if policy not in (*POLICIES, "auto"):
        raise InputError(f"The policy is {policy!r}.", f"It may be: {', '.join((*POLICIES, 'auto'))}.")
    return POLICIES[POLICIES.index(AUTOMATIC if policy == "auto" else policy) :]


def prepare(decoder: Decoder, policy: str = "auto", *, keep: str | None = None) -> Report:
    """Replaces the arithmetic of each `Linear` of a decoder (float32, on a CPU) in place; for serving only, since
    packed weights can be neither trained nor saved.

    `policy`: one of `POLICIES`, or "auto", the fastest that passes its trial, unless there is a reason to `keep` the
    decoder as it is. Experts of a mixture and its router stay in float32. Raises `InputError` for an unknown policy and
    for a decoder that is not float32 on a CPU.
    """
    candidates = _candidates(policy)
    weight = decoder.embedding
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise InputError(
            f"Policies are for float32 weights on a CPU, but this decoder has {weight.dtype} on {weight.device}.",
            "Load it anew; on a GPU, cast the whole decoder instead.",
        )
    if policy == "auto" and keep is not None:
        return _unchanged(decoder, policy, (keep,))
    keep_freed_memory(_KEPT)
    reasons: list[str] = []
    with torch.inference_mode():
        expected = None
        for name in candidates:
            if name == "fp32":
                break
            if reason := _CHOICES[name].unable():
                reasons.append(f"not {name}: {reason}")
                continue
            expected = _trial(decoder) if expected is None else expected
            outcome = _attempt(decoder, name, _CHOICES[name], expected)
            if isinstance(outcome, str):
                reasons.append(f"not {name}: {outcome}")
                continue
            return Report(policy, name, tuple(reasons), *outcome)
    return _unchanged(decoder, policy, tuple(reasons))


def _unchanged(decoder: Decoder, asked: str, reasons: tuple[str, ...]) -> Report:
    maps = [module for module in decoder.modules() if isinstance(module, Linear)]
    numbers = sum(m.weight.numel() for m in maps) + (decoder.embedding.numel() if decoder.head is None else 0)
    return Report(asked, "fp32", reasons, len(maps) + (decoder.head is None), 4 * numbers, 0.0)


def _attempt(decoder: Decoder, name: str, choice: _Choice, expected: Tensor) -> tuple[int, int, float] | str:
    """Number and bytes of the products, and the divergence; or why the decoder is left as it was."""
    undo: list[Callable[[], None]] = []
    products: list[Product] = []
    tried: set[tuple[int, ...]] = set()
    for place in places(decoder):
        weight_NK, bias_N = place.joined()
        product = choice.make(weight_NK, bias_N)
        if tuple(weight_NK.shape) not in tried:  # every shape once: kernels fail by shape, if they fail
            tried.add(tuple(weight_NK.shape))
            error = error_of(product, weight_NK, bias_N)
            if not error <= choice.error:
                _all(undo)
                return f"its product of {tuple(weight_NK.shape)} is wrong by {error:.2g} of its size"
        undo.append(place.replace(product))
        products.append(product)
    if native.unavailable() is None:
        undo += fuse(decoder)
    divergence = _divergence(expected, _trial(decoder))
    if not divergence <= choice.divergence:
        _all(undo)
        return f"the model's distribution moves by {divergence:.2g} nats per token, more than {choice.divergence:g}"
    if quantised := [product for product in products if isinstance(product, Quantised)]:
        lay_together(quantised)
    return len(products), sum(product.bytes for product in products), divergence


def _all(actions: list[Callable[[], None]]) -> None:
    for action in actions:
        action()


_TRIAL = 32
"""Tokens of the trial: enough that one odd token does not decide."""


def _trial(decoder: Decoder) -> Tensor:
    """Log-probabilities (T, V) after each of some tokens, always the same."""
    count = min(_TRIAL, decoder.config.context)
    generator = torch.Generator().manual_seed(0)
    tokens_1T = torch.randint(decoder.config.vocab_size, (1, count), generator=generator)
    return decoder(tokens_1T)[0].float().log_softmax(-1)


def _divergence(expected_TV: Tensor, found_TV: Tensor) -> float:
    return float(F.kl_div(found_TV, expected_TV, log_target=True, reduction="batchmean"))
