"""What a request asks of an assistant, checked once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windlass.apply.assistant.settings import AssistantSettings
from windlass.apply.rag.answers.memory import recalled
from windlass.core.errors import InputError, Unsupported
from windlass.core.values import ChatRequest, Message


@dataclass(frozen=True, slots=True)
class Asked:
    question: str
    history: Sequence[Message]
    k: int
    where: Mapping[str, Any] | None
    access: Collection[str]


def understood(request: ChatRequest, settings: AssistantSettings, access: Collection[str], *, writes: bool) -> Asked:
    """`access`: the labels of those who ask, where the request brings no others. `writes`: whether a language model
    writes the answer. Raises `Unsupported` and `InputError`."""
    extra = request.beyond_text()
    k, where = extra.pop("k", settings.k), extra.pop("where", None)
    access = extra.pop("access", access)
    if extra:
        raise Unsupported(f"The assistant has no parameter '{min(extra)}'.", "It knows `k`, `where` and `access`.")
    if request.stop:
        raise Unsupported("The assistant cannot stop at given words: its quotations would be cut.", "Leave out `stop`.")
    if not writes and (request.max_tokens is not None or request.temperature):
        given = "max_tokens" if request.max_tokens is not None else "temperature"
        raise Unsupported(
            f"This assistant quotes and has no language model: it cannot honour `{given}`.",
            f"Leave out `{given}`, or name a model in windlass.toml.",
        )
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= 100:
        raise InputError(f"k is {k!r}, but must be a whole number from 1 to 100.")
    if where is not None and not isinstance(where, Mapping):
        raise InputError(f"where is {where!r}, but must be a table of metadata keys and values.")
    labels = access if isinstance(access, (list, tuple, set, frozenset)) else [None]
    if not all(isinstance(label, str) for label in labels):
        raise InputError(f"access is {access!r}, but must be a list of labels.")
    question = next((m.text.strip() for m in reversed(request.messages) if m.role == "user"), "")
    if not question:
        raise InputError("There is no question: the last user message is missing or empty.")
    return Asked(question, recalled(request.messages, settings.memory), k, where, frozenset(access))
