"""Vectors that were computed once are not computed again: an embedder in front of which stands a file.

The key is the embedder's digest and the SHA-256 of kind and text, so an unchanged text costs nothing, a changed
embedder never meets old vectors, and a build that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import DiskFull, InputError, WorkspaceBusy, WorkspaceCorrupt
from windlass.core.files import disk_errors
from windlass.core.progress import Progress
from windlass.core.protocols import Embedder, Embeddings, EmbedKind, LateEmbedder
from windlass.core.sqlite import patiently

Vectors = NDArray[np.float32]

_WINDOW = 2048
"""Texts are sorted by length within windows: batches are even, and the rate shown stays honest to the end."""
_BATCH = 32


def cache_path(root: Path) -> Path:
    """The vector cache of the workspace whose `.windlass` folder is `root`."""
    return root / "cache" / "vectors.db"


class CachedEmbedder:
    """Implements `Embedder` over another one, remembering every vector in the SQLite file `path`.

    Safe to share between threads and processes. Vectors are stored batch by batch, so that whatever was computed
    before an interruption is kept. `computed` counts the texts that the embedder really had to read.
    """

    def __init__(self, embedder: Embedder, path: Path) -> None:
        self._embedder = embedder
        self._path = path
        self._lock = threading.Lock()
        self.computed = 0
        with disk_errors(path), self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
            patiently(self._connection, "PRAGMA journal_mode = WAL", 30)
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors (embedder TEXT, text BLOB, tokens INTEGER NOT NULL,"
                " truncated INTEGER NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (embedder, text)) WITHOUT ROWID"
            )

    @property
    def name(self) -> str:
        return self._embedder.name

    @property
    def digest(self) -> str:
        return self._embedder.digest

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    @property
    def inner(self) -> Embedder:
        """The one that computes."""
        return self._embedder

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        return self.embed_all(texts, kind)

    def token_starts(self, text: str) -> NDArray[np.int64]:
        return late(self._embedder).token_starts(text)

    def embed_spans(self, text: str, spans: Sequence[tuple[int, int]], above: str = "") -> Embeddings:
        """All spans of a text are computed again as soon as one is not known: it is read whole for each."""
        read = hashlib.sha256(f"{above}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()
        keys = [hashlib.sha256(f"span\0{read}\0{start}:{end}".encode()).digest() for start, end in spans]
        vectors = np.empty((len(spans), self.dimension), np.float32)
        tokens, truncated, missing = self._known(keys, vectors)
        if missing:
            made = late(self._embedder).embed_spans(text, spans, above)
            self._store(made, keys, len(spans))
            return made
        return Embeddings(vectors, tokens, truncated)

    def embed_all(self, texts: Sequence[str], kind: EmbedKind, progress: Progress | None = None) -> Embeddings:
        """As `embed`, and reports the texts done, those found in the cache included. `tokens` counts each text once."""
        keys = [hashlib.sha256(f"{kind}\0{text}".encode("utf-8", "surrogatepass")).digest() for text in texts]
        vectors = np.empty((len(texts), self.dimension), np.float32)
        tokens, truncated, missing = self._known(keys, vectors)
        done = len(texts) - len(missing)
        first_of: dict[bytes, int] = {}
        repeated = [i for i in missing if first_of.setdefault(keys[i], i) != i]
        missing = list(first_of.values())
        for batch in _batches(missing, texts):
            counts = self._compute([texts[i] for i in batch], [keys[i] for i in batch], kind, vectors, batch)
            tokens, truncated, done = tokens + counts[0], truncated + counts[1], done + len(batch)
            if progress is not None:
                progress.update(done)
        for i in repeated:
            vectors[i] = vectors[first_of[keys[i]]]
        return Embeddings(vectors, tokens, truncated)

    def _compute(
        self, texts: Sequence[str], keys: Sequence[bytes], kind: EmbedKind, vectors: Vectors, rows: Sequence[int]
    ) -> tuple[int, int]:
        made = self._embedder.embed(texts, kind)
        self._store(made, keys, len(texts))
        vectors[rows] = made.vectors
        return made.tokens, made.truncated

    def _store(self, made: Embeddings, keys: Sequence[bytes], wanted: int) -> None:
        if made.vectors.shape != (wanted, self.dimension) or not np.isfinite(made.vectors).all():
            raise InputError(
                f"The embedder '{self.name}' gave vectors of shape {made.vectors.shape} for {wanted} texts of "
                f"dimension {self.dimension}, or values that are not finite.",
            )
        self.computed += wanted
        # Tokens and truncations are known for the whole call only, so the first text of a batch carries them: the
        # sums are exact whenever the same texts are asked for again.
        counts = [(made.tokens, made.truncated), *[(0, 0)] * (wanted - 1)]
        rows_in = [
            (self.digest, key, count[0], count[1], np.ascontiguousarray(vector, np.float32).tobytes())
            for key, count, vector in zip(keys, counts, made.vectors, strict=True)
        ]
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?, ?, ?)", rows_in)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite has rolled back by itself when the disk is full
                    self._connection.execute("ROLLBACK")
                raise

    def _known(self, keys: Sequence[bytes], vectors: Vectors) -> tuple[int, int, list[int]]:
        """Fills in what the file holds; returns tokens, truncated texts and the positions still missing."""
        tokens = truncated = 0
        missing = []
        counted = set[bytes]()
        size = self.dimension * 4
        with self._lock, self._errors():
            for i, key in enumerate(keys):
                row = self._connection.execute(
                    "SELECT tokens, truncated, vector FROM vectors WHERE embedder = ? AND text = ?", (self.digest, key)
                ).fetchone()
                if row is None or len(row[2]) != size:
                    missing.append(i)
                else:
                    if key not in counted:  # a text that is repeated was read once
                        tokens, truncated = tokens + row[0], truncated + row[1]
                        counted.add(key)
                    vectors[i] = np.frombuffer(row[2], np.float32)
        return tokens, truncated, missing

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise DiskFull(
                    f"No space left on the disk that holds {self._path}.",
                    "Free some space and run the same command again; it goes on from here.",
                ) from error
            if "locked" in str(error):
                raise WorkspaceBusy(
                    f"Another process has been writing to {self._path} for a long time.", "Wait for it, or stop it."
                ) from error
            raise WorkspaceCorrupt(
                f"The vector cache {self._path} cannot be used ({error}).",
                "Check that the file may be read and written, or delete it: it is made again as needed.",
            ) from error
        except sqlite3.DatabaseError as error:
            raise WorkspaceCorrupt(
                f"The vector cache {self._path} is damaged ({error}).",
                "Delete the file: it only saves time and is made again as needed.",
            ) from error


def late(embedder: Embedder) -> LateEmbedder:
    """The embedder, as one that knows about tokens. Raises `InputError` naming one that does not."""
    if not isinstance(embedder, LateEmbedder) or (isinstance(embedder, CachedEmbedder) and not late(embedder.inner)):
        raise InputError(
            f"The embedder '{embedder.name}' gives vectors of whole texts only.",
            "Late chunking, and sizes in tokens, need a local encoder, such as MiniLM.",
        )
    return embedder


def _batches(rows: Sequence[int], texts: Sequence[str]) -> Iterator[list[int]]:
    for first in range(0, len(rows), _WINDOW):
        window = sorted(rows[first : first + _WINDOW], key=lambda i: -len(texts[i]))
        for at in range(0, len(window), _BATCH):
            yield window[at : at + _BATCH]
