"""What several calls took together."""

from __future__ import annotations

import asyncio

import pytest

from windlass.apply.wrappers.counted import Counted
from windlass.core.errors import ProviderError
from windlass.core.values import ChatRequest, Message, Usage
from windlass.testing import Scripted

ASK = ChatRequest([Message("user", "hello")])


def test_calls_add_up_in_every_way_of_asking() -> None:
    model = Counted(Scripted(*["a"] * 4, usage=Usage(input=3, output=2), cost_usd=0.5))
    assert model.cost_usd is None and model.calls == 0

    async def on_a_loop() -> None:
        await model.acomplete(ASK)
        async for _ in model.astream(ASK):
            pass

    model.complete(ASK)
    for _ in model.stream(ASK):
        pass
    asyncio.run(on_a_loop())
    assert model.calls == 4 and model.usage == Usage(input=12, output=8) and model.cost_usd == 2.0


def test_one_call_of_unknown_cost_makes_all_of_them_unknown() -> None:
    answers = Scripted("a", cost_usd=0.5)
    model = Counted(answers)
    model.complete(ASK)
    model.model = Scripted("b")
    model.complete(ASK)
    model.model = Scripted("c", cost_usd=0.5)
    model.complete(ASK)
    assert model.calls == 3 and model.cost_usd is None


def test_a_call_that_failed_is_not_counted() -> None:
    model = Counted(Scripted(ProviderError("away")))
    with pytest.raises(ProviderError):
        model.complete(ASK)
    assert model.calls == 0 and model.cost_usd is None
