"""The workspace: found by walking up, made once, and keeping the secrets its settings name."""

from __future__ import annotations

from pathlib import Path

import pytest

from windlass.core.errors import ConfigError, NotFound
from windlass.core.workspace import Workspace, find_workspace


def test_the_nearest_workspace_upwards_is_found(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    with pytest.raises(NotFound, match="No workspace in"):
        find_workspace(below)
    Workspace(tmp_path).close()
    with find_workspace(below) as ws:
        assert ws.home == tmp_path.resolve()
    Workspace(tmp_path / "a").close()
    with find_workspace(below) as ws:
        assert ws.home == (tmp_path / "a").resolve()


def test_it_stays_out_of_version_control_and_keeps_what_is_there(tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        ws.store.set("k", 1)
        assert (ws.root / ".gitignore").read_text() == "*\n"
        (ws.root / ".gitignore").write_text("mine\n")
    with Workspace(tmp_path) as ws:
        assert ws.store.get("k") == 1
        assert (ws.root / ".gitignore").read_text() == "mine\n"


def test_the_key_that_the_settings_name_is_struck_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_ACCESS", "open sesame")
    (tmp_path / "windlass.toml").write_text('[model]\napi_key_env = "MY_ACCESS"\n')
    with Workspace(tmp_path) as ws:
        with ws.recorder.span("assistant") as span:
            span.input = "say open sesame"
        ws.recorder.flush()
        assert ws.store.trace(span.trace_id)[0].input == "say [redacted]"


def test_leaving_the_block_stores_what_was_recorded(tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws, ws.recorder.span("assistant") as span:
        pass
    with Workspace(tmp_path) as ws:
        assert len(ws.store.trace(span.trace_id)) == 1


def test_wrong_settings_are_said_before_anything_is_opened(tmp_path: Path) -> None:
    (tmp_path / "windlass.toml").write_text("[serve]\nprot = 1\n")
    with pytest.raises(ConfigError, match=r"unknown key 'serve\.prot'"):
        Workspace(tmp_path)
    assert not (tmp_path / ".windlass" / "windlass.db").exists()
