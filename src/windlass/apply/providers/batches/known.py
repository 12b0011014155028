"""Which providers take batches, and how each is spoken to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from windlass.apply.providers.batches.anthropic import AnthropicBatches
from windlass.apply.providers.batches.batch import Batches
from windlass.apply.providers.batches.gemini import GeminiBatches
from windlass.apply.providers.batches.mistral import MistralBatches
from windlass.apply.providers.batches.openai import OpenAIBatches
from windlass.apply.providers.remote import RemoteChat
from windlass.core.errors import Unsupported


def batches_of(remote: RemoteChat, tell: Callable[[str], None] = lambda _: None) -> Batches:
    """The batch API of a model's provider; `tell` hears how batches stand.

    Raises `Unsupported` where there is none that windlass speaks.
    """
    spoken: Mapping[str | None, type[Batches]] = {
        "openai": OpenAIBatches, "anthropic": AnthropicBatches, "gemini": GeminiBatches, "mistral": MistralBatches,
    }  # fmt: skip
    api = spoken.get(getattr(remote.dialect, "batches", None))
    if api is None:
        raise Unsupported(f"{remote.dialect.api} has no batches that windlass can make.", "Leave out batch=True.")
    return api(remote, tell)
