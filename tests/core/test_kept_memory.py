"""Freed memory is kept: the second of two equal allocations asks the kernel for nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from windlass.core.memory import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("not glibc")

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 80_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_the_second_time_no_page_is_new() -> None:
    def faults(how: str) -> int:
        env = {"PATH": "", "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", SCRIPT, how], env=env, capture_output=True, text=True)
        if done.returncode and "not glibc" in done.stderr:
            pytest.skip("another C library")
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert faults("leave") > 10_000
    assert faults("keep") < 1_000
