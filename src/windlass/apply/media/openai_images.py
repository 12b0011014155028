"""OpenAI's images, which other servers make by the same request: `POST /images/generations` answers with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windlass.apply.media.prediction import Prediction
from windlass.apply.providers.dialects.dialect import Call
from windlass.core.errors import Unsupported
from windlass.core.values import Usage

_KNOWN = frozenset(
    {
        "background", "moderation", "n", "output_compression", "output_format", "quality", "response_format", "size",
        "style", "user",
    }
)  # fmt: skip


class OpenAIImages:
    api = "The OpenAI images API"

    def __init__(self, model: str) -> None:
        self.model = model

    def order(self, prompt: str, inputs: Mapping[str, Any]) -> Call:
        if unknown := sorted(set(inputs) - _KNOWN):
            raise Unsupported(f"{self.api} has no input '{unknown[0]}'.", f"It knows: {', '.join(sorted(_KNOWN))}.")
        return Call("/images/generations", {"model": self.model, "prompt": prompt, **inputs})

    def read(self, value: Mapping[str, Any]) -> Prediction:
        kind = f"image/{value.get('output_format') or 'png'}"
        images = [
            {"url": one.get("url") or f"data:{kind};base64,{one['b64_json']}", "content_type": kind}
            for one in value["data"]
        ]
        return Prediction("", "done", images, usage=usage_of(value.get("usage") or {}))

    def look(self, id: str) -> Call:
        raise Unsupported(f"{self.api} answers at once.")

    def result(self, id: str) -> Call | None:
        return None

    def cancel(self, id: str) -> Call | None:
        return None


def usage_of(counts: Mapping[str, Any]) -> Usage:
    """Images that were read stand inside of the input; all that is written is image."""
    read = counts.get("input_tokens_details") or {}
    seen = read.get("image_tokens")
    said = counts.get("input_tokens")
    return Usage(
        input=None if said is None else said - (seen or 0), input_image=seen, output_image=counts.get("output_tokens")
    )
