"""What the gateway sees in the events that pass through it."""

from __future__ import annotations

import pytest

from windlass.core import sse
from windlass.core.values import Usage
from windlass.serve.gateway import events


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no"),
        (b'{"error": {"message": "full"}}', "full"),
        (b'{"error": "full"}', "full"),
    ],
)
def test_broken_events_are_named(data: bytes, why: str) -> None:
    with pytest.raises(sse.BadEvent, match=why):
        events.ChoicesWatcher().see(data)


def test_usage_is_read_where_providers_put_it() -> None:
    alone, beside = events.ChoicesWatcher(), events.ChoicesWatcher()
    assert alone.see(b'{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}'), "nothing but usage"
    assert not beside.see(
        b'{"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}'
    )
    assert alone.usage == beside.usage == Usage(input=5, output=2) and beside.finish == "stop"
    assert not alone.see(b'{"choices": [{}], "usage": null}')
    assert alone.usage == Usage(input=5, output=2)
