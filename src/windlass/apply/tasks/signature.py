"""What a Python function says about itself: its name, its docstring, what goes in, and what comes out."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from windlass.core.errors import InputError

_PLURAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Signature:
    name: str
    instructions: str
    """The docstring."""
    inputs: Mapping[str, Any]
    """Name of a parameter -> its type."""
    output: Any
    """The type of the answer."""
    python: inspect.Signature
    module: str

    def __str__(self) -> str:
        """As it is written, without the name of its own module."""
        return f"{self.name}{self.python}".replace(f"{self.module}.", "")

    def bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs of a call by name, defaults included. Raises `TypeError` as a call of the function would."""
        try:
            given = self.python.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None
        given.apply_defaults()
        return dict(given.arguments)


def signature_of(function: Callable[..., Any]) -> Signature:
    """Raises `InputError` for a function that does not say what to do or what to answer."""
    name = function.__name__
    where = f"The task '{name}'"
    instructions = inspect.getdoc(function)
    if not instructions:
        raise InputError(f"{where} has no docstring.", "Say in it what is to be done: the model reads it.")
    python = inspect.signature(function)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise InputError(
            f"{where} has a type that cannot be found: {error}.",
            "Define it before the function, at the module's level.",
        ) from error
    if "return" not in hints:
        raise InputError(f"{where} does not say what it returns.", "Write its type: `-> str`, or a class of yours.")
    output = hints.pop("return")
    if typing.get_origin(output) is Coroutine:
        output = typing.get_args(output)[-1]
    if output is type(None):
        raise InputError(f"{where} returns nothing.", "Write the type of its answer.")
    for parameter in python.parameters.values():
        if parameter.kind in _PLURAL:
            raise InputError(f"{where} takes *{parameter.name}.", "Give each input a name, or take a list.")
    inputs = {parameter: hints.get(parameter, Any) for parameter in python.parameters}
    return Signature(name, instructions, inputs, output, python, function.__module__)
