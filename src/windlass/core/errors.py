"""Every error windlass raises on purpose: one sentence that names the thing, one hint that says what to do.

The command line prints `message` and `hint` and exits with `exit_code`; a traceback appears only with
`--debug`. Library users catch `WindlassError` or one of the classes below.
"""

from __future__ import annotations


class WindlassError(Exception):
    """Base class. `message` names the file, field, row or tool; `hint` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ConfigError(WindlassError):
    """`windlass.toml`, a recipe or an option is wrong."""

    exit_code = 2


class InputError(WindlassError):
    """The user's data or arguments cannot be used: empty folder, broken file, unknown name."""

    exit_code = 2


class TooLong(InputError):
    """A request does not fit its model's window, and was not asked; `by` says by how many tokens, at least."""

    code = "context_length_exceeded"
    """As OpenAI's service calls it; clients shorten the conversation and try again when they read it."""

    def __init__(self, message: str, hint: str = "", by: int = 0) -> None:
        super().__init__(message, hint)
        self.by = by


class MissingExtra(WindlassError):
    """An optional dependency is not installed. `hint` holds the pip command."""

    exit_code = 2

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the optional dependencies of windlass[{extra}], which are not installed.",
            f'Install them with: pip install "windlass[{extra}]"',
        )


class WorkspaceError(WindlassError):
    """The workspace cannot be used as it is."""


class WorkspaceBusy(WorkspaceError):
    """Another process holds the lock that this work needs."""


class WorkspaceCorrupt(WorkspaceError):
    """The workspace file is damaged. Nothing was changed."""


class DiskFull(WorkspaceError):
    """No space left. What was acknowledged before is intact."""


class NotFound(WindlassError):
    """No artifact, run, trace or release of that name."""

    exit_code = 2


class ProviderError(WindlassError):
    """A model endpoint refused or failed. `status` is the HTTP status, or None when none was received."""

    def __init__(self, message: str, hint: str = "", *, status: int | None = None) -> None:
        super().__init__(message, hint)
        self.status = status


class Unsupported(WindlassError):
    """A parameter or feature that this implementation cannot honour; refused, never ignored."""

    exit_code = 2


class NoMemory(WindlassError):
    """The machine gave no memory for this piece of work; other work goes on."""


class TimedOut(WindlassError):
    """The answer was not complete when the time that its request allows was over."""
