"""A judge as a file, as prompts are: Markdown, with TOML between two lines of `+++`.

    +++
    inputs = ["question", "answer"]
    models = ["openai:gpt-5-mini"]

    [[criteria]]
    name = "correct"
    asks = "Does the answer say what is true, and answer the question?"
    levels = [
        { name = "no", value = 0, what = "It is wrong, or about something else." },
        { name = "yes", value = 1 },
    ]
    +++
    You are strict. An answer that is right by chance is right.

The name of the file is the name of the judge.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from windlass.core.config import strict
from windlass.core.errors import InputError
from windlass.evaluate.judges.judge import Judge

FILE = "judge.json"
"""Of an artifact."""
KIND = "judge"
_FENCE = "+++"


def read_judge(path: Path) -> Judge:
    """Raises `InputError` or `ConfigError` naming the file, and the line or key."""
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(
            f"The judge {path} cannot be read: {said}.", "Name a file as docs/judges.md describes."
        ) from error
    if not text.startswith(f"{_FENCE}\n"):
        raise InputError(
            f"{path} does not begin with a line {_FENCE}.",
            f"Write its criteria as TOML between two lines of {_FENCE}, and the instructions below them.",
        )
    head, fence, body = text[len(_FENCE) + 1 :].partition(f"\n{_FENCE}\n")
    if not fence:
        raise InputError(f"{path} begins with {_FENCE} and does not close it.", f"End the settings by a line {_FENCE}.")
    try:
        settings = tomllib.loads(head)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: what stands between {_FENCE} is not TOML: {error}.", "Mend the line.") from error
    for own in ("name", "instructions"):
        if own in settings:
            raise InputError(
                f"{path}: '{own}' is no setting.", "The name is the file's; instructions stand below the settings."
            )
    return strict(Judge, {**settings, "name": path.stem, "instructions": body.strip()}, where=str(path))


def stored(judge: Judge) -> str:
    """The judge as the text that an artifact holds."""
    return json.dumps(judge.to_json(), indent=2, ensure_ascii=False) + "\n"


def read_stored(path: Path) -> Judge:
    return strict(Judge, json.loads(path.read_text(encoding="utf-8")), where=str(path))
