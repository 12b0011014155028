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
    prompted = _details(reported, "prompt_tokens_details", "input_tokens_details")
    completed = _details(reported, "completion_tokens_details", "output_tokens_details")
    cached, heard, seen = (_count(prompted, name) for name in ("cached_tokens", "audio_tokens", "image_tokens"))
    thought, said, drawn = (_count(completed, name) for name in ("reasoning_tokens", "audio_tokens", "image_tokens"))
    return Usage(
        input=_rest(prompt, cached, heard, seen),
        cache_read=cached,
        output=_rest(completion, thought, said, drawn),
        reasoning=thought,
        # Text-only answers report these as 0; only what was used is a class of its own.
        input_audio=heard or None,
        output_audio=said or None,
        input_image=seen or None,
        output_image=drawn or None,
    )


def _rest(whole: int | None, *parts: int | None) -> int | None:
    """What is left of a count without its parts. Cached sound or images stand in two of them: never below 0."""
    if whole is None:
        return None
    for part in parts:
        whole -= part or 0
    return max(0, whole)


def _count(counts: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = counts.get(name)
        if type(value) is int:  # a truth value is none
            return value
    return None


def _details(reported: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        if isinstance(value := reported.get(name), Mapping):
            return value
    return {}
