"""The items of a map: any iterable, or a file of JSON lines, read one at a time; and what each gives a task."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

from windlass.apply.tasks.forms.schema import Shape, Unfit
from windlass.apply.tasks.signature import Signature
from windlass.core.errors import InputError
from windlass.core.values import AudioPart, FilePart, ImagePart

_AS_IT_IS = (str, Any, ImagePart, AudioPart, FilePart)


@dataclass(frozen=True, slots=True)
class Item:
    where: str
    """What error messages call it."""
    value: Any
    text: bytes | None = None
    """The line of a file that holds it, not yet read."""


@contextlib.contextmanager
def opened(items: Iterable[Any] | str | Path) -> Iterator[tuple[Iterator[Item], int | None]]:
    """The items one by one, and how many there are, where that is known. Raises `InputError`."""
    if isinstance(items, str | Path):
        path = Path(items)
        try:
            with path.open("rb") as file:
                total = sum(1 for line in file if line.strip())
                if not total:
                    raise InputError(f"{path} holds no item.", "Each line is one JSON value.")
                file.seek(0)
                lines = (Item(f"{path}, line {n}", None, line) for n, line in enumerate(file, 1) if line.strip())
                yield lines, total
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    elif isinstance(items, Mapping):
        raise InputError("A mapping is one item, not many.", "Give a list of them.")
    else:
        each = (Item(f"Item {n}", value) for n, value in enumerate(items))
        yield each, len(items) if isinstance(items, Sized) else None


class Inputs:
    """Makes a task's inputs of an item. What comes from a file becomes what the task's types say."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._known = signature.inputs
        self._first = next(iter(signature.inputs), None)
        if self._first is None:
            raise InputError(f"'{signature.name}' takes no input: there is nothing to map over.")
        kind = get_origin(self._known[self._first]) or self._known[self._first]
        self._dictionary = len(self._known) == 1 and isinstance(kind, type) and issubclass(kind, Mapping)
        self._shapes: dict[str, Shape[Any]] = {}

    def __call__(self, item: Item) -> dict[str, Any]:
        """Defaults included. Raises `InputError` naming the item and the field."""
        value = item.value if item.text is None else _read(item)
        given = self._named(value)
        takes = f"'{self._signature.name}' takes {', '.join(self._known)}"
        unknown = sorted(given.keys() - self._known.keys(), key=str)
        if unknown:
            raise InputError(
                f"{item.where} has a field '{unknown[0]}'; {takes}.", "Leave it out: task.map({…} for row in rows)."
            )
        if item.text is not None:
            given = {name: self._typed(item, name, plain) for name, plain in given.items()}
        try:
            return self._signature.bound((), given)
        except TypeError as error:
            raise InputError(f"{item.where}: {error}.", f"{takes}.") from error

    def _named(self, value: Any) -> dict[str, Any]:
        """A mapping gives the inputs by name, anything else is the first one. A task whose only input is a dictionary
        takes any mapping for it that does not name it."""
        if isinstance(value, Mapping) and not (self._dictionary and value.keys() != {self._first}):
            return {str(name): one for name, one in value.items()}
        assert self._first is not None
        return {self._first: value}

    def _typed(self, item: Item, name: str, plain: Any) -> Any:
        kind = self._known[name]
        if kind in _AS_IT_IS and (kind is not str or isinstance(plain, str)):
            return plain
        if name not in self._shapes:
            self._shapes[name] = Shape(kind, where=f"the input '{name}'")
        try:
            return self._shapes[name].value(plain)
        except Unfit as unfit:
            raise InputError(f"{item.where}, field '{name}': {unfit.of_one}.", "Mend that line.") from unfit


def _read(item: Item) -> Any:
    assert item.text is not None
    try:
        return json.loads(item.text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{item.where} is not JSON ({error}).", "Each line is one JSON value.") from error
