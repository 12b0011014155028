"""`windlass run` and `windlass task` as a person types them: what is wrong is one clear line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.apply.provider_world import KEY, Loopback, events, piece, reply

from windlass.cli.main import main
from windlass.core.workspace import Workspace

TASKS = """
from typing import Literal
from pydantic import BaseModel, ConfigDict
from windlass.apply.tasks import task

class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str

@task
def tone(review: str, year: int = 2026) -> Literal["good", "bad"]:
    "Say how the writer felt."

@task
def opened(text: str) -> Open:
    "Read it."

@task(prompt="nowhere@3")
def prompted(text: str) -> str:
    "Read it."
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with Workspace(tmp_path):
        return tmp_path


@pytest.fixture
def provider() -> Iterator[Loopback]:
    with Loopback() as made:
        yield made


def configure(home: Path, **settings: object) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in {"model": "m", **settings}.items()]
    (home / "windlass.toml").write_text("\n".join(["[model]", *lines]))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main([*words])
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and shown.count("windlass: ") == (status > 0) and KEY not in shown
    return status, shown


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "several tasks": (("run", "shop.py", "--input", "x"), "shop.py:NAME; it has tone, opened, prompted"),
    "no such file": (("run", "none.py", "--input", "x"), "There is no file none.py"),
    "no such task": (("run", "shop.py:none", "--input", "x"), "no task 'none'"),
    "no input": (("run", "shop.py:tone"), "missing a required argument: 'review'"),
    "an input of another type": (
        ("run", "shop.py:tone", "--input", "review=x", "--input", "year=soon"),
        "The input 'year' is not of its type: Input should be a valid integer",
    ),
    "an unknown provider": (("run", "shop.py:tone", "--input", "x", "--model", "opnai:m"), "Did you mean 'openai'"),
    "no provider": (("run", "shop.py:tone", "--input", "x", "--model", "gpt"), "Write provider:model"),
    "a missing key": (("run", "shop.py:tone", "--input", "x", "--model", "groq:m"), "GROQ_API_KEY is not set"),
    "an unknown setting": (("run", "shop.py:tone", "--input", "x", "--set", "temprature=1"), "no setting 'temprature'"),
    "a setting of another type": (
        ("run", "shop.py:tone", "--input", "x", "--set", "temperature=hot"),
        "'temperature' is 'hot', but must be a number",
    ),
    "a form that cannot be said": (("run", "shop.py:opened", "--input", "x"), "(what 'opened' returns)"),
    "a prompt that is not there": (("run", "shop.py:prompted", "--input", "x"), "no artifact 'nowhere@3'"),
    "code that fails": (("run", "fails.py", "--input", "x"), "fails.py, line 2, cannot be run: ZeroDivisionError"),
    "code that is none": (("run", "none_at_all.py", "--input", "x"), "SyntaxError"),
    "items that are not there": (("eval", "shop.py:tone", "none.jsonl"), "none.jsonl cannot be read"),
    "items of another form": (("eval", "shop.py:tone", "items.jsonl"), "Example 2 of items.jsonl"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_clear_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    configure(home, base_url="http://127.0.0.1:9/v1")
    (home / "fails.py").write_text("x = 0\ny = 1 / x\n")
    (home / "none_at_all.py").write_text("def x(:\n")
    items = [{"inputs": {"review": word}, "expected": word} for word in ("good", "great")]
    (home / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    words, told = REFUSED[case]
    status, shown = said(capsys, *words)
    assert status == 2 and told in shown


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("localhost:1", "windlass.toml: [model] base_url 'localhost:1' is not an http(s) URL"),
        ("https://ana:hunter2-pw@h/v1", "holds a name or a password before h"),
        ("", "windlass.toml: [model] has no base_url"),
    ],
)
def test_an_address_that_is_none(home: Path, capsys: pytest.CaptureFixture[str], url: str, told: str) -> None:
    configure(home, base_url=url)
    status, shown = said(capsys, "run", "shop.py:tone", "--input", "x")
    assert status == 2 and told in shown and "hunter2" not in shown


ANSWERS = {
    "a page": ((200, {"content-type": "text/html"}, b"<html>Welcome</html>"), "not with JSON: '<html>Welcome</html>'"),
    "half of JSON": ((200, {}, b'{"choices": ['), "not with JSON"),
    "a refusal": (reply("", refusal="I won't."), "The model declined: I won't."),
    "a storm": ((429, {"retry-after": "0"}, b'{"error": {"message": "slow down"}}'), "status 429: slow down"),
    "a wrong key": ((401, {}, b'{"error": {"message": "wrong key %s"}}' % KEY.encode()), "wrong key [key]"),
    "silence": ((0, {}, b""), "did not answer in time"),
    "no fit": (reply('{"value": "great"}'), "Input should be 'good' or 'bad' (got 'great')"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_a_provider_does_wrong(
    home: Path, provider: Loopback, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    answer, told = ANSWERS[case]
    configure(home, base_url=provider.url, timeout_s=0.3)
    provider.answer(answer)
    status, shown = said(capsys, "run", "shop.py:tone", "--input", "x")
    assert status == 1 and told in shown and len(shown.splitlines()) == 2
    with Workspace(home) as ws:
        (trace,) = ws.store.traces(errors=True)
        assert told in str(trace.root.error)


def test_a_stream_that_is_cut(home: Path, provider: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    configure(home, base_url=provider.url)
    provider.answer(events(piece('{"value": "go'), done=False))
    status, shown = said(capsys, "run", "shop.py:tone", "--input", "x", "--stream")
    assert status == 1 and shown.startswith("go\nwindlass: ") and "before the answer was finished" in shown


def test_the_one_input_that_is_needed_needs_no_name(
    home: Path, provider: Loopback, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(home, base_url=provider.url)
    provider.answer(reply('{"value": "good"}'))
    monkeypatch.setattr("sys.stdin", io.StringIO("Lovely."))
    assert main(["run", "shop.py:tone"]) == 0
    assert capsys.readouterr().out == "good\n" and "Lovely." in str(provider.bodies())


def test_a_list_shows_what_it_can(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["task", "list", "shop.py"]) == 0
    shown = capsys.readouterr().out
    assert "Say how the writer felt." in shown and "nowhere@3" in shown
