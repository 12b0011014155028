"""A conversation is kept after every turn, whatever ends it, and goes on from its file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.apply.chat.conversation import Conversation, kept
from windlass.core.errors import InputError
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message


class Talker:
    """Says the number of messages it was given, word by word; fails after `fails` words."""

    name, digest = "talker", None

    def __init__(self, fails: int | None = None) -> None:
        self.fails, self.asked, self.closed = fails, list[ChatRequest](), 0

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        self.asked.append(request)
        try:
            words = ["I ", "read ", str(len(request.messages))]
            for number, word in enumerate(words):
                if number == self.fails:
                    raise RuntimeError("gone")
                yield ChatDelta(word)
            answer = Message("assistant", "".join(words))
            yield ChatDelta(response=ChatResponse("1", self.name, answer, "stop", trace_id="t1"))
        finally:
            self.closed += 1


def test_the_whole_conversation_is_sent_and_kept(tmp_path: Path) -> None:
    model, talk = Talker(), Conversation.begin("talker", tmp_path / "chats", system="Be brief.", temperature=0.5)
    assert not kept(tmp_path / "chats"), "nothing was said yet"
    assert "".join(talk.ask(model, "one")) == "I read 2" and "".join(talk.ask(model, "two")) == "I read 4"
    sent = [(message.role, message.text) for message in model.asked[-1].messages]
    assert sent == [("system", "Be brief."), ("user", "one"), ("assistant", "I read 2"), ("user", "two")]
    assert model.asked[-1].temperature == 0.5
    again = Conversation.load(kept(tmp_path / "chats")[0])
    assert again.record == talk.record and [turn.trace for turn in again.record.turns] == ["t1", "t1"]
    assert again.undo() == "two" and len(Conversation.load(kept(tmp_path / "chats")[0]).record.turns) == 1
    assert again.as_markdown().count("**You:**") == 1 and "> Be brief." in again.as_markdown()


def test_what_was_said_before_it_ended_is_kept(tmp_path: Path) -> None:
    model, talk = Talker(), Conversation.begin("talker", tmp_path)
    answer = talk.ask(model, "one")
    assert next(answer) == "I "
    answer.close()  # type: ignore[attr-defined]
    assert model.closed == 1, "the model stops at once"
    with pytest.raises(RuntimeError):
        list(talk.ask(Talker(fails=2), "two"))
    with pytest.raises(RuntimeError):
        list(talk.ask(Talker(fails=0), "three"))
    turns = Conversation.load(kept(tmp_path)[0]).record.turns
    assert [(turn.question, turn.answer, turn.finish) for turn in turns] == [
        ("one", "I ", "stopped"), ("two", "I read ", "stopped"),
    ]  # fmt: skip


def test_nothing_is_written_where_there_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    talk = Conversation.begin("talker", None)
    list(talk.ask(Talker(), "one"))
    talk.set_system("x")
    assert not list(tmp_path.iterdir())


def test_bad_files_and_wishes_are_refused(tmp_path: Path) -> None:
    talk = Conversation.begin("talker", None)
    with pytest.raises(InputError, match="Nothing was asked"):
        talk.undo()
    for value in (-0.1, 2.1, float("nan")):
        with pytest.raises(InputError, match="temperature"):
            talk.set_temperature(value)
    for number, content in enumerate(["", "[]", "{", json.dumps({"id": 1}), json.dumps({"surprise": True})]):
        path = tmp_path / f"{number}.json"
        path.write_text(content)
        with pytest.raises(InputError, match="is not a conversation"):
            Conversation.load(path)
    with pytest.raises(InputError, match="is not a conversation"):
        Conversation.load(tmp_path / "missing.json")
