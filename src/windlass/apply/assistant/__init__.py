"""The grounded assistant: a question in, quotations out, or that the documents do not hold the answer."""

from __future__ import annotations

from windlass.apply.assistant.assistant import NOT_FOUND, Assistant
from windlass.apply.assistant.settings import AssistantSettings

__all__ = ["NOT_FOUND", "Assistant", "AssistantSettings"]
