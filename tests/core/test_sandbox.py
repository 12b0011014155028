"""Code of an answer gets nowhere, and ends."""

from __future__ import annotations

import socket
import time

import pytest

from windlass.core.errors import InputError
from windlass.core.sandbox.process import Limits, confinement, run

needs_lock = pytest.mark.skipif(confinement().startswith("WARNING"), reason="this system cannot lock a process in")


def inside(body: str, limits: Limits | None = None) -> list[str]:
    """What a call gives whose function an answer has defined."""
    code = "import os, sys\ndef attack():\n" + "".join(f"    {line}\n" for line in body.splitlines())
    return run("calls", {"code": code, "calls": ["attack()", "'alive'"]}, limits)


@needs_lock
@pytest.mark.parametrize(
    "body",
    [
        "return open('/etc/passwd').read()",
        "return os.listdir('/')",
        "return open('left_behind', 'w').write('x')",
        "assert os.system('true') == 0\nreturn 'ran'",
        "import subprocess\nreturn subprocess.run(['true']).returncode",
        "return os.fork()",
        "return os.kill(os.getppid(), 9) or 'killed'",
        "import threading\nthreading.Thread(target=print).start()\nreturn 'started'",
        "import ctypes\nassert ctypes.CDLL(None).fork() >= 0\nreturn 'forked'",
        "return os.readlink('/proc/self/exe')",
        "os.chdir('/')\nreturn 'moved'",
    ],
)
def test_what_code_of_an_answer_cannot_do(body):
    assert inside(body) == ["", '"alive"']


@needs_lock
def test_code_of_an_answer_reaches_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = inside(f"import _socket\ns = _socket.socket()\ns.connect(('127.0.0.1', {port}))\nreturn 'connected'")
        assert found == ["", '"alive"']


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "x = []\nwhile True: x.append(bytearray(1 << 24))",
        "while True: os.write(3, b'x' * (1 << 16))",
        "while True: print('x' * 4096)",
        "def f(): return f()\nsys.setrecursionlimit(10**9)\nreturn f()",
        "while True:\n    try: os.fork()\n    except OSError: pass",
        "import time\ntime.sleep(1000)",
        "return 10 ** 10 ** 10",
    ],
)
def test_code_of_an_answer_ends(body):
    began = time.monotonic()
    found = inside(body, Limits(seconds=1))
    assert time.monotonic() - began < 8
    assert sum(map(len, found)) <= Limits().output


def test_no_environment_and_an_empty_folder(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    (found, _) = inside("return sorted(os.environ)")
    assert "SECRET_KEY" not in found


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"memory": 1000}, {"output": 10}])
def test_limits_in_which_nothing_works_are_refused(limits):
    with pytest.raises(InputError, match="No process can work within"):
        Limits(**limits)
