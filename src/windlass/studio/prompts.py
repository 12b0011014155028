"""Prompts: the list, one version with what changed and who used it, and its labels, which move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from windlass.apply.prompts import artifact as prompts
from windlass.apply.prompts.file import EXAMPLES, PROMPT
from windlass.apply.prompts.value import Prompt
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.records import ArtifactRecord, PromptUse, ReleaseRecord
from windlass.core.workspace import Workspace
from windlass.studio.difference import changes
from windlass.studio.web import Refused, Visit

SHOWN = 40_000
"""Characters of the instructions on the page; the file holds all."""
EXAMPLES_SHOWN = 20
LATEST = 5
"""Traces below a prompt; a link leads to all."""
MAX_REASON = 1_000
"""Characters."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label of a prompt as it stands now."""

    name: str
    digest: str
    """Of the prompt that bears it."""
    moved: ReleaseRecord
    """The change that put it there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt in the list, over all its versions."""

    newest: ArtifactRecord
    versions: int
    labels: Sequence[tuple[str, int | None]]
    """With the version that bears each; None for one that is stored under another name."""
    use: PromptUse | None


def listing(visit: Visit) -> Response:
    names: dict[str, list[ArtifactRecord]] = {}
    for record in prompts.versions(visit.ws):
        names.setdefault(record.name, []).append(record)
    uses = visit.ws.store.prompt_uses({record.digest for own in names.values() for record in own})
    borne = labels(visit.ws)
    rows = []
    for name, own in names.items():
        numbers = {record.digest: record.version for record in own}
        shown = [(label.name, numbers.get(label.digest)) for label in borne.get(name, ())]
        rows.append(Row(own[0], len(own), shown, together(uses[d] for d in numbers if d in uses)))
    return visit.page("prompts.html", "prompts", rows=rows)


def show(visit: Visit) -> Response:
    artifact = prompts.find(visit.ws, visit.path("ref"))
    prompt = prompts.read(artifact)
    versions = prompts.versions(visit.ws, artifact.record.name)
    own = labels(visit.ws).get(artifact.record.name, [])
    earlier = compared_with(visit, artifact, versions)
    text = prompt.instructions
    return visit.page(
        "prompt.html",
        "prompts",
        artifact=artifact,
        a=artifact.record,
        prompt=prompt,
        text=text[:SHOWN],
        cut=len(text) > SHOWN,
        examples=(prompt.examples or ())[:EXAMPLES_SHOWN],
        fields=fields(prompt),
        versions=versions,
        labels=own,
        numbers={record.digest: record.version for record in versions},
        uses=visit.ws.store.prompt_uses(record.digest for record in versions),
        earlier=earlier,
        changes=None if earlier is None else changes(prompts.read(earlier), prompt),
        traces=visit.ws.store.traces(prompt=artifact.digest, limit=LATEST),
        experiments=_experiments(visit.ws, artifact),
        saved=visit.query("saved"),
        files=(PROMPT, EXAMPLES),
    )


def compared_with(visit: Visit, artifact: Artifact, versions: Sequence[ArtifactRecord]) -> Artifact | None:
    """The version that the address asks for in `with`, else the one before; None for the first."""
    if wanted := visit.query("with"):
        return prompts.find(visit.ws, wanted)
    before = [record for record in versions if record.version < artifact.record.version]
    return visit.ws.artifacts.get(before[0].ref) if before else None


def move(visit: Visit) -> Response:
    """Points a label at this version, unless it has moved since the page was loaded."""
    artifact = prompts.find(visit.ws, visit.path("ref"))
    name, label = artifact.record.name, visit.form.get("label", "").strip()
    reason = visit.form.get("reason", "").strip() or "labelled in the studio"
    if len(reason) > MAX_REASON:
        raise InputError(f"The reason has {len(reason):,} characters.", f"At most {MAX_REASON:,} are taken.")
    now = next((one for one in labels(visit.ws).get(name, []) if one.name == label), None)
    if now is not None and visit.form.get(f"seen.{label}") != str(now.moved.id):
        bearer = visit.ws.store.artifact(now.digest)
        raise Refused(
            f"The label '{label}' was moved in the meantime: it is {bearer.ref if bearer else now.digest[:10]} now "
            f"({now.moved.reason}). Nothing was changed.",
            "Go back, load the page again, and decide with that in mind.",
            status=409,
        )
    prompts.label(visit.ws, artifact, name, label, reason)
    return RedirectResponse(f"{address(artifact.record)}#labels", status_code=303)


def address(record: ArtifactRecord) -> str:
    """The page of one version."""
    return f"/prompts/{quote(record.ref, safe='@')}"


def labels(ws: Workspace) -> dict[str, list[Label]]:
    """Name of a prompt -> its labels, in one pass over the releases: of each task the newest counts."""
    newest: dict[str, ReleaseRecord] = {}
    for release in ws.store.releases():
        newest.setdefault(release.task, release)
    found: dict[str, list[Label]] = {}
    for task, release in sorted(newest.items()):
        name, _, label = task.partition(":")
        variant = ws.store.artifact(release.variant)
        for role, digest in variant.parents if variant else ():
            if role == prompts.KIND:
                found.setdefault(name, []).append(Label(label or prompts.LIVE, digest, release))
    return found


def fields(prompt: Prompt) -> list[str]:
    """The inputs that a prompt is for, as far as its examples tell."""
    return list(dict.fromkeys(name for example in prompt.examples or () for name in example.inputs))


def together(uses: Iterable[PromptUse]) -> PromptUse | None:
    """Of several versions."""
    known = list(uses)
    if not known:
        return None
    costs = [use.cost_usd for use in known if use.cost_usd is not None]
    return PromptUse(
        sum(use.traces for use in known),
        sum(use.failed for use in known),
        max(use.last for use in known),
        sum(use.calls for use in known),
        sum(use.priced for use in known),
        sum(costs) if costs else None,
        sum(use.rated for use in known),
        sum(use.good for use in known),
    )


def _experiments(ws: Workspace, artifact: Artifact) -> list[tuple[str, ArtifactRecord]]:
    """(role, experiment) of those in which a variant with this prompt was compared, newest first."""
    found: dict[str, tuple[str, ArtifactRecord]] = {}
    for role, variant in ws.store.children(artifact.digest):
        if role != prompts.KIND:
            continue
        for part, record in ws.store.children(variant.digest):
            if record.kind == "experiment":
                found[record.digest] = part, record
    return sorted(found.values(), key=lambda pair: -pair[1].created)
