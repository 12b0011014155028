"""A training from its first step to its last, whatever is trained: measured, logged, saved, stopped early, interrupted.

`fit` runs the loop over a `Fit`, which holds all that was prepared. What it is prepared from, and what becomes of the
trained weights, is the business of those who call it (`pretrain`, and the tuning of models that exist).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.checkpoints.saving import Saver
from windlass.build.training.data.batches import Examples, OnPolicy
from windlass.build.training.distributed.parallel import Spread
from windlass.build.training.distributed.workers import Following, Workers
from windlass.build.training.guard import Best, NotFinite
from windlass.build.training.loop import StepReport, StepSizes, TrainState, steps
from windlass.build.training.measuring.meters import Meter, Speed, peak
from windlass.build.training.measuring.standing import standing
from windlass.build.training.pace import UNPLANNED, Pace
from windlass.build.training.settings import RunSettings, ScheduleSettings, budget_seconds, dtype_of
from windlass.core.artifacts import check_name
from windlass.core.interrupt import deferred_interrupt
from windlass.core.progress import Progress
from windlass.core.runs import Run
from windlass.core.workspace import Workspace

Say = Callable[[str], None]
Tick = Callable[[int], None]


class Measurement(Protocol):
    """What a model makes of examples that it was not trained on. Its text is said to the person who watches."""

    @property
    def loss(self) -> float:
        """What early stopping and the best checkpoint go by, where the settings name nothing else: smaller is
        better."""
        ...

    def metrics(self) -> dict[str, float]:
        """As they are logged."""
        ...


M = TypeVar("M", bound=Measurement)
M_co = TypeVar("M_co", bound=Measurement, covariant=True)


class Measure(Protocol[M_co]):
    def __call__(self, most: int | None = None, tick: Tick | None = None) -> M_co:
        """On about `most` targets, or on all; `tick` is told how many are done."""
        ...


@dataclass(slots=True)
class Fit(Generic[M]):
    """A training that is ready to run, or to be taken up. Its state is the same on all workers."""

    title: str
    """As the progress line names it."""
    state: TrainState
    examples: Examples | OnPolicy
    loss_of: Spread
    sizes: StepSizes
    schedule: ScheduleSettings
    asked: RunSettings
    measure: Measure[M]
    noted: Callable[[], Mapping[str, float]] = dict
    """What else is logged of the step that was just done; the first of it stands in the progress line."""
    elapsed_before: float = 0.0
    loss: float = float("nan")
    """Mean training loss of the last steps."""
    best: Best = field(default_factory=Best)

    @property
    def workers(self) -> Workers:
        return self.loss_of.workers

    def facts(self, elapsed: float) -> dict[str, Any]:
        """What a checkpoint holds beside the tensors."""
        return {**self.state.facts(), "loss": self.loss, "best": asdict(self.best), "elapsed": elapsed}

    def take_up(self, saved: checkpoint.Checkpoint) -> None:
        """Goes on from a checkpoint. Raises `InputError` naming a tensor that does not fit."""
        self.state.take_up(saved)
        facts: Mapping[str, Any] = saved.facts
        self.elapsed_before, self.loss, self.best = facts["elapsed"], facts["loss"], Best(**facts["best"])

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Within the block the model has the average of its weights, if one is kept."""
        average = self.state.average
        return contextlib.nullcontext() if average is None else average.in_place()

    def measured(self, most: int | None = None, tick: Tick | None = None) -> M:
        model = self.state.model
        training = model.training
        model.eval()  # no dropout
        try:
            with self.averaged():
                return self.measure(most, tick)
        finally:
            model.train(training)


@contextlib.contextmanager
def started_run(
    ws: Workspace, kind: str, asked: RunSettings, config: dict[str, Any], workers: Workers
) -> Iterator[Run | Following]:
    """The leader's run, which the others follow; one with the same configuration that did not end is taken up. Raises
    `InputError` for a name that what is made could not have."""
    check_name(asked.name)
    with workers.together():
        if workers.leads:
            with (
                ws.runs.resume_or_start(kind, asked.name, config=config, seed=asked.seed) as run,
                workers.together(),  # within the run, so that its record names the lost worker
            ):
                workers.told("run", [run.id, str(run.folder)])
                yield run
        else:
            identifier, folder = workers.told("run")
            yield Following(identifier, Path(folder))


