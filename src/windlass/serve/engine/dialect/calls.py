"""What a format of tool calls is made of: a grammar that writes calls, and a reader that follows them as they come.

A reader is a generator that walks along an `Incoming` text as if all of it were there. Where the text ends too early it
yields None and is resumed when more has come, so what it says of a call (`Opened`, pieces of its arguments, `Whole`) is
known as soon as it is written, and reading at once or in pieces is the same thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from windlass.serve.engine.constraints.keywords import Schema

T = TypeVar("T")
SPACE = " \t\r\n"


class Malformed(ValueError):
    """A text that should be tool calls, and is not."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A call has begun; its arguments follow."""

    name: str
    id: str | None = None
    """The call's id, where the format has one."""


@dataclass(frozen=True, slots=True)
class Whole:
    """The calls opened until now are whole, whatever follows."""


Event = Opened | Whole | str | None
"""A text is a piece of the arguments of the call opened last: JSON. None: more text is needed."""
Reading = Generator[Event, None, T]


@dataclass(frozen=True, slots=True)
class Signature:
    """A tool as a grammar needs it; `parameters` as `json_schema.prepare` returns them."""

    name: str
    parameters: Schema


@dataclass(frozen=True, slots=True)
class Format:
    name: str
    begin: str
    """The text that announces calls anywhere in an answer; empty: an answer is calls from its beginning, or none."""
    first: str
    """Where there is no `begin`: the characters an answer made of calls begins with, as a regular expression."""
    marks: tuple[str, ...]
    """Texts that are special tokens in some vocabularies, and must be seen."""
    rules: Callable[[Sequence[Signature], bool], str]
    """Lark rules for `calls` (behind `begin`), one call or several."""
    read: Callable[[Incoming, Mapping[str, Schema]], Reading[None]]
    """Follows calls from behind `begin` to where content may go on; knows the parameters of the tools by name. Raises
    `Malformed`."""
    ends_reasoning: bool = False
    """Whether models begin calls in the middle of a thought, without closing its section."""


class Incoming:
    """Text that comes in pieces, and the place up to which it was read."""

    def __init__(self) -> None:
        self.text = ""
        self.place = 0
        self.closed = False
        """Whether no more comes."""

    def push(self, text: str) -> None:
        self.text += text

    @property
    def rest(self) -> str:
        """What was not read yet."""
        return self.text[self.place :]

    def more(self) -> Reading[None]:
        """Waits. Raises `Malformed` when no more comes."""
        if self.closed:
            raise Malformed("the text ends in the middle of a call")
        yield None

    def letter(self) -> Reading[str]:
        """What comes next; it is not stepped over."""
        while self.place >= len(self.text):
            yield from self.more()
        return self.text[self.place]

    def skip(self) -> Reading[None]:
        """Steps over white space."""
        while True:
            while self.place < len(self.text) and self.text[self.place] in SPACE:
                self.place += 1
            if self.place < len(self.text) or self.closed:
                return
            yield None

    def which(self, *marks: str) -> Reading[str]:
        """Steps over white space and the one of `marks` that follows."""
        yield from self.skip()
        while True:
            rest = self.text[self.place : self.place + max(map(len, marks))]
            if found := [mark for mark in marks if rest.startswith(mark)]:
                self.place += len(max(found, key=len))
                return max(found, key=len)
            if not any(mark.startswith(rest) for mark in marks):
                raise Malformed(f"{rest[:40]!r} stands where {' or '.join(marks)} should")
            yield from self.more()

    def end(self, mark: str) -> Reading[None]:
        """Steps over a mark that the end of the answer may stand for."""
        yield from self.skip()
        while not self.rest.startswith(mark):
            if not mark.startswith(self.rest):
                raise Malformed(f"{self.rest[:40]!r} stands where {mark} should")
            if self.closed:
                self.place = len(self.text)
                return
            yield None
        self.place += len(mark)

    def ended(self, call: str, end: str) -> Reading[bool]:
        """Steps over the mark of a further call, or over that (or the end of the answer) which ends them."""
        yield from self.skip()
        while not self.rest.startswith((call, end)):
            if not (call.startswith(self.rest) or end.startswith(self.rest)):
                raise Malformed(f"{self.rest[:40]!r} stands between calls")
            if self.closed:
                self.place = len(self.text)
                return True
            yield None
        return (yield from self.which(call, end)) == end

    def last(self) -> Reading[None]:
        """Waits for the end of the answer, white space before it stepped over."""
        yield from self.skip()
        if self.rest:
            raise Malformed("text behind the calls")

    def upto(self, letters: str) -> Reading[str]:
        """The text before the first of `letters`, which is not stepped over."""
        start = self.place
        while (yield from self.letter()) not in letters:
            self.place += 1
        return self.text[start : self.place]

    def until(self, mark: str, *, before: str = "") -> Reading[str]:
        """Yields the text before `mark` piece by piece and steps over the mark; returns all of it. A `before` right
        before the mark belongs to neither."""
        pieces: list[str] = []
        while True:
            found = self.text.find(mark, self.place)
            if found >= 0:
                last = self.text[self.place : found].removesuffix(before)
                self.place = found + len(mark)
                if last:
                    yield last
                return "".join([*pieces, last])
            certain = len(self.text) - max(overlap(self.rest, before + mark), overlap(self.rest, mark))
            if certain > self.place:
                pieces.append(self.text[self.place : certain])
                self.place = certain
                yield pieces[-1]
            yield from self.more()

    def json(self, *, object: bool = False) -> Reading[str]:
        """Yields the JSON value that follows piece by piece, as it is written; returns all of it, without the white
        space around it. `object`: it must be one."""
        yield from self.skip()
        first = yield from self.letter()
        if object and first != "{":
            raise Malformed("the arguments are not an object")
        start, sent, depth, quoted, escaped = self.place, self.place, 0, False, False
        while True:
            if self.place == len(self.text):
                if self.place > sent:
                    yield self.text[sent : self.place]
                    sent = self.place
                if self.closed and depth == 0 and not quoted:
                    break
                yield from self.more()
                continue
            letter = self.text[self.place]
            if not quoted and depth == 0 and self.place > start and (letter in ",:]}" or letter in SPACE):
                break  # behind a number or a name
            self.place += 1
            if quoted:
                quoted, escaped = escaped or letter != '"', not escaped and letter == "\\"
            elif letter == '"':
                quoted = True
            elif letter in "{[":
                depth += 1
            elif letter in "]}":
                depth -= 1
                if depth < 0:
                    raise Malformed("a bracket is closed that was not opened")
            if depth == 0 and not quoted and letter in '"]}':
                break
        if self.place > sent:
            yield self.text[sent : self.place]
        whole = self.text[start : self.place]
        value_of(whole)
        return whole


def silently(reading: Reading[T]) -> Reading[T]:
    """Follows a reading for what it returns; its pieces are not passed on."""
    while True:
        try:
            event = next(reading)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if event is None:
            yield None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def value_of(text: str) -> Any:
    """The value of a JSON text. Raises `Malformed`."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()  # a half of a character may be escaped, but not passed on
    except (ValueError, RecursionError) as error:
        raise Malformed(str(error)) from None
    return value


def text_of(value: Any) -> str:
    """A value as JSON text. Raises `Malformed`."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise Malformed(str(error)) from None
    return text


def overlap(text: str, mark: str) -> int:
    """Length of the longest beginning of `mark` that the text ends with."""
    longest = min(len(mark) - 1, len(text))
    return next((length for length in range(longest, 0, -1) if text.endswith(mark[:length])), 0)
