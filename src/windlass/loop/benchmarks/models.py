"""A model that benchmarks can ask, by whatever name it has: of the workspace, a folder, an address, a provider's."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from windlass.core.errors import ConfigError, InputError, ProviderError
from windlass.core.protocols import LanguageModel
from windlass.core.workspace import Workspace

EXACT = "fp32"
"""Benchmarks are about the model, not about the arithmetic that it is served in."""


class Opened(LanguageModel, Protocol):
    """One that was opened here, and is to be closed."""

    def identity(self) -> Mapping[str, Any]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Opening:
    """How a model is opened."""

    policy: str = EXACT
    """Arithmetic of a local model."""
    bos: bool | None = None
    """Begin texts with the model's first token; None: as its tokenizer does."""
    truncate: bool = False
    """Cut what is too long, rather than leave its item out."""
    served: str = ""
    """What an endpoint calls the model; empty: the first that it lists."""
    key_env: str | None = None
    """Environment variable of an endpoint's key."""


def open_model(ws: Workspace | None, name: str, how: Opening | None = None) -> Opened:
    """Raises `NotFound`, `InputError` or `ConfigError` for what is no model, `ProviderError` for an endpoint that does
    not answer."""
    how = how or Opening()
    if name.startswith(("http://", "https://")):
        return _endpoint(name, how)
    kind, colon, _ = name.partition(":")
    if colon and kind and not Path(name).exists():
        return _provider(name, how)
    if how.served or how.key_env:
        raise InputError("--served and --api-key-env belong to an endpoint.", f"'{name}' runs here: leave them out.")
    return _local(ws, name, how)


def _local(ws: Workspace | None, name: str, how: Opening) -> Opened:
    from windlass.loop.assistants.assemble import model_artifact
    from windlass.serve.engine.local import LocalModel
    from windlass.serve.engine.scoring.language import EngineLanguageModel

    called: dict[str, Any]
    if (Path(name) / "config.json").is_file():
        folder, called = Path(name), {"name": Path(name).resolve().name}
    else:
        artifact = model_artifact(ws, name)
        folder, called = artifact.path, {"name": artifact.record.name, "digest": artifact.digest}
    model = LocalModel.load(folder, policy=how.policy, recorder=None, **called)
    try:
        return EngineLanguageModel(model, bos=how.bos, truncate=how.truncate)
    except BaseException:
        model.close()
        raise


def _endpoint(address: str, how: Opening) -> Opened:
    from windlass.apply.providers import known
    from windlass.apply.providers.completions import RemoteLanguageModel

    _refuse_local(how)
    key = how.key_env or "OPENAI_API_KEY"
    with contextlib.closing(known.at(address, "?", key)) as door:
        digests = _served(door.endpoint.get("/models"))
    names = [how.served] if how.served else list(digests)
    if not names:
        raise ProviderError(f"{address}/models lists no language model.", "Name it with --served.")
    if len(names) > 1:
        raise InputError(f"{address} serves {', '.join(names)}.", "Say with --served which one is meant.")
    return RemoteLanguageModel(known.at(address, names[0], key), digest=digests.get(names[0]))


def _served(listed: Mapping[str, Any]) -> dict[str, str | None]:
    """The models of an endpoint, and the digests that windlass's own server tells; it says also which of them write."""
    data = listed.get("data")
    found: dict[str, str | None] = {}
    for one in data if isinstance(data, list) else []:
        about = one.get("windlass") or {} if isinstance(one, Mapping) else {}
        if isinstance(one, Mapping) and isinstance(one.get("id"), str) and "chat" in about.get("kinds", ("chat",)):
            found[one["id"]] = about.get("digest")
    return found


def _provider(name: str, how: Opening) -> Opened:
    from windlass.apply.providers import known
    from windlass.apply.providers.completions import RemoteLanguageModel

    if how.served:
        raise ConfigError(f"'{name}' says already which model is meant.", "Leave out --served.")
    _refuse_local(how)
    return RemoteLanguageModel(known.model(name, key_variable=how.key_env))


def _refuse_local(how: Opening) -> None:
    if how.bos is not None or how.truncate or how.policy != EXACT:
        raise InputError(
            "--bos, --truncate and --policy say how a model runs here.", "An endpoint runs as it does: leave them out."
        )
