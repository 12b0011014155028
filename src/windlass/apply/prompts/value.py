"""A prompt: the words of a task, its examples and its settings; everything of a variant that is no code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from windlass.apply.prompts.example import Example
from windlass.core.errors import InputError
from windlass.core.values import ChatRequest

SETTINGS: Mapping[str, type | tuple[type, ...]] = {
    "model": str, "think": bool, "attempts": int, "tokens": int, "mode": str, "temperature": (int, float),
    "top_p": (int, float), "max_tokens": int, "stop": list, "seed": int, "logprobs": int, "timeout": (int, float),
    "background": bool, "extra": dict,
}  # fmt: skip
"""What a prompt may set: settings of a task that are no code, and parameters of a request."""
_AROUND = re.compile(r"^[\s\ufeff]+|\s+\Z")
assert SETTINGS.keys() - {"model", "think", "attempts", "tokens", "mode"} < ChatRequest.__dataclass_fields__.keys()


@dataclass(frozen=True, slots=True)
class Prompt:
    """An immutable value, kept in one form: line ends are `\\n`, no blanks around, JSON's own types.

    Raises `InputError` for what a file cannot hold.
    """

    instructions: str
    examples: Sequence[Example] | None = None
    """With plain JSON as inputs and answers. None: it says nothing of examples, and the task's own are shown."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the prompt sets, by the names that `Task.using` takes; what it does not name is the task's."""

    def __post_init__(self) -> None:
        text = _AROUND.sub("", self.instructions.replace("\r\n", "\n").replace("\r", "\n"))
        if not text:
            raise InputError("A prompt without instructions.", "Write what is to be done.")
        object.__setattr__(self, "instructions", plain(text, "the instructions"))
        object.__setattr__(self, "settings", self._settled())
        if self.examples is not None:
            object.__setattr__(
                self, "examples", tuple(_example(e, f"example {n}") for n, e in enumerate(self.examples, 1))
            )

    def _settled(self) -> dict[str, Any]:
        found = {}
        for name in sorted(self.settings):
            value = self.settings[name]
            if name not in SETTINGS:
                raise InputError(f"A prompt has no setting '{name}'.", f"Known: {', '.join(SETTINGS)}.")
            kind = SETTINGS[name]
            value = list(value) if isinstance(value, tuple) else value
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise InputError(f"The setting '{name}' of a prompt cannot be {value!r}.")
            found[name] = plain(value, f"the setting '{name}'", nulls=False)
        return found


def plain(value: Any, where: str, *, nulls: bool = True) -> Any:
    """The value, if JSON holds it just so; mappings keep their order. Raises `InputError`."""
    if value is None and not nulls:
        raise InputError(f"There is a null in {where}.", "Leave the key away.")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"There is half a character in {where}: {error.reason}.") from error
        return value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {plain(key, where): plain(item, where, nulls=nulls) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where, nulls=nulls) for item in value]
    raise InputError(
        f"{type(value).__name__} in {where} is nothing that JSON holds: {str(value)[:80]!r}.",
        "Prompts hold texts, numbers, lists and objects.",
    )


def _example(example: Example, where: str) -> Example:
    return Example(plain(example.inputs, where), plain(example.answer, where), plain(example.reasoning, where))


def written(example: Example) -> str:
    """One line of JSON; as the object that `examples.jsonl` holds."""
    row: dict[str, Any] = {"inputs": example.inputs, "answer": example.answer}
    if example.reasoning:
        row["reasoning"] = example.reasoning
    return json.dumps(row, ensure_ascii=False, allow_nan=False)
