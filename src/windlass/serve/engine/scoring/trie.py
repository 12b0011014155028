"""Sequences of tokens as one forest in which every shared beginning stands once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trie:
    """Nodes in depth-first order, so that those below node n are n+1 ... end[n]-1.

    Node n is thus an ancestor of m, or m itself, exactly when n <= m < end[n].
    """

    token: Ints
    depth: Ints
    """Tokens before this one in its sequences."""
    parent: Ints
    """-1 for a first token."""
    end: Ints
    paths: list[Ints]
    """The nodes of each sequence, in the order given."""

    def __len__(self) -> int:
        return len(self.token)

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> Trie:
        """Sorted, sequences with a common beginning are neighbours: each adds what follows the beginning that it
        shares with the one before it."""
        rows = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
        end = np.zeros(sum(map(len, rows)), dtype=np.int64)
        tokens, depths, parents = [], [], []
        paths: list[Ints] = [np.empty(0, dtype=np.int64)] * len(rows)
        previous = path = np.empty(0, dtype=np.int64)
        count = 0
        for index in sorted(range(len(rows)), key=lambda i: rows[i].tobytes()):
            row = rows[index]
            shared = common(previous, row)
            end[path[shared:]] = count
            path = np.concatenate([path[:shared], np.arange(count, count + len(row) - shared)])
            count += len(row) - shared
            tokens.append(row[shared:])
            depths.append(np.arange(shared, len(row)))
            parents.append(np.concatenate([[-1], path])[shared : len(row)])
            paths[index], previous = path, row
        end[path] = count

        def joined(parts: list[Ints]) -> Ints:
            return np.concatenate([*parts, np.empty(0, dtype=np.int64)])

        return cls(joined(tokens), joined(depths), joined(parents), end[:count], paths)


def common(a: Ints, b: Ints) -> int:
    """Length of the beginning that both share."""
    shortest = min(len(a), len(b))
    unlike = np.flatnonzero(a[:shortest] != b[:shortest])
    return int(unlike[0]) if len(unlike) else shortest
