"""One turn: what users said becomes candidates, the best of them is compared with what is live, and promoted if better.

windlass turn                                   the assistant: its search, a reranker, other passages, and more
windlass turn crm.py:topic --margin 0.02        a typed task: a small model may take over if at most 2 of 100 are lost
windlass turn crm.py:topic --dollars 2          and with a model that must be paid, better prompts as well
windlass turn --synthetic                       nobody asked yet: learn from questions that the documents ask themselves
windlass turn --only adapter weights            only these candidates
windlass turn --canary 0.1                      what passes goes to a tenth of the users first (`windlass canary show`)

Candidates race on questions to choose by; the winner is compared on questions that nothing has touched, and decided on
the interval. Interrupted and run again, it goes on where it was. `windlass rollback` undoes a promotion.

Exits with 0 when a candidate was promoted, or put on trial, and with 3 when none was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.cli.workspace import add_option, opened
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from windlass.core.workspace import Workspace
    from windlass.loop.turning.flow import Turned
    from windlass.loop.turning.turn import Plan

REFUSED = 3


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "task", nargs="?", default="assistant", metavar="TASK|FILE.py[:NAME]", help="default: assistant"
    )
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="what it may take; default: 10")
    parser.add_argument("--dollars", type=float, metavar="N", help="what asked models may cost")
    parser.add_argument("--tokens", type=int, metavar="N", help="what asked models may take")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="make only these candidates")
    parser.add_argument("--finalists", type=int, default=1, metavar="N", help="compare so many, one after the other")
    parser.add_argument("--policy", type=Path, metavar="FILE.toml", help="what a candidate must show (docs/gate.md)")
    parser.add_argument("--canary", type=float, metavar="SHARE", help="give what passes to so many users first")
    parser.add_argument("--seed", type=int, default=0, help="of the training; default: 0")
    assistants = parser.add_argument_group("assistants")
    assistants.add_argument("--metric", metavar="NAME", help="what must get better, of an assistant; default: ndcg@10")
    assistants.add_argument(
        "--synthetic", nargs="?", const="rules", metavar="PROVIDER:NAME",
        help="learn from made-up questions: by rules, or by this model",
    )  # fmt: skip
    assistants.add_argument(
        "--shuffled",
        action="store_true",
        help="train on answers dealt out to the wrong questions: a candidate that must be refused",
    )
    typed = parser.add_argument_group("typed tasks")
    typed.add_argument("--items", type=Path, metavar="ITEMS.jsonl", help="known answers, instead of feedback on traces")
    typed.add_argument(
        "--scored-by", metavar="NAME", help="as rouge-l, or FILE.py:NAME of (wanted, given); default: equal or not"
    )
    typed.add_argument(
        "--margin", type=float, metavar="SHARE", help="a faster candidate may be so much worse, 0.02 for instance"
    )
    typed.add_argument("--reflector", metavar="PROVIDER:NAME", help="the model that writes instructions")
    typed.add_argument("--base", metavar="MODEL", help="the encoder that becomes a small model; default: MiniLM")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    typed = ".py" in args.task
    _refuse(args, typed)
    with opened(args) as ws:
        if args.shuffled:
            return _shuffled(ws, args)
        turned = (_task if typed else _assistant)(ws, args, _plan(args))
        print(turned.page.markdown())
        print(f"report: {turned.report.path / 'report.html'}")
    return 0 if turned.promoted or turned.trial else REFUSED


def _refuse(args: argparse.Namespace, typed: bool) -> None:
    """Raises `InputError` for options of the other kind of task."""
    if args.policy and (args.metric or args.margin is not None):
        raise InputError("--policy says all that a candidate must show.", "Leave --metric and --margin out.")
    if args.margin is not None and not 0 < args.margin < 1:
        raise InputError(f"--margin is a share of the answers, not {args.margin:g}.", "Give 0.02, say: 2 of a hundred.")
    names = ("metric", "synthetic", "shuffled") if typed else ("items", "scored_by", "margin", "reflector", "base")
    for name in names:
        if getattr(args, name):
            kind = "an assistant" if typed else "a typed task, FILE.py:NAME"
            raise InputError(f"--{name.replace('_', '-')} is for {kind}; this is '{args.task}'.", "Leave it out.")


def _plan(args: argparse.Namespace) -> Plan:
    from windlass.loop.turning.spending import Limits
    from windlass.loop.turning.turn import Plan

    return Plan(Limits(args.minutes, args.dollars, args.tokens), args.finalists, tuple(args.only), args.canary)


def _assistant(ws: Workspace, args: argparse.Namespace, plan: Plan) -> Turned:
    from windlass.evaluate.exam.outcomes import METRICS
    from windlass.evaluate.exam.results import POLICY
    from windlass.evaluate.gate import superiority
    from windlass.evaluate.policy import Policy, read_policy
    from windlass.loop.turning.candidate import Recipe
    from windlass.loop.turning.turn import turn_assistant

    policy = read_policy(args.policy) if args.policy else POLICY
    policy.check_metrics(METRICS)
    if args.metric:
        if args.metric not in METRICS:
            raise InputError(f"There is no metric '{args.metric}' of assistants.", f"There are: {', '.join(METRICS)}.")
        policy = Policy(args.metric, superiority(better=METRICS[args.metric].better))
    synthetic: Any = bool(args.synthetic)
    if args.synthetic and args.synthetic != "rules":
        from windlass.loop.tasks import surroundings

        synthetic = surroundings(ws).model(args.synthetic)
    return turn_assistant(
        ws, args.task, plan, recipe=Recipe(seed=args.seed), policy=policy, synthetic=synthetic, tell=_tell
    )


def _task(ws: Workspace, args: argparse.Namespace, plan: Plan) -> Turned:
    from windlass.apply.tasks.loading import load_task
    from windlass.evaluate.gate import non_inferiority, superiority
    from windlass.evaluate.policy import Policy, read_policy
    from windlass.loop.evaluating.items import read_items
    from windlass.loop.evaluating.scorers import equal
    from windlass.loop.prompting.scored import scored_by
    from windlass.loop.prompting.searching import Search
    from windlass.loop.tasks import surroundings
    from windlass.loop.turning.students import Teaching
    from windlass.loop.turning.turn import turn_task
    from windlass.loop.turning.typed import MEASURED, POLICY

    policy = read_policy(args.policy, {POLICY.primary: "higher"}) if args.policy else POLICY
    policy.check_metrics(MEASURED)
    if args.margin is not None:
        policy = Policy(POLICY.primary, non_inferiority(args.margin), {"latency_ms": superiority(better="lower")})
    return turn_task(
        ws,
        load_task(args.task),
        plan,
        items=read_items(args.items) if args.items else None,
        metric=scored_by(args.scored_by) if args.scored_by else equal,
        policy=policy,
        settings=Search(seed=args.seed),
        teaching=Teaching(base=args.base, seed=args.seed),
        reflector=args.reflector,
        around=surroundings(ws),
        tell=_tell,
    )


def _shuffled(ws: Workspace, args: argparse.Namespace) -> int:
    from windlass.loop.turning.candidate import Recipe
    from windlass.loop.turning.one_recipe import render_turn, turn

    report = turn(ws, args.task, recipe=Recipe(kind="shuffled", seed=args.seed), tell=_tell)
    print(render_turn(report))
    return 0 if report.promoted else REFUSED


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
