"""An adapter on the embedder: a small learned correction of its vectors, the same for questions and passages.

`x' = normalise(x + (x @ down) @ up)` with `down` of shape (dimension, rank) and `up` of shape (rank, dimension), in
`adapter.safetensors`; `adapter_config.json` names the embedder it was trained for. Because it acts on finished
vectors, an index is adapted by transforming what it stores: nothing is embedded again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, MissingExtra, NotFound, WorkspaceCorrupt
from windlass.core.files import sha256_file, sha256_json
from windlass.core.protocols import Embedder, Embeddings, EmbedKind

CONFIG, TENSORS = "adapter_config.json", "adapter.safetensors"
_TYPE = "low_rank_residual"
_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Adapter:
    digest: str
    base_embedder: str
    """Digest of the embedder whose vectors it corrects."""
    down: NDArray[np.float32]
    up: NDArray[np.float32]

    @property
    def dimension(self) -> int:
        return int(self.down.shape[0])

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Corrects unit vectors of shape (n, dimension); returns new ones of unit length."""
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise InputError(f"The adapter takes vectors of dimension {self.dimension}, not {vectors.shape}.")
        out = np.empty_like(vectors, np.float32)
        for at in range(0, len(vectors), _ROWS):  # in blocks: a million vectors need no second copy of all of them
            x = vectors[at : at + _ROWS]
            moved = x + (x @ self.down) @ self.up
            length = np.linalg.norm(moved, axis=1, keepdims=True)
            out[at : at + _ROWS] = moved / np.maximum(length, 1e-12)
        return out


def load_adapter(source: Artifact | Path) -> Adapter:
    """Loads an adapter artifact, or a folder that holds its two files. Needs safetensors, never torch."""
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingExtra("Loading an adapter", "rag") from error
    folder = source if isinstance(source, Path) else source.path
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise NotFound(f"{folder} holds no adapter: {name} is missing.", "Train it again.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (ValueError, SafetensorError, OSError) as error:
        raise WorkspaceCorrupt(f"The adapter in {folder} cannot be read ({error}).", "Train it again.") from error
    if not isinstance(config, dict) or config.get("type") != _TYPE:
        raise InputError(f"{folder / CONFIG}: type must be '{_TYPE}'.", "The adapter is of a newer or another kind.")
    d, r = config.get("dimension"), config.get("rank")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {"down": (d, r), "up": (r, d)} or not isinstance(config.get("base_embedder"), str):
        raise InputError(
            f"{folder}: expected tensors down ({d}, {r}) and up ({r}, {d}) and a base_embedder, found {shapes}."
        )
    down, up = (np.ascontiguousarray(tensors[name], np.float32) for name in ("down", "up"))
    if not (np.isfinite(down).all() and np.isfinite(up).all()):
        raise InputError(f"{folder / TENSORS} holds values that are not finite.", "Its training diverged; train again.")
    digest = sha256_json(sha256_file(folder / TENSORS)) if isinstance(source, Path) else source.digest
    return Adapter(digest, config["base_embedder"], down, up)


class AdaptedEmbedder:
    """Implements `Embedder`: another one, followed by an adapter."""

    def __init__(self, embedder: Embedder, adapter: Adapter) -> None:
        check_base(adapter, embedder.digest, embedder.name)
        self._embedder = embedder
        self._adapter = adapter

    @property
    def name(self) -> str:
        return f"{self._embedder.name}+{self._adapter.digest[:12]}"

    @property
    def digest(self) -> str:
        return sha256_json([self._embedder.digest, self._adapter.digest])

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        plain = self._embedder.embed(texts, kind)
        return Embeddings(self._adapter.apply(plain.vectors), plain.tokens, plain.truncated)


def check_base(adapter: Adapter, embedder: str, name: str) -> None:
    """Raises `InputError` unless the adapter was trained for the embedder with this digest."""
    if adapter.base_embedder != embedder:
        raise InputError(
            f"The adapter {adapter.digest[:12]} was trained for embedder {adapter.base_embedder[:12]}, "
            f"not for {name} ({embedder[:12]}).",
            "Train it again for this embedder, or use the one it was trained for.",
        )
