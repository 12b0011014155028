"""A server follows releases: what is promoted or rolled back answers the next question."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.core.artifacts import Artifact
from windlass.core.errors import NotFound
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message
from windlass.core.workspace import Workspace
from windlass.loop.releasing.releases import promote, rollback
from windlass.loop.releasing.routing import Routed


class Parrot:
    """Answers with the digest of the variant it was made for."""

    name = "assistant"

    def __init__(self, digest: str) -> None:
        self.digest = digest

    def complete(self, request: ChatRequest) -> ChatResponse:
        return ChatResponse("1", self.name, Message("assistant", self.digest), "stop")

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        yield ChatDelta(self.digest)
        yield ChatDelta(response=self.complete(request))


def variant(ws: Workspace, text: str) -> Artifact:
    with ws.artifacts.build("variant", "assistant") as draft:
        (draft.path / "variant.json").write_text(text, encoding="utf-8")
    return draft.done


def test_promotion_and_rollback_take_effect_with_the_next_question(tmp_path: Path) -> None:
    ask = ChatRequest([Message("user", "who are you?")])
    with Workspace(tmp_path) as ws:
        first, second = variant(ws, "1"), variant(ws, "2")
        with pytest.raises(NotFound):
            Routed(ws, "assistant", lambda variant: Parrot(variant.digest))
        promote(ws, "assistant", first, None, "the first")
        loads: list[str] = []

        def load(variant: Artifact) -> Parrot:
            loads.append(variant.digest)
            return Parrot(loads[-1])

        served = Routed(ws, "assistant", load)
        assert served.complete(ask).message.text == first.digest
        under_way = served.stream(ask)
        assert next(under_way).text == first.digest
        promote(ws, "assistant", second, None, "better")
        assert served.complete(ask).message.text == second.digest
        assert [delta.response for delta in under_way][-1].message.text == first.digest, "it finishes as it began"
        rollback(ws, "assistant")
        assert served.digest == first.digest
        assert loads == [first.digest, second.digest, first.digest], "loaded once for each change"
