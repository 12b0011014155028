"""`windlass.toml`: strict settings of a workspace. Unknown keys and wrong types are refused by name."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from windlass.core.errors import ConfigError
from windlass.core.pricing import Price
from windlass.core.windows import Window

FILE = "windlass.toml"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The language model that writes answers: any OpenAI-compatible endpoint."""

    base_url: str = ""
    """For example http://127.0.0.1:11434/v1. Empty: no language model, answers are quotations."""
    model: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; the key itself never stands in a file."""
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if not names_a_variable(self.api_key_env):
            raise ValueError(
                "api_key_env looks like the key itself; it is the name of the environment variable that holds the key"
            )


@dataclass(frozen=True, slots=True)
class ServeConfig:
    host: str = "127.0.0.1"
    port: int = 8080


@dataclass(frozen=True, slots=True)
class RetrieveConfig:
    """How living indexes are searched beyond the plain search; what is released says so itself. The values are those of
    `apply.rag.retrieving.RetrieveSettings`."""

    feedback: int = 0
    reranker: str = ""
    rerank_depth: int = 20
    rerank_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class StudioConfig:
    """What trying prompts in the studio may take in a day, of UTC, together."""

    tokens_per_day: int = 200_000
    dollars_per_day: float | None = None
    """With it, only models whose price is known can be tried."""


@dataclass(frozen=True, slots=True)
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    retrieve: RetrieveConfig = field(default_factory=RetrieveConfig)
    studio: StudioConfig = field(default_factory=StudioConfig)
    prices: Mapping[str, Price] = field(default_factory=dict)
    """`[prices."provider/model"]` or `[prices."model"]`, in US dollars per million tokens; see `core.pricing`."""
    windows: Mapping[str, Window] = field(default_factory=dict)
    """`[windows."provider/model"]` or `[windows."model"]`, in tokens; see `core.windows`."""


def load_config(home: Path) -> Config:
    """Reads `home/windlass.toml`; an absent file means the defaults."""
    path = home / FILE
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", "Mend the line it names.") from error
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Check the file's permissions.") from error
    return strict(Config, values, where=str(path))


def strict(kind: type[T], values: Mapping[str, Any], *, where: str, prefix: str = "") -> T:
    """Makes the dataclass `kind` from `values`, refusing unknown keys and values of another type.

    `where` names the file in messages. Understood are nested dataclasses, `Literal`, unions, `tuple[X, ...]` and
    other lists, `dict[str, X]`, `Path` (from text), `Any`, and plain types. A whole number is a number; a truth value
    is neither. Checks of the dataclass's own (`ValueError` in `__post_init__`) are reported in the same way.
    """
    hints = typing.get_type_hints(kind)
    known = {f.name: hints[f.name] for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ConfigError(
                f"{where}: unknown key '{name}'.",
                f"Did you mean '{prefix}{near[0]}'?" if near else f"Known keys here: {', '.join(known)}.",
            )
        arguments[key] = _checked(known[key], value, where, name)
    try:
        return kind(**arguments)
    except TypeError as error:
        missing = [f.name for f in dataclasses.fields(kind) if f.name not in arguments and _required(f)]  # type: ignore[arg-type]
        if not missing:
            raise
        raise ConfigError(f"{where}: missing {', '.join(prefix + m for m in missing)}.") from error
    except ValueError as error:
        raise ConfigError(f"{where}: {prefix[:-1] or 'settings'}: {error}.") from error


def _required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _checked(kind: Any, value: Any, where: str, name: str) -> Any:
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return strict(kind, _table(value, where, name), where=where, prefix=f"{name}.")
    if origin is typing.Literal:
        if not any(value == option and type(value) is type(option) for option in options):
            raise ConfigError(f"{where}: '{name}' is {value!r}.", f"Allowed: {', '.join(map(repr, options))}.")
        return value
    if origin in (typing.Union, types.UnionType):
        return _first_that_fits(options, value, where, name)
    if origin in (dict, Mapping):
        return {
            key: _checked(options[1], item, where, f"{name}.{key}") for key, item in _table(value, where, name).items()
        }
    if origin in (tuple, list, Sequence):
        return _items(origin, options, value, where, name)
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise ConfigError(f"{where}: '{name}' is {value!r}, but must be {_called(kind)}.")


def _table(value: Any, where: str, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: '{name}' must be a table.", f"Write [{name}] and its keys below it.")
    return value


def _items(origin: Any, options: tuple[Any, ...], value: Any, where: str, name: str) -> Any:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: '{name}' is {value!r}, but must be a list.", 'Write ["a", "b"].')
    if origin is tuple and options[-1] is not Ellipsis:
        if len(options) != len(value):
            raise ConfigError(f"{where}: '{name}' must have {len(options)} items, but has {len(value)}.")
        kinds = options
    else:
        kinds = (options[0],) * len(value)
    items = [_checked(k, item, where, f"{name}[{i}]") for i, (k, item) in enumerate(zip(kinds, value))]
    return items if origin is list else tuple(items)


def _first_that_fits(options: tuple[Any, ...], value: Any, where: str, name: str) -> Any:
    kinds = [option for option in options if option is not type(None)]
    if value is None and len(kinds) < len(options):
        return None
    if type(value) in kinds:  # an int stays an int where int | float is allowed
        return value
    errors: list[ConfigError] = []
    for kind in kinds:
        try:
            return _checked(kind, value, where, name)
        except ConfigError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise ConfigError(f"{where}: '{name}' is {value!r}, but must be {' or '.join(map(_called, kinds))}.")


def _called(kind: Any) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    return names.get(kind) or str(getattr(kind, "__name__", kind))


def secret(variable: str) -> str | None:
    """The value of an environment variable that holds a key; None when unset or empty. What stands around the key, such
    as the line break that ended its file, is no part of it."""
    return os.environ.get(variable, "").strip() or None


_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*|[A-Za-z_]*")


def names_a_variable(text: str) -> bool:
    """Whether `text` may be the name of an environment variable, or none. Keys that stand where a name should be mix
    small letters with digits or dashes, and must not be shown as names are."""
    return _VARIABLE.fullmatch(text) is not None or text in os.environ
