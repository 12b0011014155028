"""Models that make images, sound or video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from windlass.core.values import AudioPart, FilePart, ImagePart, Usage


@dataclass(frozen=True, slots=True)
class MediaFile:
    """An image, a sound, a video or another file that a model made, as it lies on the disk."""

    path: Path
    """Named by its digest: what is made twice is there once."""
    media_type: str
    digest: str
    """SHA-256 of its content."""
    size: int
    """Bytes."""

    def part(self) -> ImagePart | AudioPart | FilePart:
        """Its content for a message."""
        data, kind = self.path.read_bytes(), self.media_type.partition("/")[0]
        if kind == "image":
            return ImagePart(data=data, media_type=self.media_type)
        if kind == "audio":
            return AudioPart(data, self.media_type)
        return FilePart(data=data, media_type=self.media_type, name=self.path.name)


@dataclass(frozen=True, slots=True)
class Made:
    """What a model made of a prompt."""

    id: str
    """Of the order at its host."""
    model: str
    files: Sequence[MediaFile]
    usage: Usage = field(default_factory=Usage)
    seconds: float | None = None
    """That the host's machines worked, where it says so."""
    cost_usd: float | None = None


@runtime_checkable
class MediaModel(Protocol):
    """Makes images, sound or video."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    def make(self, prompt: str, inputs: Mapping[str, Any] | None = None, *, timeout: float = 600.0) -> Made:
        """`inputs`: what else the model takes, by its own names. Whatever ends the waiting cancels the work."""
        ...

    async def amake(self, prompt: str, inputs: Mapping[str, Any] | None = None, *, timeout: float = 600.0) -> Made: ...
