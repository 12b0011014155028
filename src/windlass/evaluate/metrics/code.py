"""Whether programs that a model wrote pass their tests, and how likely one of k samples does: pass@k.

Programs run in `core.sandbox`: a process of their own, without files, network and other processes, limited in time and
memory. Of libraries they have Python's own. A program runs beside its tests and could cheat them if it tried to; how
HumanEval and MBPP are scored everywhere is no different.

Source: Chen et al., "Evaluating Large Language Models Trained on Code", arXiv 2107.03374; MBPP: Austin et al.,
arXiv 2108.07732.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.core.extracting import code_in
from windlass.core.sandbox.process import AT_ONCE, Limits, run_all
from windlass.evaluate.metrics.arrays import as_many, numbers

_STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\nassert ", "\n```", "\n@")


@dataclass(frozen=True, slots=True)
class Program:
    code: str
    tests: str
    """Statements that run behind the code. The program passes when they run to their end."""


@dataclass(frozen=True, slots=True)
class Ran:
    passed: bool
    why: str
    """What went wrong: the error that ended it, or that it did not end in time. Empty for one that passed."""


def run_programs(programs: Sequence[Program], *, limits: Limits | None = None, at_once: int = AT_ONCE) -> list[Ran]:
    """Each in a process of its own, `at_once` of them. Whatever a program does, it gets a result.

    Raises `InputError` for none, and `WindlassError` where no process can be started.
    """
    if not programs:
        raise InputError("There are no programs to run.", "Check that the dataset is not empty.")
    if at_once < 1:
        raise InputError(f"{at_once} programs at once are none.", "Give at least 1.")
    jobs = [
        # The password is said behind the last test: leaving early is not passing.
        {"code": program.code, "tests": program.tests, "password": secrets.token_hex(16)}
        for program in programs
    ]
    return [_ran(said, job["password"]) for said, job in zip(run_all("tests", jobs, limits, at_once), jobs)]


def _ran(said: list[str], password: str) -> Ran:
    if said == [password]:
        return Ran(True, "")
    return Ran(False, said[0] if said else "it was ended: too much time, memory or output")


def pass_at_k(samples: ArrayLike, passed: ArrayLike, k: int) -> NDArray[np.float64]:
    """Per problem the chance that at least one of k samples passes, without bias: 1 - C(n - c, k) / C(n, k).

    samples: n drawn for each problem. passed: c of them that did. Raises `InputError` for fewer samples than k, and for
    counts that do not fit.
    """
    n, c = numbers("numbers of samples", samples), numbers("numbers that passed", passed, 0)
    as_many(numbers_of_samples=n, numbers_that_passed=c)
    if k < 1 or (n < k).any():
        raise InputError(f"pass@{k} cannot be told from {n.min():g} samples.", "Draw at least k for each problem.")
    if (c > n).any() or (n % 1 != 0).any() or (c % 1 != 0).any():
        raise InputError("More passed than were drawn, or a count is no whole number.")
    # The product over the k draws of the share that fails among those left; it ends at 0 where there are none.
    drawn = np.arange(k)
    fails: NDArray[np.float64] = np.prod(np.maximum((n - c)[:, None] - drawn, 0) / (n[:, None] - drawn), axis=1)
    return 1.0 - fails


def humaneval(problem: Mapping[str, Any], answer: str) -> Program:
    """A problem of HumanEval's format (`prompt`, `test`, `entry_point`) with an answer: the rest of the function, as a
    base model goes on; or a text with the whole function, as a chat model writes it. Raises `InputError` naming a field
    that is missing."""
    prompt, test, name = _fields(problem, "prompt", "test", "entry_point")
    code = code_in(answer)
    if re.search(rf"^\s*(?:async )?def {re.escape(name)}\b", code, re.MULTILINE):
        # What the prompt holds besides: imports, and helpers that the function may call.
        code = prompt.partition(f"def {name}(")[0] + "\n" + code
    else:
        code = prompt + first_function(answer if "```" not in answer else code)
    return Program(code, f"{test}\ncheck({name})")


def first_function(completion: str) -> str:
    """What a base model wrote of a function's body, before it began with something else."""
    ends = [place for stop in _STOPS if (place := completion.find(stop)) >= 0]
    return completion[: min(ends)] if ends else completion


def mbpp(problem: Mapping[str, Any], answer: str) -> Program:
    """A problem of MBPP's format (`test_list`, perhaps `test_setup_code`) with an answer: code, or a text with a block
    of it. Raises `InputError` naming a field that is missing."""
    tests = problem.get("test_list")
    if not isinstance(tests, list) or not tests or not all(isinstance(one, str) for one in tests):
        raise InputError("The problem has no `test_list` of statements.", "MBPP's rows have one.")
    return Program(code_in(answer), "\n".join([str(problem.get("test_setup_code") or ""), *tests]))


def _fields(problem: Mapping[str, Any], *names: str) -> list[str]:
    for name in names:
        if not isinstance(problem.get(name), str):
            raise InputError(f"The problem has no text `{name}`.", f"HumanEval's rows have {', '.join(names)}.")
    return [problem[name] for name in names]
