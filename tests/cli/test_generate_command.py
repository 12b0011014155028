"""`windlass generate`: the text with what a model adds to it, and nothing of a text that is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.cli.main import main
from windlass.core.errors import InputError
from windlass.core.values import ChatDelta, ChatRequest
from windlass.core.workspace import Workspace


class Model:
    def __init__(self, *said: str) -> None:
        self.said = said

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        if request.max_tokens == 0:
            raise InputError("max_tokens is 0, but must be at least 1.")
        for text in self.said:
            yield ChatDelta(text)


@pytest.mark.parametrize("said", [(" upon", " a time"), ()])
def test_the_text_comes_with_its_continuation_or_not_at_all(
    said: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("windlass.serve.engine.local.LocalModel.load", lambda *_, **__: Model(*said))
    with Workspace(tmp_path) as ws, ws.artifacts.build("model", "small") as draft:
        (draft.path / "config.json").write_text("{}")
    assert main(["generate", "small", "Once"]) == 0
    assert capsys.readouterr().out == f"Once{''.join(said)}\n"
    assert main(["generate", "small", "Once", "--max-tokens", "0"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == "windlass: max_tokens is 0, but must be at least 1.\n"
