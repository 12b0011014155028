"""Makes a task serve a variant. `windlass rollback` undoes it.

windlass promote assistant VARIANT --experiment EXPERIMENT    what an experiment found better than what is live
windlass promote tone tone@2 --reason "asked for by support"  a prompt, or a variant, by decision of a person
windlass promote assistant INDEX --reason "the first"         an index: what answers from it, fitted on its exam

With an experiment, its verdict must be GO, it must have compared this variant with what is live, and nobody may have
declared it invalid.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from typing import TYPE_CHECKING

from windlass.cli.workspace import add_option, opened
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from windlass.core.artifacts import Artifact
    from windlass.core.workspace import Workspace


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="the task, such as 'assistant'")
    parser.add_argument("variant", help="name, name@version or digest of a variant, prompt of the task, or index")
    parser.add_argument("--experiment", help="the experiment that allows it")
    parser.add_argument("--reason", default="", help="kept with the release; needed without an experiment")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.loop.releasing.releases import promote

    with opened(args) as ws:
        variant = variant_of(ws, args.task, args.variant)
        experiment = None if args.experiment is None else ws.artifacts.get(args.experiment)
        if experiment is None and not args.reason:
            raise InputError("Nothing says why.", "Name an --experiment, or give a --reason.")
        if experiment is not None and experiment.card.get("verdict") != "GO":
            raise InputError(
                f"The verdict of {experiment.ref} is {experiment.card.get('verdict', 'not known')}.",
                "Promote without it, by --reason, if you know better.",
            )
        reason = args.reason or str(experiment.card["reason"] if experiment else "")
        row = promote(ws, args.task, variant, experiment, reason)
        print(f"'{row.task}' serves {variant.ref} ({row.variant[:12]}) now; `windlass rollback {row.task}` undoes it.")
    return 0


def variant_of(ws: Workspace, task: str, ref: str) -> Artifact:
    """A variant, or that which carries the task out with the prompt, or on the index, of this name."""
    from windlass.apply.prompts import artifact as prompts

    if prompts.is_reference(ref) and ":" in ref:
        return prompts.variant_of(ws, task, prompts.find(ws, ref))
    found = ws.artifacts.get(ref)
    if found.kind == "index":
        from windlass.loop.turning.candidate import variant_of_index

        return variant_of_index(ws, found, task)
    if found.kind == prompts.KIND:
        return prompts.variant_of(ws, task, found)
    _check_task(found, task)
    return found


def _check_task(variant: Artifact, task: str) -> None:
    """A misspelt task would get a release that nobody is served by."""
    path = variant.path / "variant.json"
    said = None
    if path.is_file():
        with contextlib.suppress(ValueError):  # what is no JSON is refused by whoever loads it
            said = json.loads(path.read_text(encoding="utf-8"))
    own = said.get("task") if isinstance(said, dict) else None
    if isinstance(own, str) and own != task:
        raise InputError(f"{variant.ref} carries out the task '{own}', not '{task}'.", f"Write: {own} {variant.ref}")
