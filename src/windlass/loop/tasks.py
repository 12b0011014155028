"""Tasks in a workspace: who answers for them by name, local models included."""

from __future__ import annotations

from pathlib import Path

from windlass.apply.tasks.running import Model
from windlass.apply.tasks.surroundings import Surroundings
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace

LOCAL = "local:"


def surroundings(ws: Workspace | None) -> Surroundings:
    """As tasks find them by themselves, and `local:NAME` besides: a model of the workspace, or a model's folder, run by
    windlass's own engine; a classifier gives its labels as the task's answers."""
    around = Surroundings(ws)

    def resolve(name: str) -> Model:
        return _local(ws, name.removeprefix(LOCAL)) if name.startswith(LOCAL) else around.known(name)

    return Surroundings(ws, resolve=resolve)


def _local(ws: Workspace | None, name: str) -> Model:
    from windlass.loop.assistants.assemble import model_artifact
    from windlass.loop.encoders import encoder_place
    from windlass.serve.encoders.opening import encoder_in, holds_encoder
    from windlass.serve.engine.local import LocalModel

    with encoder_place(ws, name) as (folder, called):
        if folder.is_dir() and holds_encoder(folder):
            return _labels(encoder_in(folder, called), name)
    if (Path(name) / "config.json").is_file():
        return LocalModel.load(Path(name), recorder=None)
    if ws is None:
        raise InputError(f"There is no model's folder {name}, and no workspace here.", "Run `windlass init` first.")
    artifact = model_artifact(ws, name)
    return LocalModel.load(artifact.path, name=artifact.record.name, digest=artifact.digest, recorder=None)


def _labels(encoder: object, name: str) -> Model:
    from windlass.serve.encoders.cross_encoder import TextClassifier
    from windlass.serve.encoders.label_model import LabelModel

    if not isinstance(encoder, TextClassifier):
        raise InputError(f"{name} gives no labels, so it carries out no task.", "Tune one: `windlass tune classify`.")
    return LabelModel(encoder, name=f"{LOCAL}{name}")
