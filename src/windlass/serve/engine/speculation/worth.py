"""Whether guessing ahead gains: what a written token takes with it and without it, measured by turns.

What a guess costs and brings can be predicted (`speculation.py` does, to say how many to make), but a prediction misses
what it has no term for: a draft model that waits row by row, a machine that has other work. So the clock has the last
word, for each size of the batch apart: eight answers share the cost of a step, and what pays for one need not pay for
them.

- First it is measured what a token takes without guesses, then a few steps try them. They go on while a token takes
  less time with them, and every now and then a step goes without, so that the comparison stays a fresh one.
- What a draft model needs to read a prompt is an investment: it is charged to the steps that follow, bit by bit.
- What trying in vain cost is a debt. It is paid off with a twentieth of the time of the steps without guesses; only
  then is it tried again. So guessing where it does not gain costs no more than about that twentieth.
"""

from __future__ import annotations

FIRST = 8
"""Steps without guesses before the first try."""
TRIAL = 16
"""Steps with guesses before they are judged,"""
PATIENCE = 8
"""unless they have lost the time of so many ordinary ones before."""
AGAIN = 32
"""While guessing, every so many steps one goes without."""
SHARE = 0.05
"""Of the time, for trying in vain."""
SPREAD = 64
"""Steps over which the reading of a prompt is spread."""


class Worth:
    """What is known for each size of the batch."""

    def __init__(self) -> None:
        self._sizes: dict[int, _Size] = {}
        self._owed = 0.0

    def decide(self, rows: int) -> bool:
        """Whether the next step, of so many sequences, is to guess."""
        size = self._sizes.get(rows)
        return size is not None and size.guesses

    def owe(self, seconds: float) -> None:
        """Guessing took this time, for the sake of steps to come."""
        self._owed += seconds

    def add(self, rows: int, guessed: bool, written: int, seconds: float) -> None:
        """A step, decided as `guessed`, in which `rows` sequences wrote so many tokens in all."""
        if not written or seconds <= 0:
            return
        charge = self._owed / SPREAD if guessed else 0.0
        self._owed -= charge
        if self._sizes.setdefault(rows, _Size()).add(guessed, written, seconds + charge, self._owed):
            self._owed = 0.0

    def prices(self, rows: int) -> tuple[float | None, float | None]:
        """Seconds that a token takes without guesses and with them; None before it was measured."""
        size = self._sizes.get(rows, _Size())
        return size.without.price, size.guessing.price


class _Size:
    def __init__(self) -> None:
        self.without, self.guessing = _Price(), _Price()
        self._on = False
        self._steps = 0
        """Since it was last decided to guess."""
        self._debt = 0.0
        """Seconds."""

    @property
    def guesses(self) -> bool:
        return self._on and self._steps % AGAIN != AGAIN - 1

    def add(self, guessed: bool, written: int, seconds: float, owed: float) -> bool:
        """Whether guessing ends with this step: what is `owed` is then lost."""
        self._steps += 1
        price = self.guessing if guessed else self.without
        price.add(written, seconds)
        usual = self.without.price
        if usual is None:
            return False
        if not self._on:
            self._debt -= SHARE * seconds
            if self._debt <= 0 and self.without.steps >= FIRST:
                self._on, self._steps, self._debt, self.guessing = True, 0, 0.0, _Price()
            return False
        if guessed:
            self._debt = max(0.0, self._debt + seconds - written * usual)  # what it gained is no licence to lose it
        found = self.guessing.price
        judged = self._steps >= TRIAL or self._debt > PATIENCE * self.without.step
        if not judged or found is None or found <= usual:
            return False
        self._on = False
        self._debt = max(self._debt + owed, self.without.step)
        return True


class _Price:
    """Seconds by tokens, where older steps count less and less."""

    DECAY = 0.95

    def __init__(self) -> None:
        self.steps = 0
        self._weight = self._seconds = self._tokens = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self.steps += 1
        self._weight = self._weight * self.DECAY + 1
        self._seconds = self._seconds * self.DECAY + seconds
        self._tokens = self._tokens * self.DECAY + tokens

    @property
    def price(self) -> float | None:
        return self._seconds / self._tokens if self.steps else None

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return self._seconds / self._weight if self.steps else 0.0
