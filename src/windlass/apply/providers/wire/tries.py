"""How often a call is tried, how long is waited before the next time, and what is said when there is none."""

from __future__ import annotations

import httpx2

from windlass.apply.providers.dialects.dialect import Call
from windlass.apply.providers.wire.clock import Clock
from windlass.apply.providers.wire.replies import LATE, SILENT, Replies
from windlass.core.errors import ProviderError
from windlass.core.retry import AGAIN, backoff, retry_after
from windlass.core.spans import current_span

_LONGEST_WAIT = 60.0


class Tries:
    """Counts the tries of one call, and says how long to wait before the next. The last failure is raised."""

    def __init__(self, replies: Replies, retries: int, call: Call, clock: Clock) -> None:
        self._replies, self._retries, self._path, self._clock = replies, retries, call.path, clock
        self._failed = 0

    def after(self, error: Exception, again: bool = True) -> float:
        """No answer came."""
        address = f"{self._replies.base_url}{self._path}"
        if isinstance(error, LATE):
            self._clock.left()
            # It may be working on the first one: asking again would pay twice.
            if self._last() or isinstance(error, SILENT):
                raise ProviderError(
                    f"{address} did not answer in time ({type(error).__name__}).",
                    "Allow it more time (timeout_s under [model] in windlass.toml), or check the server.",
                ) from error
        elif self._last() or not again:
            raise ProviderError(
                f"{self._replies.base_url} cannot be reached ({self._replies.clean(str(error))}).",
                "Check base_url, and that the server is running.",
            ) from error
        return self._again(type(error).__name__, None)

    def after_status(self, response: httpx2.Response, again: bool = True) -> float:
        """An answer came, but no good one; it has been read."""
        if response.status_code not in AGAIN or self._last() or not (again or response.status_code == 429):
            raise self._replies.failure(self._path, response)
        return self._again(f"status {response.status_code}", retry_after(response.headers))

    def _last(self) -> bool:
        return self._failed >= self._retries

    def _again(self, why: str, asked: float | None) -> float:
        """What the server asks for, unless that is very long; and a line on the trace."""
        wait = asked if asked is not None and asked <= _LONGEST_WAIT else backoff(self._failed)
        self._failed += 1
        if (span := current_span()) is not None:
            span["windlass.retries"] = self._failed
            span[f"windlass.retry.{self._failed}"] = f"{why}, asked again after {wait:.2f} s"
        left = self._clock.left()
        return wait if left is None else min(wait, left)
