"""A search for settings: tunings with different rates, ranks and epochs, of which the one that measures best is kept.

Which settings come next is told by Optuna's tree of Parzen estimators (Bergstra et al. 2011), seeded for each trial by
its number; a trial that measures worse than the median of the others at the same step is given up. Every trial is a
run of its own. The list of trials is a SQLite file in the folder of the search's run, so that the same command goes on
where it was stopped, and adds to a search that came to its end when it asks for more trials.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from windlass.build.adapt.opening import Opened, open_inputs
from windlass.build.adapt.rl.rollouts import OpenRollouts
from windlass.build.adapt.sections import RangeSettings
from windlass.build.adapt.settings import TuneSettings
from windlass.build.adapt.tuning import OBJECTIVES, config_of, job_of, tune
from windlass.build.training.distributed.workers import ALONE
from windlass.build.training.fitting import Measurement, Say, score_of
from windlass.build.training.guard import Diverged
from windlass.build.training.measuring.standing import PREFIX, standing
from windlass.core.artifacts import Artifact
from windlass.core.config import strict
from windlass.core.errors import InputError, MissingExtra
from windlass.core.files import atomic_write
from windlass.core.runs import Run
from windlass.core.tables import table
from windlass.core.workspace import Workspace

KIND = "search"
_LOOKS = 4
"""Measurements of a trial, where the settings do not say how often to measure."""
_UNPRUNED = 4
"""Trials that run to their end before any is compared with the median."""
_ARTIFACT = "artifact"
_TRIALS = "trials.db"


@dataclass(frozen=True, slots=True)
class Found:
    best: Artifact
    rows: list[tuple[str, ...]]
    headers: tuple[str, ...]

    def render(self) -> str:
        return table(self.headers, self.rows, right=range(1, len(self.headers) - 1))


class _GivenUp(Exception):
    """The trial is worse than the median of those before it."""


def search(
    ws: Workspace, settings: TuneSettings, trials: int, *, rollouts: OpenRollouts | None = None, say: Say = print
) -> Found:
    """Tunes until `trials` trials have ended, those of an equal search before this one included; the best one's
    artifact is stored, as all the others' are. `rollouts`: as of `tune`.

    Raises `InputError` for a range that names no setting or holds values that it cannot have, before the first trial;
    `MissingExtra` without Optuna. Ctrl-C stops; the same call goes on.
    """
    optuna = _optuna()
    if trials < 1:
        raise InputError(f"{trials} trials cannot be made.", "Ask for 1 or more.")
    ranges = _named(settings) or default_ranges(settings)
    plain = replace(settings, search={})
    for name, one in ranges.items():
        for value in one.extremes:
            changed(plain, {name: value})
    opened = open_inputs(ws, plain)
    if opened.notes:  # curated once, and not again for each trial
        over: dict[str, Any] = {"data.evaluation": [], "data.curate": {}, "data.columns": {}}
        plain = changed(plain, {"data.dataset": _digest(opened), **over})
    plain = _measured_often(plain, opened)
    config = config_of(replace(opened, settings=plain)) | {
        "ranges": {name: one.as_json() for name, one in ranges.items()}
    }
    with (
        ws.runs.resume_or_start(KIND, settings.run.name, config=config, seed=settings.run.seed) as run,
        _study(optuna, _list_of_trials(ws, run, config)) as study,
    ):
        if before := len(_ended(study)):
            say(f"  goes on from {before:,} trials")
        for name, one in ranges.items():
            say(f"  {name}: {one}")
        while (done := len(_ended(study))) < trials:
            study.sampler = optuna.samplers.TPESampler(seed=settings.run.seed + done)
            _try(optuna, ws, study, plain, ranges, rollouts, say)
            figures = {f"best_{_figure(plain)}": _measured(ws, plain, trial) for trial in _best_first(study)[:1]}
            run.log(done + 1, trials=done + 1, **figures)
        return _found(ws, study, plain, tuple(ranges))


def default_ranges(settings: TuneSettings) -> dict[str, RangeSettings]:
    """What is searched where the recipe does not say: the rate, the rank of thin matrices, and the epochs."""
    ranges = {"optimizer.matrix_rate": RangeSettings(settings.rate / 10, settings.rate * 10, log=True)}
    if settings.adapter.kind in ("lora", "rslora", "dora"):
        ranges["adapter.rank"] = RangeSettings(choices=(4, 8, 16, 32))
    if settings.schedule.steps is None and settings.schedule.minutes is None:
        ranges["data.epochs"] = RangeSettings(1, 5)
    return ranges


def _named(settings: TuneSettings) -> dict[str, RangeSettings]:
    return {f"{section}.{key}": one for section, ranges in settings.search.items() for key, one in ranges.items()}


def changed(settings: TuneSettings, values: Mapping[str, Any]) -> TuneSettings:
    """The settings with some values changed, named `section.key`. Raises `ConfigError` naming an unknown one."""
    tables = settings.as_json()
    for name, value in values.items():
        *sections, key = name.split(".")
        place = tables
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return strict(TuneSettings, tables, where="[search]")


def _try(
    optuna: Any,
    ws: Workspace,
    study: Any,
    plain: TuneSettings,
    ranges: Mapping[str, RangeSettings],
    rollouts: OpenRollouts | None,
    say: Say,
) -> None:
    trial = study.ask()
    asked = {name: _suggested(trial, name, one) for name, one in ranges.items()}
    settings = changed(plain, asked)
    say(f"trial {trial.number + 1}: {', '.join(f'{name} {_short(value)}' for name, value in asked.items())}")

    def look(step: int, found: Measurement) -> None:
        score = score_of(found, plain.run)
        trial.report(score, step)
        if trial.should_prune():
            raise _GivenUp(f"at step {step:,}: its {_figure(plain)} of {abs(score):.4f} is worse than the median")

    try:
        model = tune(ws, settings, rollouts=rollouts, say=lambda line: say(f"  {line}"), after_look=look)
    except (_GivenUp, Diverged) as why:
        say(f"  given up: {str(why).partition(chr(10))[0]}")
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return
    trial.set_user_attr(_ARTIFACT, model.digest)
    metrics = {name: value for name, value in model.card.items() if name.startswith(PREFIX)}
    study.tell(trial, standing(metrics, _figure(plain)))


def _suggested(trial: Any, name: str, one: RangeSettings) -> Any:
    if one.choices:
        return trial.suggest_categorical(name, list(one.choices))
    if isinstance(one.low, int) and isinstance(one.high, int):
        return trial.suggest_int(name, one.low, one.high, log=one.log)
    return trial.suggest_float(name, one.low, one.high, log=one.log)


def _list_of_trials(ws: Workspace, run: Run, config: Mapping[str, Any]) -> Path:
    """The file of this run's trials. A new run begins with those of the last equal search that came to its end."""
    path = run.folder / _TRIALS
    if not path.is_file():
        records = ws.runs.alike(KIND, run.record.name, config, run.record.seed)
        files = [ws.runs.folder / record.id / _TRIALS for record in records if record.status == "done"]
        if (before := next((file for file in files if file.is_file()), None)) is not None:
            with before.open("rb") as source, atomic_write(path) as copy:
                shutil.copyfileobj(source, copy)
    return path


