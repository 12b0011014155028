"""Scores what answers, with confidence intervals: a typed task, a model on benchmarks, the assistant on its exam.

windlass eval shop.py:tone items.jsonl --metric f1 --repeats 3 --model openai:gpt-5-mini
                                          a task: lines of {"inputs": {...}, "expected": ..., "slices": {...}}
windlass eval MODEL --tasks piqa mmlu     a model of the workspace, a folder, or an endpoint, on benchmarks
windlass eval --list                      the benchmarks that there are
windlass eval live                        the assistant that is served now: retrieval and abstention
windlass eval VARIANT --against live      paired comparison and the gate's verdict; promotes nothing
windlass eval live --risk 0.1             calibrate abstention: at most a tenth of the answers given is wrong

The exit status of a comparison is 3 for NO-GO and 4 for INCONCLUSIVE; of a task, 4 where a metric has no value at all.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.cli import benchmarks, evaluating, verdicts
from windlass.cli.helping import Rare, in_two_sizes
from windlass.cli.workspace import add_option, opened
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from argparse import _ArgumentGroup as Group

    from windlass.core.workspace import Workspace

_NO_BENCHMARK = "belongs to benchmarks: name them, --tasks piqa arc_easy."


def configure(parser: argparse.ArgumentParser) -> None:
    in_two_sizes(parser, "windlass eval FILE.py:TASK ITEMS.jsonl | MODEL --tasks TASK ... | VARIANT [OPTIONS]")
    parser.add_argument("variant", nargs="?", metavar="WHAT", help="a task, a variant or 'live', or a model")
    parser.add_argument("items", nargs="?", type=Path, metavar="ITEMS.jsonl", help="what a task is evaluated on")
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    add_option(parser)
    evaluating.add_options(parser.add_argument_group("a task"))
    benchmarks.add_options(parser.add_argument_group("a model on benchmarks"))
    _add_shared(parser.add_argument_group("a task, or a model on benchmarks; either goes on where it was stopped"))
    _add_options_of_variants(parser.add_argument_group("the assistant, on the questions of its exam"))


def _add_shared(group: Group) -> None:
    group.add_argument("--repeats", type=int, default=1, metavar="N", help="ask for each answer N times; default: 1")
    group.add_argument(
        "--seed", type=int, metavar="S",
        help=Rare("of what is drawn: repeat r is asked with S + r, and examples are drawn and not the first ones"),
    )  # fmt: skip
    group.add_argument("--out", type=Path, metavar="FILE.json", help="write the results, for `windlass compare`")
    group.add_argument("--again", action="store_true", help="ask anew what was asked before")


def _add_options_of_variants(group: Group) -> None:
    group.add_argument("--against", metavar="VARIANT", help="the incumbent to compare with, or 'live'")
    group.add_argument("--risk", type=float, metavar="SHARE", help="calibrate: of the answers given, so many are wrong")
    group.add_argument("--promote", action="store_true", help="serve the calibrated variant")
    group.add_argument("--split", choices=("test", "dev", "harvest"), default="test", help=Rare("default: test"))
    group.add_argument("--task", default="assistant", help=Rare("whose release 'live' means; default: assistant"))
    group.add_argument("--level", type=float, help=Rare("of a calibration: its confidence; default: 0.95"))
    group.add_argument(
        "--questions", type=Path, metavar="FILE",
        help=Rare("of a calibration: JSON lines with `question`, and `answers` or `document`, in place of the exam's"),
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if args.list:
        return benchmarks.list_benchmarks(args)
    if args.variant is None:
        raise InputError(
            "Nobody said what to score.",
            "`windlass eval FILE.py:TASK ITEMS.jsonl`, `windlass eval live`, or `windlass eval MODEL --tasks piqa`.",
        )
    if args.tasks:
        return benchmarks.run(args)
    if ".py" in args.variant or args.items is not None:
        benchmarks.refuse(args, benchmarks.add_options, _NO_BENCHMARK)
        if args.against is not None or args.risk is not None:
            raise InputError("--against and --risk belong to the assistant.", "`windlass compare` compares prompts.")
        return evaluating.run(args)
    benchmarks.refuse(args, benchmarks.add_options, _NO_BENCHMARK)
    for others in (evaluating.add_options, _add_shared):
        benchmarks.refuse(args, others, "belongs to typed tasks: name one, FILE.py:TASK ITEMS.jsonl.")
    from windlass.evaluate.exam.tables import render_report
    from windlass.evaluate.experiments.reports import rendered
    from windlass.evaluate.experiments.stored import to_json
    from windlass.loop.assistants.evaluation import compare_variants, evaluate_variant

    if args.risk is not None:
        return _calibrate(args)
    if args.promote or args.questions is not None or args.level is not None:
        raise InputError("--level, --questions and --promote belong to a calibration.", "Add --risk 0.1, for example.")
    with opened(args) as ws:
        _refuse_models(ws, args.variant)
        if args.against is None:
            found = evaluate_variant(ws, args.variant, split=args.split, task=args.task)
            print(json.dumps(found.to_json(), indent=2) if args.json else render_report(found))
            return 0
        experiment = compare_variants(ws, args.variant, args.against, split=args.split, task=args.task)
        print(json.dumps(to_json(experiment), indent=2) if args.json else rendered(experiment))
        return verdicts.STATUS[experiment.verdict.decision]


def _refuse_models(ws: Workspace, name: str) -> None:
    artifact = ws.artifacts.find(name)
    if Path(name).is_dir() or "://" in name or (artifact is not None and artifact.kind == "model"):
        raise InputError(
            f"'{name}' is a model: nobody said what to ask it.",
            f"Name benchmarks: windlass eval {name} --tasks piqa arc_easy. `windlass eval --list` shows them.",
        )


def _calibrate(args: argparse.Namespace) -> int:
    from windlass.loop.assistants.calibrating import calibrate_variant, release

    if args.against is not None:
        raise InputError("--risk calibrates one variant, --against compares two.", "Do one after the other.")
    with opened(args) as ws:
        level = 0.95 if args.level is None else args.level
        variant, found = calibrate_variant(
            ws, args.variant, risk=args.risk, level=level, questions=args.questions, task=args.task
        )
        if args.promote:
            release(ws, variant, found, args.task)
        if args.json:
            print(
                json.dumps({"variant": variant.digest, "promoted": args.promote, **asdict(found.guarantee)}, indent=2)
            )
            return 0
        print(f"{found.render()}\n\n{variant.ref}  {variant.digest[:12]}")
        print(f"served by '{args.task}' from now on" if args.promote else "serve it: the same with --promote")
    return 0
