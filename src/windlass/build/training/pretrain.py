"""`pretrain`: a corpus and a tokenizer in, a model artifact out, resumable at any moment."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.checkpoints.saving import Saver
from windlass.build.training.checks.preflight import check_inputs
from windlass.build.training.distributed.parallel import Kind, gathered
from windlass.build.training.distributed.workers import ALONE, Following, Workers
from windlass.build.training.guard import NotFinite
from windlass.build.training.interrupt import deferred_interrupt
from windlass.build.training.job import Job, Say, open_inputs, prepare_job
from windlass.build.training.loop import StepReport, steps
from windlass.build.training.measuring.heldout import HeldOut
from windlass.build.training.measuring.meters import Meter, Speed, peak
from windlass.build.training.measuring.samples import sample
from windlass.build.training.pace import UNPLANNED, Pace
from windlass.build.training.settings import PretrainSettings
from windlass.build.training.sizes import Sizes
from windlass.build.training.storing import store_model
from windlass.core.artifacts import Artifact
from windlass.core.memory import keep_freed_memory
from windlass.core.progress import Progress
from windlass.core.runs import Run
from windlass.core.workspace import Workspace

SAMPLES = "samples.txt"
"""In the run's folder: what the model said at each measurement."""
KIND = "pretrain"


def pretrain(
    ws: Workspace,
    corpus: Artifact,
    tokenizer: Artifact,
    settings: PretrainSettings,
    *,
    workers: Workers = ALONE,
    parallel: Kind = "ddp",
    say: Say = print,
) -> Artifact:
    """Trains a model and stores it as an artifact of kind `model` in Hugging Face layout.

    A run with the same inputs and settings that was interrupted or killed is taken up where its last checkpoint
    stands. Metrics of the run: train_loss, tokens, lr, tokens_per_s, mfu and gradient_norm by step; heldout_loss, with
    heldout_bpb of a decoder or heldout_accuracy of the others, at the end and as often as the settings ask. Ctrl-C
    saves a checkpoint, ends the run as `interrupted`, and raises KeyboardInterrupt.

    All `workers` call it with the same arguments and get the same artifact; the run may be taken up by any number of
    them. Raises `WorkerLost` when one of them ends or falls silent.
    """
    check_inputs(corpus, tokenizer)
    keep_freed_memory()
    config = _config(corpus, tokenizer, settings)
    with workers.together(), _run(ws, config, settings, workers) as run:
        heard = say if workers.leads else _silent
        job = prepare_job(open_inputs(ws, corpus, tokenizer, settings), run.folder, workers, parallel, heard)
        _train(run, job, heard)
        heldout = _evaluate(run, job)
        heard(f"held-out: {heldout}")
        with job.averaged():
            model = gathered(job.state.model, workers)
            if workers.leads:
                stored = store_model(ws, run.id, job, model, heldout).digest
                shutil.rmtree(run.folder / checkpoint.FOLDER, ignore_errors=True)  # the artifact holds the weights now
        return ws.artifacts.get(workers.told("model", stored if workers.leads else None))


@contextlib.contextmanager
def _run(
    ws: Workspace, config: dict[str, Any], settings: PretrainSettings, workers: Workers
) -> Iterator[Run | Following]:
    """The leader's run, which the others follow."""
    if workers.leads:
        with (
            ws.runs.resume_or_start(KIND, settings.run.name, config=config, seed=settings.run.seed) as run,
            workers.together(),  # within the run, so that its record names the lost worker
        ):
            workers.told("run", [run.id, str(run.folder)])
            yield run
    else:
        identifier, folder = workers.told("run")
        yield Following(identifier, Path(folder))


def finished(ws: Workspace, corpus: Artifact, tokenizer: Artifact, settings: PretrainSettings) -> Artifact | None:
    """The model that an earlier run with the same inputs and settings made, if any."""
    config = _config(corpus, tokenizer, settings)
    done = {run.id for run in ws.runs.list(KIND) if run.status == "done" and run.config == config}
    for record in ws.store.artifacts("model"):
        if record.run in done:
            return ws.artifacts.get(record.digest)
    return None


def _config(corpus: Artifact, tokenizer: Artifact, settings: PretrainSettings) -> dict[str, Any]:
    """What makes two runs the same, as it comes back from the store."""
    return {"corpus": corpus.digest, "tokenizer": tokenizer.digest, "settings": settings.as_json()}