@contextlib.contextmanager
def _study(optuna: Any, path: Path) -> Iterator[Any]:
    """The trials in a SQLite file. One that was running when its process ended comes next, with the same settings, and
    its run is taken up."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED)
        study = optuna.create_study(
            study_name=KIND, storage=storage, pruner=pruner, direction="minimize", load_if_exists=True
        )
        for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            study.enqueue_trial(trial.params)
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _ended(study: Any) -> list[Any]:
    """Trials that came to their end, or were given up."""
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _measured_often(settings: TuneSettings, opened: Opened) -> TuneSettings:
    """With measurements at the same steps in each trial, or there would be nothing to compare."""
    if settings.run.evaluate_steps is not None:
        return settings
    job = job_of(OBJECTIVES[settings.objective.kind](opened), settings, ALONE, "ddp")
    steps = job.schedule.steps
    if steps is None:
        raise InputError(
            "A search compares trials at the same steps, but the schedule goes by the clock.",
            "Give --steps or --epochs, or --set run.evaluate_steps.",
        )
    return replace(settings, run=replace(settings.run, evaluate_steps=max(1, steps // _LOOKS)))


def _digest(opened: Opened) -> str:
    assert opened.dataset is not None, "what was curated is an artifact"
    return opened.dataset.digest


def _figure(settings: TuneSettings) -> str:
    """What trials are compared by."""
    default = "reward" if settings.objective.kind in ("grpo", "ppo") else "loss"
    return (settings.run.best_by or default).removeprefix(PREFIX)


def _measured(ws: Workspace, settings: TuneSettings, trial: Any) -> float:
    """The figure of a trial that came to its end."""
    return float(ws.artifacts.get(trial.user_attrs[_ARTIFACT]).card[PREFIX + _figure(settings)])


def _best_first(study: Any) -> list[Any]:
    """Trials that came to their end."""
    kept = [trial for trial in _ended(study) if trial.state.name == "COMPLETE"]
    return sorted(kept, key=lambda trial: (trial.value, trial.number))


def _found(ws: Workspace, study: Any, settings: TuneSettings, names: tuple[str, ...]) -> Found:
    kept = _best_first(study)
    if not kept:
        raise InputError("No trial came to its end.", "Ask for more of them.")
    given_up = [trial for trial in _ended(study) if trial.state.name == "PRUNED"]
    rows = [
        (
            f"{trial.number + 1}",
            *(_short(trial.params[name]) for name in names),
            f"{_measured(ws, settings, trial):.4f}" if trial in kept else "given up",
            ws.artifacts.get(trial.user_attrs[_ARTIFACT]).ref if trial in kept else "",
        )
        for trial in [*kept, *given_up]
    ]
    best = ws.artifacts.get(kept[0].user_attrs[_ARTIFACT])
    return Found(best, rows, ("trial", *names, f"held-out {_figure(settings).replace('_', ' ')}", "artifact"))


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as missing:
        raise MissingExtra("A search for settings", "search") from missing
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the trials are told by ourselves
    return optuna
