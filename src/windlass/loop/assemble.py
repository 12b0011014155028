"""The composition root: the one place where the rooms are put together into models that answer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from windlass.apply.assistant import Assistant
from windlass.apply.providers import known
from windlass.apply.rag.index_file import FILE, IndexFile
from windlass.apply.rag.search import HybridIndex
from windlass.apply.rag.vectors import CachedEmbedder, cache_path
from windlass.core.artifacts import Artifact
from windlass.core.errors import ConfigError, InputError
from windlass.core.protocols import ChatModel, Embedder, Extracting
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace
from windlass.loop.encoders import encoder_place
from windlass.loop.release import live, live_variant
from windlass.loop.served import Served
from windlass.loop.variant import VariantSpec, parts, read_variant

TASK = "assistant"


def load_assistant(
    ws: Workspace,
    variant: Artifact | None = None,
    *,
    embedder: Embedder | None = None,
    reader: Extracting | None = None,
    recorder: Recorder | None = None,
    task: str = TASK,
    writes: bool = True,
) -> Assistant:
    """The assistant of a variant; None means what the task serves. `embedder` defaults to the one of its index.

    The language model that windlass.toml names, if any, writes the answers; with `writes` False they are quotations
    all the same, and a `reader` reads them out of the passages. Calls are recorded in the workspace unless another
    `recorder` is given. Raises `NotFound` when nothing is released, `InputError` when the variant belongs to another
    embedder, `ConfigError` when its model is not set up.
    """
    variant = variant or live_variant(ws, task)
    spec = read_variant(variant)
    index, adapter = parts(ws, variant)
    opened = HybridIndex.open(index, embedder or load_embedder(index), adapter, spec.settings.search)
    return Assistant(
        opened,
        spec.settings,
        ws.recorder if recorder is None else recorder,
        _writer(ws, spec) if writes and reader is None else None,
        reader=reader,
        name=spec.task,
        digest=variant.digest,
        windows=ws.config.windows,
    )


def load_embedder(index: Artifact) -> Embedder:
    """The embedder whose vectors an index holds. Raises `InputError` when windlass has none of that digest."""
    from windlass.serve.encoders.embedder import MiniLM

    file = IndexFile(index.path / FILE)
    try:
        wanted, name = file.meta.embedder, file.meta.embedder_name
    finally:
        file.close()
    for precision in ("float32", "bfloat16"):
        embedder = MiniLM.load(precision=precision)
        if embedder.digest == wanted:
            return embedder
    raise InputError(
        f"{index.ref} holds vectors of {name} ({wanted[:12]}), which is not an embedder of this installation.",
        "Build the index again with `windlass index`.",
    )


def load_reader(ws: Workspace, name: str) -> Extracting:
    """The extractive reader in a folder, or in a model or adapter of the workspace. Raises `NotFound`, and `InputError`
    for what answers no questions."""
    from windlass.build.transformer.classifier_files import has_head
    from windlass.serve.encoders.span_reader import SpanReader

    with encoder_place(ws, name) as (folder, called):
        if not folder.is_dir():
            ws.artifacts.get(name)
        if not (folder / "config.json").is_file() or not has_head(folder, "spans"):
            raise InputError(
                f"{name} does not say where in a text an answer stands.",
                "Train a model that does: `windlass tune extract`.",
            )
        return SpanReader.from_folder(folder, name=called)


def cached(ws: Workspace, embedder: Embedder) -> CachedEmbedder:
    """The embedder with the workspace's vector cache before it: for questions that are asked again and again."""
    return CachedEmbedder(embedder, cache_path(ws.root))


def load_models(ws: Workspace | None, only: Sequence[str] = (), **engine: Any) -> dict[str, ChatModel]:
    """What this workspace can serve by name: its newest language models, and the assistant once released, which follows
    its releases.

    With `only`, just these: a task that has a release, a model of the workspace (`name`, `name@version`, digest), or a
    model's folder, which needs no workspace. Raises `NotFound` and `InputError` for any other name. `engine`: how local
    models are run, as for `LocalModel.load`; a task runs as it was released.
    """
    from windlass.serve.encoders.opening import holds_encoder

    models: dict[str, ChatModel] = {}
    for asked in only:
        name, model = _named(ws, asked, engine)
        if name in models:
            raise InputError(f"Two models are called '{name}'.", "Rename one of them: clients ask by the name.")
        models[name] = model
    if only:
        return models
    if ws is None:
        raise InputError("Without a workspace there are no models but in folders.", "Name the folder of one.")
    for artifact in newest_models(ws):
        if not holds_encoder(artifact.path):
            models[artifact.record.name] = _local(ws, artifact, engine)
    if live(ws, TASK) is not None:
        models[TASK] = Served(ws, TASK, lambda: load_assistant(ws))
    return models


def newest_models(ws: Workspace) -> list[Artifact]:
    """The last version of each model of the workspace, newest first."""
    found: dict[str, str] = {}
    for record in ws.store.artifacts("model"):  # newest first
        found.setdefault(record.name, record.digest)
    return [ws.artifacts.get(digest) for digest in found.values()]


def _named(ws: Workspace | None, name: str, engine: Mapping[str, Any]) -> tuple[str, ChatModel]:
    if (Path(name) / "config.json").is_file():
        from windlass.serve.engine.local import LocalModel

        recorder = None if ws is None else ws.recorder
        model = LocalModel.load(Path(name), name=Path(name).resolve().name, recorder=recorder, **engine)
        return model.name, model
    if ws is not None and live(ws, name) is not None:
        return name, Served(ws, name, lambda: load_assistant(ws, task=name))
    artifact = model_artifact(ws, name)
    assert ws is not None, "it holds the artifact"
    return artifact.record.name, _local(ws, artifact, engine)


def model_artifact(ws: Workspace | None, name: str) -> Artifact:
    """The model of the workspace. Raises `NotFound`, or `InputError` when the name is of something else: another kind
    of artifact, or a place that is no model's folder."""
    artifact = None if ws is None else ws.artifacts.find(name)
    if artifact is None:
        if Path(name).is_dir():
            raise InputError(f"The folder {name} holds no config.json.", "Give the folder of a Hugging Face model.")
        if Path(name).is_file():
            raise InputError(
                f"{name} is a file, not a model's folder.", "`windlass import` makes a model of a GGUF file."
            )
        if ws is None or os.sep in name:
            raise InputError(f"There is no folder {name}.")
        artifact = ws.artifacts.get(name)
    if artifact.kind != "model":
        raise InputError(f"{artifact.ref} is of the kind {artifact.kind}.", "Name a model, its folder, or a task.")
    return artifact


def _local(ws: Workspace, artifact: Artifact, engine: Mapping[str, Any]) -> ChatModel:
    from windlass.serve.engine.local import LocalModel

    name, digest = artifact.record.name, artifact.digest
    return LocalModel.load(artifact.path, name=name, digest=digest, recorder=ws.recorder, **engine)


def _writer(ws: Workspace, spec: VariantSpec) -> ChatModel | None:
    """The language model that writes: the one in windlass.toml, which must be the variant's if that names one."""
    configured = ws.config.model
    if not configured.base_url and not configured.model:
        if spec.model is None:
            return None
        raise ConfigError(
            f"This variant of '{spec.task}' writes with '{spec.model}', but windlass.toml names no model.",
            "Set base_url and model under [model].",
        )
    model = known.from_config(ws.config)
    if spec.model not in (None, model.name):
        raise ConfigError(
            f"This variant of '{spec.task}' writes with '{spec.model}', but windlass.toml names '{model.name}'.",
            "Set the variant's model under [model], or roll back.",
        )
    return model
