"""No test of this folder opens a connection beyond this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from windlass.testing import loopback_only


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    with loopback_only():
        yield
