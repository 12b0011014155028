"""What an answer must obey: which tokens may come next, and which must."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Constraint(Protocol):
    """The state of one answer. The engine calls `accept` for every token that was written, forced ones included.

    Not safe to share between threads.
    """

    @property
    def ended(self) -> bool:
        """Whether the answer is complete: nothing may follow."""
        ...

    def allow(self, logits_V: Tensor) -> None:
        """Sets the logits of tokens that may not come next to -inf, in place."""
        ...

    def accept(self, token: int) -> None:
        """Goes on behind a token. Raises `InputError` when it is not allowed, or when going on costs too much."""
        ...

    def forced(self) -> list[int]:
        """Tokens that must come next, whatever the model says; may be empty. They are not accepted yet.

        They are those that `allow` would leave, one by one, as the only ones: jumping over them changes nothing.
        """
        ...

    def rollback(self, count: int) -> None:
        """Takes back the last `count` tokens: drafts that the model did not confirm."""
        ...

    def copy(self) -> Constraint:
        """The same state, to go on from in a second way."""
        ...
