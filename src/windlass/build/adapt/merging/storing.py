"""A merge as a folder that transformers and windlass load, or as an artifact with its lineage."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from windlass.build.adapt.merging.settings import Merging
from windlass.build.adapt.merging.sources import Source
from windlass.build.adapt.merging.streaming import Outcome, Say, merge_folders
from windlass.build.transformer.hf import CONFIG, WEIGHTS, read_config
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.files import disk_errors, write_json
from windlass.core.workspace import Workspace

_BESIDE = (".json", ".jinja", ".txt", ".model")
"""Endings of what stands beside weights: tokenizer, template, the steps of an embedder."""
_OWN = (CONFIG, f"{WEIGHTS}.index.json")


def source_of(ws: Workspace | None, name: str) -> Source:
    """A folder by its path, else a model of the workspace. Raises `InputError` and `NotFound`."""
    if (Path(name) / CONFIG).is_file():
        return Source(name, Path(name))
    if ws is None:
        raise InputError(f"{name} is no folder of a model, and there is no workspace here.", "Give the model's folder.")
    artifact = ws.artifacts.get(name)
    if artifact.kind != "model":
        raise InputError(
            f"{artifact.ref} is of kind '{artifact.kind}', not a model.",
            "Name models; `windlass adapters combine` makes one adapter of several.",
        )
    return Source(artifact.ref, artifact.path, artifact)


def store_merge(
    ws: Workspace,
    models: Sequence[Source],
    base: Source | None,
    asked: Merging,
    name: str,
    *,
    dtype: str | None = None,
    say: Say = print,
) -> Artifact:
    """The merge as an artifact; its parents are those of the models, and the base, that are artifacts themselves."""
    with ws.artifacts.build("model", name) as draft:
        outcome = write_merge(models, base, asked, draft.path, dtype=dtype, say=say)
        for role, source in [*(("model", one) for one in models), *([] if base is None else [("base", base)])]:
            if source.artifact is not None:
                draft.add_parent(role, source.artifact)
        licences = {one.artifact.card.get("licence") if one.artifact else None for one in models}
        draft.card.update(
            {
                "description": f"{', '.join(one.name for one in models)} merged by {asked.method}",
                "licence": licences.pop() if len(licences) == 1 else None,
                **facts(models, base, asked, outcome),
            }
        )
    return draft.done


def write_folder(
    models: Sequence[Source],
    base: Source | None,
    asked: Merging,
    folder: Path,
    *,
    dtype: str | None = None,
    say: Say = print,
) -> Outcome:
    """The merge as a folder outside the workspace, which is there whole or not at all. Raises `InputError` for one that
    is there already."""
    if folder.exists():
        raise InputError(f"{folder} exists already.", "Name a folder that does not, or delete it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        outcome = write_merge(models, base, asked, draft, dtype=dtype, say=say)
        draft.chmod(0o755)
        with disk_errors(folder):
            os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # nothing is there any more if it was finished
    return outcome


def write_merge(
    models: Sequence[Source],
    base: Source | None,
    asked: Merging,
    folder: Path,
    *,
    dtype: str | None = None,
    say: Say = print,
) -> Outcome:
    """Weights, and all that stands beside those of the first model: configuration, tokenizer, template."""
    outcome = merge_folders(models, base, asked, folder, dtype=dtype, say=say)
    first = models[0].folder
    for path in sorted(first.rglob("*")):
        place = path.relative_to(first)
        if path.suffix in _BESIDE and path.is_file() and str(place) not in _OWN and not place.parts[0].startswith("."):
            (folder / place).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / place)
    values = read_config(first)
    if dtype is not None:
        values = {name: value for name, value in values.items() if name != "dtype"} | {"torch_dtype": dtype}
    write_json(folder / CONFIG, values)
    write_json(folder / "merge.json", facts(models, base, asked, outcome))
    for line in _lines(models, asked, outcome):
        say(line)
    return outcome


def facts(models: Sequence[Source], base: Source | None, asked: Merging, outcome: Outcome) -> dict[str, Any]:
    """What is merged from what, and how. Holds nothing that differs between two equal merges."""
    values: dict[str, Any] = {"models": [one.name for one in models], **asked.as_json(len(models))}
    if base is not None and outcome.far is not None and outcome.kept is not None:
        values["base"] = base.name
        values["distance_from_base"] = [round(one, 6) for one in outcome.far]
        values["kept"] = [round(one, 6) for one in outcome.kept]
    return values | {"tensors": outcome.tensors, "parameters": outcome.parameters}


def _lines(models: Sequence[Source], asked: Merging, outcome: Outcome) -> list[str]:
    shares = asked.shares(len(models))
    lines = []
    for number, (one, share) in enumerate(zip(models, shares, strict=True)):
        line = f"  {one.name}: weight {share:.3g}"
        if outcome.far is not None and outcome.kept is not None:
            line += (
                f", {outcome.far[number]:.2%} away from the base, {outcome.kept[number]:.1%} of its numbers changed it"
            )
        lines.append(line)
    files = "1 file" if outcome.files == 1 else f"{outcome.files} files"
    lines.append(
        f"  merged by {asked.method}: {outcome.tensors:,} tensors of {outcome.parameters:,} numbers, in {files}; "
        f"tokenizer and configuration are those of {models[0].name}"
    )
    return lines
