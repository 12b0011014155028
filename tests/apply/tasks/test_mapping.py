"""A task over many items: order, journal, errors, bounds, and what it says about itself."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationInfo, field_validator

from windlass.apply.tasks import NoAnswer, Task, task
from windlass.core.errors import InputError, ProviderError, TimedOut, WorkspaceBusy
from windlass.core.values import ChatRequest, ChatResponse, ImagePart, Message, Usage
from windlass.testing import Scripted


@task
def size(text: str) -> int:
    """Say how long the text is."""
    raise NotImplementedError


class Answering:
    """An `AsyncChatModel` that answers by a function of the last message; out of order, if it is told to."""

    digest = None
    name = "answering"

    def __init__(self, answer: Callable[[str], Any] = len, shuffled: bool = False) -> None:
        self.asked: list[str] = []
        self.under_way = self.most = 0
        self._answer, self._shuffled = answer, shuffled

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        text = request.messages[1].text
        self.asked.append(text)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        for _ in range(len(text) % 7 if self._shuffled else 1):
            await asyncio.sleep(0)
        self.under_way -= 1
        answer = self._answer(text)
        if isinstance(answer, Exception):
            raise answer
        said = Message("assistant", json.dumps({"value": answer}))
        return ChatResponse("r", "m", said, "stop", Usage(input=10, output=1), 0.01)

    async def astream(self, request: ChatRequest) -> Any:
        raise NotImplementedError
        yield


def texts(count: int) -> list[str]:
    return ["x" * (n * 5 % 13) + str(n) for n in range(count)]


def test_results_come_in_order_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    model, journal = Answering(shuffled=True), tmp_path / "sizes" / "journal.jsonl"
    done = size.using(model=model).map(texts(50), journal=journal, at_once=7, progress=False)
    assert [result.value for result in done] == list(map(len, texts(50))) == [r.value for r in done], (
        "as often as asked"
    )
    assert [result.item for result in done] == list(range(50)) and model.most <= 7
    assert done.cost_usd == pytest.approx(0.5) and done.usage == Usage(input=500, output=50)
    assert str(done) == "50 of 50 items have a value, 0 failed; 550 tokens, $0.5000"
    on_disk = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line["item"] for line in on_disk if "item" in line] == list(range(50))
    again = size.using(model=model).map(texts(50), journal=journal, progress=False)
    assert len(model.asked) == 50 and again.resumed == 50 and again.spent_now.attempts == 0
    assert again.cost_usd == pytest.approx(0.5) and "this run: $0.0000" in str(again)


def test_answers_that_report_no_tokens_are_counted_as_such(tmp_path: Path) -> None:
    silent = ChatResponse("r", "m", Message("assistant", '{"value": 1}'), "stop", cost_usd=0.01)
    sizes = size.using(model=Scripted({"value": 1}, silent, cost_usd=0.01))
    done = sizes.map(["a", "b"], journal=tmp_path / "j", at_once=1, progress=False)
    assert str(done) == "2 of 2 items have a value, 0 failed; 15 tokens and 1 answers that report none, $0.0200"
    assert done.usage == Usage() and sorted(r.usage.total or 0 for r in done) == [0, 15]
    again = sizes.map(["a", "b"], journal=tmp_path / "j", progress=False)
    assert again.resumed == 2 and again.usage == Usage()


def test_without_a_journal_nothing_is_left_behind() -> None:
    done = size.using(model=Answering()).map(["a", "bb"], progress=False)
    assert [result.value for result in done] == [1, 2] and done.journal.exists()
    path = done.journal
    del done
    assert not path.exists()


def test_more_items_other_tasks_and_equal_items(tmp_path: Path) -> None:
    model, journal = Answering(), tmp_path / "j.jsonl"
    sizes = size.using(model=model)
    sizes.map(["a", "b", "a"], journal=journal, progress=False)
    assert model.asked == ["a", "b", "a"], "equal items are items of their own"
    done = sizes.map(["c", "a", "b", "a", "a"], journal=journal, progress=False)
    assert sorted(model.asked[3:]) == ["a", "c"] and done.resumed == 3 and done.values == 5
    done = sizes.using(temperature=1).map(["a"], journal=journal, progress=False)
    assert len(model.asked) == 6 and done.left == 5, "another version of the task is another question"
    done = sizes.map(["c", "a", "b", "a", "a"], journal=journal, progress=False)
    assert len(model.asked) == 6 and done.resumed == 5 and "1 lines of the journal belong to other items" in str(done)


def test_items_are_read_as_they_are_needed_and_stored_before_the_next(tmp_path: Path) -> None:
    journal, pulled = tmp_path / "j.jsonl", 0

    def stream() -> Iterator[str]:
        nonlocal pulled
        for n in range(200):
            stored = sum(b'"item"' in line for line in journal.read_bytes().splitlines())
            assert n - stored < 4, "an item is taken before the last answers are stored"
            pulled += 1
            yield f"text {n}"

    done = size.using(model=Answering()).map(stream(), journal=journal, at_once=4, progress=False)
    assert pulled == len(done) == 200


def test_errors_are_results(tmp_path: Path) -> None:
    def answer(text: str) -> Any:
        return {
            "bad": "no number",
            "down": ProviderError("It is down.", status=500),
            "slow": TimedOut("Too late."),
        }.get(text, len(text))

    model, journal = Answering(answer), tmp_path / "j.jsonl"
    sizes = size.using(model=model, attempts=2)
    items = ["good", "bad", "down", "slow", "fine"]
    done = sizes.map(items, journal=journal, progress=False)
    found = dict(zip(items, done, strict=True))
    assert (done.values, done.failed) == (2, 3) and found["good"].value == 4 and found["bad"].value is None
    assert found["bad"].kind == "NoAnswer" and "No answer fits after 2 attempts" in (found["bad"].error or "")
    assert found["bad"].attempts == 2 and found["bad"].cost_usd == pytest.approx(0.02)
    assert found["down"].kind == "ProviderError" and found["slow"].kind == "TimedOut" and found["slow"].attempts == 0
    # The next run asks those that had no answer, and those that had one only if it is told to.
    model._answer, model.asked = len, []
    done = sizes.map(items, journal=journal, progress=False)
    assert sorted(model.asked) == ["down", "slow"] and (done.values, done.failed) == (4, 1)
    model.asked = []
    done = sizes.map(items, journal=journal, retry_errors=True, progress=False)
    assert model.asked == ["bad"] and done.values == 5
    assert [result.value for result in done] == [4, 3, 4, 4, 4]
    assert done.cost_usd == pytest.approx(0.07), "what the failed attempts cost stays in the sum"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line["item"] for line in lines if "item" in line] == [0, 1, 2, 3, 4] and not any(
        "instead" in x for x in lines
    )


def test_what_was_paid_before_the_provider_failed_is_counted(tmp_path: Path) -> None:
    answers = iter(["no number", ProviderError("Down.", status=503)])
    done = size.using(model=Answering(lambda _: next(answers))).map(["a"], progress=False)
    (result,) = done
    assert result.kind == "ProviderError" and result.attempts == 1 and result.cost_usd == pytest.approx(0.01)


def test_raise_ends_the_map_and_keeps_what_is_done(tmp_path: Path) -> None:
    model, journal = Answering(lambda text: "?" if text == "bad" else 1), tmp_path / "j.jsonl"
    sizes = size.using(model=model, attempts=1)
    items = ["a", "b", "bad", *texts(50)]
    with pytest.raises(NoAnswer, match="after 1 attempt"):
        sizes.map(items, journal=journal, at_once=2, on_error="raise", progress=False)
    first = len(model.asked)
    assert first < 10
    with pytest.raises(NoAnswer, match=r"Item 2 failed in an earlier run: .*\n.*retry_errors"):
        sizes.map(items, journal=journal, at_once=2, on_error="raise", progress=False)
    done = sizes.map(items, journal=journal, at_once=2, progress=False)
    assert done.failed == 1 and done.values == 52 and len(model.asked) == 53 and done.repeated == 0


@pytest.mark.parametrize("error", [ProviderError("No key.", status=401), ProviderError("Which?", status=404)])
def test_a_provider_that_lets_nobody_in_ends_the_map(error: ProviderError) -> None:
    model = Answering(lambda _: error)
    with pytest.raises(ProviderError, match=error.message):
        size.using(model=model).map(texts(100), at_once=3, progress=False)
    assert len(model.asked) <= 3


@pytest.mark.parametrize("status", [None, 503])
def test_a_provider_that_never_answers_is_not_asked_for_every_item(status: int | None, tmp_path: Path) -> None:
    down, journal = ProviderError("It cannot be reached.", status=status), tmp_path / "j.jsonl"
    model = Answering(lambda _: down)
    with pytest.raises(ProviderError, match="cannot be reached"):
        size.using(model=model).map(texts(200), journal=journal, at_once=4, progress=False)
    assert 20 <= len(model.asked) <= 24
    done = size.using(model=Answering()).map(texts(200), journal=journal, progress=False)
    assert done.values == 200 and done.failed == 0


def test_a_provider_that_answered_once_may_be_down_for_a_while() -> None:
    model = Answering(lambda text: 1 if text.endswith("x0") or text == "0" else ProviderError("Down."))
    done = size.using(model=model).map(texts(100), at_once=1, progress=False)
    assert done.failed == 99


def test_a_fault_in_the_code_is_raised_and_no_answer_is_lost(tmp_path: Path) -> None:
    model, journal = Answering(lambda text: KeyError("bug") if text == "bad" else 1), tmp_path / "j.jsonl"
    with pytest.raises(KeyError, match="bug"):
        size.using(model=model).map(["a", "bad", "c", "d"], journal=journal, at_once=2, progress=False)
    stored = [json.loads(line) for line in journal.read_text().splitlines()]
    assert sum("item" in line for line in stored) == len(model.asked) - 1


@dataclass
class Place:
    street: str
    number: int


@task
def name(shop: Place, city: str = "Bern") -> str:
    """Name the shop."""
    raise NotImplementedError


@task
def first(record: dict[str, int]) -> str:
    """Say the first."""
    raise NotImplementedError


def test_items_of_files(tmp_path: Path) -> None:
    file = tmp_path / "shops.jsonl"
    rows: list[Any] = [
        {"shop": {"street": "High St", "number": 3}}, {"shop": {"street": "Low St", "number": "many"}},
        {"shop": {"street": "A", "number": 1}, "town": "Thun"}, {"city": "Thun"},
    ]  # fmt: skip
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n{broken\n")
    model = Scripted("The bakery")
    done = name.using(model=model).map(file, at_once=1, progress=False)
    assert [result.value for result in done] == ["The bakery", None, None, None, None]
    faults = [result.error or "" for result in done]
    assert "shops.jsonl, line 2, field 'shop': number: Input should be a valid integer" in faults[1]
    assert "line 3 has a field 'town'; 'name' takes shop, city." in faults[2]
    assert "line 4: name() missing a required argument: 'shop'" in faults[3]
    assert "line 6 is not JSON" in faults[4]
    assert "<city>\nBern\n</city>" in model.last.messages[-1].text


def test_items_that_can_not_be(tmp_path: Path) -> None:
    sizes = size.using(model=Answering())
    with pytest.raises(InputError, match="Item 0 has a field 'txt'; 'size' takes text"):
        sizes.map([{"txt": "a"}], progress=False)
    with pytest.raises(InputError, match="A mapping is one item"):
        sizes.map({"text": "a"}, progress=False)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"empty\.jsonl holds no item"):
        sizes.map(tmp_path / "empty.jsonl", progress=False)
    with pytest.raises(InputError, match=r"missing\.jsonl cannot be read: No such file"):
        sizes.map(str(tmp_path / "missing.jsonl"), progress=False)
    with pytest.raises(InputError, match="at_once=0"):
        sizes.map(["a"], at_once=0, progress=False)
    model = Scripted("one")
    assert [r.value for r in first.using(model=model).map([{"one": 1}], progress=False)] == ["one"]


def test_journals_that_are_none(tmp_path: Path) -> None:
    sizes = size.using(model=Answering())
    notes = tmp_path / "notes.jsonl"
    notes.write_text('{"text": "mine"}\nno newline')
    with pytest.raises(InputError, match=r"notes\.jsonl is no journal of a map"):
        sizes.map(["a"], journal=notes, progress=False)
    assert notes.read_text() == '{"text": "mine"}\nno newline'
    journal = tmp_path / "j.jsonl"
    sizes.map(["a", "b"], journal=journal, progress=False)
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b'{"key": 7}\n', *lines[1:]]))
    with pytest.raises(InputError, match=r"j\.jsonl, line 2, is broken"):
        sizes.map(["a"], journal=journal, progress=False)
    for cut in (1, len(lines[0]) - 1, len(lines[0]) + 9):
        journal.write_bytes(whole[:cut])
        done = sizes.map(["a", "b"], journal=journal, progress=False)
        assert [result.value for result in done] == [1, 1]


def test_one_journal_for_one_map_at_a_time(tmp_path: Path) -> None:
    began, finish, journal = threading.Event(), threading.Event(), tmp_path / "j.jsonl"

    def wait(text: str) -> int:
        began.set()
        assert finish.wait(60)
        return 1

    sizes = size.using(model=Answering(wait))
    thread = threading.Thread(target=lambda: sizes.map(["a"], journal=journal, progress=False))
    thread.start()
    assert began.wait(60)
    with pytest.raises(WorkspaceBusy, match="Another map is already at work with the journal"):
        sizes.map(["b"], journal=journal, progress=False)
    finish.set()
    thread.join(60)


def test_on_an_event_loop_and_within_one(tmp_path: Path) -> None:
    async def main() -> None:
        sizes = size.using(model=Answering())
        assert [r.value for r in await sizes.amap(["a", "bb"], progress=False)] == [1, 2]
        assert [r.value for r in sizes.map(["a", "bb"], progress=False)] == [1, 2], "as in a notebook"

    asyncio.run(main())


def test_cancelling_keeps_what_is_answered(tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"

    async def main() -> None:
        never = asyncio.Event()

        class Stuck(Answering):
            async def acomplete(self, request: ChatRequest) -> ChatResponse:
                if request.messages[1].text == "stuck":
                    await never.wait()
                return await super().acomplete(request)

        work = asyncio.create_task(
            size.using(model=Stuck()).amap(["a", "stuck", "b", "c"], journal=journal, at_once=2, progress=False)
        )
        while journal.exists() is False or journal.read_bytes().count(b'"item"') < 3:
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(main())
    done = size.using(model=Answering()).map(["a", "stuck", "b", "c"], journal=journal, progress=False)
    assert done.resumed == 3 and done.values == 4 and done.repeated == 2, "what was under way may be paid twice"


class Quote(BaseModel):
    words: str = Field(alias="Words")

    @field_validator("words")
    @classmethod
    def stands_there(cls, words: str, info: ValidationInfo) -> str:
        if words not in (info.context or {}).get("text", ""):
            raise ValueError("does not stand in the text")
        return words


@task
def quote(text: str) -> Quote:
    """Quote it."""
    raise NotImplementedError


def test_values_that_are_checked_against_their_inputs_come_back(tmp_path: Path) -> None:
    model = Scripted({"Words": "lift"}, {"Words": "load"})
    done = quote.using(model=model).map(["to lift", "a load"], at_once=1, journal=tmp_path / "j.jsonl", progress=False)
    assert [result.value.words for result in done if result.value] == ["lift", "load"]


def test_pictures_are_told_apart() -> None:
    def shop(photo: ImagePart) -> str:
        """Name the shop."""
        raise NotImplementedError

    shop.__annotations__ = {"photo": ImagePart, "return": str}
    model = Scripted("a", "b")
    photos = [ImagePart(data=b"1"), ImagePart(data=b"2")]
    assert [r.value for r in Task(shop).using(model=model).map(photos, at_once=1, progress=False)] == ["a", "b"]


def test_progress_says_rate_rest_and_money(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from windlass.core import progress

    lines: list[str] = []
    monkeypatch.setattr(
        progress.Progress, "update", lambda self, done, note="": lines.append(self.line(self._since + 2, note))
    )
    model = Answering(lambda text: "?" if text == "bad" else 1)
    size.using(model=model, attempts=1).map(["a", "bad", "c"], at_once=1)
    assert lines[-1].startswith("size: 0/3 items") and lines[-1].endswith("$0.0300 · 1 failed")
