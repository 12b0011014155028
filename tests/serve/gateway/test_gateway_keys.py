"""Keys of the workspace before the gateway: scopes, budgets held before a call and settled after it, caches apart."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway_fakes import DONE, PIECES, USAGE, Act, Provider, error, event, good_stream, running, stall, stream, whole
from gateway_process import gateway, leading_to

from windlass.core.config import strict
from windlass.core.sqlite_store import SqliteStore
from windlass.core.trace import Recorder
from windlass.serve.gateway.app import create_gateway
from windlass.serve.gateway.config import GatewayConfig
from windlass.serve.keys import FILE, KeyLimits, Keys
from windlass.serve.ledger import BEHIND
from windlass.serve.run import ServerThread

PRICE = {"input": 1.0, "output": 2.0}
SPENT = (9 * 1 + 3 * 2) / 1e6
"""What the fake's answer costs by that price."""


class Keyed:
    """A gateway whose clients need keys."""

    def __init__(
        self, folder: Path, provider: Provider, url: str, keys: Keys, store: SqliteStore, recorder: Recorder
    ) -> None:
        self.provider = provider
        self.keys = keys
        self._url = url
        self._store = store
        self._recorder = recorder

    def client(self, *scopes: str, **limits: Any) -> tuple[Any, openai.OpenAI]:
        key, secret = self.keys.add(f"key {len(self.keys.all())}", scopes or ["generate"], KeyLimits(**limits))
        return key, openai.OpenAI(base_url=f"{self._url}/v1", api_key=secret, max_retries=0)

    def charged(self, key: Any, ready: Callable[[Any], bool] = lambda used: used.tokens > 0) -> Any:
        """What the key used, once that is counted, which is a moment after the answer."""
        until = time.monotonic() + 30
        while not ready(used := self.keys.used(key.id, "day")) and time.monotonic() < until:
            time.sleep(0.02)
        return used

    def span(self) -> Any:
        self._recorder.flush()
        return self._store.traces()[0].root


@contextlib.contextmanager
def keyed(folder: Path, *script: Act, price: Any = PRICE, **route: Any) -> Iterator[Keyed]:
    with running(*script) as provider, contextlib.ExitStack() as stack:
        target = {"provider": "one", "model": "small"} | ({} if price is None else {"price": price})
        values = {"providers": {"one": {"base_url": provider.url}}, "routes": {"m": {"targets": [target], **route}}}
        keys = stack.enter_context(contextlib.closing(Keys(folder / "keys.db")))
        store = stack.enter_context(contextlib.closing(SqliteStore(folder / "traces.db")))
        recorder = stack.enter_context(contextlib.closing(Recorder(store)))
        app = create_gateway(strict(GatewayConfig, values, where="test"), recorder, keys=keys)
        server = stack.enter_context(ServerThread(app))
        yield Keyed(folder, provider, server.url, keys, store, recorder)


def ask(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "2+2?"}], **more)


def test_a_key_opens_what_its_scopes_say(tmp_path: Path) -> None:
    with keyed(tmp_path, whole()) as gateway:
        _, reader = gateway.client("embed")
        with reader, pytest.raises(openai.PermissionDeniedError, match="lacks the scope 'generate'"):
            ask(reader)
        stranger = openai.OpenAI(base_url=str(reader.base_url), api_key="wl-wrong", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError):
            ask(stranger)
        key, writer = gateway.client("generate")
        with writer:
            assert ask(writer).choices[0].message.content == "four"
            assert [model.id for model in writer.models.list()] == ["m"]
        assert gateway.span().attributes["windlass.key"] == key.name
        assert len(gateway.provider.requests) == 1


def test_what_a_call_took_is_charged(tmp_path: Path) -> None:
    with keyed(tmp_path, whole(), good_stream(), error(500), retries=0) as gateway:
        key, client = gateway.client(dollars_per_day=1.0)
        with client:
            ask(client)
            used = gateway.charged(key)
            assert (used.requests, used.tokens, used.unpriced) == (1, 12, 0) and used.dollars == pytest.approx(SPENT)
            list(ask(client, stream=True))
            used = gateway.charged(key, lambda used: used.tokens > 12)
            assert used.tokens == 23 and used.dollars == pytest.approx(SPENT + (9 + 2 * 2) / 1e6)
            with pytest.raises(openai.InternalServerError):
                ask(client)
            assert gateway.charged(key, lambda used: used.requests == 3).tokens == 23, "a failure costs nothing"


