"""The report of the turn that an experiment was made for, on the experiment's page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from windlass.core.workspace import Workspace
from windlass.loop.turning.report import KIND

_LOOKED_AT = 500


def report_of(ws: Workspace, experiment: str) -> Mapping[str, Any] | None:
    """What the newest report says that names this experiment; None where no turn made it, or its files are gone."""
    for record in ws.store.artifacts(KIND, limit=_LOOKED_AT):
        if ("experiment", experiment) in [(role, digest) for role, digest in record.parents]:
            found = ws.artifacts.find(record.digest)
            path = None if found is None else found.path / "report.json"
            if path is None or not path.is_file():
                return None
            held: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return {**held, "digest": record.digest}
    return None
