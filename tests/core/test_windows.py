"""The dated table of context windows, and what a workspace adds to it."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from windlass.core.config import load_config
from windlass.core.errors import ConfigError
from windlass.core.windows import Window, known_windows, window


def test_every_entry_is_dated_and_sourced_and_makes_sense() -> None:
    table = known_windows()
    assert len(table) > 40
    for name, entry in table.items():
        assert datetime.date.fromisoformat(entry.as_of) and entry.source, name
        assert entry.context >= max(entry.input or 0, entry.output or 0) > -1, name


def test_a_date_at_the_end_of_a_name_may_be_missing() -> None:
    assert window("gpt-4o-2024-08-06", "openai") == window("gpt-4o", "openai")
    assert window("gpt-4o", "elsewhere") is None and window("gpt-99", "openai") is None


def test_a_workspace_adds_its_own(tmp_path: Path) -> None:
    (tmp_path / "windlass.toml").write_text(
        '[windows."openai/gpt-4o"]\ncontext = 100\n[windows."house-model"]\ncontext = 4096\noutput = 512\n'
    )
    extra = load_config(tmp_path).windows
    assert window("gpt-4o", "openai", extra=extra) == Window(100)
    assert window("house-model", "model.example", extra=extra) == Window(4096, output=512)
    (tmp_path / "windlass.toml").write_text('[windows."m"]\nsize = 4096\n')
    with pytest.raises(ConfigError, match="size"):
        load_config(tmp_path)
