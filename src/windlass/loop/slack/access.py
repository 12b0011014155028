"""Who may read which documents, as a small TOML file says it for Slack.

    [users]
    U012AB3CD = ["hr", "finance"]

    [channels]
    C024BE91L = ["engineering"]

An answer is read by everyone in its channel, so in channels the channel's labels count, whoever asks. A person's own
labels count where nobody else reads: in messages to the bot itself.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from windlass.core.config import strict
from windlass.core.errors import ConfigError
from windlass.loop.slack.questions import Question


@dataclass(frozen=True, slots=True)
class Access:
    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    channels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Access:
        """Raises `ConfigError` for a file that is not as above."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Name the file of access labels.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}.", "Mend the line it names.") from error
        return strict(cls, values, where=str(path))

    def labels(self, question: Question) -> Sequence[str]:
        return (self.users if question.direct else self.channels).get(
            question.user if question.direct else question.channel, ()
        )
