"""What an answer must obey: which tokens may come next, and which must."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Constraint(Protocol):
    """The state of one answer. The engine calls `accept` for every token that was written, forced ones included."""

    @property
    def ended(self) -> bool:
        """Whether the answer is complete: nothing may follow."""
        ...

    def allow(self, logits_V: Tensor) -> None:
        """Sets the logits of tokens that may not come next to -inf, in place."""
        ...

    def accept(self, token: int) -> None: ...

    def forced(self) -> list[int]:
        """Tokens that must come next, whatever the model says; may be empty. They are not accepted yet."""
        ...
