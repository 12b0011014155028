"""Scores that are stored once, however often and by however many they are stored."""

from __future__ import annotations

from windlass.core.errors import InputError
from windlass.core.records import ScoreRecord
from windlass.core.workspace import Workspace


def add_once(ws: Workspace, score: ScoreRecord) -> bool:
    """Stores a score whose id names what it says; whether it is new. Two who store the same at once both succeed."""
    try:
        ws.store.add_score(score)
    except InputError:
        if not any(known.id == score.id for known in ws.store.scores(subject=score.subject)):
            raise  # something else is wrong with it
        return False
    return True
