"""What a server has on offer: the models it was told of, sorted by what they do, and the adapters on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from windlass.core.errors import ConfigError, InputError, MissingExtra, Unsupported
from windlass.core.protocols import Adaptable, ChatModel, Classifying, Embedder, Reranker
from windlass.core.workspace import Workspace
from windlass.loop.assistants.assemble import load_models, newest_models
from windlass.loop.encoders import encoder_place


@dataclass(slots=True)
class Lineup:
    """By the names that clients ask for, each of which is given once."""

    models: dict[str, ChatModel] = field(default_factory=dict)
    embedders: dict[str, Embedder] = field(default_factory=dict)
    rerankers: dict[str, Reranker] = field(default_factory=dict)
    classifiers: dict[str, Classifying] = field(default_factory=dict)
    adapters: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    """What could not be offered, and why."""
    caveats: list[str] = field(default_factory=list)
    """What is offered, but may be worse than where it was measured."""

    @property
    def names(self) -> list[str]:
        return [*self.models, *self.adapters, *self.embedders, *self.rerankers, *self.classifiers]

    def check_free(self, name: str) -> None:
        """Raises `InputError` when a model has this name."""
        if name in self.names:
            raise InputError(f"Two models are called '{name}'.", "Rename one of them: clients ask by the name.")


def load_lineup(
    ws: Workspace | None,
    names: Sequence[str],
    *,
    adapters: Sequence[tuple[str, str]] = (),
    speculate: str | None = None,
    **engine: Any,
) -> Lineup:
    """The models of these `names`, as `load_models` or `encoder_place` takes them; without any, all models of the
    workspace. Without a workspace they are folders. windlass' own embedder comes besides, where it is installed.

    `adapters` are names and their places: a folder, or an artifact of the workspace. `speculate`: how the models guess
    ahead, "lookup" or a draft model, named as they are. Raises `InputError` for a name
    that is given twice, `ConfigError` where it is not clear which model an adapter is for, and what loading raises.
    """
    lineup = Lineup()
    others = []
    for name in names:
        with encoder_place(ws, name) as (folder, called):
            if not _add_encoder(lineup, folder, called):
                others.append(name)
    if speculate is not None:
        engine["speculate"] = speculate if speculate == "lookup" else _place(ws, speculate)
    if others or not names:
        for name, model in load_models(ws, others, **engine).items():
            lineup.check_free(name)
            lineup.models[name] = model
    if ws is not None and not names:
        _add_workspace_encoders(ws, lineup)
    for name, place in adapters:
        _adapt(ws, lineup, name, place)
    _add_minilm(lineup)
    return lineup


def _add_workspace_encoders(ws: Workspace, lineup: Lineup) -> None:
    """The newest of each name that an endpoint is for; which are left out is told."""
    from windlass.serve.encoders.opening import holds_encoder

    for artifact in newest_models(ws):
        if holds_encoder(artifact.path):
            try:
                _add_encoder(lineup, artifact.path, artifact.record.name)
            except Unsupported as why:
                lineup.lacks.append(f"Without {artifact.ref}: {why.message}")


def _add_encoder(lineup: Lineup, folder: Path, name: str | None = None) -> bool:
    """Whether the folder holds one."""
    if not folder.is_dir():
        return False
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"The folder {folder} may not be read by this user.")
    from windlass.serve.encoders.opening import encoder_in

    if (made := encoder_in(folder, name)) is None:
        return False
    lineup.check_free(made.name)
    if isinstance(made, Embedder):
        lineup.embedders[made.name] = made
    elif isinstance(made, Reranker):
        lineup.rerankers[made.name] = made
    else:
        lineup.classifiers[made.name] = made
    return True


def _add_minilm(lineup: Lineup) -> None:
    try:
        from windlass.serve.encoders.embedder import MiniLM

        minilm = MiniLM.load()
    except MissingExtra as missing:
        lineup.lacks.append(f"Without embeddings: {missing.message} {missing.hint}")
        return
    if minilm.name not in lineup.names:
        lineup.embedders[minilm.name] = minilm


def _adapt(ws: Workspace | None, lineup: Lineup, name: str, place: str) -> None:
    lineup.check_free(name)
    bases = {base: model for base, model in lineup.models.items() if isinstance(model, Adaptable)}
    if len(bases) != 1:
        raise ConfigError(
            f"The adapter '{name}' is for one model, but of those that are served {len(bases)} take adapters.",
            "Serve its base alone: windlass serve BASE --lora NAME=FOLDER",
        )
    (base,) = bases.values()
    adapted = base.load_adapter(name, _place(ws, place))
    lineup.adapters.append(name)
    if caveat := getattr(adapted, "caveat", None):
        lineup.caveats.append(caveat)


def _place(ws: Workspace | None, named: str) -> Path:
    """A folder, or that of an artifact."""
    if ws is None or Path(named).is_dir():
        return Path(named)
    return ws.artifacts.get(named).path
