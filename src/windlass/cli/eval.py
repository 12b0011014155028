"""Scores what answers, with confidence intervals: a typed task, the assistant on its exam, a model on benchmarks.

windlass eval shop.py:tone items.jsonl --metric f1 --repeats 3 --model openai:gpt-5-mini
                                          a task: lines of {"inputs": {...}, "expected": ..., "slices": {...}}
windlass eval live                        the assistant that is served now: retrieval and abstention
windlass eval VARIANT --against live      paired comparison and the gate's verdict; promotes nothing
windlass eval live --risk 0.1             calibrate abstention: at most a tenth of the answers given is wrong
windlass eval MODEL --tasks piqa mmlu     a model of the workspace, a folder, or an endpoint, on benchmarks
windlass eval --list                      the benchmarks that there are

Calibrating fits the rule on one half of the exam's dev questions (or of --questions), chooses its threshold on the
other so that the promise holds with the confidence of --level, draws risk against coverage, and stores a variant;
--promote serves it.

The exit status of a comparison is 0 for GO, 3 for NO-GO, 4 for INCONCLUSIVE; of a task, 4 where a metric has no value
on any item.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from windlass.cli import benchmarks, evaluating, verdicts
from windlass.cli.workspace import add_option, opened
from windlass.core.errors import InputError

_NO_BENCHMARK = "belongs to benchmarks: name them, --tasks piqa arc_easy."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "variant", nargs="?", metavar="FILE.py:TASK | VARIANT | MODEL",
        help="a task; name, name@version or digest of a variant, or 'live'; with --tasks of a model, its folder or URL",
    )  # fmt: skip
    parser.add_argument("items", nargs="?", type=Path, metavar="ITEMS.jsonl", help="what a task is evaluated on")
    parser.add_argument("--against", metavar="VARIANT", help="the incumbent to compare with, or 'live'")
    parser.add_argument("--split", choices=("test", "dev", "harvest"), default="test", help="default: test")
    parser.add_argument("--task", default="assistant", help="whose release 'live' means; default: assistant")
    calibrating = parser.add_argument_group("calibration", "when to say nothing rather than something wrong")
    calibrating.add_argument("--risk", type=float, help="the share of wrong answers among those given, at most")
    calibrating.add_argument("--level", type=float, help="with which confidence; default: 0.95")
    calibrating.add_argument(
        "--questions", type=Path, metavar="FILE", help="JSON lines with `question`, and `answers` or `document`"
    )
    calibrating.add_argument("--promote", action="store_true", help="serve the calibrated variant")
    benchmarks.add_options(parser)
    evaluating.add_options(
        parser.add_argument_group("tasks", "what was answered is kept: a stopped evaluation goes on, for no more money")
    )
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    add_option(parser)


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
        benchmarks.refuse(args, benchmarks.add_options, _NO_BENCHMARK, keep=("seed", "repeats"))
        if args.against is not None or args.risk is not None:
            raise InputError("--against and --risk belong to the assistant.", "`windlass compare` compares prompts.")
        return evaluating.run(args)
    benchmarks.refuse(args, benchmarks.add_options, _NO_BENCHMARK)
    benchmarks.refuse(args, evaluating.add_options, "belongs to typed tasks: name one, FILE.py:TASK ITEMS.jsonl.")
    from windlass.evaluate.experiments.reports import rendered
    from windlass.evaluate.experiments.stored import to_json
    from windlass.evaluate.tables import render_report
    from windlass.loop.assistants.evaluation import compare_variants, evaluate_variant

    if args.risk is not None:
        return _calibrate(args)
    if args.promote or args.questions is not None or args.level is not None:
        raise InputError("--level, --questions and --promote belong to a calibration.", "Add --risk 0.1, for example.")
    with opened(args) as ws:
        if args.against is None:
            found = evaluate_variant(ws, args.variant, split=args.split, task=args.task)
            print(json.dumps(found.to_json(), indent=2) if args.json else render_report(found))
            return 0
        experiment = compare_variants(ws, args.variant, args.against, split=args.split, task=args.task)
        print(json.dumps(to_json(experiment), indent=2) if args.json else rendered(experiment))
        return verdicts.STATUS[experiment.verdict.decision]


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
