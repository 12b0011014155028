"""What sampling gives: a token, and how likely it and others were."""

from __future__ import annotations

from typing import NamedTuple


class Token(NamedTuple):
    """A token of an answer or a prompt. `logprob` is None where none was asked for."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens at this place and their log-probabilities, likeliest first."""
