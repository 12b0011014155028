"""Pages between what is still in use go back to the kernel."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import os
from windlass.core.memory import give_back_freed_memory

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before = resident()
blocks = [bytes(4_000) for _ in range(20_000)]
full = resident()
kept = blocks[::50]
del blocks
holes = resident()
give_back_freed_memory()
print(full - before, holes - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's heap is known to keep them")
def test_holes_between_what_is_in_use_are_given_back() -> None:
    env = {"PATH": "", "PYTHONPATH": ":".join(sys.path)}
    said = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
    full, holes, given_back = map(int, said.stdout.split())
    assert full > 75_000_000
    assert holes > 0.9 * full, "or this function were not needed"
    assert given_back < 0.1 * full
