"""What a request may say about how its tokens are chosen, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from windlass.core.errors import InputError

MAX_LOGPROBS = 20

_RANGES: Mapping[str, tuple[float, float, bool]] = {
    "temperature": (0, 2, False), "top_p": (0, 1, True), "min_p": (0, 1, False), "typical_p": (0, 1, True),
    "repetition_penalty": (0, 10, True), "presence_penalty": (-2, 2, False), "frequency_penalty": (-2, 2, False),
}  # fmt: skip
"""Lowest and highest value, and whether the lowest itself is excluded."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request chooses its tokens. Raises `InputError` naming the field that is out of range."""

    temperature: float = 1.0
    """0 is greedy: always the likeliest token."""
    top_p: float = 1.0
    """Nucleus: the fewest tokens that together have this probability (Holtzman et al., arXiv 1904.09751)."""
    seed: int | None = None
    """None draws a seed, which is reported in the trace."""
    top_k: int = 0
    """The k likeliest tokens (Fan et al., arXiv 1805.04833); 0 (or vLLM's -1) is off."""
    min_p: float = 0.0
    """Tokens of at least this share of the likeliest one's probability (Nguyen et al., arXiv 2407.01082)."""
    typical_p: float = 1.0
    """Tokens whose surprise is nearest to the expected one, of this mass (Meister et al., arXiv 2202.00666)."""
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these tokens. The ids may be texts, as JSON writes them."""
    min_tokens: int = 0
    """No stop token before so many tokens are written."""
    logprobs: int | None = None
    """Report each token's log-probability, and those of so many of the likeliest ones (0 to 20)."""

    def __post_init__(self) -> None:
        for name, (low, high, open_below) in _RANGES.items():
            value = getattr(self, name)
            if not _is_number(value) or not low <= value <= high or (open_below and value == low):
                bounds = f"above {low} and at most {high}" if open_below else f"between {low} and {high}"
                raise InputError(f"{name} is {_shown(value)}, but must be a number {bounds}.")
        _check_whole("top_k", self.top_k, -1)
        _check_whole("min_tokens", self.min_tokens, 0)
        if self.seed is not None:
            _check_whole("seed", self.seed)
        if self.logprobs is not None:
            _check_whole("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        object.__setattr__(self, "top_k", max(self.top_k, 0))
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))

    @property
    def truncates(self) -> bool:
        """Whether a draw leaves out the less likely tokens."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0 or self.typical_p < 1

    def check(self, vocabulary: int) -> None:
        """Raises `InputError` when a token of `logit_bias` is not one of the model's."""
        for token in self.logit_bias:
            if token >= vocabulary:
                raise InputError(
                    f"logit_bias names the token {token}, but the model has {vocabulary} (0 to {vocabulary - 1}).",
                    "Look the token up with the model's own tokenizer.",
                )


SAMPLING_FIELDS = frozenset(field.name for field in fields(Sampling))
"""The names of `Sampling`'s fields, which are those of the wire."""


def _check_whole(name: str, value: Any, low: int | None = None, high: int | None = None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or (low is not None and value < low) or (high is not None and value > high):
        bounds = "" if low is None else f" from {low} up" if high is None else f" between {low} and {high}"
        raise InputError(f"{name} is {_shown(value)}, but must be a whole number{bounds}.")


def _bias(given: Any) -> dict[int, float]:
    if not isinstance(given, Mapping):
        raise InputError(f"logit_bias is {_shown(given)}, but must map tokens to numbers.")
    bias = {}
    for key, value in given.items():
        token = int(key) if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 19 else key
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise InputError(f"logit_bias names the token {_shown(key)}, but a token is a whole number from 0 up.")
        if not _is_number(value) or not -100 <= value <= 100:
            raise InputError(
                f"logit_bias of the token {token} is {_shown(value)}, but must be a number between -100 and 100."
            )
        bias[token] = float(value)
    return bias


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
