"""Code of an answer gets nowhere, and ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from windlass.core.errors import InputError
from windlass.core.sandbox.process import Limits, Sandbox, confinement, run, run_all

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
    found = inside(body, Limits(seconds=1))
    assert sum(map(len, found)) <= Limits().output


def test_no_environment_and_an_empty_folder(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    (found, _) = inside("return sorted(os.environ)")
    assert "SECRET_KEY" not in found


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"memory": 1000}, {"output": 10}])
def test_limits_in_which_nothing_works_are_refused(limits):
    with pytest.raises(InputError, match="No process can work within"):
        Limits(**limits)


def test_jobs_of_one_sandbox_know_nothing_of_each_other():
    with Sandbox() as sandbox:
        assert sandbox.run("calls", {"code": "import math\nmath.pi = 3\nx = 1", "calls": ["x", "math.pi"]}) == [
            "1",
            "3",
        ]
        assert sandbox.run("calls", {"code": "import math", "calls": ["x", "math.pi > 3"]}) == ["", "true"]
        assert sandbox.run("calls", {"code": "import os; os._exit(1)", "calls": ["1"]}) == []
        assert sandbox.run("calls", {"code": "", "calls": ["2"]}) == ["2"]


def test_many_jobs_in_their_order():
    jobs = [{"code": f"x = {number}", "calls": ["x"]} for number in range(20)]
    assert run_all("calls", jobs, at_once=3) == [[str(number)] for number in range(20)]
    assert run_all("calls", []) == []


ENDLESS = """
from windlass.core.sandbox.process import Limits, Sandbox, run_all
import sys, threading
class Told(Sandbox):
    def __init__(self):
        super().__init__()
        print(self._process.pid, flush=True)
import windlass.core.sandbox.process as process
process.Sandbox = Told
run_all("calls", [{"code": "import time; time.sleep(1000)", "calls": []}] * 50, Limits(seconds=SECONDS), 2)
"""


@pytest.mark.parametrize(("how", "seconds"), [(signal.SIGINT, 500), (signal.SIGKILL, 1)])
def test_whoever_is_stopped_leaves_nothing_running(how, seconds):
    """Ctrl-C ends jobs at once; where nobody could end them, they end when their time is over."""
    script = [sys.executable, "-c", ENDLESS.replace("SECONDS", str(seconds))]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline()) for _ in range(2)]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not all(map(children, pids)):
            time.sleep(0.05)
        below = [child for pid in pids for child in children(pid)]
        assert len(below) == 2
        process.send_signal(how)
        process.wait(30)
    while time.monotonic() < deadline + 30 and any(map(alive, [*pids, *below])):
        time.sleep(0.05)
    assert not any(map(alive, [*pids, *below]))


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        pytest.skip("this system tells no children of a process")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