def _train(run: Run | Following, job: Job, say: Say) -> None:
    """Runs the loop to its end."""
    state, settings, workers = job.state, job.settings, job.workers
    asked, started = settings.run, time.monotonic()
    meter = Meter(peak(job.math.dtype or torch.float32, workers.device, devices=workers.count).flops)
    pace = None if settings.budget_s is None else Pace(settings.budget_s, job.elapsed_before, started)

    def save(score: float | None = None) -> None:
        run.flush()  # a resumed run repeats the steps after the checkpoint, never those before it
        elapsed = job.elapsed_before + time.monotonic() - started
        saver.save(state.step, state.tensors(), {**state.facts(), **job.facts(), "elapsed": elapsed}, score=score)

    saved_at = looked_at = time.monotonic()
    with (
        deferred_interrupt() as interrupt,
        Progress("pre-training", None, "steps", out=workers.screen) as progress,
        Saver(
            run.folder,
            keep=asked.keep_checkpoints,
            best=asked.keep_best,
            worker=workers.number,
            workers=workers.count,
        ) as saver,
    ):
        try:
            for report in steps(state, job.texts.examples, job.loss_of, job.sizes, settings.schedule, asked.seed, pace):
                saver.check()
                job.loss = report.loss if job.loss != job.loss else 0.98 * job.loss + 0.02 * report.loss
                _log(run, report, meter.add(report.tokens, report.flops, report.seconds), job.sizes)
                progress.total = state.plan.steps if state.plan != UNPLANNED else None
                progress.update(report.step, _note(report, meter.recent, pace))
                look = _due(report.step, looked_at, asked.evaluate_steps, asked.evaluate_seconds)
                due = _due(report.step, saved_at, asked.checkpoint_steps, asked.checkpoint_seconds)
                if asked.checkpoint_steps is None and saver.busy:
                    due = False  # a slow disk sets the pace of the checkpoints, not of the training
                stop, look, due = workers.any(interrupt.requested, look and workers.leads, due and workers.leads)
                score = None
                if look:
                    score = _look(run, job, say)
                    looked_at = time.monotonic()
                if stop:
                    save(score)
                    saver.wait()
                    raise KeyboardInterrupt
                if look and all(workers.led(job.best.exhausted(asked.patience))):
                    say(f"  stopping early: {job.best.since} measurements since step {job.best.step:,} were no better")
                    break
                if due or (asked.keep_best and job.best.step == state.step):
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


def _look(run: Run | Following, job: Job, say: Say) -> float:
    """Measures the model in the middle of its training, and lets it say something; returns the held-out loss."""
    state, workers = job.state, job.workers
    heldout = job.measured(job.settings.run.evaluate_tokens)
    job.best.see(state.step, heldout.loss)
    run.log(state.step, **heldout.metrics())
    say(f"  step {state.step:,}: held-out {heldout}")
    model = gathered(state.model, workers)
    said = sample(model, job.inputs.loaded, job.texts.heldout, job.texts.unseen, job.math) if workers.leads else None
    if said is not None:
        say(f"    {said}")
        with (run.folder / SAMPLES).open("a", encoding="utf-8") as file:
            file.write(f"step {state.step}: {said}\n")
    return heldout.loss


def _silent(line: str) -> None:
    """What the workers say that do not lead."""


def _due(step: int, last: float, every_steps: int | None, every_seconds: float | None) -> bool:
    """Whether something is to be done after this step that was done at time `last`: by steps, or else by the clock."""
    if every_steps is not None:
        return step % every_steps == 0
    return every_seconds is not None and time.monotonic() - last >= every_seconds


def _log(run: Run | Following, report: StepReport, speed: Speed, sizes: Sizes) -> None:
    run.log(
        report.step,
        train_loss=report.loss,
        tokens=report.step * sizes.batch_tokens,
        lr=sizes.matrix_rate * report.multiplier,
        tokens_per_s=speed.tokens_per_s,
        mfu=speed.mfu,
        gradient_norm=report.gradient_norm,
    )


def _note(report: StepReport, speed: Speed, pace: Pace | None) -> str:
    note = f"loss {report.loss:.3f} · {speed.tokens_per_s:,.0f} tokens/s · MFU {speed.mfu:.0%}"
    return note if pace is None else f"{note} · {max(pace.left, 0):,.0f} s of the budget left"


def _evaluate(run: Run | Following, job: Job) -> HeldOut:
    with Progress("held-out", None, "targets", out=job.workers.screen) as progress:
        heldout = job.measured(tick=progress.update)
    run.log(job.state.step, **heldout.metrics())
    return heldout
