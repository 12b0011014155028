"""`pretrain`: a corpus and a tokenizer in, a model artifact out, resumable at any moment."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from windlass.build.corpus import training_text
from windlass.build.tokenizer import load_specials, load_tokenizer
from windlass.build.training import checkpoint
from windlass.build.training.bigram import bigram_start
from windlass.build.training.card import model_card
from windlass.build.training.compiling import Forward, forward_of
from windlass.build.training.heldout import HeldOut, score
from windlass.build.training.interrupt import deferred_interrupt
from windlass.build.training.loop import StepReport, TrainState, steps
from windlass.build.training.optimizers import Optimizers
from windlass.build.training.pace import UNPLANNED, Pace
from windlass.build.training.preflight import check_disk, check_inputs, check_text
from windlass.build.training.recipe import Recipe, derive
from windlass.build.training.schedule import fresh
from windlass.build.training.settings import PretrainSettings
from windlass.build.training.shard import Shard, write_shard
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
    ws: Workspace, corpus: Artifact, tokenizer: Artifact, settings: PretrainSettings, *, say: Say = print
) -> Artifact:
    """Trains a decoder and stores it as an artifact of kind `model` in Hugging Face layout.

    A run with the same inputs and settings that was interrupted or killed is taken up where its last checkpoint
    stands. Metrics of the run: train_loss, lr, tokens_per_s, gradient_norm by step, heldout_bpb at the end. Ctrl-C
    saves a checkpoint, ends the run as `interrupted`, and raises KeyboardInterrupt.
    """
    check_inputs(corpus, tokenizer)
    config = _config(corpus, tokenizer, settings)
    with ws.runs.resume_or_start(KIND, settings.name, config=config, seed=settings.seed) as run:
        job = _prepare(run, corpus, tokenizer, settings, say)
        say(f"  {job.forward.how}")
        started = time.monotonic()
        pace = None if settings.budget_s is None else Pace(settings.budget_s, job.elapsed_before, started)
        loss = _train(run, job, settings, pace, started)
        heldout = _evaluate(run, job)
        say(f"held-out: {heldout.bits_per_byte:.4f} bits per byte over {heldout.bytes:,} bytes")
        artifact = _store(ws, run, job, corpus, tokenizer, settings, heldout, loss)
        for step in checkpoint.steps(run.folder):
            checkpoint.remove(checkpoint.step_folder(run.folder, step))  # the model artifact holds the weights now
        return artifact


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
    kinds = None if settings.kinds is None else list(settings.kinds)
    return {
        "corpus": corpus.digest,
        "tokenizer": tokenizer.digest,
        "settings": {**asdict(settings), "kinds": kinds},
    }


@dataclass(slots=True)
class _Job:
    recipe: Recipe
    train: Shard
    heldout: Shard
    state: TrainState
    forward: Forward
    separator: int
    elapsed_before: float = 0.0
    loss: float = float("nan")


def _prepare(run: Run, corpus: Artifact, tokenizer: Artifact, settings: PretrainSettings, say: Say) -> _Job:
    loaded = load_tokenizer(tokenizer)
    separator = load_specials(tokenizer).separator
    recipe, derivations = derive(settings, loaded.get_vocab_size())
    for line in derivations:
        say(f"  {line}")
    say(f"  {check_disk(run.folder, recipe)}")
    train = write_shard(run.folder / "train.bin", training_text(corpus, "train", settings.kinds), loaded, separator)
    heldout = write_shard(
        run.folder / "heldout.bin", training_text(corpus, "heldout", settings.kinds), loaded, separator
    )
    for line in check_text(train, heldout, recipe):
        say(f"  {line}")
    model = Decoder(recipe.model)
    initialise(model, settings.seed)
    plan = UNPLANNED if settings.steps is None else fresh(settings.steps, recipe.cooldown)
    state = TrainState(model, Optimizers(model, recipe), plan)
    job = _Job(recipe, train, heldout, state, forward_of(model, settings), separator)
    checkpoint.discard_unfinished(run.folder)
    saved = checkpoint.load(run.folder)
    if saved is None:
        reached = bigram_start(model, train)
        if reached is not None:
            say(f"  embedding and head fitted to the bigram counts: {reached:.3f} nats a token before the first step")
    else:
        job.state.load(saved.tensors, saved.facts)
        job.elapsed_before, job.loss = saved.facts["elapsed"], saved.facts["loss"]
        say(f"  going on from step {job.state.step:,} after {job.elapsed_before:.0f} s of training")
    return job


def _train(run: Run, job: _Job, settings: PretrainSettings, pace: Pace | None, started: float) -> float:
    """Runs the loop to its end; returns the mean training loss of the last steps."""
    state, recipe = job.state, job.recipe

    def save() -> None:
        run.flush()  # a resumed run repeats the steps after the checkpoint, never those before it
        elapsed = job.elapsed_before + time.monotonic() - started
        checkpoint.save(
            run.folder, state.step, state.tensors(), {**state.facts(), "elapsed": elapsed, "loss": job.loss}
        )

    saved_at = time.monotonic()
    with deferred_interrupt() as interrupt, Progress("pre-training", None, "steps") as progress:
        for report in steps(state, job.train, recipe, job.forward.loss, settings.seed, pace):
            job.loss = report.loss if job.loss != job.loss else 0.98 * job.loss + 0.02 * report.loss
            _log(run, report, recipe)
            progress.total = state.plan.steps if state.plan != UNPLANNED else None
            progress.update(report.step, _note(report, recipe, pace))
            if interrupt.requested:
                save()
                raise KeyboardInterrupt
            due = (
                time.monotonic() - saved_at >= settings.checkpoint_seconds
                if settings.checkpoint_steps is None
                else report.step % settings.checkpoint_steps == 0
            )
            if due:
                save()
                saved_at = time.monotonic()
    return job.loss


def _log(run: Run, report: StepReport, recipe: Recipe) -> None:
    run.log(
        report.step,
        train_loss=report.loss,
        lr=recipe.matrix_rate * report.multiplier,
        tokens_per_s=recipe.batch_tokens / report.seconds,
        gradient_norm=report.gradient_norm,
    )


def _note(report: StepReport, recipe: Recipe, pace: Pace | None) -> str:
    note = f"loss {report.loss:.3f} · {recipe.batch_tokens / report.seconds:,.0f} tokens/s"
    return note if pace is None else f"{note} · {max(pace.left, 0):,.0f} s of the budget left"


def _evaluate(run: Run, job: _Job) -> HeldOut:
    with Progress("held-out", len(job.heldout) - 1, "tokens") as progress:
        heldout = score(job.forward.logits, job.recipe.model.context, job.heldout, tick=progress.update)
    run.log(job.state.step, heldout_bpb=heldout.bits_per_byte)
    return heldout


def _store(
    ws: Workspace,
    run: Run,
    job: _Job,
    corpus: Artifact,
    tokenizer: Artifact,
    settings: PretrainSettings,
    heldout: HeldOut,
    loss: float,
) -> Artifact:
    state, recipe = job.state, job.recipe
    with ws.artifacts.build("model", settings.name, run=run.id) as draft:
        draft.add_parent("corpus", corpus)
        draft.add_parent("tokenizer", tokenizer)
        save_model(state.model, draft.path, bos=job.separator, eos=job.separator)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer.path / name, draft.path / name)
        card = model_card(settings, recipe, corpus, tokenizer, job.train, heldout, state.step, loss)
        (draft.path / "README.md").write_text(card, encoding="utf-8")
        draft.card.update(
            {
                "description": f"Decoder of {recipe.model.parameters:,} parameters pre-trained on {corpus.ref}",
                "licence": corpus.card.get("licence"),
                "parameters": recipe.model.parameters,
                "steps": state.step,
                "tokens_seen": state.step * recipe.batch_tokens,
                "train_loss": loss,
                "heldout_bpb": heldout.bits_per_byte,
                "heldout_bytes": heldout.bytes,
                "recipe": recipe.as_json(),
            }
        )
    return draft.done
