"""A world that a test module prepares once, and of which each test gets a copy of its own.

The module says by `prepare(home)` what stands in it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.core.workspace import Workspace


@pytest.fixture(scope="module")
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("world")
    request.module.prepare(home).close()
    return home


@pytest.fixture
def ws(prepared: Path, tmp_path: Path) -> Iterator[Workspace]:
    """A fresh copy of the prepared world."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True, symlinks=True)
    with Workspace(tmp_path) as workspace:
        yield workspace
