"""Which providers take batches, and how each is spoken to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from windlass.apply.providers.anthropic_batches import AnthropicBatches
from windlass.apply.providers.batches import Batches
from windlass.apply.providers.gemini_batches import GeminiBatches
from windlass.apply.providers.mistral_batches import MistralBatches
from windlass.apply.providers.openai_batches import OpenAIBatches
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
