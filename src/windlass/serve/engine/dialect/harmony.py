"""Harmony, as gpt-oss writes it: an answer is a sequence of messages, each with a header that says who reads it.

    <|channel|>analysis<|message|>…<|end|>                                                     reasoning
    <|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{…}      a call; the answer ends
    <|start|>assistant<|channel|>final<|message|>…                                             content

Commentary without a recipient is content too: the model says what it is about to do. The recipient may also stand
before the channel, as chat templates write it. The token that ends an answer tells the last message's end.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Any

from windlass.core.values import ToolCallDelta
from windlass.serve.engine.constraints.json_schema import prepare
from windlass.serve.engine.constraints.keywords import Schema
from windlass.serve.engine.constraints.lark import in_lark, quoted
from windlass.serve.engine.dialect.calls import Event, Incoming, Malformed, Opened, Whole, overlap
from windlass.serve.engine.dialect.tools import Calls, End, Piece, Tools

START, CHANNEL, CONSTRAIN, MESSAGE, ENDS = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>"
MARKS = frozenset([START, CHANNEL, CONSTRAIN, MESSAGE, ENDS])
LONGEST_HEADER = 300

_HEADER = re.compile(
    r"\s*(?:<\|start\|>)?\s*(?:assistant)?\s*(?:to=(?P<before>[^\s<]+))?\s*"
    r"<\|channel\|>\s*(?P<channel>\w+)\s*(?:to=(?P<behind>[^\s<]+))?\s*(?:<\|constrain\|>)?\s*\w*\s*"
)


def speaks(template: str) -> bool:
    return CHANNEL in template and MESSAGE in template and "functions." in template


# writing -------------------------------------------------------------------------------------------------------------

_MARK = r"<\|(start|channel|constrain|message|end|call|return)\|>"
_BEFORE = rf"""
before: (thought | preamble)*
thought: "{CHANNEL}analysis{MESSAGE}" ENDED "{START}assistant"
preamble: "{CHANNEL}commentary{MESSAGE}" ENDED "{START}assistant"
ENDED: /(?s:.*)<\|end\|>/ & ~/(?s:.*){_MARK}(?s:.+)/
TEXT: /(?s:.*)/ & ~/(?s:.*){_MARK}(?s:.*)/
"""
"""What is ended is one lexeme with its end: a shorter one could not stop before a mark that looks like more text."""
_FINAL = f'"{CHANNEL}final{MESSAGE}"'
BEFORE_FINAL = f"start: before {_FINAL} @answer\n{_BEFORE}"
"""A Lark grammar of an answer whose content is `@answer`."""


def grammar(tools: Tools, schema: Mapping[str, Any] | None) -> str | None:
    """A Lark grammar of the answers allowed; `schema` is what one that is no call must obey. None: any is."""
    said = "TEXT" if schema is None else in_lark(prepare(schema))
    if tools.choice == "none":
        return None if schema is None else f"start: before {_FINAL} {said}\n{_BEFORE}"
    calls = " | ".join(
        f"{quoted(f'{CHANNEL}commentary to=functions.{tool.name} {CONSTRAIN}json{MESSAGE}')} {in_lark(tool.parameters)}"
        for tool in tools.signatures
    )
    final = f" | {_FINAL} {said}" if tools.choice == "auto" else ""
    return f"start: before (call{final})\ncall: {calls}\n{_BEFORE}"


# reading -------------------------------------------------------------------------------------------------------------


class Channels:
    """An answer taken apart as it is written, as `dialect.Parts` does it for other models."""

    def __init__(self, tools: Mapping[str, Schema]) -> None:
        """`tools`: the parameters of those that may be called, by name."""
        self._source = Incoming()
        self._calls = Calls(tools)
        self._reading = self._messages()
        self._behind = 0
        """Up to where everything was told."""
        self._plain = False
        self.malformed = False
        self.thinking = False
        """Whether what comes next is still reasoning."""

    def push(self, text: str) -> Piece:
        """What has become certain."""
        if self._plain:
            return Piece(text=text)
        self._source.push(text)
        return self._follow()

    def finish(self) -> tuple[Piece, End]:
        """The rest, and how the answer ends."""
        self._source.closed = True
        piece = Piece() if self._plain else self._follow()
        return piece, End(tuple(self._calls.whole), self.malformed)

    def _follow(self) -> Piece:
        piece = Piece()
        try:
            for event in self._reading:
                if event is None:
                    return piece
                piece += event if isinstance(event, Piece) else Piece(calls=self._told(event))
        except Malformed:
            self._plain, self.thinking = True, False
            piece += Piece(text=self._source.text[self._behind :])
        return piece

    def _told(self, event: Opened | Whole | str) -> list[ToolCallDelta]:
        return self._calls.take(event)

    def _messages(self) -> Generator[Event | Piece, None, None]:
        source = self._source
        while True:
            self._behind = source.place
            header = yield from self._header()
            if header is None:
                return
            to = header["before"] or header["behind"]
            if to is not None:
                self.malformed = True  # until it is whole
                yield Opened(to.removeprefix("functions."))
                yield from source.json(object=True)
                yield from source.end(ENDS)
                yield Whole()
                self.malformed = False
                continue
            self.thinking = header["channel"] == "analysis"
            for text in self._body():
                yield text if text is None else Piece(text) if self.thinking else Piece(text=text)
            self.thinking = False

    def _header(self) -> Generator[None, None, re.Match[str] | None]:
        """The header that follows; None at the end of the answer. Raises `Malformed` where there is none."""
        source = self._source
        while (found := source.text.find(MESSAGE, source.place)) < 0:
            rest = source.rest
            begun = rest.lstrip().startswith(("<", "assistant", "to=")) or any(
                word.startswith(rest.lstrip()) for word in ("assistant", "to=")
            )
            if not begun or len(rest) > LONGEST_HEADER or (source.closed and rest):
                raise Malformed("an answer is made of messages with headers")
            if source.closed:
                return None
            yield None
        header = _HEADER.fullmatch(source.text, source.place, found)
        if header is None:
            raise Malformed("an answer is made of messages with headers")
        source.place = found + len(MESSAGE)
        return header

    def _body(self) -> Generator[str | None, None, None]:
        source = self._source
        while True:
            found = source.text.find(ENDS, source.place)
            end = found if found >= 0 else len(source.text)
            certain = end if found >= 0 or source.closed else end - overlap(source.rest, ENDS)
            if certain > source.place:
                text = source.text[source.place : certain]
                source.place = certain
                yield text
            if found >= 0:
                source.place = found + len(ENDS)
                return
            if source.closed:
                return
            yield None
