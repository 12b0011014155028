"""Rewards judge rightly, whatever an answer holds; code of an answer gets nowhere."""

from __future__ import annotations

import json
import random
import socket
import time

import pytest

from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.rl.rewards import sandbox
from windlass.build.adapt.rl.rewards.known import REWARDS
from windlass.build.adapt.rl.rewards.numbers import number_in
from windlass.build.adapt.rl.rewards.reward import Answer, chosen
from windlass.build.adapt.rl.rewards.schemas import check_schema, valid
from windlass.core.errors import InputError, WindlassError


def judged(name: str, text: str, **values) -> float:
    row = Row("rows.jsonl, row 1", values)
    REWARDS[name].check(row)
    (found,) = REWARDS[name].judge([Answer(text, row)])
    return found


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42.", 42),
        ("1,234.50 dollars", 1234.5),
        ("so it is \\boxed{7}, not 8", 7),
        ("\\boxed{1} or rather \\boxed{\\$-3}", -3),
        ("first 3\n#### 1,000\n", 1000),
        ("7/2", 3.5),
        ("2-5", 5),
        ("x2", None),
        ("none", None),
        ("1/0", None),
        ("9" * 100_000, None),
        ("\\boxed{" * 50_000, None),
    ],
)
def test_the_number_of_a_text(text, number):
    began = time.process_time()
    assert number_in(text) == number
    assert time.process_time() - began < 1


def test_the_right_number():
    assert judged("number", "... #### 18", answer="She sells 9 * 2 = 18.\n#### 18") == 1
    assert judged("number", "18.0", answer=18) == 1
    assert judged("number", "18 and 19", answer="18") == 0
    assert judged("number", "", answer="18") == 0
    with pytest.raises(InputError, match="row 1: answer is 'eighteen', in which there is no number"):
        judged("number", "18", answer="eighteen")


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ('{"name": "Ada", "age": 36}', 1),
        (' {"name": "Ada"}\n', 1),
        ('{"name": "Ada", "age": -1}', 0),
        ('{"name": "Ada", "age": true}', 0),
        ('{"name": "Ada", "born": 1815}', 0),
        ('Here: {"name": "Ada"}', 0),
        ('{"name": "Ada", "age": NaN}', 0),
        ("[" * 100_000, 0),
        ("1" * 100_000, 0),
        ("", 0),
    ],
)
def test_json_under_a_schema(text, reward):
    assert judged("json", text, schema=PERSON) == reward
    assert judged("json", text, schema=json.dumps(PERSON)) == reward


def test_a_schema_that_is_not_checked_is_refused():
    with pytest.raises(InputError, match=r"row 1: schema\.properties\.a has the keyword 'pattern'"):
        judged("json", "1", schema={"properties": {"a": {"pattern": "x"}}})
    with pytest.raises(InputError, match="'text', which is no type of JSON"):
        judged("json", "1", schema={"type": "text"})


def test_validity_is_that_of_jsonschema():
    oracle = pytest.importorskip("jsonschema")
    draw = random.Random(0)

    def value(depth: int = 0):
        kinds = [None, True, False, 0, 1, 1.0, -2.5, 3, "", "a", "abc"]
        if depth > 2 or draw.random() < 0.5:
            return draw.choice(kinds)
        if draw.random() < 0.5:
            return [value(depth + 1) for _ in range(draw.randrange(4))]
        return {name: value(depth + 1) for name in draw.sample("abc", draw.randrange(4))}

    def schema(depth: int = 0):
        if depth > 2 or draw.random() < 0.1:
            return draw.choice([True, False, {}])
        made = {}
        if draw.random() < 0.5:
            types = ["null", "boolean", "string", "array", "object", "number", "integer"]
            made["type"] = draw.choice([draw.choice(types), draw.sample(types, 3)])
        for key, make in (
            ("enum", lambda: [value(2) for _ in range(4)]),
            ("const", lambda: value(2)),
            ("minimum", lambda: draw.choice([0, 1, 1.5])),
            ("exclusiveMaximum", lambda: draw.choice([1, 3])),
            ("minLength", lambda: 1),
            ("maxItems", lambda: 2),
            ("minProperties", lambda: 1),
            ("required", lambda: draw.sample("abc", 1)),
            ("properties", lambda: {name: schema(depth + 1) for name in draw.sample("abc", 2)}),
            ("additionalProperties", lambda: schema(depth + 1)),
            ("items", lambda: schema(depth + 1)),
            ("not", lambda: schema(depth + 1)),
            ("anyOf", lambda: [schema(depth + 1) for _ in range(2)]),
            ("oneOf", lambda: [schema(depth + 1) for _ in range(2)]),
            ("allOf", lambda: [schema(depth + 1) for _ in range(2)]),
        ):
            if draw.random() < 0.15:
                made[key] = make()
        return made

    right = 0
    for _ in range(300):
        asked = schema()
        check_schema(asked, "schema")
        theirs = oracle.Draft202012Validator(asked)
        for _ in range(10):
            one = value()
            assert valid(one, asked) == theirs.is_valid(one), (asked, one)
            right += valid(one, asked)
    assert 500 < right < 2500


