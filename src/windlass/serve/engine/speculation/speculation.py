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

Guessing pays where memory is the limit, and costs where arithmetic is. So it is decided by measurement, guess by
guess: a token's price is the time of a step by the tokens it writes; another guess costs the time that one more token
adds to a step, and the draft model's. It is made if its chance to be right, times that price, is more than it costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError
from windlass.serve.engine.request import Generation
from windlass.serve.engine.sampling.drawing import Guess
from windlass.serve.engine.scheduler import Drafter
from windlass.serve.engine.speculation.guessing import DraftModel, Guesser, PromptLookup

MOST = 8
"""Guesses of one sequence in one step."""

LEAST = 0.1
"""The least share of a token's price that a guess is taken to cost, whatever was measured: a smaller chance to gain is
not worth the errors of the measurement."""


@dataclass(frozen=True, slots=True)
class Speculating:
    """How guessing has gone so far."""

    guessed: int
    right: int
    declined: int
    """Steps of sequences in which it was not worth it."""
    chance: float
    """That the next guess is right, by the recent ones."""
    token_seconds: float | None
    """What a token costs without guessing; None before it was measured."""
    guess_seconds: float | None
    """What one more token in a step costs."""


class Speculation:
    """Makes a `Drafter` for each request, and knows for all of them what guessing costs and brings."""

    def __init__(self, draft: Decoder | None = None, *, most: int = MOST) -> None:
        """`draft`: a model of the same vocabulary as the one that is served; None guesses from the text so far."""
        self._draft = draft.eval().requires_grad_(False) if draft is not None else None
        self._most = most
        self._steps = _Line()
        self._writing = 1
        self._trying = True
        self.recent = _Rate(0.999)
        self.guessed = self.right = self.declined = 0
        self.draft_seconds = 0.0
        """What a guess took to make lately, so that a new request need not find out."""

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
        return Drafting(self, DraftModel(self._draft, generation.sampling, self.draft_seconds))

    def observe(self, tokens: int, writing: int, seconds: float) -> None:
        """A step in which `writing` sequences were in the middle of their answers and nobody read a prompt: it read
        `tokens`, guesses included."""
        self._steps.add(tokens, seconds)
        self._writing = writing
        self._trying = not self._trying

    def length(self, chance: float, seconds: float, most: int) -> int:
        """How many guesses are worth it, of this chance each to be right if those before it were, which take `seconds`
        each to make. While nothing is known of the cost, every other step tries all of them, and the others none."""
        most = min(most, self._most)
        price, more = self._steps.at(self._writing) / self._writing, self._steps.slope
        if more is None or price <= 0:
            return most if self._trying else 0
        share = max((more + seconds) / price, LEAST)
        return 0 if share >= chance else min(most, int(math.log(share) / math.log(min(chance, 0.99))))

    def stats(self) -> Speculating:
        known = self._steps.slope is not None
        return Speculating(
            self.guessed,
            self.right,
            self.declined,
            round(self.recent.value, 4),
            self._steps.at(self._writing) / self._writing if known else None,
            self._steps.slope,
        )


class Drafting:
    """The scheduler's `Drafter` of one request."""

    def __init__(self, shared: Speculation, guesser: Guesser) -> None:
        self._shared, self._guesser = shared, guesser
        self._own = _Rate(0.95)

    def propose(self, tokens: Sequence[int], most: int) -> Sequence[Guess]:
        """At most `most` tokens that may follow; none where guessing does not pay."""
        chance = self._own.towards(self._shared.recent.value)
        worth = self._shared.length(chance, self._guesser.seconds, most)
        if worth >= 1:
            return self._guesser.guess(tokens, worth)
        self._shared.declined += 1
        self._own.forget()  # so that it is tried again in a while, here and in requests to come
        self._shared.recent.forget()
        return []

    def learn(self, guessed: int, right: int) -> None:
        """What became of the last guesses. Those behind the first wrong one were not tried."""
        self._shared.guessed += guessed
        self._shared.right += right
        self._shared.draft_seconds = self._guesser.seconds
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
