"""A model that answers anything at all that the request allows: what obeys the schema, and is nobody's idea of it.

Where an application breaks on an empty list, a name in Greek or the year 1 BC, this finds it without a provider.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Literal

from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message, ToolCall, Usage
from windlass.testing.drawing import Drawing


class Random:
    """Implements `ChatModel` and `AsyncChatModel`. Safe to share between tasks.

    The same seed gives the same answer to the same request, whatever was asked in between; asked again, it gives
    another one. Raises `Unsupported`, which names the keyword, for a schema that it cannot obey.
    """

    digest: str | None = None

    def __init__(
        self, seed: int = 0, *, name: str = "random", structured: Literal["schema", "tool", "prompt"] = "schema"
    ) -> None:
        self.seed = seed
        self.name = name
        self.structured = structured
        self.requests: list[ChatRequest] = []
        self._asked: Counter[str] = Counter()

    def complete(self, request: ChatRequest) -> ChatResponse:
        self.requests.append(request)
        said = json.dumps([[m.role, m.text] for m in request.messages])
        asked = hashlib.sha256(f"{self.seed}\n{said}\n{request.schema}\n{request.tools}".encode()).hexdigest()
        self._asked[asked] += 1
        chance = random.Random(f"{asked} {self._asked[asked]}")
        message = _message(request, chance)
        usage = Usage(input=len(said) // 4, output=1 + len(message.text) // 4)
        finish: Literal["tool_calls", "stop"] = "tool_calls" if message.tool_calls else "stop"
        return ChatResponse(f"random-{len(self.requests)}", self.name, message, finish, usage, 0.0)

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        """A few characters at a time."""
        response = self.complete(request)
        text = response.message.text
        for at in range(0, len(text), 5):
            yield ChatDelta(text[at : at + 5])
        yield ChatDelta(response=response)

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        return self.complete(request)

    async def astream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        for delta in self.stream(request):
            yield delta


def _message(request: ChatRequest, chance: random.Random) -> Message:
    """A call where one must be, or may be and chance wants it; else text, which obeys the schema, if there is one."""
    tools = [tool for tool in request.tools if request.tool_choice in ("auto", "required", tool.name)]
    if tools and (request.tool_choice != "auto" or chance.random() < 0.5):
        tool = chance.choice(tools)
        arguments = Drawing(tool.parameters or {"type": "object", "additionalProperties": False}, chance).value()
        call = ToolCall(f"call-{chance.getrandbits(32):08x}", tool.name, json.dumps(arguments, ensure_ascii=False))
        return Message("assistant", "", (call,))
    if request.schema is not None:
        return Message("assistant", json.dumps(Drawing(request.schema, chance).value(), ensure_ascii=False))
    return Message("assistant", " ".join(Drawing({}, chance).word() for _ in range(chance.randint(1, 20))))
