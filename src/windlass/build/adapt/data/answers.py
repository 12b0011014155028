"""Judged answers as tokens, and the batches that preference objectives read: whole texts, one behind the other.

An example is a prompt with up to three answers, each a text of its own behind the prompt: the chosen one, the rejected
one, and for KTO one that was given to another prompt. A batch is one row of texts, without padding, and the texts of an
example never come apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windlass.build.adapt.data.conversations import Conversation, Encoded
from windlass.build.adapt.data.preferences import Judged
from windlass.build.training.data.batches import IGNORE, Batch, Number
from windlass.build.training.objectives import needed

CHOSEN, REJECTED, MISMATCHED = range(3)
SIDES = 3


@dataclass(frozen=True, slots=True)
class Answers:
    """An example as tokens: prompt and answer of each side, None where there is none."""

    sides: tuple[Encoded | None, Encoded | None, Encoded | None]

    def __len__(self) -> int:
        """Tokens of the longest side."""
        return max(len(side) for side in self.sides if side is not None)


def encode_answers(
    encode: Callable[[Conversation], Encoded], judged: Judged, mismatched: Judged | None = None
) -> Answers:
    """Only what is said behind the prompt counts. `mismatched`: whose answer is put behind this prompt too.

    Raises `InputError` as `encode` does, naming the row.
    """
    other = None if mismatched is None else mismatched.chosen or mismatched.rejected
    first = len(judged.prompt)
    chosen, rejected, stray = (
        None if said is None else encode(Conversation([*judged.prompt, *said], judged.where, judged.tools, first))
        for said in (judged.chosen, judged.rejected, other)
    )
    return Answers((chosen, rejected, stray))


@dataclass(frozen=True, slots=True)
class AnswerBatch(Batch):
    """`inputs_BT` and `targets_BT` have one row, of texts one behind the other."""

    lengths_D: Tensor | None = None
    """Tokens of each text."""
    places_D: Tensor | None = None
    """Where each belongs: number of the example x `SIDES` + side."""
    reference_BT: Tensor | None = None
    """Nats of each target by the reference model; None: not asked for, or not known yet."""
    baseline: Tensor | None = None
    """KTO's reference point, which the examples of a whole step say together."""

    @property
    def counted(self) -> int:
        """Examples."""
        return int(needed(self.places_D).max()) // SIDES + 1

    @property
    def sequences(self) -> int:
        return len(needed(self.lengths_D))

    @property
    def divisible(self) -> int:
        return self.counted

    @property
    def lengths(self) -> list[int]:
        found: list[int] = needed(self.lengths_D).tolist()
        return found

    def by_side(self, values_BT: Tensor) -> Tensor:
        """Sums over the positions of each text, (examples, sides); 0 where there is none."""
        places_T = torch.repeat_interleave(needed(self.places_D), needed(self.lengths_D))
        sums = values_BT.new_zeros(SIDES * self.counted)
        return sums.index_add(0, places_T, values_BT[0]).view(-1, SIDES)

    def there(self) -> Tensor:
        """Which texts there are, (examples, sides)."""
        places_D = needed(self.places_D)
        none = torch.zeros(SIDES * self.counted, dtype=torch.bool, device=places_D.device)
        return none.index_fill(0, places_D, True).view(-1, SIDES)

    def rows(self, which: slice) -> Self:
        """Some of the examples."""
        numbers_D = needed(self.places_D) // SIDES
        chosen_E = torch.arange(self.counted, device=numbers_D.device)[which].contiguous()
        some = self._kept(torch.isin(numbers_D, chosen_E))
        places_D = needed(some.places_D)
        renumbered = SIDES * torch.searchsorted(chosen_E, places_D // SIDES) + places_D % SIDES
        return replace(some, places_D=renumbered)

    def of_sides(self, *sides: int) -> Self:
        """Some texts of every example."""
        places_D = needed(self.places_D)
        return self._kept(torch.isin(places_D % SIDES, torch.tensor(sides, device=places_D.device)))

    def _kept(self, kept_D: Tensor) -> Self:
        kept_T = torch.repeat_interleave(kept_D, needed(self.lengths_D))
        rows = {field.name: getattr(self, field.name) for field in fields(self) if field.name.endswith("_BT")}
        changed: dict[str, Any] = {name: None if row is None else row[:, kept_T] for name, row in rows.items()}
        lengths_D, places_D = needed(self.lengths_D)[kept_D], needed(self.places_D)[kept_D]
        return replace(self, **changed, lengths_D=lengths_D, places_D=places_D)


class Look(AnswerBatch):
    """The same, of which only the nats of every target are wanted."""

    __slots__ = ()


class AnswerExamples:
    """Examples of a preference objective, and what the reference model made of their targets."""

    def __init__(self, examples: Sequence[Answers]) -> None:
        self._examples = examples
        lengths = [0 if text is None else len(text) for example in examples for text in example.sides]
        self._starts = [0, *itertools.accumulate(lengths)]
        self.reference: NDArray[np.float32] | None = None
        """Nats of every target, text by text; what `starts` counts."""

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def tokens(self) -> int:
        return self._starts[-1]

    @property
    def learned(self) -> int:
        """Tokens of answers to their own prompts."""
        own = (text for example in self._examples for text in example.sides[:MISMATCHED] if text is not None)
        return sum(int(text.learned[1:].sum()) for text in own)

    def batch(self, numbers: Sequence[Number]) -> AnswerBatch:
        texts = list(self._texts([number for _, number in numbers]))
        texts.sort(key=lambda found: (len(found[1]), found[0]))  # neighbours of equal length are computed together
        reference = None
        if self.reference is not None:
            known = [self.reference[start : start + len(text)] for _, text, start in texts]
            reference = torch.from_numpy(np.concatenate(known))[None]
        return AnswerBatch(
            torch.from_numpy(np.concatenate([text.tokens for _, text, _ in texts]))[None],
            torch.from_numpy(np.concatenate([_targets(text) for _, text, _ in texts]))[None],
            lengths_D=torch.tensor([len(text) for _, text, _ in texts]),
            places_D=torch.tensor([place for place, _, _ in texts]),
            reference_BT=reference,
        )

    def start(self, number: int, side: int) -> int:
        """Where the nats of a text stand in `reference`."""
        return self._starts[SIDES * number + side]

    def _texts(self, numbers: Sequence[int]) -> Iterator[tuple[int, Encoded, int]]:
        """Place in the batch, text, and where its nats stand."""
        for place, number in enumerate(numbers):
            for side, text in enumerate(self._examples[number].sides):
                if text is not None:
                    yield SIDES * place + side, text, self.start(number, side)


def _targets(text: Encoded) -> NDArray[np.int64]:
    """What each position should say; the last one predicts nothing."""
    return np.append(np.where(text.learned[1:], text.tokens[1:], IGNORE), IGNORE)
