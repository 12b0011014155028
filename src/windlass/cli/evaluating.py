"""Typed tasks on items: the options of `windlass eval` and `windlass compare`, and what they do."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.cli import verdicts
from windlass.cli.helping import Rare
from windlass.cli.workspace import opened_or_made
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from argparse import _ArgumentGroup as Group

    from windlass.apply.tasks.surroundings import Surroundings
    from windlass.core.artifacts import Artifact
    from windlass.core.workspace import Workspace
    from windlass.evaluate.experiments.planning import Plan
    from windlass.evaluate.experiments.results import Results
    from windlass.evaluate.judges.judge import Judge
    from windlass.evaluate.policy import Policy


_JUDGE = ".md"
"""A metric of this ending is a judge's file."""


def add_options(group: Group) -> None:
    """Those of `windlass eval`, which shares --repeats, --seed, --out and --again with benchmarks."""
    group.add_argument(
        "--metric", action="append", metavar="M", help="equal, exact, f1, FILE.py:NAME or JUDGE.md; repeatable"
    )
    group.add_argument("--model", metavar="PROVIDER:NAME", help="instead of the task's own")
    group.add_argument("--prompt", metavar="PROMPT", help="another: name@version, name:label, or a file")
    group.add_argument("--misses", type=int, default=5, metavar="N", help="show so many that went wrong; default: 5")
    _add_limits(group)


def add_options_of_variants(group: Group) -> None:
    """Those of `windlass compare`."""
    group.add_argument("--task", metavar="FILE.py[:NAME]", help="the task that the variants are prompts of")
    group.add_argument("--items", type=Path, metavar="ITEMS.jsonl", help="what they are evaluated on")
    group.add_argument("--model", metavar="PROVIDER:NAME", help="instead of the task's own")
    group.add_argument("--repeats", type=int, default=1, metavar="N", help="ask each item so often; default: 1")
    group.add_argument("--seed", type=int, metavar="S", help="repeat r is asked with the seed S + r")
    group.add_argument(
        "--metric", action="append", metavar="M", help="equal, exact, f1, FILE.py:NAME or JUDGE.md; repeatable"
    )
    _add_limits(group)
    group.add_argument("--again", action="store_true", help="ask anew what was evaluated before")


def _add_limits(group: Group) -> None:
    group.add_argument("--dollars", type=float, metavar="D", help="spend at most so much on one variant")
    group.add_argument("--tokens", type=int, metavar="T", help=Rare("or so many tokens"))
    group.add_argument("--at-once", type=int, default=4, metavar="N", help=Rare("items under way; default: 4"))
    group.add_argument("--no-traces", action="store_true", help=Rare("keep no trace of each item"))


def run(args: argparse.Namespace) -> int:
    """`windlass eval FILE.py:NAME ITEMS.jsonl`. A workspace is made where there is none: it keeps what was paid for."""
    from windlass.evaluate.experiments.summary import summarised

    if args.items is None:
        raise InputError("A task is evaluated on items.", f"windlass eval {args.variant} ITEMS.jsonl")
    args.task = args.variant
    with opened_or_made(args) as ws:
        found = evaluated(ws, args, prompt=args.prompt)
    if args.out is not None:
        found.write(args.out)
    print(json.dumps(found.to_json(), indent=2) if args.json else summarised(found, args.misses))
    measured = {metric for one in found.items for metric in one.values}
    return 0 if measured.issuperset(found.scorers) else verdicts.STATUS["INCONCLUSIVE"]


def evaluated(ws: Workspace, args: argparse.Namespace, *, prompt: str | None) -> Results:
    """The results of one variant, evaluated now as far as they are not kept."""
    from windlass.apply.tasks import surrounded
    from windlass.apply.tasks.loading import load_task
    from windlass.apply.wrappers.budget import Budget
    from windlass.core.progress import Progress
    from windlass.loop.evaluating.evaluation import evaluate
    from windlass.loop.evaluating.items import read_items
    from windlass.loop.evaluating.running import Asking
    from windlass.loop.tasks import surroundings

    if args.items is None:
        raise InputError("Nobody said on which items.", "Add --items ITEMS.jsonl.")
    around = surroundings(ws)
    task = load_task(args.task)
    if args.model:
        task = task.using(model=args.model)
    if prompt is not None:
        task = task.using(prompt=_prompt(prompt))
    items = read_items(args.items)
    limited = args.dollars is not None or args.tokens is not None
    budget = Budget(dollars=args.dollars, tokens=args.tokens, per="ever") if limited else None
    label = task.__name__ if prompt is None else prompt
    wanted = args.metric or ["equal"]
    judges = _judges(ws, [one for one in wanted if one.endswith(_JUDGE)], around)
    with surrounded(around), Progress(label, len(items) * args.repeats, "answers") as progress:
        found = evaluate(
            ws,
            task,
            items,
            [one for one in wanted if not one.endswith(_JUDGE)] or ["equal"],
            asking=Asking(args.repeats, args.seed, args.at_once),
            budget=budget,
            around=around,
            again=args.again,
            traces=not args.no_traces,
            source=str(args.items),
            tell=progress.say,
            done=progress.update,
        )
    if found.calls:
        progress.say(f"{found.artifact.ref}: {found.calls:,} calls, ${found.usd:.4f}")
    return _judged(ws, found.artifact, judges, around, args.at_once) if judges else found.results


