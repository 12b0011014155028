"""Simulated traffic: traces as calls leave them, without the calls."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

from windlass.core.artifacts import Artifact
from windlass.core.records import ScoreRecord, SpanRecord
from windlass.core.workspace import Workspace
from windlass.evaluate.moments import Moments
from windlass.evaluate.policy import Policy
from windlass.loop.releasing.measuring import UNIT, Seen
from windlass.loop.releasing.releases import promote
from windlass.loop.releasing.routing import assigned
from windlass.loop.releasing.trial import State, Trial, begin, new_id

TASK = "assistant"
BEGAN = 1_000_000.0


def variant(ws: Workspace, text: str) -> Artifact:
    with ws.artifacts.build("variant", TASK) as draft:
        (draft.path / "variant.json").write_text(text, encoding="utf-8")
    return draft.done


def trial(
    ws: Workspace, policy: Policy, *, share: float = 0.5, candidates: int = 1, planned: int = 1000, **more: object
) -> State:
    live = variant(ws, "live")
    promote(ws, TASK, live, None, "the first")
    found = [variant(ws, f"candidate {n}").digest for n in range(candidates)]
    said = Trial(new_id(), TASK, live.digest, tuple(found), policy, planned, began=BEGAN, **more)  # type: ignore[arg-type]
    return begin(ws, said, {live.digest: 1 - share * candidates} | dict.fromkeys(found, share))


Outcome = Callable[[str, random.Random], tuple[bool, float, float | None]]
"""From the arm to (failed, milliseconds, feedback)."""


def serve(
    ws: Workspace,
    users: Iterable[str],
    outcome: Outcome,
    chance: random.Random,
    *,
    lose: Callable[[str], bool] = lambda arm: False,
    at: float = BEGAN + 10,
) -> None:
    """One call of each user."""
    spans, scores = [], []
    for user in users:
        found = assigned(ws, TASK, user)
        if lose(found.variant):
            continue
        failed, took, feedback = outcome(found.variant, chance)
        trace, begin_ns = f"{chance.getrandbits(128):032x}", int(at * 1e9)
        spans.append(
            SpanRecord(
                trace, f"{chance.getrandbits(64):016x}", None, TASK, "invoke_workflow", begin_ns,
                begin_ns + int(took * 1e6), "error" if failed else "ok", "down" if failed else None,
                {UNIT: user, **found.marks},
            )
        )  # fmt: skip
        if feedback is not None:
            scores.append(ScoreRecord(f"s{trace}", trace, "feedback", feedback, "user", user, at))
    ws.store.add_spans(spans)
    for score in scores:
        ws.store.add_score(score)


def seen_of(values: Mapping[str, Mapping[str, Mapping[str, float]]], shares: Mapping[str, float]) -> Seen:
    """Arm -> unit -> metric -> value, as a count of them under these shares."""
    sums: dict[str, dict[str, Moments]] = {arm: {} for arm in values}
    for arm, units in values.items():
        for said in units.values():
            for metric, value in said.items():
                sums[arm][metric] = sums[arm].get(metric, Moments()) + Moments.of(value, shares[arm])
    units = {arm: len(some) for arm, some in values.items()}
    return Seen(units, dict.fromkeys(values, 0), sums, {arm: {shares[arm]: n} for arm, n in units.items()})
