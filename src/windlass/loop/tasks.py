"""Tasks in a workspace: who answers for them by name, local models included, and how often they are right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windlass.apply.tasks.citing import context
from windlass.apply.tasks.loading import AnyTask
from windlass.apply.tasks.outcome import NoAnswer
from windlass.apply.tasks.running import Model
from windlass.apply.tasks.schema import Shape, Unfit
from windlass.apply.tasks.surroundings import Surroundings
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.evaluate.statistics.intervals import Interval, wilson_interval

LOCAL = "local:"


def surroundings(ws: Workspace | None) -> Surroundings:
    """As tasks find them by themselves, and `local:NAME` besides: a model of the workspace, or a model's folder, run by
    windlass's own engine; a classifier gives its labels as the task's answers."""
    around = Surroundings(ws)

    def resolve(name: str) -> Model:
        return _local(ws, name.removeprefix(LOCAL)) if name.startswith(LOCAL) else around.known(name)

    return Surroundings(ws, resolve=resolve)


def _local(ws: Workspace | None, name: str) -> Model:
    from windlass.loop.assemble import model_artifact
    from windlass.loop.encoders import encoder_place
    from windlass.serve.encoders.opening import encoder_in, holds_encoder
    from windlass.serve.engine.local import LocalModel

    with encoder_place(ws, name) as (folder, called):
        if folder.is_dir() and holds_encoder(folder):
            return _labels(encoder_in(folder, called), name)
    if (Path(name) / "config.json").is_file():
        return LocalModel.load(Path(name), recorder=None)
    if ws is None:
        raise InputError(f"There is no model's folder {name}, and no workspace here.", "Run `windlass init` first.")
    artifact = model_artifact(ws, name)
    return LocalModel.load(artifact.path, name=artifact.record.name, digest=artifact.digest, recorder=None)


def _labels(encoder: object, name: str) -> Model:
    from windlass.serve.encoders.cross_encoder import TextClassifier
    from windlass.serve.encoders.label_model import LabelModel

    if not isinstance(encoder, TextClassifier):
        raise InputError(f"{name} gives no labels, so it carries out no task.", "Tune one: `windlass tune classify`.")
    return LabelModel(encoder, name=f"{LOCAL}{name}")


@dataclass(frozen=True, slots=True)
class Marks:
    """How a task did on items whose answers are known."""

    right: int
    wrong: int
    failed: int
    """No answer at all; counted as not right."""
    share: Interval
    cost_usd: float | None
    """None when a price is not known."""
    misses: list[tuple[Mapping[str, Any], Any, Any]]
    """Inputs, the answer that was expected, and what came (or why nothing came)."""


def marked(task: AnyTask, items: Iterable[Mapping[str, Any]], say: Callable[[int], None] = lambda done: None) -> Marks:
    """Runs the task on each item, `{"inputs": {...}, "expected": ...}`, and compares the answers as JSON.

    Raises `InputError` naming the item that is none, before anything is asked.
    """
    output = Shape[Any](task.signature.output)
    rows = [_item(task, output, number, item) for number, item in enumerate(items, start=1)]
    if not rows:
        raise InputError("There are no items.", 'Give lines of {"inputs": {...}, "expected": ...}.')
    right = failed = 0
    cost: float | None = 0.0
    misses: list[tuple[Mapping[str, Any], Any, Any]] = []
    for done, (inputs, expected) in enumerate(rows, start=1):
        spent: float | None
        try:
            outcome = task.run(**inputs)
            said, spent = output.plain(outcome.value), outcome.cost_usd
        except NoAnswer as error:
            failed, said, spent = failed + 1, error.message, error.cost_usd
        else:
            right += said == expected
        if said != expected:
            misses.append((inputs, expected, said))
        cost = None if cost is None or spent is None else cost + spent
        say(done)
    wrong = len(rows) - right - failed
    return Marks(right, wrong, failed, wilson_interval(right, len(rows)), cost, misses)


def _item(task: AnyTask, output: Shape[Any], number: int, item: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    where = f"Item {number}"
    if not isinstance(item, Mapping) or not isinstance(item.get("inputs"), Mapping) or "expected" not in item:
        raise InputError(f'{where} is not {{"inputs": {{...}}, "expected": ...}}.')
    inputs = {}
    for name, value in item["inputs"].items():
        if name not in task.signature.inputs:
            raise InputError(f"{where}: the task has no input '{name}'.", f"It has {', '.join(task.signature.inputs)}.")
        try:
            inputs[name] = Shape[Any](task.signature.inputs[name]).value(value)
        except Unfit as unfit:
            raise InputError(f"{where}, input '{name}': {unfit.of_one}.") from unfit
    try:
        bound = task.signature.bound((), inputs)
        expected = output.value(item["expected"], context(output, bound, task.signature.inputs))
        return bound, output.plain(expected)
    except TypeError as error:
        raise InputError(f"{where}: {error}.") from error
    except Unfit as unfit:
        raise InputError(f"{where}, expected: {unfit.of_one}.") from unfit