def fit(run: Run | Following, job: Fit[M], *, say: Say, after_look: Callable[[M], None] | None = None) -> None:
    """Runs the loop to its end: by steps, by the clock, or because nothing improves any more.

    Metrics by step: train_loss, tokens, lr, tokens_per_s, mfu, gradient_norm, those that the job notes, and those of
    each measurement.
    `after_look` is told each measurement, and may end the training by raising. Ctrl-C saves a checkpoint and raises
    KeyboardInterrupt. Raises `Diverged` and `WorkerLost` too.
    """
    state, asked, workers, started = job.state, job.asked, job.workers, time.monotonic()
    meter = Meter(peak(dtype_of(asked) or torch.float32, workers.device, devices=workers.count).flops)
    budget = budget_seconds(job.schedule)
    pace = None if budget is None else Pace(budget, job.elapsed_before, started)

    def save(score: float | None = None) -> None:
        run.flush()  # a resumed run repeats the steps after the checkpoint, never those before it
        saver.save(state.step, state.tensors(), job.facts(job.elapsed_before + time.monotonic() - started), score=score)

    def look() -> float:
        found = job.measured(asked.evaluate_tokens)
        score = score_of(found, asked)
        job.best.see(state.step, score)
        run.log(state.step, **found.metrics())
        say(f"  step {state.step:,}: held-out {found}")
        if after_look is not None:
            after_look(found)
        return score

    if asked.best_by is not None and state.step == 0:
        score_of(job.measured(asked.evaluate_tokens), asked)  # better now than after hours
    saved_at = looked_at = time.monotonic()
    with (
        deferred_interrupt() as interrupt,
        Progress(job.title, None, "steps", out=workers.screen) as progress,
        Saver(
            run.folder,
            keep=asked.keep_checkpoints,
            best=asked.keep_best,
            worker=workers.number,
            workers=workers.count,
        ) as saver,
    ):
        try:
            for report in steps(state, job.examples, job.loss_of, job.sizes, job.schedule, asked.seed, pace):
                saver.check()
                job.loss = report.loss if job.loss != job.loss else 0.98 * job.loss + 0.02 * report.loss
                noted = job.noted()
                _log(run, state, report, meter.add(report.tokens, report.flops, report.seconds), noted)
                progress.total = state.plan.steps if state.plan != UNPLANNED else None
                progress.update(report.step, _note(report, meter.recent, pace, noted))
                due = _due(report.step, looked_at, asked.evaluate_steps, asked.evaluate_seconds)
                keep = _due(report.step, saved_at, asked.checkpoint_steps, asked.checkpoint_seconds)
                if asked.checkpoint_steps is None and saver.busy:
                    keep = False  # a slow disk sets the pace of the checkpoints, not of the training
                stop, due, keep = workers.any(interrupt.requested, due and workers.leads, keep and workers.leads)
                score = None
                if due or (asked.keep_best and report.step == state.plan.steps):  # the last may be the best
                    score = look()
                    looked_at = time.monotonic()
                if stop:
                    save(score)
                    saver.wait()
                    raise KeyboardInterrupt
                if due and all(workers.led(job.best.exhausted(asked.patience))):
                    say(f"  stopping early: {job.best.since} measurements since step {job.best.step:,} were no better")
                    break
                if keep or (asked.keep_best and job.best.step == state.step):
                    save(score)
                    saved_at = time.monotonic()
        except NotFinite:
            save()  # the state is that before the bad step
            saver.wait()
            raise
    if asked.keep_best and job.best.step not in (0, state.step):
        workers.total(0)  # the leader has saved all
        best = checkpoint.load(run.folder, job.best.step)
        assert best is not None
        state.take_up(best)
        say(f"  taking the weights of step {state.step:,}, where the measurement was best")


def score_of(found: Measurement, asked: RunSettings) -> float:
    """How good it is, by what the run goes by: smaller is better. Raises `InputError` where that is not measured."""
    return found.loss if asked.best_by is None else standing(found.metrics(), asked.best_by)


def evaluate(run: Run | Following, job: Fit[M]) -> M:
    """The last measurement, on everything that is held out."""
    with Progress("held-out", None, "targets", out=job.workers.screen) as progress:
        found = job.measured(tick=progress.update)
    run.log(job.state.step, **found.metrics())
    return found


def _due(step: int, last: float, every_steps: int | None, every_seconds: float | None) -> bool:
    """Whether something is to be done after this step that was done at time `last`: by steps, or else by the clock."""
    if every_steps is not None:
        return step % every_steps == 0
    return every_seconds is not None and time.monotonic() - last >= every_seconds


def _log(run: Run | Following, state: TrainState, report: StepReport, speed: Speed, noted: Mapping[str, float]) -> None:
    run.log(
        report.step,
        train_loss=report.loss,
        tokens=state.tokens_read,
        lr=state.optimizers.rate * report.multiplier,
        tokens_per_s=speed.tokens_per_s,
        mfu=speed.mfu,
        gradient_norm=report.gradient_norm,
        **noted,
    )


def _note(report: StepReport, speed: Speed, pace: Pace | None, noted: Mapping[str, float]) -> str:
    first = "".join(f"{name} {value:.3f} · " for name, value in list(noted.items())[:1])
    note = first + f"loss {report.loss:.3f} · {speed.tokens_per_s:,.0f} tokens/s · MFU {speed.mfu:.0%}"
    return note if pace is None else f"{note} · {max(pace.left, 0):,.0f} s of the budget left"
