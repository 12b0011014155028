"""How a request shows who sends it: a key from the environment, in one header.

The key is read at each call, never stored, and struck out of every message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from windlass.core.config import names_a_variable, secret
from windlass.core.errors import ConfigError


def sendable(value: str, what: str) -> str:
    """`value`, if a header can hold it. Raises `ConfigError`, which does not show it."""
    if not (value.isascii() and value.isprintable()):
        raise ConfigError(
            f"{what} holds a character that no header can: a line break, or a letter beyond ASCII.",
            "It was copied with something before, behind or within it: set it anew.",
        )
    return value


class Auth(Protocol):
    def headers(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        """What is added to one request."""
        ...

    def secrets(self) -> Sequence[str]:
        """What must never be shown."""
        ...

    @property
    def named(self) -> str:
        """Where the key comes from, for messages: the environment variable."""
        ...

    @property
    def missing(self) -> str | None:
        """The environment variable that would have to be set, or None when nothing is missing."""
        ...


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Raises `ConfigError` for a variable that looks like the key itself, without showing it."""

    variable: str
    """Name of the environment variable. Unset: nothing is added, as servers of one's own need no key."""
    header: str = "Authorization"
    prefix: str = "Bearer "

    def __post_init__(self) -> None:
        if not names_a_variable(self.variable):
            raise ConfigError(
                "What should name the environment variable of the key looks like the key itself.",
                "Put the key into an environment variable, for example OPENAI_API_KEY, and give that name.",
            )

    def headers(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        key = secret(self.variable)
        return {self.header: f"{self.prefix}{sendable(key, f'The key in {self.variable}')}"} if key else {}

    def secrets(self) -> Sequence[str]:
        key = secret(self.variable)
        return (key,) if key else ()

    @property
    def named(self) -> str:
        return self.variable

    @property
    def missing(self) -> str | None:
        return self.variable if self.variable and secret(self.variable) is None else None
