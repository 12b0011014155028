"""The model that a conversation is with: one of the workspace, one in a folder, or one behind a URL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from windlass.apply.providers import known
from windlass.apply.providers.wire.http import Endpoint
from windlass.apply.providers.wire.keys import ApiKey
from windlass.core.errors import NotFound, ProviderError
from windlass.core.protocols import ChatModel
from windlass.core.workspace import Workspace
from windlass.loop.assistants.assemble import TASK, is_living, load_asked, load_living, model_artifact
from windlass.loop.living import living
from windlass.loop.releasing.releases import live


@contextlib.contextmanager
def chat_model(
    ws: Workspace | None, which: str | None, *, name: str | None = None, key_env: str = "OPENAI_API_KEY"
) -> Iterator[ChatModel]:
    """Yields it, and lets go of it in the end. `which` None: the released assistant, or that of the living index that
    was ingested into last; else the newest model.

    Raises `NotFound` and `InputError` for what is not there, `ProviderError` for a server that does not answer.
    """
    if which is not None and which.startswith(("http://", "https://")):
        url = which if which.rstrip("/").endswith("/v1") else which.rstrip("/") + "/v1"
        with contextlib.closing(known.at(url, name or _first(url, key_env), key_env)) as remote:
            yield remote
        return
    model = _local(ws, which)
    try:
        yield model
    finally:
        if close := getattr(model, "close", None):
            close()


def _first(base_url: str, key_env: str) -> str:
    with contextlib.closing(Endpoint(base_url, ApiKey(key_env))) as endpoint:
        listed = endpoint.get("/models").get("data")
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], dict) or "id" not in listed[0]:
        raise ProviderError(f"{base_url}/models lists no model.", "Name it with --name.")
    return str(listed[0]["id"])


def _local(ws: Workspace | None, which: str | None) -> ChatModel:
    from windlass.serve.engine.local import LocalModel

    if which is not None and (Path(which) / "config.json").is_file():
        return LocalModel.load(Path(which), recorder=ws.recorder if ws else None)
    if ws is None:
        raise NotFound("There is no workspace here.", "Name a model's folder or a URL, or run `windlass init`.")
    if which == TASK or (which is None and (live(ws, TASK) is not None or living(ws))):
        return load_asked(ws, None, None)[0]
    if which is not None and is_living(ws, which):
        return load_living(ws, which)
    if which is None:
        newest = ws.store.artifacts("model")
        if not newest:
            raise NotFound("This workspace holds no model.", "Name a URL, or run `windlass demo` or `windlass import`.")
        which = newest[0].digest
    artifact = model_artifact(ws, which)
    return LocalModel.load(artifact.path, name=artifact.record.name, digest=artifact.digest, recorder=ws.recorder)
