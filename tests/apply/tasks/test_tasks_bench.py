"""That `bench.tasks` measures what it says: the same request, the same answer, and the clock around all of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from bench import _tasks_contenders as contenders
from bench import tasks
from bench._tasks_provider import _CHAT, DEAL, MODEL
from tests.apply.provider_world import Loopback

from windlass.apply.tasks.surroundings import _found


def test_everybody_asks_for_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_KEY", "")
    _found.cache_clear()
    with Loopback() as server:
        server.answer((200, {}, json.dumps(_CHAT).encode()))
        assert contenders.bare(server.url).ask()["choices"] == _CHAT["choices"]
        ours = contenders.windlass(server.url)
        assert ours.ask().model_dump() == DEAL
        ours.flush()
        ours.check()
        sent: list[dict[str, Any]] = server.bodies()
    _found().close()
    _found().workspace.close()  # type: ignore[union-attr]
    _found.cache_clear()
    bare, task = sent
    assert bare.keys() == task.keys() and bare["model"] == task["model"] == MODEL
    assert bare["messages"] == task["messages"]
    forms = [body["response_format"]["json_schema"]["schema"] for body in sent]
    assert forms[0]["properties"].keys() == forms[1]["properties"].keys() == DEAL.keys()
    assert {key for _, headers, _ in server.requests for key in headers if key == "authorization"} == {"authorization"}


def test_contenders_run_in_processes_of_their_own(tmp_path: Path) -> None:
    with tasks.provider() as url:
        with tasks.started(sys.executable, "windlass", "loop", url) as one:
            assert isinstance(one, tasks.Process), one
            assert one.first["sdks"] == [] and one.first["first_cpu_s"] > 0
            took = one.take(calls=3)
            assert took["wall_s"] > 0 and took["cpu_s"] > 0
            tasks.told(url, "reset/0.3")
            took = one.take(at_once=20)
            assert took["wall_s"] > 0.3 and took["failed"] == 0
            assert 1 < tasks.told(url, "most") <= 20
        with tasks.started(sys.executable, "nobody", "wait", url) as nobody:
            assert nobody == "KeyError: 'nobody'"
        with tasks.started(str(tmp_path / "python"), "litellm", "wait", url) as nobody:
            assert nobody == f"there is no {tmp_path / 'python'}"


def test_what_the_figures_stand_for() -> None:
    def process(name: str, *microseconds: float) -> tasks.Process:
        first = {"first_cpu_s": 0.1, "sdks": []}
        one = tasks.Process(name, "loop", None, first)  # type: ignore[arg-type]
        one.turns = [{"wall_s": us * 10 / 1e6, "cpu_s": us * 10 / 1e6} for us in microseconds]
        burst = {"wall_s": 1.0, "cpu_s": 0.5, "under_way": 1000, "failed": 0, "why": None}
        one.bursts = [{**burst, "resident": 50 << 20, "peak": peak << 20} for peak in (60, 61)]
        return one

    here = {
        one.name: one
        for one in (
            process("wire", 100, 110), process("bare", 400, 500), process("windlass", 440, 550),
            process("instructor", 1100, 1110), process("litellm", 2100, 2200),
        )
    }  # fmt: skip
    found = tasks._result({"wait": here, "loop": here}, {"windlass": 0.01, "windlass.task": 0.1}, {}, 10)
    assert found["ratio"] == pytest.approx((0.34 + 0.44) / 2, abs=1e-3) and found["against"] == "instructor, wait"
    assert found["vs_bare"] == found["vs_bare_cpu"] == 1.1 and found["ratio_cpu"] == found["ratio"] and found["holds"]
    assert (found["concurrent_mb"], found["concurrent_mb_later"]) == (10.0, 11.0)
    here.pop("instructor"), here.pop("litellm")
    found = tasks._result({"wait": here, "loop": here}, {"windlass": 0.2, "windlass.task": 0.1}, {"litellm": "no"}, 10)
    assert found["ratio"] is None and found["missing"] == {"litellm": "no"} and not found["holds"]
