"""Prices: known ones multiply, unknown ones are None."""

from __future__ import annotations

import datetime

import pytest

from windlass.core.pricing import Price, SellerPrices, find, list_prices, price, prices_at
from windlass.core.values import Usage


def test_every_entry_of_the_table_is_dated_and_plausible() -> None:
    table = list_prices()
    assert len(table) >= 12
    for name, entry in table.items():
        provider, _, model = name.partition("/")
        assert provider
        assert model
        assert datetime.date.fromisoformat(entry.as_of)
        assert entry.source.startswith("https://")
        assert 0 < entry.input < 100, name
        assert entry.output is None or entry.input < entry.output < 200, name
        if entry.peak is not None:
            assert entry.peak.price.input > entry.input and all(0 <= a < b <= 24 for a, b in entry.peak.hours), name
        assert entry.cache_read is None or 0 < entry.cache_read < entry.input, name
        assert entry.cache_write is None or entry.cache_write >= entry.input, name


def test_classes_are_priced_apart_and_added() -> None:
    usage = Usage(input=1_000, cache_read=10_000, cache_write=2_000, output=300, reasoning=200)
    cost = price("claude-sonnet-4-5", usage, "anthropic")
    assert cost == pytest.approx((1_000 * 3 + 10_000 * 0.3 + 2_000 * 3.75 + 500 * 15) / 1e6)


def test_a_dated_name_has_the_price_of_its_model() -> None:
    usage = Usage(input=1_000_000, output=1_000_000)
    assert price("gpt-4.1-mini-2025-04-14", usage) == price("gpt-4.1-mini", usage) == pytest.approx(2.0)
    assert price("claude-haiku-4-5-20251001", usage) == pytest.approx(6.0)
    assert price("gpt-4.1-mini-preview", usage) is None


def test_embedders_have_no_output() -> None:
    assert price("text-embedding-3-small", Usage(input=1_000_000)) == pytest.approx(0.02)
    assert price("text-embedding-3-small", Usage(input=5, output=1)) is None


@pytest.mark.parametrize(
    "usage",
    [Usage(), Usage(input=5), Usage(output=5), Usage(input=5, output=5, cache_write=1)],
    ids=["nothing", "no output", "no input", "a class without a price"],
)
def test_what_is_not_known_is_none(usage: Usage) -> None:
    assert price("gpt-4.1", usage) is None


def test_unknown_models_and_providers_have_no_price() -> None:
    usage = Usage(input=5, output=5)
    assert price("nobody-knows", usage) is None
    assert price("gpt-4.1", usage, "localhost") is None
    assert price("", usage) is None


def test_zero_tokens_cost_nothing_and_free_is_a_price() -> None:
    assert price("gpt-4.1", Usage(input=0, output=0)) == 0.0
    assert price("mine", Usage(input=5, output=5), extra={"mine": Price(0.0, 0.0)}) == 0.0


def test_own_prices_go_before_the_table() -> None:
    usage = Usage(input=1_000_000, output=0)
    extra = {
        "openai/gpt-4.1": Price(1.5, 6.0),
        "mine": Price(0.25, 1.0),
        "a/shared": Price(1.0),
        "b/shared": Price(2.0),
    }
    assert price("gpt-4.1", usage, extra=extra) == 1.5
    assert price("gpt-4.1", usage, "openai", extra=extra) == 1.5
    assert price("gpt-4.1-2025-04-14", usage, "openai", extra=extra) == 1.5
    assert price("mine", usage, "anything", extra=extra) == 0.25
    assert price("shared", usage, "b", extra=extra) == 2.0
    assert find("shared", extra=extra) is None, "two providers, two prices"


def test_reasoning_is_priced_as_output_unless_said_otherwise() -> None:
    assert Price(1.0, 2.0).of(Usage(input=0, output=0, reasoning=1_000_000)) == 2.0
    assert Price(1.0, 2.0, reasoning=3.0).of(Usage(input=0, reasoning=1_000_000)) == 3.0


def test_long_prompts_cost_more_where_they_do() -> None:
    """All of a call then costs more, not only what is above the line; tokens out of the cache count as prompt."""
    short = Usage(input=200_000, output=1000)
    assert price("gemini-2.5-pro", short, "google") == pytest.approx((200_000 * 1.25 + 1000 * 10) / 1e6)
    long = Usage(input=100_000, cache_read=100_001, output=1000)
    cost = price("gemini-2.5-pro", long, "google")
    assert cost == pytest.approx((100_000 * 2.5 + 100_001 * 0.25 + 1000 * 15) / 1e6)


