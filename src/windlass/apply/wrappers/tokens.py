"""How many tokens a prompt will take: counted where the tokenizer is known, else estimated, and it says which.

The estimates, for models whose tokenizer nobody gave: a token for 4 ASCII characters, for 2 of other alphabets, for 1
of Chinese, Japanese and Korean or a picture; 4 for what stands around each message; 1,500 for an image (a large one in
high detail); one for 500 bytes of sound (32 a second of MP3 at 128 kbit/s); one for 40 bytes of another file, and 5,000
for a file that is given by its address.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from windlass.apply.wrappers.wrapper import counts_tokens
from windlass.core.errors import InputError, MissingExtra
from windlass.core.values import AudioPart, ChatRequest, FilePart, ImagePart, Message, Part

_AROUND = 4
_IMAGE = 1500
_BYTES_OF_SOUND, _BYTES_OF_FILE = 500, 40
_FILE_ELSEWHERE = 5000


@dataclass(frozen=True, slots=True)
class Count:
    tokens: int
    exact: bool
    """Whether the model's own tokenizer counted, through its chat template, and nothing had to be estimated."""

    @property
    def least(self) -> int:
        """What it is taken to be at least: an estimate may be a quarter too high."""
        return self.tokens if self.exact else self.tokens * 3 // 4


CountText = Callable[[str], int]


def count(request: ChatRequest, model: Any = None, of_text: CountText | None = None) -> Count:
    """Of messages, tools and schema. `model`: counts itself if it is `Tokenizing`; else `of_text` does, or nobody."""
    beyond = _beyond(request)
    if counts_tokens(model):
        texts = [replace(message, content=message.text) for message in request.messages]
        tokens = len(model.encode_chat(texts)) + (len(model.encode(beyond, special=False)) if beyond else 0)
        media = sum(_of_part(part) for part in _media(request))
        return Count(tokens + media, exact=not media and not beyond)
    of = of_text or estimated
    tokens = sum(_AROUND + _of_message(message, of) for message in request.messages)
    return Count(tokens + (of(beyond) if beyond else 0), exact=False)


def estimated(text: str) -> int:
    """Tokens of a text, as the module says."""
    if text.isascii():
        return (len(text) + 3) // 4
    data = text.encode("utf-8", "replace")  # bytes are counted: looking at each character takes ten times as long
    ascii_, wide = len(data) - len(data.translate(None, _ASCII)), len(data) - len(data.translate(None, _WIDE))
    return (ascii_ + 3) // 4 + wide + (len(text) - ascii_ - wide + 1) // 2


_ASCII = bytes(range(0x80))
_WIDE = bytes(range(0xE3, 0xF5))
"""First bytes of the characters from U+3000 on: Chinese, Japanese, Korean, and pictures."""


@functools.lru_cache(maxsize=8)
def tokenizer_at(path: Path) -> CountText:
    """Counts with a tokenizers JSON. Raises `InputError` naming the file."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("Counting with a tokenizer", "build") from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # it raises nothing narrower
        raise InputError(f"The tokenizer {path} cannot be read: {error}.", "Give a tokenizers JSON.") from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _of_message(message: Message, of: CountText) -> int:
    calls = sum(of(call.name) + of(call.arguments) for call in message.tool_calls)
    media = 0 if isinstance(message.content, str) else sum(_of_part(part) for part in message.content)
    return of(message.text) + calls + media


def _media(request: ChatRequest) -> Iterator[Part]:
    for message in request.messages:
        if not isinstance(message.content, str):
            yield from message.content


def _of_part(part: Part) -> int:
    """Of a part that is no text."""
    if isinstance(part, ImagePart):
        return _IMAGE
    if isinstance(part, AudioPart):
        return len(part.data) // _BYTES_OF_SOUND + 1
    if isinstance(part, FilePart):
        if part.data is None:
            return _FILE_ELSEWHERE
        return len(part.data) // (4 if part.media_type.startswith("text/") else _BYTES_OF_FILE) + 1
    return 0


def _beyond(request: ChatRequest) -> str:
    """Tools and schema, about as the model is told them."""
    said = [_json([tool.name, tool.description, tool.parameters]) for tool in request.tools]
    if request.schema is not None:
        said.append(_told(request.schema))
    return f"[{','.join(said)}]" if said else ""


_schemas: dict[int, tuple[Mapping[str, Any], str]] = {}


def _told(schema: Mapping[str, Any]) -> str:
    """Its JSON. A task asks with the same schema each time, and writing it out takes as long as all else here."""
    kept = _schemas.get(id(schema))
    if kept is None or kept[0] is not schema:
        if len(_schemas) >= 256:
            _schemas.clear()
        kept = _schemas[id(schema)] = schema, _json(schema)
    return kept[1]


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
