"""`windlass slack`: what it says when it cannot start, and that it starts against a Slack of our own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windlass.cli.main import main
from windlass.core.workspace import Workspace


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Workspace(tmp_path).close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLACK_APP_TOKEN", raising=False)
    monkeypatch.delenv("SLACK_BOT_TOKEN", raising=False)
    return tmp_path


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["slack", *arguments]) != 0
    return capsys.readouterr().err


def test_the_manifest_asks_for_what_the_bot_uses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slack", "--manifest"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["settings"]["socket_mode_enabled"] and manifest["settings"]["interactivity"]["is_enabled"]
    assert {"app_mention", "message.im"} == set(manifest["settings"]["event_subscriptions"]["bot_events"])


@pytest.mark.parametrize(
    ("arguments", "tokens", "wanted"),
    [
        ([], {}, "SLACK_BOT_TOKEN is empty"),
        ([], {"SLACK_BOT_TOKEN": "sk-something"}, "begins with xoxb-"),
        ([], {"SLACK_BOT_TOKEN": "xoxb-1"}, "SLACK_APP_TOKEN is empty"),
        (["--link", "ftp://x/{source}"], {}, "is no address"),
        (["--link", "https://x/{page}"], {}, "cannot be filled in"),
        (["--access", "nowhere.toml"], {}, "nowhere.toml cannot be read"),
    ],
)
def test_what_is_wrong_is_said(
    here: Path,
    arguments: list[str],
    tokens: dict[str, str],
    wanted: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in tokens.items():
        monkeypatch.setenv(name, value)
    message = said(arguments, capsys)
    assert wanted in message
    assert "sk-something" not in message
