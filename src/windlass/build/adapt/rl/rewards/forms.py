"""The right form: an answer that is JSON, or that matches a regular expression."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.rl.rewards.reward import Answer, Reward
from windlass.core.errors import InputError
from windlass.core.json_schema import check_schema, valid
from windlass.core.sandbox.process import run_each


def _schema(row: Row) -> Any:
    """Of a row: a table, or JSON as text, as CSV has it; everything is valid where there is none."""
    found = row.values.get("schema", True)
    if not isinstance(found, str):
        return found
    try:
        return json.loads(found)
    except ValueError as error:
        raise InputError(f"{row.where}: schema is no JSON ({error}).", "Give a JSON Schema.") from error


def _check_schema(row: Row) -> None:
    check_schema(_schema(row), f"{row.where}: schema")


def _judge_json(answers: Sequence[Answer]) -> list[float]:
    return [float(_is_valid(answer)) for answer in answers]


def _is_valid(answer: Answer) -> bool:
    try:
        value = json.loads(answer.text, parse_constant=_no_number)
        return valid(value, _schema(answer.row))
    except (ValueError, RecursionError):  # no JSON, or nested without end
        return False


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _check_pattern(row: Row) -> None:
    pattern = row.values.get("pattern")
    if not isinstance(pattern, str):
        raise InputError(f"{row.where}: there is no pattern.", "The reward `pattern` needs a regular expression there.")
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"{row.where}: pattern is no regular expression ({error}).") from error


def _judge_patterns(answers: Sequence[Answer]) -> list[float]:
    """In the sandbox: an answer can make an expression search for years, and nothing stops it in this process."""
    jobs = [{"pattern": answer.row.values["pattern"], "text": answer.text} for answer in answers]
    return [float(found is True) for found in run_each("patterns", jobs)]


JSON = Reward(_judge_json, _check_schema)
PATTERN = Reward(_judge_patterns, _check_pattern)
