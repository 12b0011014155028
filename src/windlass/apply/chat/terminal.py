"""A conversation in the terminal: lines in, answers out as they are written.

At a terminal there is a prompt, and Ctrl-C stops the answer, not the program. In a pipe, all of the input is one
question and nothing but its answer is written: `windlass chat model < question.txt > answer.txt`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from windlass.apply.chat.conversation import Conversation, kept
from windlass.core.errors import InputError, WindlassError
from windlass.core.files import atomic_write
from windlass.core.protocols import ChatModel

HELP = """\
/system [TEXT]        what the model is told first; without a text: nothing
/temperature [NUMBER] 0 to 2, higher is livelier; without a number: the model's own
/retry                ask the last question again
/undo                 take the last question and its answer back
/new                  begin another conversation
/history              the conversations kept here; /history N goes on with one
/save FILE            write this conversation as Markdown, or as JSON where FILE ends in .json
/quit                 leave (Ctrl-D too)
A line that ends in \\ goes on in the next. Ctrl-C stops an answer."""


@dataclass(slots=True)
class Terminal:
    model: ChatModel
    conversation: Conversation
    folder: Path | None
    """Where conversations are kept."""
    read: Callable[[str], str] = input
    """Asks for a line with a prompt; raises EOFError at the end."""
    out: TextIO = sys.stdout

    def run(self) -> int:
        """Until /quit or the end of input; returns the exit status."""
        self._say(f"{self.model.name}. /help lists what can be done; Ctrl-D leaves.\n")
        if self.folder is None:
            self._say("There is no workspace here, so what is said is not kept (/save FILE keeps it).\n")
        while True:
            try:
                line = self._line()
            except EOFError:
                self._say("\n")
                return 0
            except KeyboardInterrupt:
                self._say("\n(Ctrl-D or /quit leaves)\n")
                continue
            if not line.strip():
                continue
            try:
                if line.startswith("/"):
                    if not self._command(line):
                        return 0
                else:
                    self._answer(line)
            except WindlassError as error:
                self._say(f"\n{error.message}{' ' + error.hint if error.hint else ''}\n")

    def once(self, question: str) -> int:
        """One question from a pipe. Errors are the caller's; Ctrl-C ends the program."""
        if not question.strip():
            raise InputError("The input is empty.", "Pipe a question in, or start without a pipe.")
        for piece in self.conversation.ask(self.model, question.strip()):
            self._say(piece)
        self._say("\n")
        return 0

    def _line(self) -> str:
        line = self.read("\n> ")
        while line.endswith("\\"):
            line = line[:-1] + "\n" + self.read("  ")
        return line

    def _answer(self, question: str) -> None:
        started = time.monotonic()
        pieces = self.conversation.ask(self.model, question)
        try:
            for piece in pieces:
                self._say(piece)
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):  # pressed twice
                pieces.close()  # type: ignore[attr-defined]
            self._say("\n(stopped)\n")
            return
        last = self.conversation.last
        usage = last.response.usage if last and last.response else None
        written = usage.completion if usage else None
        seconds = time.monotonic() - started
        cut = ", cut at the token limit" if last and last.response and last.response.finish_reason == "length" else ""
        self._say(f"\n({f'{written} tokens in ' if written is not None else ''}{seconds:.1f} s{cut})\n")

    def _command(self, line: str) -> bool:
        """Whether to go on."""
        name, _, rest = line[1:].partition(" ")
        rest = rest.strip()
        match name:
            case "quit" | "exit" | "q":
                return False
            case "help" | "?":
                self._say(HELP + "\n")
            case "system":
                self.conversation.set_system(rest)
                self._say("The model is told this first.\n" if rest else "The model is told nothing first.\n")
            case "temperature":
                self.conversation.set_temperature(_number(rest))
                self._say(f"Temperature {rest or 'as the model has it'}.\n")
            case "retry":
                self._answer(self.conversation.undo())
            case "undo":
                self._say(f"Taken back: {self.conversation.undo()}\n")
            case "new":
                record = self.conversation.record
                self.conversation = Conversation.begin(
                    self.model.name, self.folder, system=record.system, temperature=record.temperature
                )
                self._say("A new conversation.\n")
            case "history":
                self._history(rest)
            case "save":
                self._save(rest)
            case _:
                raise InputError(f"There is no /{name}.", "/help lists what can be done.")
        return True

    def _history(self, chosen: str) -> None:
        paths = kept(self.folder) if self.folder else []
        if chosen:
            if not chosen.isdigit() or not 1 <= int(chosen) <= len(paths):
                raise InputError(f"There is no conversation {chosen}.", f"There are {len(paths)}; /history lists them.")
            self.conversation = Conversation.load(paths[int(chosen) - 1])
            for turn in self.conversation.record.turns:
                self._say(f"\n> {turn.question}\n{turn.answer}\n")
            return
        for number, path in enumerate(paths[:20], start=1):
            record = Conversation.load(path).record
            first = record.turns[0].question.splitlines()[0][:60] if record.turns else ""
            self._say(f"{number:3}  {record.id}  {record.model}  {len(record.turns)} turns  {first}\n")
        if not paths:
            self._say("None is kept here.\n")

    def _save(self, name: str) -> None:
        if not name:
            raise InputError("/save needs the name of a file.", "For example /save talk.md")
        path = Path(name).expanduser()
        if path.exists():
            raise InputError(f"{path} is there already.", "Choose another name.")
        try:
            if path.suffix == ".json" and self.conversation.path is not None and self.conversation.path.exists():
                text = self.conversation.path.read_text(encoding="utf-8")
            else:
                text = self.conversation.as_markdown()
            with atomic_write(path, "w") as file:
                file.write(text)
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}).", "Choose another name.") from error
        self._say(f"Saved to {path}.\n")

    def _say(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


def _number(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"'{text}' is no number.", "For example /temperature 0.7") from error
