"""A map whose process is killed half way pays for no item twice that was acknowledged."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.apply.counting_provider import Counting
from tests.apply.tasks.map_world import at, length

WORLD = Path(__file__).parent / "map_world.py"


def length_of_the_last(body: Mapping[str, Any]) -> tuple[str, str]:
    text = body["messages"][1]["content"]
    return text, json.dumps({"value": len(text)})


def killed_and_resumed(folder: Path, count: int, at_once: int, kills: int) -> None:
    items, journal = folder / "items.jsonl", folder / "journal.jsonl"
    items.write_text("".join(f"{json.dumps('x' * (n % 40) + str(n))}\n" for n in range(count)))
    with Counting(length_of_the_last, "m-2026") as provider:
        acknowledged: set[int] = set()
        for kill in range(kills):
            provider.enough.clear()
            provider.limit = (kill + 1) * count // (kills + 1)
            process = subprocess.Popen(
                [sys.executable, str(WORLD), provider.url, str(items), str(journal), str(at_once)]
            )
            assert provider.enough.wait(240), "the map never came half way"
            process.kill()
            assert process.wait(30) == -9
            lines = [json.loads(line) for line in journal.read_bytes().split(b"\n")[:-1]]
            now = {line["item"] for line in lines if "item" in line}
            assert acknowledged <= now and len(now) < count
            acknowledged = now
        paid = Counter(provider.asked)
        before = journal.read_bytes()
        journal.write_bytes(before + b'{"item":3,"key":"torn')  # as a power cut would leave it
        done = length.using(model=at(provider.url)).map(items, journal=journal, at_once=at_once, progress=False)
        texts = [json.loads(line) for line in items.read_text().splitlines()]
        for number in acknowledged:
            assert provider.asked[texts[number]] == paid[texts[number]], "an acknowledged item was asked again"
        repeated = provider.asked.total() - count
        assert set(provider.asked) == set(texts) and 0 <= repeated <= kills * at_once
        assert max(provider.asked.values()) <= 1 + kills
        assert done.repeated == kills * at_once and "were under way when an earlier run died" in str(done)
        assert len(done) == done.values == count and done.resumed == len(acknowledged)
        assert [result.value for result in done] == list(map(len, texts))
        assert done.cost_usd == pytest.approx(count * 24e-6), "each answer that stands is counted once"
        assert done.spent_now.known_usd == pytest.approx((count - len(acknowledged)) * 24e-6)
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        assert [line["item"] for line in lines if "item" in line] == list(range(count)), "in the order of the items"
        once_more = length.using(model=at(provider.url)).map(items, journal=journal, progress=False)
        assert provider.asked.total() == count + repeated and once_more.resumed == count and once_more.repeated == 0


def test_a_killed_map_goes_on(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, 120, 8, kills=1)


@pytest.mark.slow
def test_ten_thousand_items_killed_half_way(tmp_path: Path) -> None:
    begun = time.monotonic()
    killed_and_resumed(tmp_path, 10_000, 32, kills=1)
    print(f"10,000 items, killed half way: {time.monotonic() - begun:.0f} s")


@pytest.mark.slow
def test_a_map_that_is_killed_again_and_again(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, 400, 16, kills=4)
