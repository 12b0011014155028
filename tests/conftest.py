"""Shared by all tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import logging as absl_logging
from hypothesis import HealthCheck, settings

# As the command line does (see cli/main.py): where cores are shared, spinning threads make tests many times slower.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# `make test` runs two processes at once: one thread each, or they wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Workspaces wait for the disk at each commit. Where memory has room to spare, the folders of tests lie there instead.
_MEMORY = Path("/dev/shm")
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

# Processes that tests start import the same windlass as the tests themselves, installed or not.
_SRC = str(Path(__file__).resolve().parents[1] / "src")
os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (_SRC, os.environ.get("PYTHONPATH", "")) if p)

# A shell starts background jobs with Ctrl-C ignored, and processes inherit that; tests interrupt what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Its handler closes what it writes to when logging is configured anew, unless that is the process's own stream: were it
# the stream that tests are captured by, that would end all of them. rouge-score and tensorboard bring it.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

# How long an example takes says more about the machine's other work than about the code. Where CI is set, hypothesis
# has a profile of its own, which allows the same and draws the same examples each time.
settings.register_profile("desk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if not os.environ.get("CI"):
    settings.load_profile("desk")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no `mount` on this machine")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "windlass-test", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root can make a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
