"""Conversations in the terminal: commands, stopping, pipes, and what is kept."""

from __future__ import annotations

import io
import json
import time

import pytest

from windlass.apply.chat.conversation import Conversation, kept
from windlass.apply.chat.terminal import Terminal
from windlass.core.errors import InputError, ProviderError
from windlass.core.values import ChatDelta, ChatResponse, Message, Usage


class Parrot:
    """Repeats what it heard, word by word, and remembers its requests; `interrupt` is raised after so many words."""

    name, digest = "parrot", None

    def __init__(self, interrupt: int | None = None, error: Exception | None = None) -> None:
        self.requests, self.closed, self._interrupt, self._error = [], 0, interrupt, error

    def complete(self, request):
        raise NotImplementedError

    def stream(self, request):
        self.requests.append(request)
        words = request.messages[-1].text.split()
        try:
            for number, word in enumerate(words):
                if number == self._interrupt:
                    raise self._error or KeyboardInterrupt
                yield ChatDelta(word + " ")
            yield ChatDelta(
                response=ChatResponse(
                    "i", "parrot", Message("assistant", ""), "stop", Usage(input=3, output=len(words))
                )
            )
        finally:
            self.closed += 1


def talk(lines, model=None, folder=None, **settings) -> tuple[Terminal, str]:
    model = model or Parrot()
    left = iter(lines)

    def read(prompt: str) -> str:
        line = next(left, None)
        if line is None:
            raise EOFError
        if line == "^C":
            raise KeyboardInterrupt
        return line

    out = io.StringIO()
    terminal = Terminal(model, Conversation.begin(model.name, folder, **settings), folder, read, out)
    assert terminal.run() == 0
    return terminal, out.getvalue()


def test_the_model_hears_all_that_was_said():
    model = Parrot()
    talk(["/system Be brief.", "hello there", "/temperature 0.5", "and again"], model)
    assert [m.text for m in model.requests[1].messages] == ["Be brief.", "hello there", "hello there ", "and again"]
    assert [m.role for m in model.requests[1].messages] == ["system", "user", "assistant", "user"]
    assert (model.requests[0].temperature, model.requests[1].temperature) == (None, 0.5)


def test_retry_undo_and_new_change_what_is_heard():
    model = Parrot()
    terminal, said = talk(["one", "/retry", "two", "/undo", "three", "/new", "four"], model)
    assert [[m.text for m in r.messages if m.role == "user"] for r in model.requests] == [
        ["one"], ["one"], ["one", "two"], ["one", "three"], ["four"],
    ]  # fmt: skip
    assert "Taken back: two" in said and len(terminal.conversation.record.turns) == 1


def test_lines_that_go_on_and_empty_ones():
    model = Parrot()
    talk(["", "   ", "first\\", "second"], model)
    assert [r.messages[-1].text for r in model.requests] == ["first\nsecond"]


def test_ctrl_c_stops_the_answer_and_not_the_program(tmp_path):
    model = Parrot(interrupt=2)
    terminal, said = talk(["a b c d", "^C", "x"], model, tmp_path)
    assert "a b " in said and "(stopped)" in said and "leaves" in said
    assert terminal.conversation.record.turns[0].answer == "a b "
    assert terminal.conversation.record.turns[0].finish == "stopped"
    assert model.closed == 2
    assert terminal.conversation.record.turns[1].answer == "x "


def test_an_error_is_said_and_the_question_is_not_kept(tmp_path):
    model = Parrot(interrupt=0, error=ProviderError("The server is gone.", "Start it."))
    terminal, said = talk(["hello"], model, tmp_path)
    assert "The server is gone. Start it." in said
    assert terminal.conversation.record.turns == () and kept(tmp_path) == []


def test_wrong_commands_are_named():
    _, said = talk(
        ["/fly", "/temperature warm", "/temperature 9", "/retry", "/save", "/history 3", "/help", "/quit", "x"]
    )
    for part in ("There is no /fly", "'warm' is no number", "not between 0 and 2", "Nothing was asked", "/save needs",
                 "There is no conversation 3", "begin another conversation"):  # fmt: skip
        assert part in said
    assert "\nx" not in said


def test_conversations_are_kept_and_gone_on_with(tmp_path):
    talk(["first of all", "second"], folder=tmp_path, system="Be kind.")
    time.sleep(1.1)  # the next one's name is later
    model = Parrot()
    terminal, said = talk(["other", "/history", "/history 2", "third"], model, tmp_path)
    assert "first of all" in said and "2 turns" in said
    assert [m.text for m in model.requests[-1].messages][:2] == ["Be kind.", "first of all"]
    assert len(terminal.conversation.record.turns) == 3
    again = Conversation.load(terminal.conversation.path)
    assert again.record == terminal.conversation.record


def test_saving(tmp_path):
    names = ("a.md", "a.md", "b.json", "no/c.md")
    _, said = talk(["hello there", *(f"/save {tmp_path / name}" for name in names)], folder=tmp_path / "chats")
    assert "**You:** hello there" in (tmp_path / "a.md").read_text() and "is there already" in said
    assert json.loads((tmp_path / "b.json").read_text())["turns"][0]["question"] == "hello there"
    assert "cannot be written" in said


def test_a_pipe_gets_the_answer_alone():
    out = io.StringIO()
    model = Parrot()
    assert Terminal(model, Conversation.begin("parrot", None), None, out=out).once("how are\nyou?\n") == 0
    assert out.getvalue() == "how are you? \n"
    with pytest.raises(InputError, match="empty"):
        Terminal(model, Conversation.begin("parrot", None), None, out=out).once(" \n")


def test_a_damaged_file_is_named(tmp_path):
    for text in ("{", "[]", '{"id": 3}', '{"id": "a", "model": "m", "begun": 1.0, "more": 1}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match=r"x\.json is not a conversation"):
            Conversation.load(tmp_path / "x.json")
