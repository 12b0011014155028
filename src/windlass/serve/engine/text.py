"""From tokens to text that can be shown at once: whole characters only, and nothing that may yet become a stop string.

A token may end in the middle of a character (byte-level vocabularies) and a stop string may begin in one token and
end in a later one; both are held back until it is known what they are.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Callable, Sequence
from typing import Protocol

from windlass.core.errors import InputError

BROKEN = "\N{REPLACEMENT CHARACTER}"

LONGEST, KEPT = 32, 8
"""A window of more tokens than `LONGEST` is cut down to the last `KEPT`: those hold all bytes that an unfinished
character can have (three), even where each token holds but one."""


class Text:
    """What a request's tokens say: pieces that can be shown at once, up to the first stop string.

    The text ends before the stop string, as in OpenAI's API; with `include_stop` behind it (vLLM's
    `include_stop_str_in_output`).
    """

    def __init__(self, characters: Characters, stops: Sequence[str], *, include_stop: bool = False) -> None:
        self._characters = characters
        self._stops = StopStrings(stops, include=include_stop)

    def push(self, token: int) -> str:
        return self._stops.push(self._characters.push(token))

    def finish(self) -> str:
        """What was held back until now; nothing if a stop string was found."""
        return self._stops.push(self._characters.finish()) + self._stops.finish()

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found; no text follows it."""
        return self._stops.found is not None


class Characters(Protocol):
    """Tokens of one answer, to characters."""

    def push(self, token: int) -> str:
        """The text that has become certain."""
        ...

    def finish(self) -> str:
        """What was held back; bytes that never became a character are shown as U+FFFD."""
        ...


class ByteDecoder:
    """Where a text is the sum of what its tokens write."""

    def __init__(self, written: Callable[[int], bytes]) -> None:
        self._written = written
        self._decoder = getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(self._written(token))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class Detokenizer:
    """Decodes a growing sequence of tokens piece by piece; the pieces add up to the decoded whole.

    Only a short window at the end is decoded again for every token. It begins at a boundary between tokens where the
    text was whole, with one such stretch before it, since some decoders treat the first token in a special way. Where
    no such boundary comes (bytes that are no text, tokens that all end inside a character), it is cut all the same.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._before: list[int] = []
        self._window: list[int] = []
        self._given = 0

    def push(self, token: int) -> str:
        """What decodes to a broken character at the end may yet be completed."""
        self._window.append(token)
        text = self._text()
        certain = text.rstrip(BROKEN)
        fresh, self._given = certain[self._given :], max(self._given, len(certain))
        if certain and len(certain) == len(text):
            self._before, self._window, self._given = self._window, [], 0
        elif len(self._window) > LONGEST:
            fresh += self._shorten(text)
        return fresh

    def _shorten(self, text: str) -> str:
        """Moves the window on to its last tokens; the text that is settled with that. A character that begins before
        the cut counts as one there, whole or not, so what is left of the text starts behind it."""
        head = self._window[:-KEPT]
        settled = len(self._decode(self._before + head)) - len(self._decode(self._before))
        fresh, self._given = text[self._given : settled], max(self._given - settled, 0)
        self._before, self._window = head, self._window[-KEPT:]
        return fresh

    def finish(self) -> str:
        rest, self._window = self._text()[self._given :], []
        return rest

    def _text(self) -> str:
        """The text of the window, decoded behind what comes before it."""
        return self._decode(self._before + self._window)[len(self._decode(self._before)) :]


class StopStrings:
    """Cuts a stream of text before (`include`: behind) the first of `stops` in it, that is the one complete first.

    Of several that end together the longest counts. So the cut is the same however the text is split into pieces.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        if not all(stops):
            raise InputError("A stop string is empty.", "Leave it out.")
        self._stops = tuple(stops)
        self._include = include
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """The text that surely comes before any stop string. Once `found` is set, nothing follows."""
        if self.found is not None:
            return ""
        if not self._stops:
            return text
        self._held += text
        hits = [(at + len(stop), at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if hits:
            end, start, self.found = min(hits)
            certain, self._held = self._held[: end if self._include else start], ""
            return certain
        keep = max(self._overlap(stop) for stop in self._stops)
        cut = len(self._held) - keep
        certain, self._held = self._held[:cut], self._held[cut:]
        return certain

    def finish(self) -> str:
        """What was held back in case a stop string followed."""
        rest, self._held = self._held, ""
        return rest

    def _overlap(self, stop: str) -> int:
        """Length of the longest beginning of `stop` that the held text ends with."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)
