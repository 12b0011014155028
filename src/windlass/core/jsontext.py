"""JSON text of whatever an application puts into a span: always valid, never an exception, never without bound.

The recorder must not fail because somebody traced a tensor, a NaN or a half of a surrogate pair. Ordinary values
take one pass through the C encoder; only what that refuses is walked and replaced by plain values.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

LIMIT = 8 << 20
"""Characters of one field of a span. What is longer is cut, and says so."""
_KEPT = 64 << 10
_DEPTH = 32


def dump(value: Any) -> str:
    """Compact JSON text of `value`, encodable as UTF-8. Values JSON does not know become their nearest plain form."""
    try:
        text = _encode(value)
    except Exception:  # noqa: BLE001 - an odd key, a NaN, a circle, or whatever the application's own methods raise
        text = _encode(_plain(value, _DEPTH))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate, as in a file name that is not UTF-8
            text = text.encode("utf-8", "replace").decode()
    if len(text) > LIMIT:
        text = _encode({"windlass.truncated": True, "characters": len(text), "start": text[:_KEPT]})
    return text


def _other(value: Any) -> Any:
    """What the C encoder asks for a value that is none of JSON's types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Fields that stand at an empty default say nothing; traces are read by people.
        return {
            f.name: item
            for f in dataclasses.fields(value)
            if (item := getattr(value, f.name)) is not None and item != ()
        }
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes | bytearray):
        return {"base64": base64.b64encode(value[:_KEPT]).decode(), "bytes": len(value)}
    if hasattr(value, "shape") and getattr(value, "shape", None):  # an array or tensor: its form, not its numbers
        return f"<{type(value).__name__} {tuple(value.shape)} {getattr(value, 'dtype', '')}>"
    if hasattr(value, "item") and callable(value.item):  # a numpy or torch scalar
        return value.item()
    if isinstance(value, set | frozenset):
        return list(value)
    return str(value)


_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), default=_other
)


def _made_once() -> Callable[[Any], str]:
    """`_encoder.encode`, without making a new C encoder per call, which takes as long as encoding 500 characters."""
    make = getattr(json.encoder, "c_make_encoder", None)
    text = getattr(json.encoder, "encode_basestring", None)
    if make is None or text is None:  # another Python than CPython
        return _encoder.encode
    chunks = make(None, _other, text, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


_encode = _made_once()


def _plain(value: Any, depth: int) -> Any:
    """The slow way: a copy that the encoder is sure to take."""
    if depth == 0:
        return "<nested too deeply>"
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    try:
        if isinstance(value, Mapping):
            return {str(key): _plain(item, depth - 1) for key, item in value.items()}
        if isinstance(value, Iterable) and isinstance(value, list | tuple | set | frozenset):
            return [_plain(item, depth - 1) for item in value]
        return _plain(_other(value), depth - 1)
    except Exception as error:  # noqa: BLE001 - any __str__ or property of the application's may raise anything
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
