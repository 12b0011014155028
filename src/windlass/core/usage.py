"""Token counts as OpenAI-compatible servers report them, as `Usage`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windlass.core.values import Usage


def usage_of(reported: Any) -> Usage:
    """The API's overlapping counts as disjoint classes: cached inside prompt, reasoning inside completion.

    Reads the `usage` of chat, completions and embeddings (`prompt_tokens`) and that of responses (`input_tokens`).
    What is absent or no count stays None.
    """
    if not isinstance(reported, Mapping):
        return Usage()
    prompt = _count(reported, "prompt_tokens", "input_tokens")
    completion = _count(reported, "completion_tokens", "output_tokens")
    cached = _count(_details(reported, "prompt_tokens_details", "input_tokens_details"), "cached_tokens")
    reasoning = _count(_details(reported, "completion_tokens_details", "output_tokens_details"), "reasoning_tokens")
    return Usage(
        input=None if prompt is None else prompt - (cached or 0),
        cache_read=cached,
        output=None if completion is None else completion - (reasoning or 0),
        reasoning=reasoning,
    )


def _count(counts: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = counts.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _details(reported: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        if isinstance(value := reported.get(name), Mapping):
            return value
    return {}
