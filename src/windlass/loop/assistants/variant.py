"""Variants of the grounded assistant: everything that decides its answers, as one artifact.

`variant.json` holds the task, the assistant's settings and whether a language model writes; index, adapter and reader
are parents. A settings key that this windlass does not know is an error, not a guess.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from windlass.apply.assistant import AssistantSettings
from windlass.core.artifacts import Artifact
from windlass.core.config import strict
from windlass.core.errors import ConfigError, InputError
from windlass.core.files import write_json
from windlass.core.workspace import Workspace

FILE = "variant.json"


@dataclass(frozen=True, slots=True)
class VariantSpec:
    task: str = "assistant"
    settings: AssistantSettings = field(default_factory=AssistantSettings)
    model: str | None = None
    """Name of the language model that must write the answers; None: whichever windlass.toml names, or else none, and
    then the answers are quotations."""


def make_variant(
    ws: Workspace,
    spec: VariantSpec,
    index: Artifact,
    adapter: Artifact | None = None,
    *,
    reader: Artifact | None = None,
    name: str | None = None,
    card: Mapping[str, Any] | None = None,
) -> Artifact:
    """Stores a variant. The same parts give the same digest. `reader`: what reads its answers out of the passages."""
    with ws.artifacts.build("variant", name or spec.task) as draft:
        write_json(draft.path / FILE, asdict(spec))
        draft.add_parent("index", index)
        if adapter is not None:
            draft.add_parent("adapter", adapter)
        if reader is not None:
            draft.add_parent("reader", reader)
        draft.card = dict(card or {})
    return draft.done


def read_variant(variant: Artifact) -> VariantSpec:
    """Raises `InputError` for an artifact that is no variant, `ConfigError` for settings that are not understood."""
    if variant.kind != "variant":
        raise InputError(f"{variant.ref} is of kind '{variant.kind}', not a variant.")
    path = variant.path / FILE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"{path} is not JSON: {error}.", "Its files were changed: promote another variant."
        ) from error
    return strict(VariantSpec, said, where=str(path))


def parts(ws: Workspace, variant: Artifact) -> tuple[Artifact, Artifact | None]:
    """The index of a variant and its adapter, if it has one."""
    index = ws.artifacts.get(variant.parent("index"))
    return index, _part(ws, variant, "adapter")


def reader_of(ws: Workspace, variant: Artifact) -> Artifact | None:
    """The reader that a variant was measured with, if any."""
    return _part(ws, variant, "reader")


def _part(ws: Workspace, variant: Artifact, role: str) -> Artifact | None:
    found = [digest for one, digest in variant.record.parents if one == role]
    return ws.artifacts.get(found[0]) if found else None
