"""A judge as a metric of results: its judgements as values of the items, and with them what is known of the judge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from windlass.core.errors import InputError
from windlass.evaluate.experiments.results import JUDGES, ItemResult, Results
from windlass.evaluate.judges.calibration import Calibration
from windlass.evaluate.judges.items import Item
from windlass.evaluate.judges.judge import SIDES, Judge
from windlass.evaluate.judges.judgement import Judgement
from windlass.evaluate.judges.trust import Trust


def item_of(one: ItemResult, judge: Judge, other: ItemResult | None = None) -> Item:
    """What a judge, or a person with its rubric, is shown of a result; of a pair, `other` is the second output.

    Fields are looked for by name in what was asked and expected; a judge with one input is given all of what was asked,
    and its reference is all of what was expected. Raises `InputError` for a field that is in neither.
    """
    if judge.pairwise != (other is not None):
        raise InputError(
            f"'{judge.name}' looks at {'two outputs' if judge.pairwise else 'one output'} of an item.",
            "Use a pairwise judge for two variants, and a rubric for one.",
        )
    asked = judge.inputs[:-1]
    inputs = {name: _field(name, one.input, len(asked) == 1, f"item '{one.item}'") for name in asked}
    if judge.reference:
        inputs[judge.reference] = _field(judge.reference, one.expected, True, f"item '{one.item}'")
    if other is None:
        inputs[judge.judged] = _text(one.output)
    else:
        inputs |= {f"{judge.judged}{side}": _text(each.output) for side, each in zip(SIDES, (one, other))}
    return Item(f"{one.item}#{one.repeat}" if one.repeat else one.item, inputs, one.trace, one.cluster or None)


def judged_items(results: Results, judge: Judge) -> list[Item]:
    """Those that there is an output of; the others have their error already."""
    return [item_of(one, judge) for one in results.items if one.failed is None]


def with_judgements(
    results: Results, judge: Judge, judgements: Sequence[Judgement], calibrations: Sequence[Calibration] = ()
) -> Results:
    """The results with what the judge says of them: values by the names of its scores, or why there are none."""
    names = {criterion.name: judge.score_name(criterion.name) for criterion in judge.criteria}
    said = iter(judgements)
    items = []
    for one in results.items:
        if one.failed is not None:
            items.append(one)
            continue
        judgement = next(said)
        values = {names[criterion]: value for criterion, value in judgement.values.items()}
        errors = {} if judgement.error is None else dict.fromkeys(names.values(), judgement.error)
        items.append(replace(one, values={**one.values, **values}, errors={**one.errors, **errors}))
    known: Mapping[str, Any] = results.made_with.get(JUDGES, {})
    of = {one.criterion: one for one in calibrations}
    trust = {names[c.name]: Trust(judge, c, of.get(c)).to_json() for c in judge.criteria}
    return replace(
        results,
        items=tuple(items),
        scorers={**results.scorers, **dict.fromkeys(names.values(), judge.digest)},
        made_with={**results.made_with, JUDGES: {**known, **trust}},
    )


def _field(name: str, held: Any, alone: bool, where: str) -> str:
    if isinstance(held, Mapping) and name in held:
        return _text(held[name])
    if alone and held is not None:
        only = next(iter(held.values())) if isinstance(held, Mapping) and len(held) == 1 else held
        return _text(only)
    raise InputError(f"There is no '{name}' in {where}.", "Name the judge's inputs as the dataset does.")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
