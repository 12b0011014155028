"""Azure OpenAI: OpenAI's APIs at an address of one's own, where a model's name is that of its deployment.

The v1 API (`/openai/v1`) is OpenAI's own and needs nothing from here but its address. The API before it has one path
for each deployment, and a version in every address.
"""

from __future__ import annotations

import os
from urllib.parse import quote

from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.dialects.dialect import Call
from windlass.core.values import ChatRequest

VERSION = "2024-10-21"
"""The last version of the dated API that was no preview."""


def deployed(deployment: str, path: str, version: str | None = None) -> str:
    """A path of the dated API, below `https://RESOURCE.openai.azure.com/openai`. Without `version` the environment
    variable OPENAI_API_VERSION decides, as in OpenAI's SDK, or else `VERSION`."""
    dated = version or os.environ.get("OPENAI_API_VERSION") or VERSION
    return f"/deployments/{quote(deployment, safe='')}{path}?api-version={quote(dated, safe='')}"


class AzureDeployment(ChatCompletions):
    """The dialect of `POST /deployments/NAME/chat/completions?api-version=...`."""

    api = "The Azure OpenAI API"
    batches = None  # of the dated API: with other addresses

    def __init__(self, model: str, *, version: str | None = None, limit: str = "max_tokens") -> None:
        super().__init__(model, limit=limit)
        self._version = version

    def call(self, request: ChatRequest, *, stream: bool) -> Call:
        call = super().call(request, stream=stream)
        return Call(deployed(self.model, call.path, self._version), call.body, call.headers)
