"""Which target answers a call: routes by name, rounds of attempts, waits between, and what is learned from each."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from windlass.core.errors import ProviderError
from windlass.core.pricing import Price, find, seller_at
from windlass.core.retry import AGAIN, backoff, retry_after
from windlass.core.values import Usage
from windlass.serve.errors import HttpError
from windlass.serve.gateway import config as settings
from windlass.serve.gateway.cache import AnswerCache
from windlass.serve.gateway.connections import Failed, Timeouts
from windlass.serve.gateway.targets import Target, order
from windlass.serve.gateway.upstream import Call, Refused, Stream, Upstream, Whole
from windlass.serve.limits import Limits

_KEY_REFUSED = frozenset({401, 403})
_NOT_THIS_TARGET = frozenset({404, *_KEY_REFUSED})
"""Statuses that another target may not give: the model is not there, or the gateway's key is not welcome."""


@dataclass(frozen=True, slots=True)
class Attempt:
    provider: str
    model: str
    seconds: float
    outcome: str
    """ok, cancelled, the status that refused (`status 503`), or the phase that failed (`first byte`)."""
    message: str = ""
    """What the provider said, which may quote what it was asked."""


@dataclass(slots=True)
class Answer:
    """A good answer, or an error that is the client's own. Must be closed."""

    target: Target
    content: Whole | Stream | Refused
    attempts: list[Attempt]

    def close(self) -> None:
        self.target.end()
        if not isinstance(self.content, Refused):
            self.content.close()


@dataclass(slots=True)
class Route:
    """A route of the configuration with its targets as they are doing."""

    name: str
    settings: settings.Route
    targets: Sequence[Target]
    fallbacks: Sequence[Target]
    timeouts: Mapping[str, Timeouts]
    """By provider."""
    seconds: float
    """From a request to the last byte of its answer."""


