"""`windlass.toml`: strict settings of a workspace. Unknown keys and wrong types are refused by name."""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from windlass.core.errors import ConfigError

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


@dataclass(frozen=True, slots=True)
class ServeConfig:
    host: str = "127.0.0.1"
    port: int = 8080


@dataclass(frozen=True, slots=True)
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)


def load_config(home: Path) -> Config:
    """Reads `home/windlass.toml`; an absent file means the defaults."""
    path = home / FILE
    if not path.exists():
        return Config()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", "Mend the line it names.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Check the file's permissions.") from error
    return strict(Config, values, where=str(path))


def strict(kind: type[T], values: Mapping[str, Any], *, where: str, prefix: str = "") -> T:
    """Makes the dataclass `kind` from `values`, refusing unknown keys and values of another type.

    `where` names the file in messages. Nested dataclasses, `Literal`, optional and plain types are understood.
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
        raise ConfigError(f"{where}: missing {', '.join(prefix + m for m in missing)}.") from error


def _required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _checked(kind: Any, value: Any, where: str, name: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: '{name}' must be a table.", f"Write [{name}] and its keys below it.")
        return strict(kind, value, where=where, prefix=f"{name}.")
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        if value not in options:
            raise ConfigError(f"{where}: '{name}' is {value!r}.", f"Allowed: {', '.join(map(repr, options))}.")
        return value
    kinds = options if origin in (typing.Union, types.UnionType) else (kind,)
    for one in kinds:
        plain = typing.get_origin(one) or one
        if plain is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if plain is tuple and isinstance(value, list):
            return tuple(value)
        if isinstance(plain, type) and isinstance(value, plain) and not (isinstance(value, bool) and plain is int):
            return value
    wanted = " or ".join(getattr(k, "__name__", str(k)) for k in kinds)
    raise ConfigError(f"{where}: '{name}' is {value!r}, but must be of type {wanted}.")


def secret(variable: str) -> str | None:
    """The value of an environment variable that holds a key; None when unset or empty."""
    return os.environ.get(variable) or None
