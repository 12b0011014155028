"""A prompt as files that are good to edit and to compare: Markdown, and its examples beside it, one a line.

    tone.md                     tone.examples.jsonl
    +++                         {"inputs": {"review": "Lovely!"}, "answer": "good"}
    temperature = 0.2           {"inputs": {"review": "Broke."}, "answer": "bad"}
    +++
    Say how the writer felt.

Between the lines of `+++` stands TOML, as in windlass.toml; without them all of the file is instructions. A prompt is
written in one way only, so that a file, the artifact made of it, and the file made of that are the same to the byte.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windlass.apply.prompts.example import Example
from windlass.apply.prompts.value import Prompt, written
from windlass.core.errors import InputError
from windlass.core.files import atomic_write

PROMPT, EXAMPLES = "prompt.md", "examples.jsonl"
"""The files of an artifact."""
_FENCE = "+++"


def read_prompt(path: Path) -> Prompt:
    """The prompt in `NAME.md`, with the examples of `NAME.examples.jsonl` if that is there. Raises `InputError`."""
    return load(path, examples_beside(path))


def write_prompt(path: Path, prompt: Prompt) -> None:
    """Writes `NAME.md` and, for a prompt with examples, `NAME.examples.jsonl`; one that is left of an earlier prompt
    goes."""
    files = parts_of(prompt)
    for file, data in ((examples_beside(path), files.get(EXAMPLES)), (path, files[PROMPT])):
        if data is None:
            file.unlink(missing_ok=True)
            continue
        with atomic_write(file) as out:
            out.write(data)


def examples_beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}.{EXAMPLES}")


def parts_of(prompt: Prompt) -> dict[str, bytes]:
    """The files of a prompt: name -> bytes, always the same ones."""
    text = prompt.instructions + "\n"
    if prompt.settings or text.startswith(_FENCE):
        text = f"{_FENCE}\n{settings_text(prompt.settings)}{_FENCE}\n{text}"
    files = {PROMPT: text.encode()}
    if prompt.examples is not None:
        files[EXAMPLES] = "".join(f"{written(example)}\n" for example in prompt.examples).encode()
    return files


def load(path: Path, examples: Path) -> Prompt:
    """The prompt of these two files, of which the second may be missing. Raises `InputError` naming file and line."""
    head, body = _parted(_text(path), path)
    settings = settings_of(head, f"{path}: what stands between {_FENCE}")
    shown = examples_of(_text(examples), str(examples)) if examples.exists() else None
    try:
        return Prompt(body, shown, settings)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from error


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The prompt {path} cannot be read: {error}.") from error


def _parted(text: str, path: Path) -> tuple[str, str]:
    if not text.startswith(f"{_FENCE}\n"):
        return "", text
    head, fence, body = text[len(_FENCE) :].partition(f"\n{_FENCE}\n")
    if not fence:
        raise InputError(f"{path} begins with {_FENCE} and does not close it.", f"End the settings by a line {_FENCE}.")
    return f"{head}\n", body


def settings_of(text: str, where: str) -> dict[str, Any]:
    """The settings that lines of TOML make, not yet checked. Raises `InputError` that begins with `where`."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not TOML: {error}.", "Mend the line.") from error


def settings_text(settings: Mapping[str, Any]) -> str:
    """Lines of TOML; `settings_of` reads them."""
    return "".join(f"{name} = {_toml(value)}\n" for name, value in settings.items())


def examples_of(text: str, where: str) -> list[Example]:
    """The examples of JSON Lines. Raises `InputError` that begins with `where` and names the line."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        at = f"{where}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{at} is not JSON: {error}.", "Write one object a line.") from error
        known = isinstance(row, dict) and {"inputs", "answer"} <= row.keys() <= {"inputs", "answer", "reasoning"}
        if not known or not isinstance(row["inputs"], dict) or not isinstance(row.get("reasoning", ""), str):
            raise InputError(f"{at} is no example.", 'Write {"inputs": {"name": …}, "answer": …, "reasoning": "…"}.')
        found.append(Example(**row))
    return found


def _toml(value: Any) -> str:
    """A value on one line of TOML, which writes texts as JSON does, save for the last of the control characters."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
