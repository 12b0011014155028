"""Models that tell how likely texts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from windlass.core.errors import WindlassError
from windlass.core.values import Message


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a model finds a text, given what stands before it."""

    logprob: float
    """Natural logarithm of its probability: the sum over its tokens."""
    greedy: bool
    """Whether each of its tokens is the likeliest in its place, so that greedy decoding would write it."""
    tokens: int


Prompt = str | Sequence[Message]
"""What a model goes on from: a text as it stands, or a conversation through its chat template."""


@runtime_checkable
class LanguageModel(Protocol):
    """A model that tells how likely texts are, and goes on with them: all that a benchmark asks.

    What one request does wrong (it is too long, say) stands as the error in the place of its answer; what all would
    suffer from is raised.
    """

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    def loglikelihood(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Likelihood | WindlassError]:
        """For each (context, continuation). Behind an empty context the continuation begins a text."""
        ...

    def rolling(self, texts: Sequence[str]) -> list[Likelihood | WindlassError]:
        """Of whole texts from their first token on, also of those longer than the model reads at once."""
        ...

    def write(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str | WindlassError]:
        """What it writes behind each prompt, up to the first of the stop strings. Temperature 0 is greedy."""
        ...
