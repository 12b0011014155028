"""A scaling study: small runs, a law fitted to them, a larger run predicted, and the prediction checked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from windlass.build.training.measuring.scaling import FEWEST, Fitted, Observation, fit
from windlass.build.training.pretrain import finished, pretrain
from windlass.build.training.settings import PretrainSettings
from windlass.build.transformer.hf import load_config
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.loop.training.chart import chart, short
from windlass.loop.training.loglog import Curve, loglog

SHARE = 0.9
"""Probability that the interval of a prediction is to hold the loss."""


@dataclass(frozen=True, slots=True)
class Point:
    """A finished run of the study."""

    depth: int
    steps: int
    model: str
    observation: Observation
    flops: float
    """Of its whole training."""


@dataclass(frozen=True, slots=True)
class Check:
    point: Point
    predicted: float
    low: float
    high: float

    @property
    def inside(self) -> bool:
        return self.low <= self.point.observation.loss <= self.high


@dataclass(frozen=True, slots=True)
class Study:
    points: Sequence[Point]
    fitted: Fitted
    check: Check | None

    def __str__(self) -> str:
        return "\n\n".join([_runs(self.points), _law(self.fitted), _chart(self), *_checked(self.check)])


def study(
    ws: Workspace,
    corpus: Artifact,
    tokenizer: Artifact,
    settings: PretrainSettings,
    *,
    depths: Sequence[int],
    steps: Sequence[int],
    target: tuple[int, int] | None = None,
    name: str = "scaling",
    say: Callable[[str], None] = print,
) -> tuple[Study, Artifact]:
    """Trains every depth for every number of steps, or takes the finished runs of an earlier study; fits; predicts
    the run (depth, steps) of `target`, trains it, and compares. The artifact is of kind `report`. Raises `InputError`
    before any training when the runs would be too few.
    """

    if len(set(depths)) < 2 or len(set(steps)) < 2 or len(set(depths)) * len(set(steps)) < FEWEST:
        raise InputError(
            f"{len(set(depths))} depths and {len(set(steps))} numbers of steps are too few for {FEWEST} constants.",
            "Give at least two of each, and five combinations, such as --depths 2 3 4 --steps 200 400.",
        )

    def trained(depth: int, count: int) -> Point:
        asked = replace(
            settings,
            model=replace(settings.model, depth=depth),
            schedule=replace(settings.schedule, steps=count, minutes=None),
            run=replace(settings.run, name=f"{name}-{depth}x{count}"),
        )
        model = finished(ws, corpus, tokenizer, asked)
        if model is None:
            say(f"depth {depth}, {count:,} steps")
            model = pretrain(ws, corpus, tokenizer, asked, say=lambda line: None)
        config, seen = load_config(model.path), float(model.card["tokens_seen"])
        weights = config.matrix_parameters + config.vocab_size * config.hidden
        seen_loss = Observation(float(weights), seen, float(model.card["heldout_loss"]))
        return Point(depth, count, model.ref, seen_loss, config.flops_per_token * seen)

    points = [trained(depth, count) for depth in depths for count in steps]
    fitted = fit([point.observation for point in points])
    check = None
    if target is not None:
        point = trained(*target)
        predicted = fitted.predict(point.observation.parameters, point.observation.tokens, SHARE)
        check = Check(point, *predicted)
    result = Study(points, fitted, check)
    with ws.artifacts.build("report", name) as draft:
        draft.add_parent("corpus", corpus)
        for point in [*points, *([check.point] if check else [])]:
            draft.add_parent("model", ws.artifacts.get(point.model))
        (draft.path / "scaling.json").write_text(json.dumps(_facts(result), indent=2), encoding="utf-8")
        (draft.path / "scaling.svg").write_text(_picture(result), encoding="utf-8")
        (draft.path / "README.md").write_text(f"# {name}\n\n```\n{result}\n```\n", encoding="utf-8")
        draft.card.update({"description": f"A scaling law of {len(points)} runs", **asdict(fitted.law)})
    return result, draft.done


def _facts(study: Study) -> dict[str, Any]:
    constants = ("floor", "width", "alpha", "data", "beta")
    facts: dict[str, Any] = {
        "law": {c: {"value": getattr(study.fitted.law, c), "interval": study.fitted.interval(c)} for c in constants},
        "runs": [asdict(point) for point in study.points],
    }
    if study.check is not None:
        facts["check"] = {**asdict(study.check), "inside": study.check.inside}
    return facts


def _runs(points: Sequence[Point]) -> str:
    rows = [
        (p.depth, p.steps, short(p.observation.parameters), short(p.observation.tokens), f"{p.flops:.3g}",
         f"{p.observation.loss:.4f}")
        for p in points
    ]  # fmt: skip
    return table(("depth", "steps", "weights", "tokens", "FLOPs", "held-out loss"), rows, right=range(6))


def _law(fitted: Fitted) -> str:
    law = fitted.law
    rows = [
        (what, f"{getattr(law, name):.4g}", "{:.4g} to {:.4g}".format(*fitted.interval(name)))
        for name, what in (("floor", "E"), ("width", "A"), ("alpha", "a"), ("data", "B"), ("beta", "b"))
    ]
    return "loss(N, D) = E + A / N^a + B / D^b\n\n" + table(("", "fitted", "90 % interval"), rows, right=(1, 2))


def _chart(study: Study) -> str:
    points = [*study.points, *([study.check.point] if study.check else [])]
    curves = {
        f"depth {depth}": sorted((math.log10(p.flops), p.observation.loss) for p in points if p.depth == depth)
        for depth in dict.fromkeys(p.depth for p in points)
    }
    return "held-out loss\n" + chart(curves, x_label="log10 of training FLOPs")


def _checked(check: Check | None) -> list[str]:
    if check is None:
        return []
    verdict = "inside" if check.inside else "OUTSIDE"
    return [
        f"depth {check.point.depth}, {check.point.steps:,} steps: predicted {check.predicted:.4f} "
        f"[{check.low:.4f}, {check.high:.4f}], measured {check.point.observation.loss:.4f}: {verdict} the interval"
    ]


def _picture(study: Study) -> str:
    """Every run, the law's curve for each depth, and the prediction with its interval."""
    points = [*study.points, *([study.check.point] if study.check else [])]
    curves = []
    for depth in dict.fromkeys(p.depth for p in points):
        own = [p for p in points if p.depth == depth]
        each = own[0].flops / own[0].observation.tokens
        tokens = [p.observation.tokens for p in own]
        low, high = math.log(min(tokens) / 1.3), math.log(max(tokens) * 1.3)
        drawn = [math.exp(low + (high - low) * i / 40) for i in range(41)]
        line = [(each * d, study.fitted.law.loss(own[0].observation.parameters, d)) for d in drawn]
        curves.append(Curve(f"depth {depth}", line, [(p.flops, p.observation.loss) for p in own]))
    check = study.check
    bar = None if check is None else (check.point.flops, check.low, check.high)
    return loglog(curves, bar, x_label="training FLOPs", y_label="held-out loss, nats a token")
