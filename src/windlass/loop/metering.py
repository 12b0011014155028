"""What long work may spend, kept before each call and not after it; and what it has spent already, given back to it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from windlass.apply.wrappers.budget import Budget, OverBudget
from windlass.apply.wrappers.cached import replayed
from windlass.apply.wrappers.wrapper import Model, Wrapper, identity_of
from windlass.core.errors import ConfigError, InputError
from windlass.core.plain import asked, digest_of
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Kept
from windlass.loop.journal import Journal


class Meter:
    """Counts what all models of one piece of work, such as a search, spend together. Safe between threads.

    A call is made only if one as dear as the dearest so far would still be covered, besides those under way; so the
    budget can be passed by no more than what calls cost beyond all before them. `kept_back`: the share of both that is
    not to be touched now. `watch` is called after each call.

    Without a budget it only counts. Raises `InputError` for a budget that is not for all of one piece of work.
    """

    def __init__(self, budget: Budget | None, watch: Callable[[Meter], object] = lambda _: None) -> None:
        if budget is not None and (budget.name or budget.per != "ever"):
            raise InputError(
                "The budget of a search or an evaluation is for all of it: it has no name, and no day or month.",
                'Write Budget(dollars=2, per="ever"); a named one is a setting of the task, and holds besides.',
            )
        self.dollars = None if budget is None else budget.dollars
        self.most_tokens = None if budget is None else budget.tokens
        self.kept_back = 0.0
        self.usd = 0.0
        self.tokens = 0
        self.calls = 0
        self.unpriced = 0
        """Calls whose price nobody knows; `usd` is that of the others."""
        self.paid_usd = 0.0
        """Of that, what was paid by this process; the rest was given back by a journal."""
        self.paid_calls = 0
        self._dearest = (0.0, 0)
        self._under_way = 0
        self._turn = threading.Condition()
        self._watch = watch

    @contextlib.contextmanager
    def call(self) -> Iterator[Callable[[ChatResponse, float | None, bool], None]]:
        """Yields what is to be told the response, its price, and whether it was paid now.

        Raises `OverBudget` before the call, and `InputError` after one whose price, or count, is not known: such a
        budget cannot be kept."""
        with self._turn:
            while (refusal := self._refusal()) is not None:
                if not self._under_way:
                    raise refusal
                self._turn.wait()  # they may take less than what they are counted at
            self._under_way += 1
        try:
            yield self._count
        finally:
            with self._turn:
                self._under_way -= 1
                self._turn.notify_all()
        self._watch(self)

    def _refusal(self) -> OverBudget | None:
        for spent, next_one, limit, unit in (
            (self.usd, self._dearest[0], self.dollars, "US dollars"),
            (self.tokens, self._dearest[1], self.most_tokens, "tokens"),
        ):
            if limit is not None and spent + next_one * (self._under_way + 1) > limit * (1 - self.kept_back):
                return OverBudget(
                    f"{spent:,.6g} of {limit:,.6g} {unit} are spent in {self.calls:,} calls, and the next may take "
                    f"{next_one:,.6g}"
                    + (f"; {self.kept_back:.0%} are kept for the comparison." if self.kept_back else "."),
                    "Give a larger budget: it goes on where it was, and pays for nothing again.",
                )
        return None

    def before(self, usd: float | None, tokens: int | None) -> None:
        """Counts what earlier runs spent on what is not asked for again."""
        with self._turn:
            self.usd += usd or 0.0
            self.tokens += tokens or 0

    def _count(self, response: ChatResponse, usd: float | None, paid: bool) -> None:
        tokens = response.usage.total
        limits = ((usd, self.dollars, "price"), (tokens, self.most_tokens, "number of tokens"))
        for value, limit, what in limits:
            if value is None and limit is not None:
                raise InputError(
                    f"The {what} of a call to {response.model} is not known, so the budget cannot be kept.",
                    "Set its price in windlass.toml under [prices], or limit the other of dollars and tokens.",
                )
        with self._turn:
            self.calls += 1
            self.unpriced += usd is None
            self.usd += usd or 0.0
            self.tokens += tokens or 0
            self.paid_calls += paid
            self.paid_usd += (usd or 0.0) if paid else 0.0
            self._dearest = max(self._dearest[0], usd or 0.0), max(self._dearest[1], tokens or 0)

    @property
    def share(self) -> float:
        """Of the budget, that is spent: the larger of the two."""
        usd, tokens = self.dollars, self.most_tokens
        return max(self.usd / usd if usd else 0.0, self.tokens / tokens if tokens else 0.0)


class Metered(Wrapper):
    """Implements `ChatModel` over another one, on a meter.

    An answer that stands in the `journal` is not asked for again. It counts as it did the first time, for the meter and
    for what the task allows, so that all goes as it went; `kept` says that nothing is paid for it.
    """

    def __init__(self, model: ChatModel, meter: Meter, journal: Journal | None = None) -> None:
        super().__init__(model)
        self._meter = meter
        self._journal = journal
        self._identity = identity(model)

    def complete(self, request: ChatRequest) -> ChatResponse:
        with self._meter.call() as count:
            kept = None
            if self._journal is None:
                response = self._ask(request)
            else:
                key = digest_of([self._identity, request.draw, asked(request)])
                kept = self._journal.answer(key)
                response = kept or self._ask(request)
                if kept is None:
                    self._journal.keep(key, response)
                else:
                    response = replace(kept, kept=Kept(kept.usage, kept.cost_usd))
            # One whose price was not known when it was made may have one by now.
            price = self.costs(response.usage, request) if response.cost_usd is None else response.cost_usd
            count(response, price, kept is None)
            return response

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        """The whole answer in one piece."""
        yield from replayed(self.complete(request))


def identity(model: Model) -> Any:
    """What tells a model from others, if only its name does."""
    try:
        return identity_of(model)
    except ConfigError:
        return model.name
