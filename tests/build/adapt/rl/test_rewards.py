"""Rewards judge rightly, whatever an answer holds; code of an answer gets nowhere."""

from __future__ import annotations

import json
import random
import time

import pytest

from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.rl.rewards.known import REWARDS
from windlass.build.adapt.rl.rewards.reward import Answer, chosen
from windlass.core.errors import InputError, WindlassError
from windlass.core.extracting import number_in
from windlass.core.json_schema import check_schema, valid
from windlass.core.sandbox import process as sandbox
from windlass.core.sandbox.process import Limits


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
    monkeypatch.setattr(sandbox, "LIMITS", Limits(seconds=1))
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


def test_an_unknown_reward_is_refused():
    with pytest.raises(InputError, match="names 'numbers', which is no reward"):
        chosen(["numbers"], REWARDS)


def test_a_sandbox_that_does_not_start_is_an_error_and_no_reward_of_0(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "_INSIDE", tmp_path / "missing.py")
    with pytest.raises(WindlassError, match=r"did not start.*missing\.py"):
        judged("cases", "def double(x): return x * 2", cases=DOUBLE)
