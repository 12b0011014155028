"""How documents are cut: the kind of cut, its few dials, and names for settings that are often wanted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from windlass.core.errors import InputError

WRITTEN = 300
"""Characters of what a chat model wrote above a passage that are used."""

Kind = Literal["structure", "fixed", "sentence", "semantic"]
Unit = Literal["characters", "tokens"]


@dataclass(frozen=True, slots=True)
class ChunkSettings:
    """Sizes are characters. `pieces` bounds the estimated word pieces, context included: MiniLM reads 256."""

    kind: Kind = "structure"
    """structure: along headings, paragraphs, lists, tables, code. fixed: windows of one size. sentence: windows of
    sentences. semantic: as structure, but prose is cut where its subject changes, which an embedder finds."""
    target: int = 550
    """The size wished for. Windows (fixed, sentence) are as large as they can be up to it."""
    limit: int = 800
    """No passage is larger, of fixed windows in characters and of those in tokens neither."""
    pieces: int = 225
    """Fixed windows do not keep it: they are what their size says."""
    context: int = 120
    """Longest line of title and heading put above a passage for search."""
    overlap: int = 0
    """How much a window repeats of the one before, at most: for fixed and sentence."""
    unit: Unit = "characters"
    """What `target` and `overlap` count, for fixed: tokens are those of the embedder, a `LateEmbedder`."""
    late: bool = False
    """The embedder, a `LateEmbedder`, reads a document whole, and a passage's vector is the mean of its tokens'."""
    written: bool = False
    """A chat model writes a sentence above each passage that says what it is about in its document."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.unit not in get_args(Unit):
            raise InputError(
                f"There are no chunks of the kind '{self.kind}' in {self.unit}.",
                f"Kinds: {', '.join(get_args(Kind))}. Units: {', '.join(get_args(Unit))}.",
            )
        if not 0 < self.target < self.limit or self.pieces < 16 or self.context < 0:
            raise InputError("Chunk settings need 0 < target < limit, pieces >= 16 and context >= 0.")
        if not 0 <= self.overlap <= self.target // 2:
            raise InputError(f"Chunks of {self.target} cannot overlap by {self.overlap}.", "Let them by half at most.")
        if self.overlap and self.kind not in ("fixed", "sentence"):
            raise InputError(f"Chunks of the kind '{self.kind}' do not overlap.", "Those of fixed and sentence do.")
        if self.unit == "tokens" and self.kind != "fixed":
            raise InputError(
                f"Chunks of the kind '{self.kind}' are measured in characters.", "Those of fixed may not be."
            )

    @classmethod
    def named(cls, name: str, **dials: Any) -> ChunkSettings:
        """One of `RECIPES`, with some dials set otherwise, those that are on or off also as the texts true and false.
        Raises `InputError` for a name or dial that is not known, and for a value that is none of the dial's."""
        if name not in RECIPES:
            raise InputError(f"There is no way of chunking named '{name}'.", f"Known: {', '.join(RECIPES)}.")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(dials) - known):
            raise InputError(f"Chunk settings have no '{unknown[0]}'.", f"They have: {', '.join(sorted(known))}.")
        return dataclasses.replace(RECIPES[name], **{dial: _value(dial, given) for dial, given in dials.items()})


def _value(dial: str, given: Any) -> Any:
    wanted = type(getattr(RECIPES["structure"], dial))
    value = {"true": True, "false": False}.get(given, given) if wanted is bool else given
    if type(value) is not wanted:
        raise InputError(
            f"The chunk setting '{dial}' is {given!r}.",
            {bool: "It is true or false.", int: "It is a whole number.", str: "It is a word."}[wanted],
        )
    return value


RECIPES = {
    "structure": ChunkSettings(),
    "fixed": ChunkSettings("fixed", overlap=100),
    "tokens": ChunkSettings("fixed", target=128, overlap=24, unit="tokens"),
    "sentence": ChunkSettings("sentence", overlap=150),
    "semantic": ChunkSettings("semantic"),
    "late": ChunkSettings(late=True),
    "contextual": ChunkSettings(written=True),
}
"""What `--chunks` knows by name."""
