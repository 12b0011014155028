"""Programs pass their tests or do not, whatever they try; pass@k beside the draws that it stands for."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from windlass.core.errors import InputError
from windlass.core.sandbox.process import Limits, confinement
from windlass.evaluate.metrics.code import (
    Program,
    Ran,
    first_function,
    humaneval,
    mbpp,
    pass_at_k,
    run_programs,
)

DATA = Path(os.environ.get("WINDLASS_DATA", "shared/data"))
HUMANEVAL, MBPP = DATA / "code/humaneval/HumanEval.jsonl.gz", DATA / "code/mbpp/mbpp_train.jsonl.gz"
SHORT = Limits(seconds=1)
needs_lock = pytest.mark.skipif(confinement().startswith("WARNING"), reason="this system cannot lock a process in")


def ran(code: str, tests: str = "assert True", limits: Limits | None = SHORT) -> Ran:
    return run_programs([Program(code, tests)], limits=limits)[0]


def test_programs_that_pass_and_that_fail_say_why() -> None:
    found = run_programs(
        [
            Program("def f(x): return x + 1", "assert f(1) == 2"),
            Program("def f(x): return x", "assert f(1) == 2, 'wrong'"),
            Program("def f(x:", "assert f(1) == 2"),
            Program("import numpy", ""),
        ]
    )
    assert found[0] == Ran(True, "") and [one.passed for one in found] == [True, False, False, False]
    assert found[1].why == "AssertionError: wrong" and found[2].why.startswith("SyntaxError")
    assert found[3].why.startswith("ModuleNotFoundError")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", "it was ended"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("while True: pass", "it was ended"),
        ("x = bytearray(1 << 40)", "MemoryError"),
        ("import os\nwhile True: os.write(3, b'x' * 65536)", "it was ended"),
        ("class T(Exception):\n    def __str__(self): raise self\nraise T", "it was ended"),
    ],
)
def test_programs_that_do_not_end_well(code: str, why: str) -> None:
    found = ran(code)
    assert not found.passed and found.why.startswith(why)


@needs_lock
@pytest.mark.parametrize(
    "code",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "open('/etc/passwd')",
        "open('left', 'w').write('x')",
        "import os; os.kill(os.getppid(), 9)",
    ],
)
def test_programs_get_nowhere(code: str) -> None:
    assert not ran(code).passed


@needs_lock
def test_programs_reach_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.01)
        address = server.getsockname()
        assert not ran(f"import _socket\n_socket.socket().connect({address!r})").passed
        with pytest.raises(TimeoutError):
            server.accept()


def test_programs_see_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    assert ran("import os", "assert 'SECRET_KEY' not in os.environ and 'hunter2' not in str(os.environ)").passed


def test_others_go_on_beside_a_program_that_hangs() -> None:
    found = run_programs([Program("while True: pass", ""), *[Program("x = 1", "assert x")] * 3], limits=SHORT)
    assert [one.passed for one in found] == [False, True, True, True]


def test_programs_that_are_refused() -> None:
    with pytest.raises(InputError, match="no programs"):
        run_programs([])
    with pytest.raises(InputError, match="0 programs at once"):
        run_programs([Program("", "")], at_once=0)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 4), (7, 5, 3), (4, 1, 4)])
def test_pass_at_k_is_the_share_of_draws_with_one_that_passes(n: int, c: int, k: int) -> None:
    draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k([n], [c], k) == pytest.approx(np.mean([any(draw) for draw in draws]))


def test_pass_at_k_of_many_samples() -> None:
    found = pass_at_k([200, 100, 200], [1, 100, 0], 100)
    assert found == pytest.approx([0.5, 1, 0])
    for n, c, k, message in (
        ([3], [1], 4, "pass@4 cannot be told from 3"),
        ([3], [4], 1, "More passed"),
        ([3], [-1], 1, "numbers that passed is -1"),
        ([3, 3], [1], 1, "2 numbers of samples and 1"),
        ([3], [1.5], 1, "no whole number"),
    ):
        with pytest.raises(InputError, match=message):
            pass_at_k(n, c, k)


PROBLEM = {
    "prompt": 'import math\n\n\ndef root(x):\n    """The root."""\n',
    "test": "def check(candidate):\n    assert candidate(9) == 3",
    "entry_point": "root",
}


@pytest.mark.parametrize(
    "answer",
    [
        "    return math.sqrt(x)\n",
        "    return math.sqrt(x)\n\n\ndef other():\n    return 1 /",
        "Sure:\n```python\ndef root(x):\n    return math.sqrt(x)\n```\nThat is all.",
        "```python\nimport math\n\ndef root(x: float) -> float:\n    return x ** 0.5\n```",
        "```\n    return math.sqrt(x)\n```",
    ],
)
def test_answers_to_humaneval_in_all_forms(answer: str) -> None:
    assert run_programs([humaneval(PROBLEM, answer)]) == [Ran(True, "")]


def test_answers_that_are_wrong_or_no_answers() -> None:
    wrong = [humaneval(PROBLEM, answer) for answer in ("    return x\n", "I cannot.", "")]
    assert [one.passed for one in run_programs(wrong)] == [False] * 3
    assert first_function("    return 1\n\nprint(f())") == "    return 1\n"
    with pytest.raises(InputError, match="no text `test`"):
        humaneval({"prompt": ""}, "")
    with pytest.raises(InputError, match="no `test_list`"):
        mbpp({"text": ""}, "")


def test_answers_to_mbpp() -> None:
    problem = {"test_list": ["assert f(LIMIT) == 4"], "test_setup_code": "LIMIT = 2"}
    found = run_programs([mbpp(problem, "def f(x): return x * 2"), mbpp(problem, "```python\ndef f(x): pass\n```")])
    assert [one.passed for one in found] == [True, False]


def read(path: Path, count: int) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, count)]


@pytest.mark.slow
@pytest.mark.skipif(not HUMANEVAL.is_file(), reason="no HumanEval in the data folder (WINDLASS_DATA)")
def test_the_right_answers_of_humaneval_pass() -> None:
    problems = read(HUMANEVAL, 164)
    found = run_programs([humaneval(one, one["canonical_solution"]) for one in problems], limits=Limits(seconds=20))
    assert [(one["task_id"], how.why) for one, how in zip(problems, found) if not how.passed] == []
    empty = run_programs([humaneval(one, "    pass\n") for one in problems])
    assert not any(how.passed for how in empty)


@pytest.mark.slow
@pytest.mark.skipif(not MBPP.is_file(), reason="no MBPP in the data folder (WINDLASS_DATA)")
def test_the_right_answers_of_mbpp_pass() -> None:
    problems = read(MBPP, 474)
    found = run_programs([mbpp(one, one["code"]) for one in problems], limits=Limits(seconds=20))
    assert [(one["task_id"], how.why) for one, how in zip(problems, found) if not how.passed] == []
