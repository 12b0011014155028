"""What servers of the OpenAI API do differently, by the `kind` of a provider. Nothing here drops a field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from windlass.serve.gateway.config import Kind


@dataclass(frozen=True, slots=True)
class Quirks:
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "
    asks_usage: bool = True
    """Whether a stream reports its usage only when `stream_options.include_usage` asks for it. Where not, it always
    does, and refuses to be asked."""
    renames: Mapping[str, str] = field(default_factory=dict)
    """Fields that it knows by an older name."""


_OLDER_LIMIT = {"max_completion_tokens": "max_tokens"}

QUIRKS: Mapping[Kind, Quirks] = {
    "openai": Quirks(),
    # Keys go into a header of their own.
    "azure": Quirks(key_header="api-key", key_prefix=""),
    # Wraps its errors in a list, which `errors.explained` unwraps.
    "gemini": Quirks(),
    # Refuses fields it does not know (422), the newer name of the limit and `include_usage` among them.
    "mistral": Quirks(asks_usage=False, renames=_OLDER_LIMIT),
    "vllm": Quirks(),
    "sglang": Quirks(),
    # Builds from before February 2026 ignore the newer name (llama.cpp #13700), as do llama-cpp-python's (#1907).
    "llamacpp": Quirks(renames=_OLDER_LIMIT),
    # Ignores the newer name (ollama #7125), which would leave the answer without a limit.
    "ollama": Quirks(renames=_OLDER_LIMIT),
    "windlass": Quirks(),
}
