"""What a corpus is made of and how: from `corpus.toml` or the options of the command. Unknown keys are refused."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from windlass.build.corpus.pii import DEFAULT_KINDS, Kind
from windlass.build.corpus.quality import PRESETS, QualityRules
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
    text: str = "text"
    """The field of a row that holds its text, in files of rows (JSON lines, CSV, Parquet)."""
    id: str | None = None
    """The field that names a row; None: its number does."""


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """The recipe of a corpus. Everything in it, and nothing else, decides what a given input becomes."""

    sources: tuple[SourceSettings, ...] = ()
    repair: bool = False
    """Whether characters that were decoded with the wrong table are mended."""
    languages: tuple[str, ...] = ()
    """ISO 639 codes of the languages to keep (`und`: too short to tell); empty: all, and none is looked for."""
    decontaminate: tuple[Path, ...] = ()
    """Files with evaluation sets whose text must not be trained on."""
    evaluation_fields: tuple[str, ...] = ()
    """Fields of their rows to look at; empty: all that hold text."""
    contaminated: Literal["cut", "drop"] = "cut"
    """What happens to text of an evaluation set: it alone is cut out, or the whole document goes."""
    quality: Literal["none", "light", "gopher", "fineweb"] = "light"
    """The rules that documents must pass; see `quality.py`."""
    rules: Mapping[str, Any] = field(default_factory=dict)
    """Limits that replace those of `quality`, by the name of their field."""
    pii: Literal["keep", "mask", "drop"] = "keep"
    """What happens to personal data: a placeholder takes its place, or the whole document goes."""
    pii_kinds: tuple[Kind, ...] = DEFAULT_KINDS
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
        self.quality_rules()
        weighted = [source for source in self.sources if source.weight is not None]
        if weighted and len(weighted) < len(self.sources):
            missing = next(source.path for source in self.sources if source.weight is None)
            raise ConfigError(f"The source {missing} has no weight, but others have.", "Give every source a weight.")
        for source in weighted:
            if source.weight is not None and not 0 < source.weight < math.inf:
                raise ConfigError(f"The source {source.path} has weight {source.weight}.", "Give a number above 0.")

    def quality_rules(self) -> QualityRules:
        """The rules of `quality` with the changes of `rules`. Raises `ConfigError` for a field that no rule has."""
        values = {key: value for key, value in asdict(PRESETS[self.quality]).items() if value is not None}
        return strict(QualityRules, values | dict(self.rules), where="the recipe", prefix="rules.")

    def as_json(self) -> dict[str, Any]:
        """What the report tells of them: no paths, which would make the artifact depend on where its input lay."""
        values = asdict(self)
        del values["sources"]
        return values | {"decontaminate": [path.name for path in self.decontaminate]}


def corpus_settings(recipe: Path | None, changes: Mapping[str, Any]) -> CorpusSettings:
    """The settings of a recipe, whose paths are relative to its folder, with `changes` in the place of its values."""
    values: dict[str, Any] = {}
    if recipe is not None:
        try:
            values = tomllib.loads(recipe.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{recipe} is not valid TOML: {error}.", "Mend the line it names.") from error
        except OSError as error:
            raise ConfigError(f"{recipe} cannot be read: {error.strerror}.", "Name a recipe file.") from error
    found = strict(CorpusSettings, values | dict(changes), where=str(recipe or "options"))
    folder = recipe.parent if recipe is not None else Path()
    return replace(
        found,
        sources=tuple(replace(item, path=folder / item.path) for item in found.sources),
        decontaminate=found.decontaminate
        if "decontaminate" in changes
        else tuple(folder / path for path in found.decontaminate),
    )