class Gateway:
    """All that follows from one configuration: providers, routes, limits, kept answers. For one event loop."""

    def __init__(self, config: settings.GatewayConfig) -> None:
        """Raises `ConfigError` for what cannot be: an address, a proxy, a file of certificates."""
        self.config = config
        self.digest = config.digest
        self.limits = Limits(body_bytes=config.request_bytes, request_seconds=config.request_s)
        self.cache = AnswerCache(config.cache.bytes)
        self._upstreams = {name: Upstream(name, provider) for name, provider in config.providers.items()}
        self._routes = {name: self._route(name, route) for name, route in config.routes.items()}
        self._patterns = sorted((n for n in self._routes if n.endswith("*")), key=len, reverse=True)

    @property
    def models(self) -> list[str]:
        """The names that clients can ask for, patterns left out."""
        return [name for name in self._routes if not name.endswith("*")]

    def route(self, model: str) -> Route:
        """The route of that name, else the longest pattern that fits. Raises `HttpError` (404)."""
        if (exact := self._routes.get(model)) is not None and not model.endswith("*"):
            return exact
        for pattern in self._patterns:
            if model.startswith(pattern[:-1]):
                return self._routes[pattern]
        raise HttpError(
            404,
            f"There is no model '{model[:200]}' here.",
            f"Models: {', '.join(self.models) or 'none by name'}.",
            code="model_not_found",
            param="model",
        )

    def close(self) -> None:
        """Closes what is idle, and what is in use as soon as it is not."""
        for upstream in self._upstreams.values():
            upstream.server.close()

    async def answer(self, route: Route, call: Call, attempts: list[Attempt]) -> Answer:
        """Asks target after target, round after round, until one answers. Raises the last failure when none does.

        `attempts` is filled as they are made, so that it is known also when this is cancelled.
        """
        problem: ProviderError | None = None
        out: set[Target] = set()  # not asked again for this call
        for number in range(route.settings.retries + 1):
            for target in order(route.targets, route.fallbacks, route.settings.balance):
                if target in out or target.wait() > 0:
                    continue
                answer = await self._attempt(target, call, route.timeouts[target.provider], attempts)
                if isinstance(answer, Answer):
                    return answer
                problem = answer
                if not _worth_repeating(problem):
                    out.add(target)
            left = [t for t in (*route.targets, *route.fallbacks) if t not in out and not t.resting]
            wait = max(backoff(number), min((target.wait() for target in left), default=0))
            if not left or number == route.settings.retries or wait > route.settings.longest_wait_s:
                break
            await asyncio.sleep(wait)
        raise self._given_up(route, problem, len(attempts))

    def cost(self, target: Target, model: str, usage: Usage) -> float | None:
        """US dollars for what `model` answered; None when the price or the usage is not known."""
        known = self.price(target, model)
        return None if known is None else known.of(usage)

    def price(self, target: Target, model: str) -> Price | None:
        """What `target` takes: by its route, by the configuration's prices, or by the price list of its seller."""
        if target.price is not None:
            return target.price
        seller = seller_at(self._upstreams[target.provider].server.host)
        for name in (model, target.model):
            for key in (f"{target.provider}/{name}", name):
                if name and key in self.config.prices:
                    return self.config.prices[key]
            if name and (listed := find(name, seller)) is not None:
                return listed
        return None

    def address(self, target: Target) -> str:
        return self._upstreams[target.provider].server.host

    # one attempt ------------------------------------------------------------------------------------------------------

    async def _attempt(
        self, target: Target, call: Call, timeouts: Timeouts, attempts: list[Attempt]
    ) -> Answer | ProviderError:
        """An answer, which holds the target until it is closed, or why there is none."""
        started = time.perf_counter()
        target.begin()
        model = target.model or call.model
        problem: ProviderError | None = None
        outcome = "cancelled"  # unless one of the following happens before
        try:
            content = await self._upstreams[target.provider].ask(call, model, timeouts, self.config.answer_bytes)
            target.succeeded()
            outcome = "ok"
            return Answer(target, content, attempts)
        except Refused as refusal:
            self._learn(target, refusal)
            problem, outcome = refusal, f"status {refusal.status}"
            if not (refusal.status in AGAIN or refusal.status in _NOT_THIS_TARGET):
                return Answer(target, refusal, attempts)
        except Failed as failure:
            target.failed()
            problem, outcome = failure, failure.phase
        except BaseException:
            target.end()
            raise
        finally:
            message = "" if problem is None else problem.message
            attempts.append(Attempt(target.provider, model, time.perf_counter() - started, outcome, message))
        target.end()
        return problem

    def _learn(self, target: Target, refusal: Refused) -> None:
        status = refusal.status or 500
        if status in (429, 503) and (wait := retry_after(refusal.headers)) is not None:
            target.leave_alone(wait)
        elif status >= 500 or status in _KEY_REFUSED:
            target.failed()
        else:
            target.succeeded()  # it works, and says that the request does not

    def _given_up(self, route: Route, problem: ProviderError | None, attempts: int) -> ProviderError | HttpError:
        soonest = min(target.wait() for target in (*route.targets, *route.fallbacks))
        headers = {"Retry-After": str(max(1, math.ceil(soonest)))}
        tries = f"After {attempts} attempts: " if attempts > 1 else ""
        if problem is None:
            return HttpError(
                503,
                f"No target of '{route.name}' can be asked now: they rest after failures, or asked to be left alone.",
                f"Try again in {headers['Retry-After']} s.",
                code="targets_resting",
                headers=headers,
            )
        message, status = f"{tries}{problem.message}", problem.status
        if status == 429:
            return HttpError(429, message, "Try again later.", code="provider_busy", headers=headers)
        if status == 404:
            return HttpError(404, message, code="model_not_found", param="model")
        if status in _KEY_REFUSED:
            return HttpError(502, message, "The gateway's own key is not accepted there.", code="provider_key")
        if isinstance(problem, Failed) and problem.phase in ("first byte", "idle", "connect"):
            return HttpError(504, message, problem.hint, code="provider_silent")
        return HttpError(502, message, problem.hint, code="provider_failed")

    def _route(self, name: str, route: settings.Route) -> Route:
        def running(given: Sequence[settings.Target]) -> list[Target]:
            return [Target(t.provider, t.model, t.weight, t.price, self.config.breaker) for t in given]

        def timeouts(provider: settings.Provider) -> Timeouts:
            phases = ("connect_s", "first_byte_s", "idle_s")
            return Timeouts(*(getattr(route, phase) or getattr(provider, phase) for phase in phases))

        return Route(
            name, route, running(route.targets), running(route.fallbacks),
            {name: timeouts(provider) for name, provider in self.config.providers.items()},
            route.request_s or self.config.request_s,
        )  # fmt: skip


def _worth_repeating(problem: ProviderError) -> bool:
    """Whether the same target may be asked the same again: not when it may still be at work on it (that pays twice)."""
    if isinstance(problem, Failed):
        return problem.phase in ("connect", "answer")
    return problem.status in AGAIN
