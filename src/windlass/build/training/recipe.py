"""Recipe files: a training as TOML, strict, with nothing in it that a person did not want to say.

    [model]
    architecture = "encoder"
    depth = 4

Sections and keys are those of the settings; an absent one keeps its default. The recipes that come with windlass are
found by name, your own by path.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Generic, TypeVar

from windlass.build.training.settings import PretrainSettings
from windlass.core.config import strict
from windlass.core.errors import ConfigError, NotFound

T = TypeVar("T")


class Recipes(Generic[T]):
    """The recipes of one kind of training: those that come with `package`, and files of the same form."""

    def __init__(self, package: str, kind: type[T]) -> None:
        self._package, self._kind = package, kind

    @property
    def _folder(self) -> Traversable:
        return resources.files(self._package) / "recipes"

    def shipped(self) -> dict[str, str]:
        """Name of each recipe that comes with windlass -> what its first line says it is."""
        found = {}
        for file in sorted(self._folder.iterdir(), key=lambda file: file.name):
            name, _, kind = file.name.rpartition(".")
            if kind == "toml":
                found[name] = file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").rstrip(".")
        return found

    def read(self, recipe: str | Path | None = None, changes: Mapping[str, Any] | None = None) -> T:
        """Settings from a recipe, a shipped one's name or a file's path (None: the defaults), with `changes` to them.

        A change is named as in the file: `{"model.depth": 6, "schedule.minutes": 30}`. Raises `ConfigError` naming the
        file and the key when a key is unknown or a value of the wrong type, `InputError` when a value makes no sense,
        and `NotFound` when there is no such recipe.
        """
        where, values = ("settings", {}) if recipe is None else self._found(str(recipe))
        for name, value in (changes or {}).items():
            section, _, key = name.partition(".")
            if not key:
                raise ConfigError(f"'{name}' names no key of a recipe.", "Write SECTION.KEY, such as model.depth.")
            table = values.setdefault(section, {})
            *tables, key = key.split(".")
            for part in tables:
                table = table.setdefault(part, {})
            table[key] = value
        return strict(self._kind, values, where=where)

    def _found(self, recipe: str) -> tuple[str, dict[str, Any]]:
        shipped = self.shipped()
        path = Path(recipe)
        if recipe in shipped:
            text, where = (self._folder / f"{recipe}.toml").read_text(encoding="utf-8"), f"recipe '{recipe}'"
        elif path.suffix != ".toml" and not path.exists():
            near = difflib.get_close_matches(recipe, shipped, n=1)
            raise NotFound(
                f"There is no recipe '{recipe}'.",
                f"Did you mean '{near[0]}'?" if near else f"Give a .toml file, or one of {', '.join(shipped)}.",
            )
        else:
            where = str(path)
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path} cannot be read: {error}.", "Give the path of a recipe in TOML.") from error
        try:
            return where, tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{where} is not valid TOML: {error}.", "Mend the line it names.") from error


PRETRAINING = Recipes("windlass.build.training", PretrainSettings)
shipped_recipes, read_recipe = PRETRAINING.shipped, PRETRAINING.read


def parse_change(text: str) -> tuple[str, Any]:
    """`SECTION.KEY=VALUE` as the command line takes it; the value is read as TOML, and as text where it is none."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"'{text}' is no change of a recipe.", "Write SECTION.KEY=VALUE, such as model.depth=6.")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()
