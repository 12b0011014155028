"""What commands do with an experiment: print it, write it where a build server looks, and exit by its verdict."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.core.errors import InputError

if TYPE_CHECKING:
    from windlass.evaluate.experiments.experiment import Experiment
    from windlass.evaluate.policy import Policy

STATUS = {"GO": 0, "NO-GO": 3, "INCONCLUSIVE": 4}


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("comparison")
    group.add_argument("--policy", type=Path, metavar="FILE.toml", help="what the candidate must show")
    group.add_argument("--effect", type=float, metavar="E", help="the difference that matters: states the power before")
    group.add_argument("--pilot", metavar="EXPERIMENT", help="an earlier experiment whose spread the power is from")
    group.add_argument("--junit", type=Path, metavar="FILE", help="write the verdict as JUnit XML")
    group.add_argument("--markdown", type=Path, metavar="FILE", help="write a report with the worst regressions")


def policy_of(args: argparse.Namespace, default: Policy) -> Policy:
    from windlass.evaluate.experiments.naming import OF_RUNS
    from windlass.evaluate.policy import read_policy

    if args.policy is None:
        return default
    return read_policy(args.policy, {name: metric.better for name, metric in OF_RUNS.items()})


def told(found: Sequence[tuple[Experiment, str | None]], args: argparse.Namespace) -> int:
    """Prints experiments, each with the name it is kept under, and returns the exit status: 0 where any candidate is
    GO, else 4 where any is INCONCLUSIVE, else 3."""
    from windlass.evaluate.experiments.reports import junit, markdown, rendered
    from windlass.evaluate.experiments.stored import to_json

    experiments = [experiment for experiment, _ in found]
    if args.json:
        rows = [to_json(one) for one in experiments]
        print(json.dumps(rows[0] if len(rows) == 1 else rows, indent=2))
    else:
        shown = [rendered(one) + (f"\n\nkept as {ref}" if ref else "") for one, ref in found]
        print("\n\n".join(shown))
    if args.junit is not None:
        _write(args.junit, junit(experiments))
    if args.markdown is not None:
        _write(args.markdown, "\n".join(markdown(one) for one in experiments).encode())
    decisions = [one.verdict.decision for one in experiments]
    return STATUS[next(said for said in ("GO", "INCONCLUSIVE", "NO-GO") if said in decisions)]


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
