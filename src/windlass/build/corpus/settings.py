"""What a corpus is made of and how: from `corpus.toml` or the options of the command. Unknown keys are refused."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from windlass.core.config import strict
from windlass.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """`[[sources]]`: a folder or file, relative to the recipe, and its place in the mix."""

    path: Path
    name: str = ""
    """Of the part it becomes; its file name when empty."""
    weight: float | None = None
    """Its share of the training text, relative to the other sources'. None for all of them: as much as there is."""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """The recipe of a corpus. Everything in it, and nothing else, decides what a given input becomes."""

    sources: tuple[SourceSettings, ...] = ()
    min_chars: int = 30
    """Least number of characters other than white space."""
    near: float = 0.8
    """Jaccard similarity of word shingles from which a document repeats an earlier one of its kind."""
    heldout: float = 0.1
    """Expected share of clusters that training never sees."""
    seed: int = 0
    """Another one holds out other clusters, and repeats other documents where the mix needs a part of them again."""

    def __post_init__(self) -> None:
        if not 0 <= self.heldout < 1:
            raise ConfigError(
                f"The held-out share is {self.heldout}, but must be at least 0 and below 1.", "0.1 holds back a tenth."
            )
        if not 0.5 <= self.near <= 1:
            raise ConfigError(
                f"The similarity of near duplicates is {self.near}, but must lie between 0.5 and 1.",
                "0.8 is usual; below 0.5 the search would miss most pairs.",
            )
        weighted = [source for source in self.sources if source.weight is not None]
        if weighted and len(weighted) < len(self.sources):
            missing = next(source.path for source in self.sources if source.weight is None)
            raise ConfigError(f"The source {missing} has no weight, but others have.", "Give every source a weight.")

    def as_json(self) -> dict[str, Any]:
        """What the report tells of them: no paths, which would make the artifact depend on where its input lay."""
        values = asdict(self)
        del values["sources"]
        return values


def load_recipe(path: Path, changes: Mapping[str, Any] | None = None) -> CorpusSettings:
    """Reads `path`, with `changes` taking the place of its values. Its sources lie relative to its folder."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", "Mend the line it names.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Name a recipe file.") from error
    found = strict(CorpusSettings, values | dict(changes or {}), where=str(path))
    return replace(found, sources=tuple(replace(item, path=path.parent / item.path) for item in found.sources))