def test_patterns_and_answers_that_make_them_search_for_ever(monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    rows = [Row("row", {"pattern": pattern}) for pattern in (r"<a>.*</a>", r"(a+)+b", r"[0-9]+")]
    answers = [
        Answer("<a>\n</a>", rows[0]),
        Answer("<a></a> ", rows[0]),
        Answer("a" * 60, rows[1]),  # hours
        Answer("123", rows[2]),
    ]
    assert REWARDS["pattern"].judge(answers) == [1, 0, 0, 1]
    with pytest.raises(InputError, match="pattern is no regular expression"):
        judged("pattern", "", pattern="(")


DOUBLE = [{"call": "double(2)", "gives": 4}, {"call": "double('ab')", "gives": "abab"}]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("def double(x):\n    return x * 2", 1),
        ("Sure:\n```python\nfrom collections import deque\ndef double(x): return 2 * x\n```\nDone.", 1),
        ("def double(x):\n    return 4", 0.5),
        ("def double(x):\n    return (1, [2]) if x == 2 else 'ab' * 2", 0.5),
        ("double = lambda x: print(x * 2)", 0),
        ("def double(x", 0),
        ("", 0),
    ],
)
def test_code_that_gives_what_it_should(text, reward):
    assert judged("cases", text, cases=DOUBLE) == reward


def test_tests_that_run_to_their_end():
    tests = ["assert double(2) == 4", "assert double('ab') == 'abab'"]
    good = "def double(x):\n    return x * 2"
    assert judged("tests", good, tests=tests) == 1
    assert judged("tests", good.replace("2", "3"), tests="\n".join(tests)) == 0
    for leaving in ("import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit", "exit()"):
        assert judged("tests", leaving, tests=tests) == 0
    with pytest.raises(InputError, match="row 1: tests is no Python"):
        judged("tests", good, tests="assert (")


needs_lock = pytest.mark.skipif(
    sandbox.confinement().startswith("WARNING"), reason="this system cannot lock a process in"
)


def inside(body: str) -> list[str]:
    """What a call gives whose function an answer has defined."""
    code = "import os, sys\ndef attack():\n" + "".join(f"    {line}\n" for line in body.splitlines())
    return sandbox.run("calls", {"code": code, "calls": ["attack()", "'alive'"]})


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
def test_code_of_an_answer_ends(body, monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    began = time.monotonic()
    found = inside(body)
    assert time.monotonic() - began < 8
    assert sum(map(len, found)) <= sandbox.OUTPUT


def test_no_environment_and_an_empty_folder(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    (found, _) = inside("return sorted(os.environ)")
    assert "SECRET_KEY" not in found


def test_an_unknown_reward_is_refused():
    with pytest.raises(InputError, match="names 'numbers', which is no reward"):
        chosen(["numbers"], REWARDS)


def test_a_sandbox_that_does_not_start_is_an_error_and_no_reward_of_0(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "_INSIDE", tmp_path / "missing.py")
    with pytest.raises(WindlassError, match=r"did not start.*missing\.py"):
        judged("cases", "def double(x): return x * 2", cases=DOUBLE)
