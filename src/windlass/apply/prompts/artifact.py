"""Prompts in the workspace: immutable versions, and labels that move from one to the other.

A prompt is an artifact of kind `prompt`: its files, as `file.py` writes them. A label is a release: `tone:staging` is
what the task of that very name serves, and `tone:live` what the task `tone` itself serves. So each move is kept with
its reason, two who move a label at once do not overwrite each other, `windlass releases` and `windlass rollback` know
labels, and a prompt that the gate promotes is live by that alone.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windlass.apply.prompts.file import EXAMPLES, PROMPT, load, parts_of
from windlass.apply.prompts.value import Prompt
from windlass.core.artifacts import Artifact, check_name, content_digest
from windlass.core.errors import InputError, NotFound
from windlass.core.files import write_json
from windlass.core.records import ArtifactRecord, ReleaseRecord

if TYPE_CHECKING:
    from windlass.core.workspace import Workspace

KIND = "prompt"
LIVE = "live"
_LABEL = r"[a-z][a-z0-9-]{0,39}"
_REFERENCE = re.compile(
    rf"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{{0,99}})(@(?P<version>[0-9]+|latest)|:(?P<label>{_LABEL}))"
)


def is_reference(text: str) -> bool:
    """Whether a text is `name@version`, `name@latest` or `name:label`, rather than the words of a prompt."""
    return _REFERENCE.fullmatch(text) is not None


def moves(reference: str) -> bool:
    """Whether the reference may mean another prompt tomorrow."""
    return ":" in reference or reference.endswith("@latest")


def add(ws: Workspace, name: str, prompt: Prompt, *, parents: Sequence[tuple[str, Artifact]] = ()) -> Artifact:
    """Stores a prompt as the next version of `name`; the same prompt again is the version that it is already.

    Raises `InputError` for a name that other artifacts bear, since versions count by name.
    """
    check_name(name)
    for record in ws.store.artifacts(name=name, limit=1):
        if record.kind != KIND:
            raise InputError(
                f"'{name}' is the name of a {record.kind} ({record.ref}).", "Give the prompt another name."
            )
    with ws.artifacts.build(KIND, name) as draft:
        for file, data in parts_of(prompt).items():
            (draft.path / file).write_bytes(data)
        for role, parent in parents:
            draft.add_parent(role, parent)
        draft.card = {"examples": len(prompt.examples or ()), "characters": len(prompt.instructions)}
    return draft.done


def digest(prompt: Prompt) -> str:
    """The digest of a prompt that has no parents, stored or not."""
    files = {file: hashlib.sha256(data).hexdigest() for file, data in parts_of(prompt).items()}
    return content_digest(KIND, files, [])


def read(artifact: Artifact) -> Prompt:
    """Raises `InputError` for an artifact that is no prompt."""
    if artifact.kind != KIND:
        raise InputError(f"{artifact.ref} is a {artifact.kind}, not a prompt.", "`windlass prompt list` lists prompts.")
    return load(artifact.path / PROMPT, artifact.path / EXAMPLES)


def find(ws: Workspace, reference: str) -> Artifact:
    """The artifact of `name@version`, `name:label`, a name (its newest version) or a digest.

    Raises `NotFound`, and `InputError` for what is no prompt.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None or found["label"] is None:
        artifact = ws.artifacts.get(reference)
        read(artifact)
        return artifact
    rows = ws.store.releases(_task(found["name"], found["label"]))
    if not rows:
        known = ", ".join(labels(ws, found["name"])) or "none"
        raise NotFound(
            f"The prompt '{found['name']}' has no label '{found['label']}' (it has: {known}).",
            f"Set it: windlass prompt label {found['name']}@1 {found['label']}",
        )
    return prompt_of(ws, ws.artifacts.get(rows[0].variant))


def prompt_of(ws: Workspace, variant: Artifact) -> Artifact:
    """The prompt of a variant. Raises `InputError` for a variant without one."""
    for role, digest in variant.record.parents:
        if role == KIND:
            return ws.artifacts.get(digest)
    raise InputError(f"{variant.ref} is not a variant with a prompt.", "Release one: windlass prompt label NAME@1 live")


def versions(ws: Workspace, name: str | None = None) -> list[ArtifactRecord]:
    """Prompts, newest first."""
    return ws.store.artifacts(KIND, name, limit=100_000)


def labels(ws: Workspace, name: str) -> dict[str, str]:
    """Label -> digest of the prompt that bears it now."""
    newest: dict[str, ReleaseRecord] = {}
    for row in ws.store.releases():
        newest.setdefault(row.task, row)
    found = {}
    for task, row in newest.items():
        called, _, label = task.partition(":")
        variant = ws.store.artifact(row.variant) if called == name else None
        for role, digest in variant.parents if variant else ():
            if role == KIND:
                found[label or LIVE] = digest
    return dict(sorted(found.items()))


def label(ws: Workspace, prompt: Artifact, name: str, label: str, reason: str = "labelled by hand") -> ReleaseRecord:
    """Moves a label of the prompt `name`. Durable when it returns; done again, it changes nothing.

    Raises `WorkspaceBusy` when another process moved the label meanwhile.
    """
    if re.fullmatch(_LABEL, label) is None or label == "latest":
        raise InputError(
            f"'{label}' cannot be a label.",
            "Use small letters, digits and '-', and begin with a letter; 'latest' is the newest version, always.",
        )
    task, variant = _task(name, label), variant_of(ws, name, prompt)
    rows = ws.store.releases(task)
    if rows and rows[0].variant == variant.digest:
        return rows[0]
    before = rows[0].variant if rows else None
    row = ReleaseRecord(0, task, variant.digest, before, "promote", reason, None, time.time())
    return ws.store.add_release(row, expected=before)


def variant_of(ws: Workspace, task: str, prompt: Artifact) -> Artifact:
    """The variant that carries out a task with this prompt: what is released. The same prompt gives the same one."""
    read(prompt)
    with ws.artifacts.build("variant", f"{task}-variant") as draft:
        write_json(draft.path / "variant.json", {"task": task})
        draft.add_parent(KIND, prompt)
        draft.card = {"prompt": prompt.ref}
    return draft.done


def _task(name: str, label: str) -> str:
    return name if label == LIVE else f"{name}:{label}"
