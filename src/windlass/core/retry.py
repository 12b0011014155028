"""When to ask a server again, and how long to wait before: its `Retry-After`, else a doubling wait with jitter."""

from __future__ import annotations

import contextlib
import email.utils
import random
import time
from collections.abc import Mapping
from typing import Final

AGAIN: Final = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which the same request may succeed."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from headers whose names are in lower case; None when it does not say."""
    with contextlib.suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def backoff(attempt: int) -> float:
    """Seconds before try number `attempt` + 2: doubling from half a second to eight, a quarter up or down by chance."""
    return float(min(8.0, 0.5 * 2**attempt) * random.uniform(0.75, 1.25))
