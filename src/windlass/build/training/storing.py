"""The finished model as an artifact: weights in Hugging Face layout, the tokenizer beside them, and its card."""

from __future__ import annotations

import shutil
from typing import Any

from windlass.build.tokenizer import load_tokenizer
from windlass.build.tokenizer.chat import end_of_turn
from windlass.build.training.card import model_card
from windlass.build.training.examples import start_token
from windlass.build.training.job import Job
from windlass.build.training.measuring.heldout import HeldOut
from windlass.build.transformer.hf import save_model
from windlass.build.transformer.model import Model
from windlass.core.artifacts import Artifact
from windlass.core.chat_template import ChatTemplate
from windlass.core.workspace import Workspace

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def store_model(ws: Workspace, run: str, job: Job, model: Model, heldout: HeldOut) -> Artifact:
    """Stores `model`, the job's own or a copy of it, as made by the run with the id `run`."""
    inputs, state = job.inputs, job.fit.state
    settings, sizes = inputs.settings, inputs.sizes
    separator = inputs.specials.separator
    bos = start_token(inputs.specials) if settings.model.architecture == "encoder-decoder" else separator
    with ws.artifacts.build("model", settings.run.name, run=run) as draft:
        draft.add_parent("corpus", inputs.corpus)
        draft.add_parent("tokenizer", inputs.tokenizer)
        if inputs.base is not None and inputs.base.artifact is not None:
            draft.add_parent("model", inputs.base.artifact)
        save_model(model, draft.path, bos=bos, eos=separator, pad=inputs.specials.pad, generation=_generation(job))
        for name in TOKENIZER_FILES:
            shutil.copyfile(inputs.tokenizer.path / name, draft.path / name)
        card = model_card(
            settings, sizes, inputs.corpus, inputs.tokenizer, job.texts.train, heldout, state.step, job.fit.loss
        )
        (draft.path / "README.md").write_text(card, encoding="utf-8")
        what = f"{settings.model.architecture} of {sizes.model.parameters:,} parameters".capitalize()
        draft.card.update(
            {
                "description": f"{what} pre-trained on {inputs.corpus.ref}",
                "licence": inputs.corpus.card.get("licence"),
                "architecture": settings.model.architecture,
                "objective": settings.objective_kind,
                "parameters": sizes.model.parameters,
                "steps": state.step,
                "tokens_seen": state.tokens_read,
                "train_loss": job.fit.loss,
                **heldout.metrics(),
                "heldout_bytes": heldout.bytes,
                "sizes": sizes.as_json(),
                "settings": settings.as_json(),
            }
        )
    return draft.done


def _generation(job: Job) -> dict[str, Any]:
    """Where the tokenizer has a chat format, its end of turn ends an answer too: adapters of this model learn to write
    that, and are served with what stands here."""
    specials, folder = job.inputs.specials, job.inputs.tokenizer.path
    template = ChatTemplate.load(folder)
    turn = None if template is None else end_of_turn(template, load_tokenizer(folder), specials)
    return {} if turn is None else {"eos_token_id": [specials.separator, turn]}
