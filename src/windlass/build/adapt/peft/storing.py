"""What a tuning leaves behind: the adapter alone, in PEFT's layout, or one model of base and adapter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.attaching import adapter_of, attach_adapter, merge
from windlass.build.adapt.peft.quantised import state_of
from windlass.build.adapt.settings import TuneSettings
from windlass.build.tokenizer.chat import end_of_turn
from windlass.build.transformer.adapters.virtual_files import write_virtual
from windlass.build.transformer.adapters.writing import write_adapter
from windlass.build.transformer.families.links import Link
from windlass.build.transformer.hf import GENERATION, load_links, read_config, save_model, tied_head, weights_digest
from windlass.build.transformer.model import Model

TaskType = Literal["CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"]


def stored_kind(settings: TuneSettings) -> Literal["model", "adapter"]:
    """The kind of the artifact."""
    return "adapter" if settings.stores_adapter else "model"


def save_tuned(model: Model, opened: Opened, folder: Path, task: TaskType, *, start: int | None = None) -> None:
    """Writes a transformer that was tuned without a head of its own: as `stored_kind` says. `start`: the token that
    every answer of an encoder-decoder begins with."""
    if stored_kind(opened.settings) == "adapter":
        save_adapter(model, opened, folder, task)
        return
    specials, family = opened.specials, read_config(opened.base)["model_type"]
    save_model(
        merged(model, opened),
        folder,
        family=family,
        bos=specials.bos if start is None else start,
        eos=specials.separator,
        pad=specials.pad,
        generation=_generation(opened),
    )


def _generation(opened: Opened) -> dict[str, Any]:
    """How the base says that answers are written; and they end where the template ends them, or an engine would let a
    model go on behind its turn, where it never learned what stands."""
    path = opened.base / GENERATION
    asked: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = asked.get("eos_token_id")
    turn = None if opened.template is None else end_of_turn(opened.template, opened.tokenizer, opened.specials)
    listed = [opened.specials.separator, turn, *(known if isinstance(known, list) else [known])]
    ends = [end for end in dict.fromkeys(listed) if end is not None]
    return asked | {"eos_token_id": ends if len(ends) > 1 else ends[0]}


def save_adapter(
    model: nn.Module, opened: Opened, folder: Path, task: TaskType, links: Sequence[Link] | None = None
) -> None:
    """Writes the adapter in `model` and all that was trained beside it. `links`: how the model's tensors are called in
    Hugging Face's; left out, as the base's are."""
    adapter, base, digest = adapter_of(model), opened.base_name, weights_digest(opened.base)
    if adapter.virtual is not None:
        write_virtual(folder, adapter.virtual, opened.config, base=base, digest=digest, task=task)
        return
    asked, tied = opened.settings.adapter, None
    if links is None:
        links, tied = load_links(opened.base), tied_head(opened.base)
    write_adapter(
        folder,
        adapter,
        links,
        state_of(model),
        base=base,
        digest=digest,
        bits=asked.bits,
        task=task,
        dropout=asked.dropout,
        tied=tied,
    )


def merged(model: Model, opened: Opened) -> Model:
    """One model of what was trained and what was not. The base is read again, since the one that was trained with may
    have been rounded: what is stored is what base and adapter compute in float32."""
    if all(parameter.requires_grad for parameter in model.parameters()):
        return model
    fresh = opened.model()
    attach_adapter(fresh, adapter_of(model))
    merge(fresh)
    return fresh
