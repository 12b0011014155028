"""A conversation: its messages and settings, written to one file after every turn."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from windlass.core.config import strict
from windlass.core.errors import ConfigError, InputError
from windlass.core.files import write_json
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatDelta, ChatRequest, Message

FOLDER = "chats"
"""Of a workspace's `.windlass/`."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and what was answered."""

    question: str
    answer: str = ""
    finish: str = "stopped"
    """The model's finish reason; "stopped" where the person stopped it or it failed."""
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What the file holds."""

    id: str
    model: str
    begun: float
    system: str = ""
    temperature: float | None = None
    turns: tuple[Turn, ...] = ()


@dataclass(slots=True)
class Conversation:
    """`path` None: it is kept nowhere."""

    record: Record
    path: Path | None = None
    last: ChatDelta | None = field(default=None, init=False)
    """The final delta of the newest answer, with its usage; None where it has none."""

    @classmethod
    def begin(
        cls, model: str, folder: Path | None, *, system: str = "", temperature: float | None = None
    ) -> Conversation:
        """A new one; its file appears with the first turn."""
        now = time.time()
        name = time.strftime("%Y%m%d-%H%M%S", time.localtime(now)) + "-" + secrets.token_hex(2)
        return cls(Record(name, model, now, system, temperature), None if folder is None else folder / f"{name}.json")

    @classmethod
    def load(cls, path: Path) -> Conversation:
        """Raises `InputError` for a file that is no conversation."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(strict(Record, values, where=str(path)), path)
        except (OSError, ValueError, AttributeError, ConfigError) as error:
            raise InputError(f"{path} is not a conversation ({error}).", "Begin a new one.") from error

    def ask(self, model: ChatModel, question: str) -> Iterator[str]:
        """The answer in pieces. However it ends, completed, stopped or failed, what was said is kept.

        A question that got no word of an answer is not kept, so that it cannot stand unanswered between the others.
        """
        request = ChatRequest([*self._messages(), Message("user", question)], temperature=self.record.temperature)
        pieces: list[str] = []
        turn = Turn(question)
        self.last = None
        stream = model.stream(request)
        try:
            for delta in stream:
                if delta.text:
                    pieces.append(delta.text)
                    yield delta.text
                if delta.response is not None:
                    self.last = delta
                    turn = replace(turn, finish=delta.response.finish_reason, trace=delta.response.trace_id)
        finally:
            if close := getattr(stream, "close", None):
                close()  # the model stops now, not when somebody collects garbage
            if pieces or self.last is not None:
                self._set(turns=(*self.record.turns, replace(turn, answer="".join(pieces))))

    def undo(self) -> str:
        """Takes the last turn back and returns its question. Raises `InputError` when there is none."""
        if not self.record.turns:
            raise InputError("Nothing was asked yet.", "Type a question.")
        question = self.record.turns[-1].question
        self._set(turns=self.record.turns[:-1])
        return question

    def set_system(self, text: str) -> None:
        """What the model is told before the conversation; empty: nothing."""
        self._set(system=text)

    def set_temperature(self, value: float | None) -> None:
        """None: the model's own."""
        if value is not None and not 0 <= value <= 2:
            raise InputError(f"The temperature {value} is not between 0 and 2.")
        self._set(temperature=value)

    def as_markdown(self) -> str:
        """To be read by people."""
        parts = [f"# Conversation with {self.record.model}\n"]
        if self.record.system:
            parts.append(f"> {self.record.system}\n")
        parts += [f"**You:** {turn.question}\n\n**{self.record.model}:** {turn.answer}\n" for turn in self.record.turns]
        return "\n".join(parts)

    def _messages(self) -> list[Message]:
        messages = [Message("system", self.record.system)] if self.record.system else []
        for turn in self.record.turns:
            messages += [Message("user", turn.question), Message("assistant", turn.answer)]
        return messages

    def _set(self, **changes: Any) -> None:
        self.record = replace(self.record, **changes)
        if self.path is not None and (self.record.turns or self.path.exists()):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, asdict(self.record))


def kept(folder: Path) -> list[Path]:
    """The files of a workspace's conversations, newest first."""
    return sorted(folder.glob("*.json"), reverse=True)
