"""Answers kept for the same question: in memory, by the digest of the whole request, for a time, up to a size."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from windlass.core.files import sha256_json


@dataclass(frozen=True, slots=True)
class Kept:
    body: bytes
    content_type: str
    until: float


class AnswerCache:
    """The least recently used go first when it is full."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def get(self, digest: str) -> Kept | None:
        kept = self._kept.get(digest)
        if kept is None:
            return None
        if kept.until <= time.monotonic():
            self._drop(digest)
            return None
        self._kept.move_to_end(digest)
        return kept

    def put(self, digest: str, body: bytes, content_type: str, seconds: float) -> None:
        """Keeps a whole answer; one that would fill more than half of the memory is not kept."""
        if len(body) > self._limit // 2:
            return
        if digest in self._kept:
            self._drop(digest)
        self._kept[digest] = Kept(body, content_type, time.monotonic() + seconds)
        self._size += len(body)
        while self._size > self._limit:
            self._drop(next(iter(self._kept)))

    def _drop(self, digest: str) -> None:
        self._size -= len(self._kept.pop(digest).body)


def digest_of(owner: str, path: str, fields: Mapping[str, Any]) -> str:
    """What makes two requests the same: who asks (`""` in a shared cache), where, and every field but their order."""
    return sha256_json([owner, path, fields])
