"""What one request took: a span for the trace store, and numbers for the metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from windlass.core import semconv
from windlass.core.trace import Recorder
from windlass.core.values import Usage
from windlass.serve.gateway.gateway import Attempt
from windlass.serve.gateway.upstream import Refused
from windlass.serve.metrics import Metrics

ATTEMPTS = "windlass_gateway_attempts_total"
TOKENS = "windlass_tokens_total"
COST = "windlass_gateway_cost_usd_total"
UNPRICED = "windlass_gateway_unpriced_total"
CACHE = "windlass_gateway_cache_total"
FIRST = "windlass_time_to_first_chunk_seconds"
CANCELLED = "windlass_requests_cancelled_total"

ATTEMPTS_MADE = "windlass.gateway.attempts"
"""Attribute: each attempt with its provider, model, seconds and outcome."""
ROUTE = "windlass.gateway.route"
CONFIG = "windlass.gateway.config"
CACHED = "windlass.gateway.cached"
KEY = "windlass.key"
"""Attribute: the name of the key that the client came with."""
STOPPED_EARLY = "windlass.stopped_early"


def declare(metrics: Metrics) -> None:
    metrics.declare(ATTEMPTS, "counter", "Requests sent to providers, by provider, model and outcome.")
    metrics.declare(TOKENS, "counter", "Tokens by model and direction (input, output).")
    metrics.declare(COST, "counter", "US dollars spent at providers, where the price is known.")
    metrics.declare(UNPRICED, "counter", "Answers whose cost is not known.")
    metrics.declare(CACHE, "counter", "Requests to routes with a cache, by outcome (hit, miss).")
    metrics.declare(FIRST, "histogram", "Seconds from a request to the first piece of its answer, by route.")
    metrics.declare(CANCELLED, "counter", "Requests whose client left before the answer was complete.")


class Record:
    """One request while it lasts. `finish` is called once, whatever came of it."""

    def __init__(
        self, recorder: Recorder, metrics: Metrics, operation: str, route: str, config: str, fields: Mapping[str, Any],
        *, content: bool,
    ) -> None:  # fmt: skip
        """`content`: whether the span holds what was asked and answered."""
        self.attempts: list[Attempt] = []
        self._metrics = metrics
        self._route = route
        self._content = content
        self._started = time.perf_counter()
        self._waiting = True
        self._span = recorder.span("gateway", operation).begin()
        if content:
            self._span.input = content_of(fields)
        self._attributes = self._span.attributes
        self._attributes.update(
            {
                ROUTE: route,
                CONFIG: config,
                semconv.REQUEST_MODEL: fields.get("model"),
                semconv.REQUEST_STREAM: fields.get("stream") is True,
            }
        )

    @property
    def trace_id(self) -> str:
        return self._span.trace_id

    def of_key(self, name: str) -> None:
        self._attributes[KEY] = name

    def answered(self, content: Any) -> None:
        """Keeps what was answered, where content is kept."""
        if self._content:
            self._span.output = content

    def cached(self, hit: bool) -> None:
        self._attributes[CACHED] = hit
        self._metrics.add(CACHE, outcome="hit" if hit else "miss")

    def first_piece(self) -> None:
        if self._waiting:
            self._waiting = False
            seconds = time.perf_counter() - self._started
            self._attributes[semconv.TIME_TO_FIRST_CHUNK] = seconds
            self._metrics.observe(FIRST, seconds, route=self._route)

    def used(self, provider: str, address: str, model: str, id: str, finish: str | None, usage: Usage) -> None:
        """Who answered, and what was counted. Counts that nobody reported stay away."""
        known = {
            semconv.PROVIDER: provider,
            semconv.SERVER_ADDRESS: address,
            semconv.RESPONSE_MODEL: model or None,
            semconv.RESPONSE_ID: id or None,
            semconv.FINISH_REASONS: None if finish is None else [finish],
            semconv.INPUT_TOKENS: usage.prompt,
            semconv.OUTPUT_TOKENS: usage.completion,
            semconv.CACHE_READ_TOKENS: usage.cache_read,
            semconv.REASONING_TOKENS: usage.reasoning,
        }
        self._attributes.update({name: value for name, value in known.items() if value is not None})
        if usage.prompt:
            self._metrics.add(TOKENS, usage.prompt, model=self._route, direction="input")
        if usage.completion:
            self._metrics.add(TOKENS, usage.completion, model=self._route, direction="output")

    def refused(self, refusal: Refused) -> None:
        """The provider did not take the request: the client's mistake, which it is told."""
        self._span.error = self._error(refusal)

    def cost(self, dollars: float | None) -> None:
        self._attributes[semconv.COST_USD] = dollars
        if dollars is None:
            self._metrics.add(UNPRICED, route=self._route)
        else:
            self._metrics.add(COST, dollars, route=self._route)

    def finish(self, error: BaseException | None = None, *, gone: bool = False) -> None:
        """`gone`: the client left before the end."""
        if gone:
            self._attributes[STOPPED_EARLY] = True
            self._metrics.add(CANCELLED)
        self._attributes[ATTEMPTS_MADE] = [self._attempt(attempt) for attempt in self.attempts]
        for one in self.attempts:
            self._metrics.add(ATTEMPTS, provider=one.provider, model=one.model, outcome=one.outcome)
        if error is not None:
            self._span.error = self._error(error)
        self._span.finish()

    def _attempt(self, attempt: Attempt) -> dict[str, Any]:
        about = {
            "provider": attempt.provider,
            "model": attempt.model,
            "seconds": round(attempt.seconds, 6),
            "outcome": attempt.outcome,
        }
        return about | {"message": attempt.message} if self._content and attempt.message else about

    def _error(self, error: BaseException) -> str:
        """Without content only what kind of error it was: a provider's message may quote what it was asked."""
        kind = type(error).__name__
        if self._content:
            return f"{kind}: {getattr(error, 'message', error)}"
        known = (getattr(error, name, None) for name in ("status", "code", "phase"))
        return " ".join([kind, *(str(value) for value in known if value is not None)])


def content_of(fields: Mapping[str, Any], names: Sequence[str] = ("messages", "input", "prompt", "query")) -> Any:
    """What was asked, out of a request's fields."""
    return {name: fields[name] for name in names if name in fields}