def test_calls_under_way_hold_their_estimate_back(tmp_path: Path) -> None:
    with keyed(tmp_path, stream(PIECES[0], then="stall")) as gateway:
        key, client = gateway.client(dollars_per_day=0.005)
        with client:  # each may write 1000 tokens of 2 dollars a million
            open_ones = [ask(client, stream=True, max_tokens=1000) for _ in range(2)]
            with pytest.raises(openai.RateLimitError) as caught:
                ask(client, stream=True, max_tokens=1000)
            assert caught.value.code == "insufficient_quota" and "may use 0.005 dollars per day" in str(caught.value)
            assert int(caught.value.response.headers["Retry-After"]) <= 86400
            assert len(gateway.provider.requests) == 2, "the provider was not asked"
            small = ask(client, stream=True, max_tokens=10)
            for one in (*open_ones, small):
                one.close()
            used = gateway.charged(key, lambda used: used.dollars > 0.004)
            assert 0.004 < used.dollars < 0.005, "what was cut off costs its estimate"
            assert used.tokens > 2010


def test_a_used_budget_is_refused_before_the_call(tmp_path: Path) -> None:
    with keyed(tmp_path, whole()) as gateway:
        key, client = gateway.client(tokens_per_day=12)
        gateway.keys.charge(key, 12, 0.0)
        with client, pytest.raises(openai.RateLimitError, match="reached its limit of 12 tokens per day"):
            ask(client)
        assert gateway.provider.requests == []


def test_a_budget_in_dollars_needs_prices(tmp_path: Path) -> None:
    with keyed(tmp_path, whole(), price=None) as gateway:
        _, client = gateway.client(dollars_per_month=1.0)
        with client, pytest.raises(openai.BadRequestError, match="the price of 'small' at 'one' is not known"):
            ask(client)
        key, free = gateway.client(tokens_per_day=5000)
        with free:
            ask(free)
        used = gateway.charged(key)
        assert (used.tokens, used.dollars, used.unpriced) == (12, 0.0, 1), "an unknown cost is counted as unknown"


def test_a_client_that_leaves_before_any_answer_is_not_charged(tmp_path: Path) -> None:
    with keyed(tmp_path, stall) as gateway:
        key, client = gateway.client(dollars_per_day=1.0)
        with client, pytest.raises(openai.APITimeoutError):
            ask(client, timeout=0.3)
        assert gateway.provider.gone.wait(30)
        assert gateway.charged(key, lambda used: used.requests == 1).tokens == 0


def test_answers_are_kept_per_key(tmp_path: Path) -> None:
    with keyed(tmp_path, stream(*PIECES, event(USAGE), DONE), cache_s=60.0) as gateway:
        for _ in range(2):
            key, client = gateway.client()
            with client:
                for _ in range(2):
                    assert "".join(c.choices[0].delta.content or "" for c in ask(client, stream=True)) == "four"
            assert gateway.charged(key).tokens == 11, "an answer from the cache takes no tokens"
        assert len(gateway.provider.requests) == 2


@pytest.mark.parametrize("killed", [False, True])
def test_what_was_used_is_on_disk_after_the_end(tmp_path: Path, killed: bool) -> None:
    (tmp_path / ".windlass").mkdir()
    with contextlib.closing(Keys(tmp_path / ".windlass" / FILE)) as keys, running(whole()) as provider:
        key, secret = keys.add("ann", ["generate"], KeyLimits(requests_per_minute=1000))
        with (
            gateway(tmp_path, leading_to(provider, "small")) as process,
            openai.OpenAI(base_url=process.url, api_key=secret, max_retries=0) as client,
        ):
            for _ in range(10):
                ask(client)
            if killed:
                time.sleep(BEHIND + 0.3)  # then one more is let in only if those are on disk
                ask(client)
                process.kill()
            else:
                process.stop()
        used = keys.used(key.id, "day")
        assert (used.requests, used.tokens) == (10, 120) or (killed and (used.requests, used.tokens) >= (10, 120))
