"""`pretrain`: a corpus and a tokenizer in, a model artifact out, resumable at any moment."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.checks.preflight import check_inputs
from windlass.build.training.distributed.parallel import Kind, gathered
from windlass.build.training.distributed.workers import ALONE, Following, Workers
from windlass.build.training.fitting import Measurement, Say, evaluate, fit, started_run
from windlass.build.training.guard import check_end
from windlass.build.training.job import Job, open_inputs, prepare_job
from windlass.build.training.measuring.samples import sample
from windlass.build.training.settings import PretrainSettings
from windlass.build.training.storing import store_model
from windlass.core.artifacts import Artifact
from windlass.core.memory import keep_freed_memory
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
    with started_run(ws, KIND, settings.run, config, workers) as run:
        heard = say if workers.leads else _silent
        job = prepare_job(open_inputs(ws, corpus, tokenizer, settings), run.folder, workers, parallel, heard)
        fit(run, job.fit, say=heard, after_look=_speaker(run, job, heard))
        heldout = evaluate(run, job.fit)
        heard(f"held-out: {heldout}")
        with job.fit.averaged():
            model = gathered(job.fit.state.model, workers)
            if workers.leads:
                check_end(job.fit.state.step, model, heldout.loss)
                stored = store_model(ws, run.id, job, model, heldout).digest
                shutil.rmtree(run.folder / checkpoint.FOLDER, ignore_errors=True)  # the artifact holds the weights now
        return ws.artifacts.get(workers.told("model", stored if workers.leads else None))


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


def _speaker(run: Run | Following, job: Job, say: Say) -> Callable[[Measurement], None]:
    """Lets the model say something at each measurement."""

    def speak(_: Measurement) -> None:
        workers = job.fit.workers
        model = gathered(job.fit.state.model, workers)
        if not workers.leads:
            return
        said = sample(model, job.inputs.loaded, job.texts.heldout, job.texts.unseen, job.math)
        if said is not None:
            say(f"    {said}")
            with (run.folder / SAMPLES).open("a", encoding="utf-8") as file:
                file.write(f"step {job.fit.state.step}: {said}\n")

    return speak


def _silent(line: str) -> None:
    """What the workers say that do not lead."""
