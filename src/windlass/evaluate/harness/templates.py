"""Templates of benchmark definitions: `{name}` is a field of the row, `{name[0]}` an entry of a list in it.

As `str.format`, without its attributes and conversions, so that a definition reads fields and does nothing else.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from windlass.core.errors import InputError

_PARSER = string.Formatter()


def text(template: str, row: Mapping[str, Any]) -> str:
    """The template with the row's fields in it. Raises `InputError` naming a field that the row lacks."""
    parts = []
    for before, name, form, conversion in _PARSER.parse(template):
        parts.append(before)
        if name is not None:
            if form or conversion:
                raise InputError(f"'{{{name}}}' in a template asks for a format.", "Write the field's name alone.")
            parts.append(_said(_looked_up(name, row)))
    return "".join(parts)


def value(template: str, row: Mapping[str, Any]) -> Any:
    """What a template of one field alone stands for, as it is in the row; of any other template, its text."""
    pieces = list(_PARSER.parse(template))
    if len(pieces) == 1 and pieces[0][0] == "" and pieces[0][1] is not None and not pieces[0][2]:
        return _looked_up(pieces[0][1], row)
    return text(template, row)


def names(template: str) -> list[str]:
    """The fields that a template reads. Raises `InputError` for a template that is none."""
    try:
        return [name.split("[")[0] for _, name, _, _ in _PARSER.parse(template) if name is not None]
    except ValueError as error:
        raise InputError(f"{template!r} is no template ({error}).", "Write a brace of the text twice.") from error


def _looked_up(name: str, row: Mapping[str, Any]) -> Any:
    field, *places = name.replace("]", "").split("[")
    if field not in row:
        raise InputError(f"There is no field '{field}'.", f"There are: {', '.join(row)}.")
    found = row[field]
    for place in places:
        try:
            found = found[int(place)] if place.isdigit() else found[place]
        except (LookupError, TypeError) as error:
            raise InputError(f"The field '{field}' has no entry [{place}].") from error
    return found


def _said(found: Any) -> str:
    """A number that is whole is written as one, wherever it was read from."""
    if isinstance(found, float) and found.is_integer():
        return str(int(found))
    return str(found)
