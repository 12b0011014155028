"""`tune`: a model that exists and examples in, a better model for one job out, resumable at any moment."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from windlass.build.adapt.answering import answered
from windlass.build.adapt.card import model_card
from windlass.build.adapt.effort import Stopwatch
from windlass.build.adapt.objectives import (
    classification,
    continuing,
    distillation,
    embedding,
    extraction,
    preference,
    ranking,
    regression,
    reward,
    sft,
    tagging,
)
from windlass.build.adapt.objectives.preparing import Prepared, batch_of, scheduled
from windlass.build.adapt.opening import Opened, open_inputs
from windlass.build.adapt.peft.adapted import AdaptedLinear
from windlass.build.adapt.peft.attaching import transformer_of
from windlass.build.adapt.peft.quantised import numbers, told, unrounded
from windlass.build.adapt.rl import objective
from windlass.build.adapt.rl.rewards.reward import Reward
from windlass.build.adapt.rl.rollouts import OpenRollouts
from windlass.build.adapt.sections import ObjectiveKind
from windlass.build.adapt.settings import TuneSettings
from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.distributed.parallel import Kind, Spread, made_whole
from windlass.build.training.distributed.workers import ALONE, Workers
from windlass.build.training.fitting import Fit, Measurement, Say, evaluate, fit, started_run
from windlass.build.training.guard import CLIMB, check_end
from windlass.build.training.loop import TrainState
from windlass.build.training.optim.adamw_rows import name_rows
from windlass.build.training.optim.average import Average
from windlass.build.training.optim.groups import tuning_groups
from windlass.build.training.optim.optimizers import Optimizers
from windlass.build.training.optim.schedule import Plan
from windlass.build.training.pace import UNPLANNED
from windlass.build.transformer.adapters.base import note_measured
from windlass.build.transformer.adapters.recipe import WEIGHTS
from windlass.build.transformer.classifier_files import load_body
from windlass.core.artifacts import Artifact
from windlass.core.chat_template import TEMPLATE_FILE
from windlass.core.errors import InputError
from windlass.core.files import sha256_file
from windlass.core.memory import keep_freed_memory
from windlass.core.workspace import Workspace

KIND = "tune"
OBJECTIVES: Mapping[ObjectiveKind, Callable[[Opened], Prepared]] = {
    "sft": sft.prepare,
    "continue": continuing.prepare,
    "distil": distillation.prepare,
    "classify": classification.prepare,
    "regress": regression.prepare,
    "tag": tagging.prepare,
    "extract": extraction.prepare,
    "rank": ranking.prepare,
    "embed": embedding.prepare,
    "grpo": objective.prepare,
    "ppo": objective.prepare,
    **dict.fromkeys(preference.METHODS, preference.prepare),
    "reward": reward.prepare,
}
_WARMUP = 0.03
"""Share of the steps."""


@dataclass(frozen=True, slots=True)
class Sizes:
    batch: int
    micro_batch: int
    warmup_steps: int


def tune(
    ws: Workspace,
    settings: TuneSettings,
    *,
    workers: Workers = ALONE,
    parallel: Kind = "ddp",
    rollouts: OpenRollouts | None = None,
    rewards: Mapping[str, Reward] | None = None,
    say: Say = print,
    after_look: Callable[[int, Measurement], None] | None = None,
) -> Artifact:
    """Trains and stores a model, or the adapter of one. A run with the same inputs and settings that did not end is
    taken up.

    Of reinforcement learning, `rollouts` writes the answers, and `rewards` are further ones that settings may name.

    Metrics of the run are those of `fit`; the held-out measurement stands at step 0 too, before anything was trained.
    `after_look` is told the step and each measurement during training, and may end it by raising. Raises `InputError`
    before the first step for all that cannot work, and `Diverged` rather than to store what is no model any more.
    Ctrl-C saves a checkpoint and raises KeyboardInterrupt.
    """
    keep_freed_memory()
    opened = replace(open_inputs(ws, settings), rollouts=rollouts, rewards=rewards or {})
    watch = Stopwatch(settings.run)
    if workers.count > 1 and (settings.writes_answers or settings.objective.answers == "teacher"):
        raise InputError(
            f"objective.kind is '{settings.objective.kind}' and answers are written, which is done in one process.",
            "Use one.",
        )
    opened = answered(ws, opened) if settings.objective.answers == "teacher" else opened
    heard = say if workers.leads else _silent
    with started_run(ws, KIND, settings.run, config_of(opened), workers) as run:
        prepared = OBJECTIVES[settings.objective.kind](opened)
        job = job_of(prepared, settings, workers, parallel)
        what = f"tuning {opened.base_name} by {settings.objective.kind}"
        for line in (what, *opened.notes, *prepared.lines, _trained(prepared), _paced(settings, job)):
            heard(f"  {line}")
        if opened.adapter is not None:
            heard(f"  trains {settings.model.adapter_from} further, in its own shape")
        if prepared.begin is not None:
            prepared.begin(job.loss_of)
        saved = checkpoint.load(run.folder)
        if saved is not None:
            job.take_up(saved)
            heard(f"  going on from step {job.state.step:,} after {job.elapsed_before:.0f} s of training")
        before = evaluate(run, job) if job.state.step == 0 else None
        if before is not None:
            heard(f"  before the first step: held-out {before}")
        fit(run, job, say=heard, after_look=None if after_look is None else lambda m: after_look(job.state.step, m))
        after = evaluate(run, job)
        heard(f"held-out: {after}")
        if before is not None and after.loss > before.loss + CLIMB:
            heard(
                f"warning: the held-out loss rose from {before.loss:.4g} to {after.loss:.4g}: by what it was trained "
                "for the model is worse than its base. Try a lower optimizer.matrix_rate, or fewer steps."
            )
        beside = _beside_whole(opened, prepared, job)
        if beside is not None:
            heard(f"beside the base as it is, which is how it is served: held-out {beside}")
        effort = watch.effort(job.elapsed_before, workers)
        run.log(job.state.step, **effort.metrics())
        run.flush()
        heard(f"energy: {effort}")
        stored = ""
        with job.averaged(), made_whole(prepared.model, workers):
            if workers.leads:
                check_end(job.state.step, prepared.model, after.loss)
                stored = _store(ws, run.id, opened, prepared, job, after, beside).digest
        if workers.leads:
            shutil.rmtree(run.folder / checkpoint.FOLDER, ignore_errors=True)  # the artifact holds the weights now
        return ws.artifacts.get(workers.told("model", stored or None))


def config_of(opened: Opened) -> dict[str, Any]:
    """What makes two runs the same."""
    adapter = {} if opened.adapter is None else {"adapter": sha256_file(opened.adapter / WEIGHTS)}
    teacher = opened.teacher_artifact
    taught = {} if opened.teacher is None else {"teacher": teacher.digest if teacher else str(opened.teacher)}
    old = opened.replay_artifact
    replayed = {} if opened.replay is None else {"replay": old.digest if old else sha256_file(opened.replay)}
    return (
        adapter
        | taught
        | replayed
        | {
            "base": str(opened.base) if opened.base_artifact is None else opened.base_artifact.digest,
            "rows": sha256_file(opened.file) if opened.dataset is None else opened.dataset.digest,
            "settings": opened.settings.as_json(),
        }
    )


def job_of(prepared: Prepared, settings: TuneSettings, workers: Workers, parallel: Kind) -> Fit[Measurement]:
    rows, optimizer = len(prepared.examples), settings.optimizer
    batch, schedule = batch_of(settings, rows), scheduled(settings, rows)
    warmup = schedule.warmup_steps
    if warmup is None:
        warmup = round((schedule.steps or 0) * _WARMUP)
    model, sizes = prepared.model, Sizes(batch, min(settings.data.micro_batch or batch, batch), warmup)
    loss_of = Spread(model, prepared.loss, workers, parallel, prepared.survey)
    groups = tuning_groups(model.named_parameters(), settings.rate, optimizer.weight_decay)
    if optimizer.kind == "adamw":
        name_rows(model, workers)
    state = TrainState(
        model,
        Optimizers(model, groups, optimizer),
        UNPLANNED if schedule.steps is None else Plan(schedule.steps),
        Average(model, optimizer.ema) if optimizer.ema else None,
    )
    measure = partial(prepared.measure, loss_of.shared)
    return Fit("tuning", state, prepared.examples, loss_of, sizes, schedule, settings.run, measure, prepared.noted)


def _trained(prepared: Prepared) -> str:
    trained = sum(parameter.numel() for parameter in prepared.model.parameters() if parameter.requires_grad)
    every = numbers(prepared.model)
    maps = sum(isinstance(module, AdaptedLinear) for module in prepared.model.modules())
    where = f", beside {maps:,} maps" if maps else ""
    return f"{trained:,} of {every:,} parameters are trained ({trained / every:.2%}){where}{told(prepared.model)}"


def _paced(settings: TuneSettings, job: Fit[Measurement]) -> str:
    schedule, rate = job.schedule, settings.rate
    shape = "by a cosine" if schedule.kind == "cosine" else f"over the last {schedule.cooldown:.0%} of the run"
    return f"the rate rises to {rate:g} in {job.sizes.warmup_steps:,} steps, and falls {shape} to {schedule.floor:.0%}"


def _beside_whole(opened: Opened, prepared: Prepared, job: Fit[Measurement]) -> Measurement | None:
    """What the adapter of a rounded base makes of the same examples beside the base as it was; None where the base was
    not rounded, or is spread over workers."""
    if opened.settings.adapter.bits is None or job.workers.count > 1:
        return None
    writes = opened.config.causal or opened.config.decoder_layers
    base = opened.model() if writes else load_body(opened.base)[0]
    with unrounded(transformer_of(prepared.model), base.to(job.workers.device)):
        return job.measured()


def _store(
    ws: Workspace,
    run: str,
    opened: Opened,
    prepared: Prepared,
    job: Fit[Measurement],
    heldout: Measurement,
    beside: Measurement | None,
) -> Artifact:
    settings = opened.settings
    with ws.artifacts.build(prepared.kind, settings.run.name, run=run) as draft:
        if opened.base_artifact is not None:
            draft.add_parent("base", opened.base_artifact)
        if opened.adapter_artifact is not None:
            draft.add_parent("adapter", opened.adapter_artifact)
        if opened.teacher_artifact is not None:
            draft.add_parent("teacher", opened.teacher_artifact)
        if opened.dataset is not None:
            draft.add_parent(opened.dataset.kind, opened.dataset)
        if opened.replay_artifact is not None:
            draft.add_parent("replay", opened.replay_artifact)
        prepared.save(draft.path)
        if beside is not None:
            note_measured(draft.path, heldout.loss, beside.loss)
            draft.card["heldout_loss_beside_whole_base"] = beside.loss
        before = {point.name: point.value for point in ws.store.metrics(run) if point.step == 0}
        card = model_card(opened, prepared, job.state.step, job.loss, before, heldout.metrics())
        (draft.path / "README.md").write_text(card, encoding="utf-8")
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
            if prepared.kind == "model" and (opened.base / file).is_file():
                shutil.copyfile(opened.base / file, draft.path / file)
        if settings.model.template is not None and opened.template is not None:
            (draft.path / TEMPLATE_FILE).write_text(opened.template.source, encoding="utf-8")
        draft.card.update(
            {
                "description": f"{opened.base_name} tuned by {settings.objective.kind}",
                "licence": None if opened.base_artifact is None else opened.base_artifact.card.get("licence"),
                "objective": settings.objective.kind,
                "steps": job.state.step,
                "train_loss": job.loss,
                **heldout.metrics(),
                **prepared.facts,
                "settings": settings.as_json(),
            }
        )
    return draft.done


def _silent(line: str) -> None:
    """What the workers say that do not lead."""
