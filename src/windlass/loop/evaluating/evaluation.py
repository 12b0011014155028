"""Evaluating a typed task in a workspace: resumable, within a budget, and kept as an artifact of kind `results`.

The same task, model, items, repeats and seed are one evaluation. Stopped by Ctrl-C, a kill, a full disk or its budget
it goes on with the same call; finished, the same call gives what it got, and computes only metrics that are new.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from windlass.apply.prompts import artifact as prompts
from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.surroundings import Surroundings, surrounded
from windlass.apply.wrappers.budget import Budget
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.files import exclusive, sha256_json
from windlass.core.protocols import ChatModel
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.results import Results
from windlass.loop.evaluating.items import Item, different, lines
from windlass.loop.evaluating.running import Asking, Kept, kept_rows, run_items
from windlass.loop.evaluating.scorers import Metric, scorers
from windlass.loop.evaluating.tracing import with_stored_traces
from windlass.loop.journal import Journal
from windlass.loop.metering import Meter, Metered, identity

KIND = "results"
FILE = "results.json"
Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Evaluated:
    results: Results
    artifact: Artifact
    usd: float
    """Paid now."""
    calls: int
    """Made now."""
    reused: int
    """Answers of earlier runs."""


def evaluate(
    ws: Workspace,
    task: Task[..., Any],
    items: Sequence[Item],
    metrics: Sequence[str | Metric] = ("equal",),
    *,
    asking: Asking | None = None,
    budget: Budget | None = None,
    around: Surroundings | None = None,
    again: bool = False,
    traces: bool = True,
    source: str | None = None,
    tell: Tell = lambda _: None,
    done: Callable[[int], object] = lambda _: None,
) -> Evaluated:
    """The results of a task on items, as they stand in the workspace afterwards.

    budget: for all of it, earlier runs included. again: ask anew though it was evaluated before.
    around: who answers for models by name. traces: whether each item leaves one, which counts as no traffic.
    source: where the items are from, for messages.

    Raises `InputError` for items that do not fit, before anything is paid, `OverBudget` where the budget does not cover
    it, and `WorkspaceBusy` while another process evaluates the same.
    """
    asking, found, name = asking or Asking(), scorers(metrics), task.__name__
    different(items)
    recorder = ws.recorder if traces else Recorder(None)
    apart = Surroundings(ws, recorder=recorder, resolve=around.model if around else None)
    with surrounded(apart):
        settled = task.settled(apart)
        model = _model(settled, apart)
        data = store_items(ws, name, items)
        variant, made_with = _variant(ws, settled), {"model": identity(model), "prompt": _prompt_digest(settled)}
        key = sha256_json([name, settled.digest, made_with["model"], data.digest, asking.repeats, asking.seed])
        folder = ws.root / "evaluating"
        folder.mkdir(exist_ok=True)
        with exclusive(folder / f"{name}-{key[:16]}.lock", f"an evaluation of '{name}'"):
            earlier = None if again else _finished(ws, key)
            wanted = {one.name: one.digest for one in found}
            if earlier is not None:
                before = read_results(earlier)
                if dict(before.scorers) == wanted and not any(one.failed for one in before.items):
                    tell(f"evaluated before: {earlier.ref}; --again asks anew")
                    return Evaluated(before, earlier, 0.0, 0, len(before.items))
            journal = Journal(folder / f"{name}-{key[:16]}.jsonl")
            try:
                kept = Kept({} if earlier is None else kept_rows(read_results(earlier)), journal)
                if journal.had:
                    tell(f"goes on: {journal.had:,} answers of an earlier run are not paid again")
                meter = Meter(budget)
                for row in journal.facts.values():
                    meter.before(row["cost_usd"], row["tokens"])
                results = run_items(
                    task,
                    items,
                    found,
                    variant=name if variant is None else prompts.prompt_of(ws, variant).ref,
                    digest=None if variant is None else variant.digest,
                    dataset=data.digest,
                    asking=asking,
                    model=Metered(model, meter, journal),
                    kept=kept,
                    made_with=made_with,
                    evaluation=key,
                    source=source,
                    done=done,
                )
                if traces:
                    ws.recorder.flush()
                results = with_stored_traces(ws.store, results)
                artifact = store_results(ws, name, results, data, variant, key)
                if not any(one.failed for one in results.items):
                    journal.remove()
                return Evaluated(results, artifact, meter.paid_usd, meter.paid_calls, journal.had + len(kept.rows))
            finally:
                journal.close()


def store_items(ws: Workspace, name: str, items: Sequence[Item]) -> Artifact:
    """The same items are the same artifact."""
    with ws.artifacts.build("dataset", f"{name}-items") as draft:
        (draft.path / "items.jsonl").write_text(lines(items), encoding="utf-8")
        draft.card = {"items": len(items), "clusters": len({item.group for item in items})}
    return draft.done


def store_results(
    ws: Workspace,
    name: str,
    results: Results,
    data: Artifact,
    variant: Artifact | None,
    key: str = "",
    *,
    parents: Sequence[tuple[str, Artifact]] = (),
) -> Artifact:
    with ws.artifacts.build(KIND, f"{name}-results") as draft:
        results.write(draft.path / FILE)
        draft.add_parent("dataset", data)
        if variant is not None:
            draft.add_parent("variant", variant)
        for role, parent in parents:
            draft.add_parent(role, parent)
        draft.card = {
            "key": key,
            "task": name,
            "variant": results.variant,
            "items": len({one.item for one in results.items}),
            "repeats": results.repeats,
            "failed": sum(one.failed is not None for one in results.items),
            "metrics": {metric: _mean(results, metric) for metric in results.metrics},
        }
    return draft.done


def read_results(artifact: Artifact) -> Results:
    """Raises `InputError` for an artifact of another kind, or of another form."""
    if artifact.kind != KIND:
        raise InputError(f"{artifact.ref} is of kind '{artifact.kind}', not results.", "Evaluate a variant first.")
    path = artifact.path / FILE
    return Results.from_json(json.loads(path.read_text(encoding="utf-8")), str(path))


def _mean(results: Results, metric: str) -> float | None:
    values = [one.values[metric] for one in results.items if metric in one.values]
    return sum(values) / len(values) if values else None


def _finished(ws: Workspace, key: str) -> Artifact | None:
    for record in ws.store.artifacts(KIND, limit=100_000):
        if record.card.get("key") == key:
            return ws.artifacts.get(record.digest)
    return None


def _model(task: Task[..., Any], around: Surroundings) -> ChatModel:
    wanted = task.settings.model
    model = around.model(wanted) if wanted is None or isinstance(wanted, str) else wanted
    if not isinstance(model, ChatModel):
        raise InputError(f"{model.name} can be asked on an event loop only.", "Give a model that can be waited for.")
    return model


def _variant(ws: Workspace, task: Task[..., Any]) -> Artifact | None:
    """What could be released: the task with this prompt. None where code chooses its examples: no prompt holds that."""
    if callable(task.settings.examples):
        return None
    name = task.__name__
    return prompts.variant_of(ws, name, prompts.add(ws, name, task.prompt))


def _prompt_digest(task: Task[..., Any]) -> str | None:
    return None if callable(task.settings.examples) else prompts.digest(task.prompt)
