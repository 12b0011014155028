"""`pretrain`: a corpus and a tokenizer in, a model artifact out, resumable at any moment."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from windlass.build.corpus import training_text
from windlass.build.tokenizer import load_specials, load_tokenizer
from windlass.build.training import checkpoint
from windlass.build.training.batches import CausalExamples, Examples
from windlass.build.training.bigram import bigram_start
from windlass.build.training.card import model_card
from windlass.build.training.compiling import prepare
from windlass.build.training.heldout import HeldOut, score
from windlass.build.training.interrupt import deferred_interrupt
from windlass.build.training.loop import StepReport, TrainState, steps
from windlass.build.training.objectives import causal
from windlass.build.training.optimizers import Optimizers
from windlass.build.training.pace import UNPLANNED, Pace
from windlass.build.training.parallel import Kind, Spread, gathered
from windlass.build.training.preflight import check_disk, check_inputs, check_text, check_workers
from windlass.build.training.saving import Saver
from windlass.build.training.schedule import fresh
from windlass.build.training.settings import PretrainSettings
from windlass.build.training.shard import Shard, write_shard
from windlass.build.training.sizes import Sizes, derive
from windlass.build.training.workers import ALONE, Following, Workers
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import save_model
from windlass.build.transformer.init import initialise
from windlass.core.artifacts import Artifact
from windlass.core.progress import Progress
from windlass.core.runs import Run
from windlass.core.workspace import Workspace

KIND = "pretrain"
Say = Callable[[str], None]


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
    stands. Metrics of the run: train_loss, lr, tokens_per_s, gradient_norm by step, heldout_bpb at the end and as often
    as the settings ask. Ctrl-C saves a checkpoint, ends the run as `interrupted`, and raises KeyboardInterrupt.

    All `workers` call it with the same arguments and get the same artifact; the run may be taken up by any number of
    them. Raises `WorkerLost` when one of them ends or falls silent.
    """
    check_inputs(corpus, tokenizer)
    config = _config(corpus, tokenizer, settings)
    with workers.together(), _run(ws, config, settings, workers) as run:
        job = _prepare(run, corpus, tokenizer, settings, workers, parallel, say if workers.leads else _silent)
        _train(run, job, settings)
        heldout = _evaluate(run, job)
        model = gathered(job.state.model, workers)
        if workers.leads:
            say(f"held-out: {heldout.bits_per_byte:.4f} bits per byte over {heldout.bytes:,} bytes")
            stored = _store(ws, run, job, model, corpus, tokenizer, settings, heldout).digest
            shutil.rmtree(run.folder / checkpoint.FOLDER, ignore_errors=True)  # the artifact holds the weights now
        return ws.artifacts.get(workers.told("model", stored if workers.leads else None))


@contextlib.contextmanager
def _run(
    ws: Workspace, config: dict[str, Any], settings: PretrainSettings, workers: Workers
) -> Iterator[Run | Following]:
    """The leader's run, which the others follow."""
    if workers.leads:
        with ws.runs.resume_or_start(KIND, settings.run.name, config=config, seed=settings.run.seed) as run:
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


@dataclass(slots=True)
class _Job:
    sizes: Sizes
    train: Shard
    heldout: Shard
    examples: Examples
    loss_of: Spread
    state: TrainState
    separator: int
    isolate: bool
    workers: Workers
    elapsed_before: float = 0.0
    loss: float = float("nan")
    """Mean training loss of the last steps."""


def _prepare(
    run: Run | Following,
    corpus: Artifact,
    tokenizer: Artifact,
    settings: PretrainSettings,
    workers: Workers,
    parallel: Kind,
    say: Say,
) -> _Job:
    loaded = load_tokenizer(tokenizer)
    separator = load_specials(tokenizer).separator
    sizes, derivations = derive(settings, loaded.get_vocab_size())
    for line in derivations:
        say(f"  {line}")
    check_workers(workers, sizes)
    say(f"  {check_disk(run.folder, sizes)}")
    if not workers.leads:
        workers.told("text")  # is ready, and no worker reads the checkpoints before they are in order
    train, heldout = (
        write_shard(run.folder / f"{split}.bin", training_text(corpus, split, settings.data.kinds), loaded, separator)
        for split in ("train", "heldout")
    )
    if workers.leads:
        checkpoint.discard_unfinished(run.folder)
        workers.told("text", True)
    for line in check_text(train, heldout, sizes):
        say(f"  {line}")
    model = Decoder(sizes.model)
    initialise(model, settings.run.seed)
    math, how = prepare(model, settings)
    say(f"  {how}")
    saved = checkpoint.load(run.folder)
    if saved is None and workers.leads:
        reached = bigram_start(model, train)
        if reached is not None:
            say(f"  embedding and head fitted to the bigram counts: {reached:.3f} nats a token before the first step")
    loss_of = Spread(model, partial(causal, model, math=math), workers, parallel)
    steps = settings.schedule.steps
    plan = UNPLANNED if steps is None else fresh(steps, settings.schedule.cooldown)
    state = TrainState(model, Optimizers(model, sizes, settings.optimizer), plan)
    isolate = settings.data.isolate
    examples = CausalExamples(train, sizes.model.context, isolate=isolate, seed=settings.run.seed)
    job = _Job(sizes, train, heldout, examples, loss_of, state, separator, isolate, workers)
    if saved is not None:
        job.state.take_up(saved)
        job.elapsed_before, job.loss = saved.facts["elapsed"], saved.facts["loss"]
        say(f"  going on from step {job.state.step:,} after {job.elapsed_before:.0f} s of training")
    return job


