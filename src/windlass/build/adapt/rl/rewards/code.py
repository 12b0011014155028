"""The right code: Python that a model wrote, tried in a sandbox.

`cases` is the reward to prefer. What the calls shall give is compared here, and never enters the process in which the
answer runs, so an answer has to compute it. `tests` are statements that run behind the answer in its own process: one
that ends early has not passed them, but one that rewrites what it is tested with can.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.rl.rewards.reward import Answer, Reward
from windlass.core.errors import InputError
from windlass.core.extracting import code_in
from windlass.core.json_schema import same
from windlass.core.sandbox.process import confinement, run_all


def _cases(row: Row) -> list[dict[str, Any]]:
    found = row.values.get("cases")
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError as error:
            raise InputError(f"{row.where}: cases is no JSON ({error}).") from error
    if not isinstance(found, list) or not found:
        raise InputError(f"{row.where}: there are no cases.", "Give a list, as [{'call': 'double(2)', 'gives': 4}].")
    for place, case in enumerate(found):
        if not isinstance(case, dict) or not isinstance(case.get("call"), str) or "gives" not in case:
            raise InputError(f"{row.where}: cases[{place}] has no `call` and what it `gives`.")
        _compiles(case["call"], f"{row.where}: cases[{place}].call", "eval")
    return found


def _tests(row: Row) -> str:
    found = row.values.get("tests")
    if isinstance(found, list) and found and all(isinstance(one, str) for one in found):
        found = "\n".join(found)
    if not isinstance(found, str) or not found.strip():
        raise InputError(f"{row.where}: there are no tests.", "Give Python statements, as 'assert double(2) == 4'.")
    _compiles(found, f"{row.where}: tests", "exec")
    return found


def _compiles(source: str, where: str, kind: str) -> None:
    try:
        compile(source, "<row>", kind)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{where} is no Python ({error}).") from error


def _check_cases(row: Row) -> None:
    _cases(row)


def _check_tests(row: Row) -> None:
    _tests(row)


def _judge_cases(answers: Sequence[Answer]) -> list[float]:
    cases = [_cases(answer.row) for answer in answers]
    jobs = [{"code": code_in(a.text), "calls": [case["call"] for case in some]} for a, some in zip(answers, cases)]
    return [
        sum(_gives(line, case["gives"]) for line, case in zip(found, some)) / len(some)
        for found, some in zip(run_all("calls", jobs), cases)
    ]


def _gives(line: str, wanted: Any) -> bool:
    try:
        return same(json.loads(line), wanted)
    except (ValueError, RecursionError):  # it gave nothing, or what no JSON reader wants
        return False


def _judge_tests(answers: Sequence[Answer]) -> list[float]:
    jobs = [
        # The password is said behind the last test: leaving early is not passing.
        {"code": code_in(answer.text), "tests": _tests(answer.row), "password": secrets.token_hex(16)}
        for answer in answers
    ]
    return [float(said == [job["password"]]) for said, job in zip(run_all("tests", jobs), jobs)]


CASES = Reward(_judge_cases, _check_cases, confinement)
TESTS = Reward(_judge_tests, _check_tests, confinement)
