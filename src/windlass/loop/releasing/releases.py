"""Releases: which variant a task serves, and the way back.

Every change is one appended row and nothing is ever rewritten, so a killed process leaves either the old state or
the new one. What is live, and what a rollback returns to, is read from the rows: a promotion lays its variant on a
stack, a rollback takes the top one off.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, NotFound
from windlass.core.records import ReleaseRecord
from windlass.core.workspace import Workspace
from windlass.loop.evaluating.experiments import valid


def history(ws: Workspace, task: str | None = None) -> list[ReleaseRecord]:
    """All changes, newest first."""
    return ws.store.releases(task)


def live(ws: Workspace, task: str) -> ReleaseRecord | None:
    """The change that made what `task` serves now; None before the first promotion."""
    rows = ws.store.releases(task)
    return rows[0] if rows else None


def live_variant(ws: Workspace, task: str) -> Artifact:
    """The variant that `task` serves now. Raises `NotFound` before the first promotion."""
    row = live(ws, task)
    if row is None:
        raise NotFound(
            f"Nothing is released for the task '{task}' yet.",
            f'Release one, as `windlass demo` does: windlass promote {task} INDEX_OR_PROMPT --reason "the first"',
        )
    return ws.artifacts.get(row.variant)


def promote(ws: Workspace, task: str, variant: Artifact, experiment: Artifact | None, reason: str) -> ReleaseRecord:
    """Makes `variant` what `task` serves. Durable when it returns.

    With an `experiment`, the incumbent it measured against must be what is live: a comparison with anything else
    says nothing about this change. Repeating a promotion that was made already returns the row of the first time,
    so that an interrupted turn can simply run again. Raises `InputError` for anything but a variant, for one that is
    live already, and for an outdated or invalid experiment; `WorkspaceBusy` when another process changed the release
    meanwhile.
    """
    if variant.kind != "variant":
        raise InputError(f"{variant.ref} is of kind '{variant.kind}'; only a variant can be promoted.")
    now = live(ws, task)
    if now is not None and now.variant == variant.digest:
        if now.action == "promote" and now.experiment == (experiment.digest if experiment else None):
            return now
        raise InputError(f"{variant.ref} is what '{task}' serves already.", "There is nothing to promote.")
    if experiment is not None:
        valid(ws, experiment)
        compared = {role: digest for role, digest in experiment.record.parents if role in ("incumbent", "candidate")}
        if compared.get("candidate") != variant.digest:
            raise InputError(f"{experiment.ref} did not measure {variant.ref}.", "Promote the candidate it compared.")
        if now is None or compared.get("incumbent") != now.variant:
            raise InputError(
                f"{experiment.ref} compared {variant.ref} with a variant that '{task}' no longer serves.",
                f"Run `windlass turn {task}` again: it compares with what is live now.",
            )
    row = ReleaseRecord(
        id=0,
        task=task,
        variant=variant.digest,
        previous=now.variant if now else None,
        action="promote",
        reason=reason,
        experiment=experiment.digest if experiment else None,
        at=time.time(),
    )
    return ws.store.add_release(row, expected=now.variant if now else None)


def rollback(ws: Workspace, task: str, reason: str = "rolled back by hand") -> ReleaseRecord:
    """Serves the variant that was live before the live one; repeated, it goes further back.

    A promotion after a rollback continues from where the rollback led. Raises `NotFound` when nothing was released,
    `InputError` when the first variant is live, `WorkspaceBusy` when another process was faster.
    """
    rows = ws.store.releases(task)
    if not rows:
        raise NotFound(f"Nothing is released for the task '{task}' yet.", "`windlass releases` lists what there is.")
    stack = served(rows)
    if len(stack) < 2:
        raise InputError(
            f"'{task}' serves the first variant it ever had; there is nothing before it to go back to.",
            f"`windlass releases {task}` shows every change.",
        )
    target = ws.artifacts.get(stack[-2])  # refuses to go back to a variant whose files are gone
    row = ReleaseRecord(
        id=0,
        task=task,
        variant=target.digest,
        previous=rows[0].variant,
        action="rollback",
        reason=reason,
        experiment=None,
        at=time.time(),
    )
    return ws.store.add_release(row, expected=rows[0].variant)


def served(rows: Sequence[ReleaseRecord]) -> list[str]:
    """Digests of the variants under and at the top of a task's stack, from its rows as stored (newest first)."""
    stack: list[str] = []
    for row in reversed(rows):
        if row.action == "promote":
            stack.append(row.variant)
        else:
            stack.pop()
    return stack
