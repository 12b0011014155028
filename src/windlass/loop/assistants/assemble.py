"""The composition root: the one place where the rooms are put together into models that answer."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from windlass.apply.assistant import Assistant, AssistantSettings
from windlass.apply.providers import known
from windlass.apply.rag.embedding.vectors import CachedEmbedder, cache_path
from windlass.apply.rag.indexes.embedded.layout import describe
from windlass.apply.rag.indexes.search import HybridIndex
from windlass.apply.rag.retrieving import RetrieveSettings
from windlass.core.artifacts import Artifact
from windlass.core.errors import ConfigError, InputError, NotFound
from windlass.core.protocols import ChatModel, Embedder, Extracting, LiveIndex, Reranker
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace
from windlass.guard.injection import scan
from windlass.loop.assistants.variant import VariantSpec, parts, read_variant, reader_of
from windlass.loop.encoders import encoder_place
from windlass.loop.living import chosen, living, open_living
from windlass.loop.releasing.releases import live, live_variant
from windlass.loop.releasing.routing import Routed
from windlass.loop.text import counted

TASK = "assistant"
READER = "reader"
"""What the model is called that reads answers out of passages."""


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

    A `reader` that is given, or that the variant was measured with, reads the answers out of the passages. Else the
    language model that windlass.toml names writes them; without one the workspace's model called `reader` reads them
    out, where there is such a model (`windlass tune reader`), and else they are quotations: with `writes` False in any
    case, but for a `reader` that is given. Calls are recorded in the workspace unless another `recorder` is given.

    Raises `NotFound` when nothing is released, `InputError` when the variant belongs to another embedder, and
    `ConfigError` when its model is not set up.
    """
    variant = variant or live_variant(ws, task)
    spec = read_variant(variant)
    index, adapter = parts(ws, variant)
    writer, retrieve = None, spec.settings.retrieve
    if writes and reader is None:
        pinned = reader_of(ws, variant)
        writer = None if pinned else _writer(ws, spec)
        reader = load_reader(ws, pinned.digest) if pinned else None if writer else workspace_reader(ws)
    return Assistant(
        HybridIndex.open(index, embedder or load_embedder(index), adapter, spec.settings.search),
        spec.settings,
        ws.recorder if recorder is None else recorder,
        writer,
        reader=reader,
        helper=(writer or _writer(ws, spec)) if retrieve.asks else None,
        reranker=load_reranker(ws, retrieve.reranker) if retrieve.reranker else None,
        name=spec.task,
        digest=variant.digest,
        windows=ws.config.windows,
        scan=scan,
    )


def load_living(
    ws: Workspace,
    name: str | None = None,
    *,
    embedder: Embedder | None = None,
    reader: Extracting | None = None,
    recorder: Recorder | None = None,
) -> Assistant:
    """The assistant of a living index, by default the one that was ingested into last, with default settings but for
    the `[retrieve]` of windlass.toml.

    It answers from what the index holds at the time of the question; who answers is found as for `load_assistant`.
    Raises `NotFound` when there is none.
    """
    retrieve = RetrieveSettings(**asdict(ws.config.retrieve))
    spec = VariantSpec(settings=AssistantSettings(retrieve=retrieve))
    writer = _writer(ws, spec) if reader is None else None
    return Assistant(
        open_living(ws, name, embedder),
        spec.settings,
        ws.recorder if recorder is None else recorder,
        writer,
        reader=reader or (None if writer else workspace_reader(ws)),
        reranker=load_reranker(ws, retrieve.reranker) if retrieve.reranker else None,
        name=spec.task,
        windows=ws.config.windows,
        scan=scan,
    )


def is_living(ws: Workspace, name: str) -> bool:
    """Whether the name is that of a living index, and of no artifact."""
    return name in living(ws) and ws.artifacts.find(name) is None


def load_asked(
    ws: Workspace, variant: str | None, index: str | None, *, reader: Extracting | None = None
) -> tuple[Assistant, str]:
    """The assistant of a variant or of a living index, and what it answers from: by default what is released, and where
    nothing is, the living index that was ingested into last. Raises `NotFound` when there is neither."""
    if variant is not None and index is not None:
        raise InputError("A variant has an index of its own.", "Name a variant or a living index, not both.")
    if variant is not None or (index is None and live(ws, TASK) is not None):
        wanted = ws.artifacts.get(variant) if variant is not None else live_variant(ws, TASK)
        more = f" (--name {names[0]} asks what was ingested)" if variant is None and (names := living(ws)) else ""
        return load_assistant(ws, wanted, reader=reader), f"{wanted.ref}{more}"
    if index is None and not living(ws):
        raise NotFound(
            f"There is nothing to ask in {ws.home}: nothing is ingested, and nothing is released.",
            "windlass ingest FOLDER, or `windlass demo` to see it all.",
        )
    assistant, name = load_living(ws, index, reader=reader), chosen(ws, index)
    said = f"{name}, {counted(len(assistant.index), 'passage')}"
    if index is None and (others := [other for other in living(ws) if other != name]):
        said += f" (the one ingested into last; --name {others[0]} asks {'another' if others[1:] else 'the other'})"
    return assistant, said


