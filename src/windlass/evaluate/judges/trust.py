"""What is known of the judge that gave a metric its values. It goes with them, so that no report shows them without.

Results hold the judge and its calibration whole: whoever has the two results can correct their difference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from windlass.core.config import strict
from windlass.core.errors import InputError
from windlass.evaluate.experiments.results import JUDGES, Results
from windlass.evaluate.judges.calibration import Calibration
from windlass.evaluate.judges.judge import Criterion, Judge

NEVER = "never calibrated: how the judge stands to people is not known"


@dataclass(frozen=True, slots=True)
class Trust:
    """Of one criterion of a judge."""

    judge: Judge
    criterion: Criterion
    calibration: Calibration | None
    """None: it was never calibrated."""

    @property
    def labels(self) -> int:
        return 0 if self.calibration is None else len(self.calibration.rows)

    @property
    def worth(self) -> str:
        """In words, for a report."""
        known = self.calibration
        if known is None:
            return NEVER
        kappa = "not defined" if known.kappa is None else f"{known.kappa.estimate:.2f}"
        return f"calibrated on {self.labels:,} labelled items; it says as people do of {known.agreement}, kappa {kappa}"

    def to_json(self) -> dict[str, Any]:
        known = self.calibration
        if known is not None:  # reasons are long, and stand with the calibration itself
            known = replace(known, rows=[replace(row, reason="") for row in known.rows])
        row = {
            "judge": self.judge.to_json(),
            "criterion": self.criterion.name,
            "calibration": None if known is None else known.to_json(),
        }
        plain: dict[str, Any] = json.loads(json.dumps(row))  # as it will be read again: lists for tuples
        return plain

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Trust:
        judge = strict(Judge, row["judge"], where="the judge that results were given by")
        known = row["calibration"]
        calibration = None if known is None else Calibration.from_json(judge, known)
        return cls(judge, judge.criterion(row["criterion"]), calibration)


def trusts(results: Sequence[Results]) -> dict[str, Trust]:
    """Metric -> what is known of its judge; where results know of several calibrations, the one with most labels."""
    found: dict[str, Trust] = {}
    for one in results:
        for metric, row in one.made_with.get(JUDGES, {}).items():
            if not isinstance(row, Mapping):
                raise InputError(f"{one.variant} was judged by an earlier version of windlass.", "Judge it again.")
            trust = Trust.from_json(row)
            if metric not in found or trust.labels > found[metric].labels:
                found[metric] = trust
    return found
