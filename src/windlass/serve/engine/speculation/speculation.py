"""Guessing ahead: several tokens verified in one pass of the model, where that is cheaper than writing them one by one.

    Engine(decoder, speculation=Speculation())                        # by what was said before (prompt lookup)
    Engine(decoder, speculation=Speculation(draft=small_decoder))     # by a smaller model of the same vocabulary

Guesses come from earlier text or from a draft model (`guessing.py`). What the model writes keeps its distribution, in
one of two ways:

- Where a guess is certain (a copy; a draft model's likeliest token) the model chooses as ever, with the random number
  of that position, and the guess is right if it is that very token. Text and seed belong together as without guessing.
  Requests that are greedy or name a seed get such guesses only.
- Where a draft model drew the guess x from odds q, it is kept with probability p(x) / q(x), and else replaced by a draw
  from what p has more than q (Leviathan et al., arXiv 2211.17192; `drawing.verified`). More guesses survive so.

Guessing pays where memory is the limit, and costs where arithmetic is. So it is decided by measurement. Whether to
guess at all, `worth.py` says: by what a written token takes with guesses and without. How many to make is decided guess
by guess: a token's price is the time of a step by the tokens it writes; another guess costs the time that one more
token adds to a step, and the draft model's. It is made if its chance to be right, times that price, is more than it
costs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError
from windlass.serve.engine.request import Generation
from windlass.serve.engine.sampling.drawing import Guess
from windlass.serve.engine.scheduler import Drafter
from windlass.serve.engine.speculation.guessing import DraftModel, Guesser, PromptLookup
from windlass.serve.engine.speculation.worth import Worth

MOST = 8
"""Guesses of one sequence in one step."""

FEW = 2
"""Guesses where nothing is known of their cost."""

FADING = 0.995
"""What a guess took to make counts for a little less after each step in which none seemed worth it, so that one is
made again in a while: what was measured once, on a busy machine, must not stand for ever."""

LEAST = 0.1
"""The least share of a token's price that a guess is taken to cost, whatever was measured: a smaller chance to gain is
not worth the errors of the measurement."""


@dataclass(frozen=True, slots=True)
class Speculating:
    """How guessing has gone so far."""

    offered: int
    """Tokens that were guessed,"""
    accepted: int
    """and those of them that the model then wrote."""
    declined: int
    """Steps of sequences in which it was not worth it."""
    chance: float
    """That the next guess is right, by the recent ones."""
    token_seconds: float | None
    """What a token takes without guesses, in a batch of the latest size; None before it was measured."""
    guessing_token_seconds: float | None
    """What it takes with them."""
    guess_seconds: float | None
    """What one more token in a step costs."""


class Speculation:
    """Makes a `Drafter` for each request, and knows for all of them what guessing costs and brings."""

    def __init__(
        self, draft: Decoder | None = None, *, most: int = MOST, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`draft`: a model of the same vocabulary as the one that is served; None guesses from the text so far."""
        self.clock = clock
        self._draft = draft.eval().requires_grad_(False) if draft is not None else None
        self._most = most
        self._worth = Worth()
        self._steps = _Line()
        self._rows = 1
        self._started = 0.0
        self.guessing = False
        """Whether the step that is being planned may guess."""
        self._making = self._reading = 0.0
        """Seconds that the guesses of this step took to make, and before that, to catch up with what was written."""
        self._each: float | None = None
        """What a guess took to make lately."""
        self.recent = _Rate(0.999)
        self.offered = self.accepted = self.declined = 0

    def check(self, decoder: Decoder) -> None:
        """Raises `InputError` when the draft model and the one that is served have different vocabularies."""
        if self._draft is not None and self._draft.config.vocab_size != decoder.config.vocab_size:
            raise InputError(
                f"The draft model has {self._draft.config.vocab_size} tokens, but the model that is served has "
                f"{decoder.config.vocab_size}.",
                "Choose a draft model with the same tokenizer.",
            )

    def drafter(self, generation: Generation) -> Drafter | None:
        """What guesses for one request."""
        if self._draft is None:
            return Drafting(self, PromptLookup())
        return Drafting(self, DraftModel(self._draft, generation.sampling))

    def begin(self, rows: int) -> None:
        """A step of so many sequences is about to be planned."""
        self._rows, self._started, self._making, self._reading = max(rows, 1), self.clock(), 0.0, 0.0
        self.guessing = self._worth.decide(rows)

    def made(self, count: int, reading: float, making: float) -> None:
        """Guesses of one sequence, for this step; the guesser took so many seconds to catch up, and then to guess."""
        self._reading += reading
        self._making += making
        if count:
            each = making / count
            self._each = each if self._each is None else (self._each + each) / 2

    def end(self, rows: int, read: int, written: int, *, alike: bool) -> None:
        """The step is over: `rows` sequences read so many tokens, guesses included, and wrote some. `alike`: all were
        in the middle of their answers; only such steps can be compared."""
        seconds = self.clock() - self._started
        self._worth.owe(self._reading)
        if not alike or rows != self._rows:
            self._worth.owe(self._making)
            return
        self._steps.add(read, seconds - self._making - self._reading)
        self._worth.add(rows, self.guessing, written, seconds - self._reading)
        if self.guessing and not self._making and self._each is not None:
            self._each *= FADING

    def length(self, chance: float, most: int) -> int:
        """How many guesses are worth it, of this chance each to be right if those before it were."""
        most = min(most, self._most)
        usual, _ = self._worth.prices(self._rows)
        if usual is None or self._each is None:
            return min(most, FEW)  # to see what they cost
        share = max(((self._steps.slope or 0.0) + self._each) / usual, LEAST)
        return 0 if share >= chance else min(most, int(math.log(share) / math.log(min(chance, 0.99))))

    def stats(self) -> Speculating:
        return Speculating(
            self.offered,
            self.accepted,
            self.declined,
            round(self.recent.value, 4),
            *self._worth.prices(self._rows),
            self._steps.slope,
        )


