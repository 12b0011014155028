"""Compares two or more variants item by item, and says whether the later ones are better than the first.

windlass compare tone-results@1 tone-results@2           stored results of `windlass eval`, or their files
windlass compare live VARIANT                            variants of the assistant, on their exam
windlass compare tone:live tone@2 --task shop.py:tone --items items.jsonl --metric f1
                                                         prompts of a task: evaluated first, as far as they are not yet
windlass compare A B --policy gate.toml --junit verdict.xml --markdown verdict.md
windlass compare --invalidate EXPERIMENT --reason "the answers leaked into the prompt"

The first is the incumbent; with several candidates each is compared with it, and the chance that any is promoted
wrongly stays that of one (Holm). The experiment is kept, and `windlass promote` takes it.

The exit status is 0 for GO, 3 for NO-GO, 4 for INCONCLUSIVE.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.cli import evaluating, verdicts
from windlass.cli.workspace import add_option, opened, opened_or_made
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from windlass.core.workspace import Workspace
    from windlass.evaluate.experiments.results import Results


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variants", nargs="*", metavar="A B", help="the incumbent, then one candidate or more")
    verdicts.add_options(parser)
    evaluating.add_options_of_variants(parser.add_argument_group("live variants of a task"))
    parser.add_argument("--split", choices=("test", "dev", "harvest"), default="test", help="of an exam; default: test")
    parser.add_argument("--name", default=None, help="name of the kept experiment; default: that of the task")
    parser.add_argument("--invalidate", metavar="EXPERIMENT", help="declare it invalid: it backs no promotion any more")
    parser.add_argument("--reason", default="", help="why it is invalid")
    parser.add_argument("--json", action="store_true", help="print the whole experiment as JSON")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    if args.invalidate:
        return _invalidate(args)
    if len(args.variants) < 2:
        raise InputError("A comparison takes the incumbent and at least one candidate.", "`windlass compare A B`.")
    files = [_of_file(ref) for ref in args.variants] if all(ref.endswith(".json") for ref in args.variants) else []
    # As `windlass eval`: a build that has its results in files needs no workspace, and gets one for what is found.
    with opened_or_made(args) if args.task or files else opened(args) as ws:
        if args.task:
            _say_power(args)
            return _told(ws, args, [evaluating.evaluated(ws, args, prompt=ref) for ref in args.variants])
        if files:
            return _told(ws, args, files)
        if any(_is_results(ws, ref) for ref in args.variants):
            return _told(ws, args, [_results(ws, ref) for ref in args.variants])
        return _exams(ws, args)


def _told(ws: Workspace, args: argparse.Namespace, results: list[Results]) -> int:
    from windlass.evaluate.experiments.several import compare_all
    from windlass.loop.evaluating.experiments import named_results, store_experiment

    incumbent, *candidates = named_results(results)
    policy = evaluating.policy(args, incumbent)
    plan = evaluating.plan(ws, args, incumbent, policy)
    found = compare_all(incumbent, candidates, policy, plan=plan)
    name = args.name or incumbent.variant.split()[0].partition("@")[0]
    return verdicts.told([(one, store_experiment(ws, name, one).ref) for one in found], args)


def _say_power(args: argparse.Namespace) -> None:
    """Before anything is asked, or paid for."""
    from windlass.loop.evaluating.items import read_items

    if args.effect is None or args.pilot is not None or args.items is None:
        return
    policy = evaluating.policy(args, None)
    print(evaluating.assumed(args.effect, len(read_items(args.items)), policy), file=sys.stderr)


def _exams(ws: Workspace, args: argparse.Namespace) -> int:
    from windlass.evaluate.exam.results import POLICY
    from windlass.loop.assistants.evaluation import compare_variants
    from windlass.loop.evaluating.experiments import store_experiment

    if len(args.variants) > 2:
        raise InputError("Variants of the assistant are compared two at a time.", "`windlass compare live VARIANT`.")
    incumbent, candidate = args.variants
    policy = verdicts.policy_of(args, POLICY)
    found = compare_variants(ws, candidate, incumbent, split=args.split, policy=policy)
    return verdicts.told([(found, store_experiment(ws, args.name or "assistant", found).ref)], args)


def _invalidate(args: argparse.Namespace) -> int:
    from windlass.loop.evaluating.experiments import invalidate

    with opened(args) as ws:
        experiment = ws.artifacts.get(args.invalidate)
        said = invalidate(ws, experiment, args.reason, getpass.getuser())
        print(f"{experiment.ref} is invalid: {said.comment}. It backs no promotion any more.")
    return 0


def _is_results(ws: Workspace, ref: str) -> bool:
    if ref.endswith(".json"):
        return True
    record = ws.store.artifact(ref)
    return record is not None and record.kind == "results"


def _results(ws: Workspace, ref: str) -> Results:
    from windlass.loop.evaluating.evaluation import read_results

    return _of_file(ref) if ref.endswith(".json") else read_results(ws.artifacts.get(ref))


def _of_file(ref: str) -> Results:
    from windlass.evaluate.experiments.results import Results

    try:
        return Results.from_json(json.loads(Path(ref).read_text(encoding="utf-8")), ref)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        hint = "`windlass eval FILE.py:TASK ITEMS.jsonl --out FILE.json` writes results."
        raise InputError(f"{ref} cannot be read: {said}.", hint) from error