def test_a_workspace_may_say_what_long_prompts_cost() -> None:
    own = Price(input=1, output=1, long_from=10, long=Price(input=2, output=2))
    assert price("m", Usage(input=11, output=0), extra={"m": own}) == pytest.approx(22e-6)


def test_names_that_move_have_no_price() -> None:
    assert price("mistral-large-latest", Usage(input=1, output=1), "mistral") is None


def test_batches_at_the_price_that_the_table_says() -> None:
    seller = prices_at("api.openai.com")
    usage = Usage(input=1_000_000, output=1_000_000)
    assert isinstance(seller, SellerPrices)
    whole, half = seller("gpt-4.1-mini", usage), seller.batch("gpt-4.1-mini", usage)
    assert whole is not None and half == pytest.approx(whole / 2)
    assert SellerPrices("here", {"m": Price(input=1.0, output=1.0)}).batch("m", usage) is None
    assert seller.batch("nobody-knows", usage) is None


def test_batches_cost_their_share_of_each_class() -> None:
    usage = Usage(input=1_000_000, cache_read=1_000_000, output=1_000_000)
    known = {"m": Price(2.0, 8.0, cache_read=0.2, batch=0.5), "n": Price(2.0, 8.0, cache_read=0.2)}
    assert SellerPrices("s", known).batch("m", usage) == pytest.approx(10.2 / 2)
    assert SellerPrices("s", known).batch("n", usage) is None, "it is not known what a batch costs"
    once = {"m": Price(2.0, 8.0, cache_read=0.2, batch=0.5, batch_cache_read=1.0)}
    assert SellerPrices("s", once).batch("m", usage) == pytest.approx(5.0 + 0.2)


def test_long_prompts_in_batches() -> None:
    long = Usage(input=300_000, cache_read=100_000, output=0)
    batched = SellerPrices("google").batch("gemini-2.5-pro", long)
    assert batched == pytest.approx((300_000 * 2.5 / 2 + 100_000 * 0.25) / 1e6)
    claude = Usage(input=1_000_000, cache_read=1_000_000, output=0)
    assert SellerPrices("anthropic").batch("claude-haiku-4-5", claude) == pytest.approx((1 + 0.1) / 2)
    assert SellerPrices("mistral").batch("mistral-small-2603", claude) is None


@pytest.mark.parametrize(
    ("moment", "dollars"),
    [
        ("2026-11-23T02:00:00+00:00", 0.3),  # a Monday
        ("2026-11-23T00:59:59+00:00", 0.15),
        ("2026-11-23T01:00:00+00:00", 0.3),
        ("2026-11-23T04:00:00+00:00", 0.15),
        ("2026-11-23T17:30:00+08:00", 0.3),
        ("2026-11-22T02:00:00+00:00", 0.15),  # a Sunday
        ("2026-10-01T02:00:00+00:00", 0.15),  # a holiday
        ("2026-10-08T02:00:00+00:00", 0.3),
        ("2027-01-04T05:00:00+00:00", 0.15),
        ("2027-01-04T02:00:00+00:00", None),  # nobody knows here whether people work on that day
    ],
)
def test_a_price_that_depends_on_the_hour(moment: str, dollars: float | None) -> None:
    known = find("deepseek-flash", "deepseek")
    assert known is not None
    assert known.of(Usage(input=1_000_000, output=0), datetime.datetime.fromisoformat(moment)) == dollars
    assert find("deepseek-v4-pro") == find("deepseek-v4-pro", "deepseek"), "no other seller has it"
    assert price("deepseek-v4-pro", Usage(input=1_000_000, output=0)) in (0.66, 1.32, None)


def test_a_dated_model_with_a_price_of_its_own() -> None:
    usage = Usage(input=1_000_000, output=0)
    assert price("gpt-4o-2024-05-13", usage, "openai") == 5.0
    assert price("gpt-4o-2024-11-20", usage, "openai") == 2.5


def test_one_model_at_two_sellers() -> None:
    usage = Usage(input=1_000_000, output=1_000_000)
    assert prices_at("api.groq.com")("openai/gpt-oss-20b", usage) == pytest.approx(0.375)
    assert prices_at("api.together.xyz")("openai/gpt-oss-20b", usage) == pytest.approx(0.25)
    assert price("openai/gpt-oss-20b", usage) is None