def _judges(ws: Workspace, files: list[str], around: Surroundings) -> list[Judge]:
    """What is wrong with one, or with what its models need, is told before anything is paid."""
    from windlass.loop.judging.asking import CLASSIFIER
    from windlass.loop.judging.running import named
    from windlass.loop.tasks import LOCAL

    found = [named(ws, file) for file in files]
    for judge in found:
        for model in judge.models:
            if not model.startswith((CLASSIFIER, LOCAL)):
                around.model(model)
    return found


def _judged(ws: Workspace, stored: Artifact, judges: list[Judge], around: Surroundings, at_once: int) -> Results:
    """The results with what judges say of the answers. What they said before is not paid for again."""
    from windlass.loop.evaluating.evaluation import read_results
    from windlass.loop.judging.running import judge_stored

    for judge in judges:
        _, stored = judge_stored(ws, judge, stored, around=around, at_once=at_once)
    return read_results(stored)


def _prompt(named: str) -> str | Path:
    """A file, or a prompt of the workspace: never the words themselves, which a name that is misspelt would be."""
    from windlass.apply.prompts.artifact import is_reference

    if Path(named).is_file():
        return Path(named)
    if not is_reference(named):
        raise InputError(f"There is no prompt '{named}'.", "Name a file, or name@version or name:label.")
    return named


def policy(args: argparse.Namespace, incumbent: Results | None) -> Policy:
    """That of the file; else the first metric that was asked for must be better, or the first that there is. None:
    nothing was evaluated yet."""
    from windlass.evaluate.experiments.naming import direction
    from windlass.evaluate.gate import superiority
    from windlass.evaluate.policy import Policy

    known = ["equal"] if incumbent is None else list(dict.fromkeys([*incumbent.scorers, *incumbent.metrics]))
    first = _named(args.metric[0]) if args.metric else known[0]
    if incumbent is not None and first not in known:
        raise InputError(f"{incumbent.variant} has no metric '{first}'.", f"It has: {', '.join(known)}.")
    return verdicts.policy_of(args, Policy(first, superiority(better=direction(first))))


def _named(metric: str) -> str:
    """What the values of a metric are called; of a judge of several criteria, those of the first."""
    from windlass.evaluate.judges.file import read_judge

    if not metric.endswith(_JUDGE):
        return metric.rpartition(":")[2]
    judge = read_judge(Path(metric))
    return judge.score_name(judge.criteria[0].name)


def assumed(effect: float, items: int, policy: Policy) -> Plan:
    """The power where nobody knows how far the differences spread."""
    from windlass.evaluate.experiments.planning import planned

    return planned(policy.primary, effect, items, error_rate=policy.rule.error_rate)


def plan(ws: Workspace, args: argparse.Namespace, incumbent: Results, policy: Policy) -> Plan | None:
    """The power, where an effect was stated."""
    from windlass.evaluate.experiments.pairing import paired
    from windlass.evaluate.experiments.planning import planned
    from windlass.evaluate.experiments.stored import read_experiment

    if args.effect is None:
        if args.pilot is not None:
            raise InputError("A pilot says nothing without an effect.", "Add --effect 0.05, for example.")
        return None
    items, rate = len({one.item for one in incumbent.items}), policy.rule.error_rate
    if args.pilot is None:
        return assumed(args.effect, items, policy)
    column = paired(read_experiment(ws.artifacts.get(args.pilot)).pairs, policy.primary)
    if not column.items:
        raise InputError(f"{args.pilot} has no item with the metric '{policy.primary}'.", "Name another pilot.")
    gains = column.after - column.before
    return planned(policy.primary, args.effect, items, pilot=gains, clusters=column.clusters, error_rate=rate)
