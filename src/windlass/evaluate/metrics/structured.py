"""Answers that are JSON: whether they are, whether they fit a schema, and how many of their fields are right."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.core.json_schema import check_schema, same, valid
from windlass.evaluate.metrics.assignment import best_pairs
from windlass.evaluate.metrics.text.texts import References, paired

Same = Callable[[Any, Any], bool]


def json_valid(found: Sequence[str], schema: Any = True) -> NDArray[np.float64]:
    """Per item 1.0 where the text is JSON and nothing else, and valid under the schema (everything is, by default).

    Raises `InputError` for no items, and naming what of the schema is not checked here.
    """
    if not len(found):
        raise InputError("There are no items to score.", "Check that the dataset is not empty.")
    check_schema(schema, "The schema")
    return np.array([float(_fits(text, schema)) for text in found])


def json_field_f1(found: Sequence[str], right: References) -> NDArray[np.float64]:
    """Per item the F1 of fields with the nearest reference; a text that is no JSON has 0. References are JSON texts.

    Raises `InputError` as `paired`, and naming an item whose reference is no JSON.
    """
    scores = []
    for number, (text, references) in enumerate(paired(found, right), start=1):
        wanted = []
        for one in references:
            try:
                wanted.append(_read(one))
            except (ValueError, RecursionError) as error:
                raise InputError(f"Item {number}: its reference is no JSON ({error}).") from error
        try:
            said = _read(text)
        except (ValueError, RecursionError):  # no JSON, or nested without end
            scores.append(0.0)
            continue
        scores.append(max(match_fields(said, one).f1 for one in wanted))
    return np.array(scores)


@dataclass(frozen=True, slots=True)
class Fields:
    """Of one value beside the right one. A field is what stands at the end of a path: text, number, true, false, null,
    and an empty list or object."""

    shared: int
    found: int
    wanted: int

    @property
    def precision(self) -> float:
        """Of the fields given, the share that is right."""
        return self.shared / self.found

    @property
    def recall(self) -> float:
        """Of the right fields, the share that was given."""
        return self.shared / self.wanted

    @property
    def f1(self) -> float:
        return 2 * self.shared / (self.found + self.wanted)


def match_fields(found: Any, right: Any, *, ordered: bool = True, alike: Same = same) -> Fields:
    """How many fields two values share, as `json` reads them; a whole value that is one field counts as one.

    ordered: elements of lists are compared place by place; otherwise each goes with the one that it shares most with,
    so that the lists share as much as they can. alike: when two fields are the same; JSON's equality, unless given.
    """
    return Fields(_shared(found, right, ordered, alike), _size(found), _size(right))


def _shared(found: Any, right: Any, ordered: bool, alike: Same) -> int:
    if isinstance(found, Mapping) and isinstance(right, Mapping) and (found or right):
        return sum(_shared(found[key], right[key], ordered, alike) for key in found.keys() & right.keys())
    if isinstance(found, list) and isinstance(right, list) and (found or right):
        if ordered or not found or not right:
            return sum(_shared(one, other, ordered, alike) for one, other in zip(found, right))
        common = np.array([[_shared(one, other, ordered, alike) for other in right] for one in found], dtype=float)
        return int(sum(common[pair] for pair in best_pairs(common)))
    if isinstance(found, Mapping | list) != isinstance(right, Mapping | list):
        return 0
    return int(alike(found, right))


def _size(value: Any) -> int:
    if isinstance(value, Mapping | list) and value:
        return sum(map(_size, value.values() if isinstance(value, Mapping) else value))
    return 1


def _fits(text: str, schema: Any) -> bool:
    try:
        return valid(_read(text), schema)
    except (ValueError, RecursionError):  # no JSON, or nested without end
        return False


def _read(text: str) -> Any:
    return json.loads(text, parse_constant=_no_number)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
