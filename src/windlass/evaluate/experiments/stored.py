"""An experiment as one JSON object, a row for each item, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.files import write_json
from windlass.evaluate.experiments.experiment import Comparison, Experiment
from windlass.evaluate.experiments.judged import Judged
from windlass.evaluate.experiments.pairing import Repeats
from windlass.evaluate.experiments.planning import Plan
from windlass.evaluate.experiments.reports import markdown
from windlass.evaluate.experiments.results import ItemResult, Results
from windlass.evaluate.experiments.slices import Slice
from windlass.evaluate.gate import Verdict
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.intervals import Interval

KIND = "experiment"
FILE = "experiment.json"
FORMAT = "windlass.experiment/1"
_SIDES = ("incumbent", "candidate")
_OF_THE_ITEM = ("item", "cluster", "slices", "input", "expected")
_OF_A_RUN = ("repeat", "values", "errors", "output", "trace")


def write_experiment(folder: Path, experiment: Experiment) -> None:
    """`experiment.json` and `README.md`, the files of an artifact of kind `experiment`."""
    write_json(folder / FILE, to_json(experiment))
    (folder / "README.md").write_text(markdown(experiment), encoding="utf-8")


def read_experiment(artifact: Artifact) -> Experiment:
    """The stored comparison. Raises `InputError` for an artifact of another kind, or of another form."""
    if artifact.kind != KIND:
        raise InputError(f"{artifact.ref} is of kind '{artifact.kind}', not an experiment.")
    return read_file(artifact.path / FILE)


def read_file(path: Path) -> Experiment:
    """Raises `InputError` for a file of another form."""
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Run the comparison again.") from error


def to_json(experiment: Experiment) -> dict[str, Any]:
    row: dict[str, Any] = {"format": FORMAT, "dataset": experiment.dataset, "split": experiment.incumbent.split}
    for field in fields(experiment):
        value = getattr(experiment, field.name)
        if isinstance(value, Results):
            row[field.name] = {
                "variant": value.variant,
                "digest": value.digest,
                "scorers": dict(value.scorers),
                "made_with": dict(value.made_with),
            }
        else:
            row[field.name] = value.to_json() if isinstance(value, Policy | Verdict) else _plain(value)
    row["items"] = _items(experiment)
    return row


def from_json(row: Mapping[str, Any], where: str = "the experiment") -> Experiment:
    """Raises `InputError` for what is of another form."""
    if not isinstance(row, Mapping) or row.get("format") != FORMAT:
        raise InputError(f"{where} is not of the form {FORMAT}.", "Run the comparison again.")
    try:
        sides = {name: _results(row, name) for name in _SIDES}
        return Experiment(
            **sides,
            comparisons=tuple(_comparison(one) for one in row["comparisons"]),
            slices=tuple(
                Slice(**{**one, "difference": Interval.from_json(one["difference"])}) for one in row["slices"]
            ),
            verdict=Verdict.from_json(row["verdict"]),
            policy=Policy.from_json(row["policy"]),
            seed=row["seed"],
            plan=None if row["plan"] is None else Plan(**row["plan"]),
            code=row["code"],
            version=row["version"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where} is damaged: {error!r}.", "Run the comparison again.") from error


def _items(experiment: Experiment) -> list[dict[str, Any]]:
    """One row for each item, with the runs of both sides."""
    rows: dict[str, dict[str, Any]] = {}
    for pair in experiment.pairs:
        first = pair[0]
        if first.item not in rows:
            rows[first.item] = {name: getattr(first, name) for name in _OF_THE_ITEM} | {side: [] for side in _SIDES}
        for side, one in zip(_SIDES, pair):
            rows[first.item][side].append({name: getattr(one, name) for name in _OF_A_RUN})
    return list(rows.values())


def _results(row: Mapping[str, Any], side: str) -> Results:
    items = [
        ItemResult(**{name: item[name] for name in _OF_THE_ITEM}, **run) for item in row["items"] for run in item[side]
    ]
    return Results(dataset=row["dataset"], split=row["split"], items=tuple(items), **row[side])


def _comparison(row: Mapping[str, Any]) -> Comparison:
    intervals = {name: Interval.from_json(row[name]) for name in ("incumbent", "candidate", "difference")}
    repeats = None if row["repeats"] is None else Repeats(**row["repeats"])
    judged = row.get("judged")
    if judged is not None:
        judged = Judged(**{**judged, "difference": Interval.from_json(judged["difference"])})
    return Comparison(**{**row, **intervals, "repeats": repeats, "judged": judged})


def _plain(value: Any) -> Any:
    """Dataclasses and tuples as JSON objects and lists; intervals by their own rule."""
    if isinstance(value, Interval):
        return value.to_json()
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value
