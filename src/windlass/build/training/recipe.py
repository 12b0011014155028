"""Recipe files: a pre-training run as TOML, strict, with nothing in it that a person did not want to say.

    [model]
    architecture = "encoder"
    depth = 4

Sections and keys are those of `settings`; an absent one keeps its default. The recipes that come with windlass are
found by name, your own by path.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from windlass.build.training.settings import PretrainSettings
from windlass.core.config import strict
from windlass.core.errors import ConfigError, NotFound

_SHIPPED = resources.files("windlass.build.training") / "recipes"


def shipped_recipes() -> dict[str, str]:
    """Name of each recipe that comes with windlass -> what its first line says it is."""
    found = {}
    for file in sorted(_SHIPPED.iterdir(), key=lambda file: file.name):
        name, _, kind = file.name.rpartition(".")
        if kind == "toml":
            found[name] = file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").rstrip(".")
    return found


def read_recipe(recipe: str | Path | None = None, changes: Mapping[str, Any] | None = None) -> PretrainSettings:
    """Settings from a recipe, a shipped one's name or a file's path (None: the defaults), with `changes` to them.

    A change is named as in the file: `{"model.depth": 6, "schedule.minutes": 30}`. Raises `ConfigError` naming the
    file and the key when a key is unknown or a value of the wrong type, `InputError` when a value makes no sense, and
    `NotFound` when there is no such recipe.
    """
    where, values = ("settings", {}) if recipe is None else _read(str(recipe))
    for name, value in (changes or {}).items():
        section, _, key = name.partition(".")
        if not key:
            raise ConfigError(f"'{name}' names no key of a recipe.", "Write SECTION.KEY, such as model.depth.")
        table = values.setdefault(section, {})
        *tables, key = key.split(".")
        for part in tables:
            table = table.setdefault(part, {})
        table[key] = value
    return strict(PretrainSettings, values, where=where)


def parse_change(text: str) -> tuple[str, Any]:
    """`SECTION.KEY=VALUE` as the command line takes it; the value is read as TOML, and as text where it is none."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"'{text}' is no change of a recipe.", "Write SECTION.KEY=VALUE, such as model.depth=6.")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def _read(recipe: str) -> tuple[str, dict[str, Any]]:
    shipped = shipped_recipes()
    path = Path(recipe)
    if recipe in shipped:
        text, where = (_SHIPPED / f"{recipe}.toml").read_text(encoding="utf-8"), f"recipe '{recipe}'"
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
