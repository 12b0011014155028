"""Tries variants on a share of live traffic, and takes them back when they do harm.

windlass canary start assistant VARIANT --share 0.1        a tenth of the users get the variant, always the same ones
windlass canary start tone tone@2 tone@3 --bandit --reward feedback
                                                           shares that follow what the variants earn
windlass canary show assistant                             shares, users, figures, and what can be told by now
windlass canary share assistant VARIANT 0.5                more: those who have the variant keep it
windlass canary look assistant                             look now; the server looks by itself, every half minute
windlass canary promote assistant VARIANT                  end it: everybody gets the variant
windlass canary stop assistant                             end it: everybody gets what is live

What must hold is a policy (--policy FILE.toml); without one, failures may not grow by 2 % of the calls. Each look is
valid however often one looks; a guard that is violated ends the trial at once. `look` exits with 0 for GO, 3 when the
trial was rolled back, and 4 while it cannot be told.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.cli.promote import variant_of
from windlass.cli.verdicts import STATUS
from windlass.cli.workspace import add_option, opened
from windlass.core.errors import InputError, NotFound

if TYPE_CHECKING:
    from windlass.core.workspace import Workspace
    from windlass.loop.releasing.trial import State


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("start", help="begin a trial")
    start.add_argument("task")
    start.add_argument("variants", nargs="+", metavar="VARIANT", help="a variant, a prompt of the task, or an index")
    start.add_argument("--share", type=float, default=0.1, help="of each variant; default: 0.1")
    start.add_argument("--policy", type=Path, metavar="FILE.toml", help="what a variant must show")
    start.add_argument("--planned", type=int, metavar="N", help="users in all; default: 2000")
    start.add_argument("--promote", action="store_true", help="a variant that passes goes live by itself")
    start.add_argument("--bandit", action="store_true", help="shares follow the reward (Thompson sampling)")
    start.add_argument("--reward", default="feedback", metavar="METRIC", help="from 0 to 1; default: feedback")
    start.add_argument("--floor", type=float, default=0.05, help="share that each arm of a bandit keeps; default: 0.05")
    start.add_argument("--reason", default="", help="kept with the history")
    share = verbs.add_parser("share", help="change a share")
    share.add_argument("task")
    share.add_argument("variant")
    share.add_argument("share", type=float)
    share.add_argument("--reason", default="changed by hand")
    promote = verbs.add_parser("promote", help="end the trial: the variant goes live")
    promote.add_argument("task")
    promote.add_argument("variant")
    promote.add_argument("--reason", default="promoted by hand")
    stop = verbs.add_parser("stop", help="end the trial: what is live stays")
    stop.add_argument("--reason", default="stopped by hand")
    for verb in (stop, verbs.add_parser("show", help="how it stands"), verbs.add_parser("look", help="look now")):
        verb.add_argument("task")
    for verb in verbs.choices.values():
        add_option(verb)


def run(args: argparse.Namespace) -> int:
    with opened(args) as ws:
        if args.verb == "show":
            return _show(ws, args)
        if args.verb == "look":
            return _look(ws, args)
        print(_state(ws, _start(ws, args) if args.verb == "start" else _changed(ws, args)))
    return 0


def _start(ws: Workspace, args: argparse.Namespace) -> State:
    from windlass.evaluate.policy import read_policy
    from windlass.loop.releasing.releases import live_variant
    from windlass.loop.releasing.trial import NO_WORSE, PLANNED, Trial, begin, new_id

    incumbent = live_variant(ws, args.task)
    candidates = [variant_of(ws, args.task, ref).digest for ref in args.variants]
    if incumbent.digest in candidates or len(set(candidates)) < len(candidates):
        raise InputError("A variant is there twice, or is what is live already.", "Name others.")
    policy = NO_WORSE if args.policy is None else read_policy(args.policy, {"failed": "lower", "feedback": "higher"})
    kind, reward = ("bandit", args.reward) if args.bandit else ("canary", "")
    share = 1 / (len(candidates) + 1) if args.bandit else args.share
    shares = {incumbent.digest: 1 - share * len(candidates)} | dict.fromkeys(candidates, share)
    planned = PLANNED if args.planned is None else args.planned
    trial = Trial(
        new_id(), args.task, incumbent.digest, tuple(candidates), policy, planned,
        kind, reward, args.floor, args.promote, time.time(),  # type: ignore[arg-type]
    )  # fmt: skip
    return begin(ws, trial, shares, args.reason)


def _changed(ws: Workspace, args: argparse.Namespace) -> State:
    from windlass.loop.releasing.trial import change_shares, end, must_run
    from windlass.loop.releasing.watching import promote_winner, with_shares

    state, now = must_run(ws, args.task), time.time()
    if args.verb == "stop":
        return end(ws, state, "stopped", args.reason, now)
    candidate = variant_of(ws, args.task, args.variant).digest
    if candidate not in state.trial.candidates:
        raise InputError(f"{args.variant} takes no part in this trial.", f"windlass canary show {args.task}")
    if args.verb == "promote":
        return promote_winner(ws, state, candidate, args.reason, now)
    return change_shares(ws, state, with_shares(state, {candidate: args.share}), args.reason, now)


def _look(ws: Workspace, args: argparse.Namespace) -> int:
    from windlass.loop.releasing.watching import watch

    state = watch(ws, args.task)
    print(_state(ws, state))
    if state.outcome == "rolled back":
        return STATUS["NO-GO"]
    go = state.outcome == "promoted" or (bool(state.looks) and "GO" in state.looks[-1].decisions.values())
    return STATUS["GO"] if go else STATUS["INCONCLUSIVE"]


def _show(ws: Workspace, args: argparse.Namespace) -> int:
    from windlass.loop.releasing.showing import adjusted
    from windlass.loop.releasing.trial import states
    from windlass.loop.releasing.watching import peek

    found = states(ws, args.task)
    if not found:
        raise NotFound(f"There was no trial of '{args.task}' yet.", "`windlass canary start` begins one.")
    state = peek(ws, found[0]) if found[0].running else found[0]
    print(_state(ws, state))
    for candidate in state.trial.candidates:
        more = adjusted(ws, state, candidate)
        if more is not None:
            print(
                f"\nWithout what the users were like before (CUPED): {more.difference}, "
                f"{more.reduction:.0%} of the variance less; for one look, planned beforehand."
            )
    return 0


def _state(ws: Workspace, state: State) -> str:
    from windlass.loop.releasing.showing import rendered

    return rendered(ws, state)
