"""Threads that come share the arenas that there are."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, re, tempfile, threading
from windlass.core.memory import limit_arenas

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fopen.restype = ctypes.c_void_p, ctypes.c_void_p
if {limited}:
    assert limit_arenas()
together = threading.Barrier(13)

def allocate():
    libc.malloc(100_000)
    together.wait(60)

threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads:
    thread.start()
together.wait(60)
with tempfile.NamedTemporaryFile("r") as told:
    file = ctypes.c_void_p(libc.fopen(told.name.encode(), b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
    print(len(re.findall("<heap nr=", told.read())))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
def test_threads_share_few_arenas() -> None:
    around = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}

    def arenas(limited: bool, **settings: str) -> int:
        said = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(limited=limited)],
            capture_output=True, text=True, check=True, timeout=120, env=around | settings,
        )  # fmt: skip
        return int(said.stdout)

    assert arenas(False) > 5 >= arenas(True)
    assert arenas(True, MALLOC_ARENA_MAX="7") in (7, 8), "who set it knows better"
