"""What each task serves, and every change that led there."""

from __future__ import annotations

from starlette.responses import Response

from windlass.core.records import ArtifactRecord, ReleaseRecord
from windlass.core.workspace import Workspace
from windlass.studio.web import Visit


def live_releases(ws: Workspace) -> list[tuple[ReleaseRecord, ArtifactRecord | None]]:
    """The newest release of each task with its variant."""
    newest: dict[str, ReleaseRecord] = {}
    for release in ws.store.releases():
        newest.setdefault(release.task, release)
    return [(release, ws.store.artifact(release.variant)) for release in newest.values()]


def show(visit: Visit) -> Response:
    history = visit.ws.store.releases()
    digests = {d for r in history for d in (r.variant, r.previous, r.experiment) if d}
    names = {d: record.ref for d in digests if (record := visit.ws.store.artifact(d)) is not None}
    tasks: dict[str, list[ReleaseRecord]] = {}
    for release in history:
        tasks.setdefault(release.task, []).append(release)
    return visit.page("releases.html", "releases", tasks=tasks, names=names)