class Drafting:
    """The scheduler's `Drafter` of one request."""

    def __init__(self, shared: Speculation, guesser: Guesser) -> None:
        self._shared, self._guesser = shared, guesser
        self._own = _Rate(0.95)

    def propose(self, tokens: Sequence[int], most: int) -> Sequence[Guess]:
        """At most `most` tokens that may follow; none where guessing does not pay."""
        if not self._shared.guessing:
            self._shared.declined += 1
            return []
        chance = self._own.towards(self._shared.recent.value)
        count = self._shared.length(chance, most)
        if count >= 1:
            clock = self._shared.clock
            started = clock()
            self._guesser.catch_up(tokens)
            ready = clock()
            guesses = self._guesser.guess(tokens, count)
            self._shared.made(len(guesses), ready - started, clock() - ready)
            return guesses
        self._shared.declined += 1
        self._own.forget()  # so that it is tried again in a while, here and in requests to come
        self._shared.recent.forget()
        return []

    def learn(self, guessed: int, right: int) -> None:
        """What became of the last guesses. Those behind the first wrong one were not tried."""
        self._shared.offered += guessed
        self._shared.accepted += right
        for rate in (self._own, self._shared.recent):
            rate.add(right, min(right + 1, guessed))


class _Rate:
    """How often something went well lately: every new trial makes the older ones count a little less."""

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._good, self._tried = 0.0, 0.0

    def add(self, good: int, tried: int) -> None:
        for _ in range(tried):
            self.forget()
        self._good += good
        self._tried += tried

    def forget(self) -> None:
        self._good *= self._decay
        self._tried *= self._decay

    def towards(self, expected: float, weight: float = 4.0) -> float:
        """The rate, where what was expected counts like `weight` trials."""
        return (self._good + weight * expected) / (self._tried + weight)

    @property
    def value(self) -> float:
        return self.towards(0.5)


class _Line:
    """A straight line through recent points, by least squares. Points far above it, when the machine was busy with
    something else, are taken for three times its height."""

    DECAY = 0.98

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def add(self, x: float, y: float) -> None:
        if self._n >= 5:
            y = min(y, 3 * max(self.at(x), self._y / self._n))
        for name, value in (("_n", 1.0), ("_x", x), ("_y", y), ("_xx", x * x), ("_xy", x * y)):
            setattr(self, name, getattr(self, name) * self.DECAY + value)

    @property
    def slope(self) -> float | None:
        """None while all points stand above nearly the same place: then it is anybody's guess."""
        spread = self._xx / self._n - (self._x / self._n) ** 2 if self._n >= 5 else 0.0
        if spread < 0.02:
            return None
        return (self._xy / self._n - self._x / self._n * self._y / self._n) / spread

    def at(self, x: float) -> float:
        if not self._n:
            return 0.0
        return self._y / self._n + (self.slope or 0.0) * (x - self._x / self._n)
