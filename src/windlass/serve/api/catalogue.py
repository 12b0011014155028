"""The chat models by the names that clients know: those the server was given, and the adapters loaded on them now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from windlass.core.protocols import Adaptable, ChatModel


class Catalogue(Mapping[str, ChatModel]):
    """Remembers nothing itself: an adapter is here as long as its base has it."""

    def __init__(self, bases: Mapping[str, ChatModel]) -> None:
        self.bases = bases

    @property
    def adaptable(self) -> dict[str, Adaptable]:
        """The bases that take adapters."""
        return {name: model for name, model in self.bases.items() if isinstance(model, Adaptable)}

    @property
    def parents(self) -> dict[str, str]:
        """The base of each adapter."""
        return {name: base for base, model in self.adaptable.items() for name in model.adapters}

    def __getitem__(self, name: str) -> ChatModel:
        if name in self.bases:
            return self.bases[name]
        for model in self.adaptable.values():
            if (adapted := model.adapters.get(name)) is not None:
                return adapted
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        yield from self.bases
        yield from self.parents

    def __len__(self) -> int:
        return len(self.bases) + len(self.parents)
