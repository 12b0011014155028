"""A map by batch APIs: submit, poll, collect, ask again in the next batch, and go on after a crash at any point."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.apply.tasks.batch_world import LATE, PROVIDERS, AnthropicProvider, Failed, Provider

from windlass.apply.providers import known
from windlass.apply.providers.batches import batch as batches
from windlass.apply.providers.batches.batch import Batches
from windlass.apply.providers.batches.known import batches_of
from windlass.apply.providers.batches.openai import MARK
from windlass.apply.providers.dialects.azure import AzureDeployment
from windlass.apply.providers.dialects.bedrock import Bedrock
from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.dialects.dialect import Call
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint
from windlass.apply.tasks import task
from windlass.apply.tasks.mapping import batching
from windlass.core.errors import ProviderError, Unsupported
from windlass.core.values import Usage
from windlass.testing import Random, Scripted


@task
def size(text: str) -> int:
    """Say how long the text is."""
    raise NotImplementedError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LOOKS", (0.001, 0.002))


@pytest.fixture(params=list(PROVIDERS))
def made(request: pytest.FixtureRequest) -> Callable[..., Provider]:
    return PROVIDERS[request.param]


def texts(count: int) -> list[str]:
    return ["x" * (n % 5) for n in range(count)]


def test_a_map_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[..., Provider]) -> None:
    monkeypatch.setattr(batching, "LINES", 8)
    provider, journal = made(), tmp_path / "j.jsonl"
    sizes = size.using(model=provider.chat())
    done = sizes.map(texts(20), journal=journal, batch=True, progress=False)
    assert [result.value for result in done] == list(map(len, texts(20))) and len(provider.batches) == 3
    assert done.usage == Usage(input=2000, output=200) and done.cost_usd == pytest.approx(20 * 150e-6 / 2)
    again = sizes.map([*texts(20), "new"], journal=journal, batch=True, progress=False)
    assert again.resumed == 20 and again.values == 21 and provider.asked.count("new") == 1
    assert len(provider.asked) == 21 and len(provider.batches) == 4
    mixed = sizes.map([*texts(20), "new"], journal=journal, progress=False)
    assert mixed.resumed == 21, "however it was asked, it is the same answer"


def test_answers_that_do_not_fit_go_into_the_next_batch(made: Callable[..., Provider]) -> None:
    provider = made(lambda text, attempt: "many" if text == "bad" or (text == "odd" and attempt == 1) else 3)
    done = size.using(model=provider.chat(), attempts=2).map(["good", "odd", "bad"], batch=True, progress=False)
    assert [result.value for result in done] == [3, 3, None] and len(provider.batches) == 2
    good, odd, bad = done
    assert (good.attempts, odd.attempts, bad.attempts) == (1, 2, 2) and bad.kind == "NoAnswer"
    assert sorted(provider.asked) == ["bad", "bad", "good", "odd", "odd"]


def test_requests_that_fail_or_expire_and_requests_without_an_answer(
    tmp_path: Path, made: Callable[..., Provider]
) -> None:
    provider = made(lambda text, _: {"long": Failed("Too long."), "late": LATE, "lost": None}.get(text, 1))
    sizes, journal = size.using(model=provider.chat()), tmp_path / "j.jsonl"
    items = ["fine", "long", "late", "lost"]
    done = sizes.map(items, journal=journal, batch=True, progress=False)
    _, long, late, lost = [result.error or "" for result in done]
    assert done.values == 1 and "Too long." in long and "without an answer" in lost
    assert "Too late." in late or "expired before its turn came" in late or LATE in late
    provider.answer = lambda text, _: 1
    done = sizes.map(items, journal=journal, batch=True, progress=False)
    assert done.values == 4 and provider.asked == [*items, *items[1:]]


@pytest.mark.parametrize("point", ["submit", "note", "look", "results", "store"])
def test_a_crash_at_any_point_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, made: Callable[..., Provider]
) -> None:
    class Crash(BaseException):
        """As a kill: nothing is tidied up."""

    provider, journal = made(lambda text, attempt: "?" if text == "xx" and attempt == 1 else 1), tmp_path / "j"
    sizes, items = size.using(model=provider.chat()), texts(10)

    def crash(*_: Any) -> Any:
        raise Crash

    with monkeypatch.context() as patch:
        api = Batches
        if point == "submit":  # the batch is made, and nobody hears of it
            submit = api.submit

            async def lost(self: Any, *its: Any) -> Any:
                await submit(self, *its)
                raise Crash

            patch.setattr(api, "submit", lost)
        elif point == "note":
            patch.setattr(api, "ended", crash)
        elif point == "look":
            patch.setattr(api, "look", crash)
        elif point == "results":
            patch.setattr(api, "results", crash)
        else:
            stored = iter(range(4))
            answered = batching._Work._answered

            async def some(self: Any, one: Any, line: Any) -> Any:
                if next(stored, None) is None:
                    raise Crash
                return await answered(self, one, line)

            patch.setattr(batching._Work, "_answered", some)
        with pytest.raises((Crash, BaseExceptionGroup)):
            sizes.map(items, journal=journal, batch=True, progress=False)
    assert len(provider.asked) == 10
    done = sizes.map(items, journal=journal, batch=True, progress=False)
    assert done.values == 10 and [result.attempts for result in done] == [2 if t == "xx" else 1 for t in items]
    assert len(provider.asked) == 12, "ten items, and two that were asked again with their fault"
    assert done.cost_usd == pytest.approx(12 * 75e-6)


@pytest.mark.parametrize("status", [None, 503])
def test_a_batch_that_is_made_while_its_answer_is_lost_is_not_made_again(
    made: Callable[..., Provider], status: int | None
) -> None:
    provider = made()
    provider.lost = [status]
    done = size.using(model=provider.chat()).map(texts(3), batch=True, progress=False)
    assert done.values == 3 and len(provider.batches) == 1


def test_requests_that_are_too_many_bytes_for_one_batch_go_into_several(
    monkeypatch: pytest.MonkeyPatch, made: Callable[..., Provider]
) -> None:
    monkeypatch.setattr(type(batches_of(made().chat())), "largest", 2000)
    provider = made()
    done = size.using(model=provider.chat()).map(["x" * 900, "y" * 900, "z" * 1900, "w"], batch=True, progress=False)
    assert [result.value for result in done] == [900, 900, 1900, 1] and len(provider.batches) in (3, 4)


def test_a_batch_of_an_earlier_run_that_was_refused_is_made_anew(tmp_path: Path) -> None:
    for made in (Provider, PROVIDERS["gemini"], PROVIDERS["mistral"]):
        provider, journal = made(), tmp_path / made.__name__
        provider.refuses = True
        sizes = size.using(model=provider.chat())
        for _ in range(2):  # nothing of it was answered: there is nothing to find
            with pytest.raises(ProviderError, match=r"batch-\d was refused: Line 1 is odd\."):
                sizes.map(["a"], journal=journal, batch=True, progress=False)
        provider.refuses = False
        assert sizes.map(["a"], journal=journal, batch=True, progress=False).values == 1


def test_answers_that_are_kept_no_longer_are_not_paid_for_again_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[..., Provider]
) -> None:
    provider, journal = made(), tmp_path / "j"
    sizes = size.using(model=provider.chat())
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "ended", lambda self, batch: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sizes.map(["a"], journal=journal, batch=True, progress=False)
    provider.gone = True
    for _ in range(2):
        with pytest.raises(ProviderError, match="kept no longer") as raised:
            sizes.map(["a"], journal=journal, batch=True, progress=False)
        assert len(provider.asked) == 1
    said = raised.value.hint
    begins = said[said.index("{") : said.rindex(".")]
    kept = [line for line in journal.read_text().splitlines() if not line.startswith(begins)]
    journal.write_text("".join(line + "\n" for line in kept))
    provider.gone = False
    assert sizes.map(["a"], journal=journal, batch=True, progress=False).values == 1 and len(provider.asked) == 2


def test_a_batch_that_is_not_ours_is_waited_for_and_left_alone(tmp_path: Path) -> None:
    """Where a batch cannot carry a mark."""
    provider = AnthropicProvider()
    sizes = size.using(model=provider.chat())
    sizes.map(["theirs"], batch=True, progress=False)
    journal = tmp_path / "j"
    head = {"journal": "windlass.map", "version": 1, "task": "size", "at_once": 1, "began": 1}
    lines = (head, {"batch": batches.new_mark()})
    journal.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    done = sizes.map(["ours"], journal=journal, batch=True, progress=False)
    assert done.values == 1 and provider.asked == ["theirs", "ours"]


def test_models_without_batches_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("deepseek", "openrouter", "together"):
        monkeypatch.setenv(known.PROVIDERS[name].variable, "key")
        with pytest.raises(Unsupported, match="has no batches that windlass can make"):
            size.using(model=known.model(f"{name}:m")).map(["a"], batch=True, progress=False)
    with pytest.raises(Unsupported, match="scripted has no batch API"):
        size.using(model=Scripted("1")).map(["a"], batch=True, progress=False)
    endpoint = Provider().chat().endpoint
    for dialect in (Bedrock("m"), AzureDeployment("m")):
        with pytest.raises(Unsupported, match="has no batches that windlass can make"):
            size.using(model=RemoteChat(endpoint, dialect)).map(["a"], batch=True, progress=False)


@pytest.mark.parametrize("said", [b"<html>Sign in</html>", b"[]", b"{}", b'{"data": 3, "status": []}'])
def test_nonsense_with_status_200_is_an_error_that_names_the_address(
    made: Callable[..., Provider], said: bytes
) -> None:
    provider = made()
    provider.handle = lambda request, path: httpx2.Response(200, content=said)  # type: ignore[method-assign]
    with pytest.raises(ProviderError, match=r"http://model\.example/v1"):
        size.using(model=provider.chat()).map(["a"], batch=True, progress=False)


def test_a_price_of_batches_that_is_not_known_is_none() -> None:
    provider = Provider()
    unpriced = RemoteChat(provider.chat().endpoint, ChatCompletions("m"), price_of=lambda model, usage: 1.0)
    done = size.using(model=unpriced).map(["a"], batch=True, progress=False)
    assert done.cost_usd is None and done.values == 1


def test_our_own_server_answers_batches(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("python_multipart")
    from windlass.serve.app import create_app
    from windlass.serve.run import ServerThread

    with ServerThread(create_app({"anything": Random(1)}, {}, folder=tmp_path / "server")) as server:
        remote = RemoteChat(Endpoint(f"{server.url}/v1"), ChatCompletions("anything"))
        done = size.using(model=remote).map(texts(6), journal=tmp_path / "j.jsonl", batch=True, progress=False)
        assert done.values == 6 and done.cost_usd is None and (done.usage.total or 0) > 0
        assert done.spent.attempts == 6

        async def found() -> None:
            api = batches_of(remote)
            page = await remote.endpoint.apost(Call("/batches", None))
            (only,) = page["data"]
            assert await api.find(only["metadata"][MARK]) == await api.look(only["id"])
            assert await api.find("another") is None
            await remote.aclose()

        asyncio.run(found())