def open_named(ws: Workspace, name: str) -> HybridIndex | LiveIndex:
    """The living index of that name, or else the index artifact, with its embedder. Raises `NotFound`."""
    if name in living(ws):
        return open_living(ws, name)
    artifact = ws.artifacts.get(name)
    adapter = next((digest for role, digest in artifact.record.parents if role == "adapter"), None)
    embedder = load_embedder(artifact)
    return HybridIndex.open(artifact, embedder, None if adapter is None else ws.artifacts.get(adapter))


def load_embedder(index: Artifact) -> Embedder:
    """The embedder whose vectors an index holds. Raises `InputError` when windlass has none of that digest."""
    from windlass.serve.encoders.embedder import MiniLM

    meta = describe(index.path)
    wanted, name = meta.embedder, meta.embedder_name
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
    with encoder_place(ws, name) as (folder, called):
        if not folder.is_dir():
            ws.artifacts.get(name)
        if not _reads(folder):
            raise InputError(
                f"{name} does not say where in a text an answer stands.",
                "Train a model that does: `windlass tune reader`.",
            )
        return _reader(folder, called)


def workspace_reader(ws: Workspace) -> Extracting | None:
    """What the workspace calls `reader`, a model or an adapter, if it reads answers out of texts."""
    artifact = reader_artifact(ws)
    return None if artifact is None else load_reader(ws, artifact.digest)


def reader_artifact(ws: Workspace) -> Artifact | None:
    found = ws.artifacts.find(READER)
    return found if found is not None and found.kind in ("model", "adapter") and _reads(found.path) else None


def _reads(folder: Path) -> bool:
    from windlass.build.transformer.adapters.base import task_of
    from windlass.build.transformer.classifier_files import has_head

    if (folder / "adapter_config.json").is_file():
        return task_of(folder) == "QUESTION_ANS"
    return (folder / "config.json").is_file() and has_head(folder, "spans")


def _reader(folder: Path, name: str | None) -> Extracting:
    """Every answer it sees, with its margin: whether one is given is decided by the rule of the variant, which knows
    what the search found besides."""
    from windlass.serve.encoders.span_reader import SpanReader

    return SpanReader.from_folder(folder, threshold=-math.inf, name=name)


def load_reranker(ws: Workspace | None, name: str) -> Reranker:
    """The reranker of that name: `provider:model` behind an endpoint, or in a folder, a model or an adapter of the
    workspace. An encoder that makes vectors ranks by those of its words, and `all-MiniLM-L6-v2` is always at hand.

    Raises `NotFound`, and `InputError` for a model that judges otherwise.
    """
    from windlass.apply.providers.reranking import RERANKERS, reranker

    if name.partition(":")[0] in RERANKERS and ":" in name:
        return reranker(name)
    from windlass.serve.encoders.cross_encoder import CrossEncoder
    from windlass.serve.encoders.embedder import MiniLM, SentenceEncoder
    from windlass.serve.encoders.late_interaction import LateInteraction
    from windlass.serve.encoders.opening import encoder_in

    with encoder_place(ws, name) as (folder, called):
        if not folder.is_dir():
            if name == "all-MiniLM-L6-v2":
                return LateInteraction(MiniLM.load())
            if ws is None:
                raise InputError(f"There is no folder {name}.", "Name a reranker's folder, or provider:model.")
            ws.artifacts.get(name)
        encoder = encoder_in(folder, called)
        if isinstance(encoder, CrossEncoder):
            return encoder
        if isinstance(encoder, SentenceEncoder):
            return LateInteraction(encoder)
    raise InputError(f"{name} does not say how well a text answers.", "Train a model that does: `windlass tune rank`.")


def cached(ws: Workspace, embedder: Embedder) -> CachedEmbedder:
    """The embedder with the workspace's vector cache before it: for questions that are asked again and again."""
    return CachedEmbedder(embedder, cache_path(ws.root))


def load_models(ws: Workspace | None, only: Sequence[str] = (), **engine: Any) -> dict[str, ChatModel]:
    """What this workspace can serve by name: its newest language models, and the assistant: what is released, and
    follows its releases; or else of the living index that was ingested into last.

    With `only`, just these: a task that has a release, a living index, a model of the workspace (`name`,
    `name@version`, digest), or a model's folder, which needs no workspace. Raises `NotFound` and `InputError` for any
    other name. `engine`: how local models are run, as for `LocalModel.load`; a task runs as it was released.
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
        models[TASK] = Routed(ws, TASK, lambda variant: load_assistant(ws, variant))
    elif living(ws):
        models[TASK] = load_living(ws)
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
        return name, Routed(ws, name, lambda variant: load_assistant(ws, variant, task=name))
    if ws is not None and is_living(ws, name):
        return name, load_living(ws, name)
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
