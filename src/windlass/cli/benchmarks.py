"""The part of `windlass eval` that asks models what benchmarks ask."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.cli import evaluating
from windlass.cli.helping import Rare
from windlass.cli.workspace import opened_unless_placed
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from argparse import _ArgumentGroup as Group

    from windlass.evaluate.harness.items import Exam
    from windlass.loop.benchmarks.evaluating import Evaluated

DATA = "WINDLASS_DATA"
"""Environment variable with the folder of the data."""


def add_options(group: Group) -> None:
    """Those of `windlass eval MODEL --tasks`, which shares --repeats, --seed, --out and --again with typed tasks."""
    group.add_argument(
        "--tasks", nargs="+", metavar="TASK",
        help="by name; `mmlu/astronomy` is a part; your own: X.toml",
    )  # fmt: skip
    group.add_argument("--list", action="store_true", help="the benchmarks, and if their data are there")
    group.add_argument("--data", type=Path, metavar="FOLDER", help=f"your copy of the data; default: {DATA}")
    group.add_argument("--shots", type=int, metavar="N", help="examples before each question")
    group.add_argument("--limit", type=int, metavar="N", help="the first N rows of each file only")
    group.add_argument("--chat", action="store_true", help="through the model's chat template")
    group.add_argument("--slices", action="store_true", help="show the parts of each benchmark, too")
    group.add_argument("--system", metavar="TEXT", help=Rare("instructions, in place of the benchmark's own"))
    group.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help=Rare("of written answers; default: 0, greedy")
    )
    group.add_argument("--policy", default="fp32", help=Rare("arithmetic of a local model; default: fp32, exact"))
    group.add_argument(
        "--bos", action=argparse.BooleanOptionalAction, help=Rare("begin texts with the model's first token")
    )
    group.add_argument(
        "--truncate", action="store_true", help=Rare("cut what is too long at its left, not leave it out")
    )
    group.add_argument("--served", default="", metavar="NAME", help=Rare("which of an endpoint's models is meant"))
    group.add_argument("--api-key-env", metavar="NAME", help=Rare("environment variable with an endpoint's key"))


def refuse(args: argparse.Namespace, others: Callable[[Any], None], why: str) -> None:
    """Raises `InputError` for options that `others` adds and somebody gave, though what is asked does not know them."""
    given = argparse.ArgumentParser()
    others(given)
    for name, default in vars(given.parse_args([])).items():
        if getattr(args, name) != default:
            raise InputError(f"--{name.replace('_', '-')} {why}")


def list_benchmarks(args: argparse.Namespace) -> int:
    from windlass.core.tables import table
    from windlass.loop.benchmarks.catalogue import overview
    from windlass.loop.benchmarks.evaluating import VARIABLE, data_folder

    if args.data is not None:
        data_folder(args.data)
    print(table(("benchmark", "kind", "items", "shots", "what"), overview(args.data), right=(2, 3)))
    if args.data is None and not os.environ.get(VARIABLE):
        print(f"\nItems are counted where your copy of the data is named: --data FOLDER, or {VARIABLE}.")
    return 0


def run(args: argparse.Namespace) -> int:
    from windlass.core.sandbox.process import confinement
    from windlass.evaluate.harness.definitions import read_benchmark
    from windlass.evaluate.harness.items import Asking, make_exam
    from windlass.evaluate.harness.program import Program
    from windlass.evaluate.harness.running import Sampling
    from windlass.loop.benchmarks.evaluating import data_folder, evaluate_model
    from windlass.loop.benchmarks.models import Opening, open_model
    from windlass.loop.benchmarks.tables import render, rows, slice_rows

    refuse(args, evaluating.add_options, "belongs to typed tasks, not to benchmarks.")
    if args.out is not None and len(args.tasks) > 1:
        raise InputError("--out takes the results of one benchmark.", "Ask them one after the other.")
    folder = data_folder(args.data)
    asking = Asking(shots=args.shots, seed=args.seed, limit=args.limit, chat=args.chat, system=args.system)
    sampling = Sampling(args.temperature, args.repeats, args.seed or 0)
    exams = []
    for task in dict.fromkeys(args.tasks):  # what cannot be asked is told before anything is
        name, _, part = (task, "", "") if task.endswith(".toml") else task.partition("/")
        exams.append(make_exam(read_benchmark(name), folder, asking, part))
    if any(isinstance(exam.benchmark, Program) for exam in exams):
        print(confinement(), file=sys.stderr)
    opening = Opening(args.policy, args.bos, args.truncate, args.served, args.api_key_env)
    with opened_unless_placed(args, [args.variant]) as ws:
        model = open_model(ws, args.variant, opening)
        try:
            lines, found = [], []
            for one in evaluate_model(ws, model, exams, sampling=sampling, watch=_watched, again=args.again):
                found.append(one)
                lines += rows(one.exam, one.results, one.measures)
                lines += slice_rows(one.exam, one.results) if args.slices else []
                for line in _told(one, several=len(exams) > 1, local=hasattr(model, "truncated")):
                    print(f"{one.exam.name}: {line}", file=sys.stderr)
            truncated = getattr(model, "truncated", 0)
        finally:
            model.close()
    if args.out is not None:
        found[0].results.write(args.out)
    if args.json:
        print(json.dumps([one.to_json() for one in found], indent=2))
    else:
        print(f"{found[0].results.variant}  {(found[0].results.digest or '')[:12]}\n\n{render(lines)}")
        for one in found:
            if one.artifact is not None:
                print(f"\n{one.artifact.ref}  {one.artifact.digest[:12]}", end="")
        nowhere = ws is None and args.out is None
        print("\nNothing was kept: there is no workspace here (`windlass init`), and no --out." if nowhere else "")
    if truncated:
        print(f"{truncated:,} requests were too long for the model and were cut at their left.", file=sys.stderr)
    if any(not one.measures for one in found):
        raise InputError("On a benchmark every item failed, so that it has no score.", "The reasons stand above.")
    return 0


def _told(one: Evaluated, several: bool, local: bool) -> list[str]:
    """What is said as soon as a benchmark is done: of several its first figure, and what failed."""
    from windlass.loop.benchmarks.tables import failures, whatever

    lines = []
    if several and one.measures:
        kept = "" if one.artifact is None else f", kept as {one.artifact.ref}"
        lines.append(f"{one.measures[0].metric} {one.measures[0].interval}{kept}")
    if one.failed:
        lines += [*failures(one.results.items), *whatever(one.results, one.measures)]
        if local:
            lines.append("--truncate cuts what is too long for the model at its left")
        elif one.artifact is not None:
            lines.append("the same command asks for these again, and for no others")
    return lines


@contextlib.contextmanager
def _watched(exam: Exam) -> Iterator[Callable[[int, int], None]]:
    from windlass.core.progress import Progress

    with Progress(exam.name, None, "requests") as progress:

        def say(done: int, of: int) -> None:
            progress.total = of
            progress.update(done)

        yield say