def _train(run: Run | Following, job: _Job, settings: PretrainSettings) -> None:
    """Runs the loop to its end."""
    state, asked, workers = job.state, settings.run, job.workers
    started = time.monotonic()
    pace = None if settings.budget_s is None else Pace(settings.budget_s, job.elapsed_before, started)

    def save() -> None:
        run.flush()  # a resumed run repeats the steps after the checkpoint, never those before it
        elapsed = job.elapsed_before + time.monotonic() - started
        saver.save(state.step, state.tensors(), {**state.facts(), "elapsed": elapsed, "loss": job.loss})

    saved_at = time.monotonic()
    with (
        deferred_interrupt() as interrupt,
        Progress("pre-training", None, "steps", out=workers.screen) as progress,
        Saver(run.folder, worker=workers.number, workers=workers.count) as saver,
    ):
        for report in steps(state, job.examples, job.loss_of, job.sizes, settings.schedule, asked.seed, pace):
            saver.check()
            job.loss = report.loss if job.loss != job.loss else 0.98 * job.loss + 0.02 * report.loss
            _log(run, report, job.sizes)
            progress.total = state.plan.steps if state.plan != UNPLANNED else None
            progress.update(report.step, _note(report, pace))
            due = _due(report.step, saved_at, asked.checkpoint_steps, asked.checkpoint_seconds)
            if asked.checkpoint_steps is None and saver.busy:
                due = False  # a slow disk sets the pace of the checkpoints, not of the training
            stop, due = workers.any(interrupt.requested, due and workers.leads)
            if stop:
                save()
                saver.wait()
                raise KeyboardInterrupt
            if due:
                save()
                saved_at = time.monotonic()


def _silent(line: str) -> None:
    """What the workers say that do not lead."""


def _due(step: int, last: float, every_steps: int | None, every_seconds: float | None) -> bool:
    """Whether something is to be done after this step that was done at time `last`: by steps, or else by the clock."""
    if every_steps is not None:
        return step % every_steps == 0
    return every_seconds is not None and time.monotonic() - last >= every_seconds


def _log(run: Run | Following, report: StepReport, sizes: Sizes) -> None:
    run.log(
        report.step,
        train_loss=report.loss,
        lr=sizes.matrix_rate * report.multiplier,
        tokens_per_s=report.tokens / report.seconds,
        gradient_norm=report.gradient_norm,
    )


def _note(report: StepReport, pace: Pace | None) -> str:
    note = f"loss {report.loss:.3f} · {report.tokens / report.seconds:,.0f} tokens/s"
    return note if pace is None else f"{note} · {max(pace.left, 0):,.0f} s of the budget left"


def _evaluate(run: Run | Following, job: _Job) -> HeldOut:
    with Progress("held-out", len(job.heldout) - 1, "tokens", out=job.workers.screen) as progress:
        heldout = score(job.loss_of, job.sizes.model.context, job.heldout, isolate=job.isolate, tick=progress.update)
    run.log(job.state.step, heldout_bpb=heldout.bits_per_byte)
    return heldout


def _store(
    ws: Workspace,
    run: Run | Following,
    job: _Job,
    model: Decoder,
    corpus: Artifact,
    tokenizer: Artifact,
    settings: PretrainSettings,
    heldout: HeldOut,
) -> Artifact:
    state, sizes = job.state, job.sizes
    with ws.artifacts.build("model", settings.run.name, run=run.id) as draft:
        draft.add_parent("corpus", corpus)
        draft.add_parent("tokenizer", tokenizer)
        save_model(model, draft.path, bos=job.separator, eos=job.separator)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer.path / name, draft.path / name)
        card = model_card(settings, sizes, corpus, tokenizer, job.train, heldout, state.step, job.loss)
        (draft.path / "README.md").write_text(card, encoding="utf-8")
        draft.card.update(
            {
                "description": f"Decoder of {sizes.model.parameters:,} parameters pre-trained on {corpus.ref}",
                "licence": corpus.card.get("licence"),
                "parameters": sizes.model.parameters,
                "steps": state.step,
                "tokens_seen": state.step * sizes.batch_tokens,
                "train_loss": job.loss,
                "heldout_bpb": heldout.bits_per_byte,
                "heldout_bytes": heldout.bytes,
                "sizes": sizes.as_json(),
                "settings": settings.as_json(),
            }
        )
    return draft.done
