"""What an adapter was trained in: a model as its folder has it, or one with a head, a score or a pooling of its own.

The adapter's folder tells which, by PEFT's `task_type` and by what lies beside the adapter's files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass.build.tokenizer import load_specials
from windlass.build.transformer.adapters.base import task_of
from windlass.build.transformer.classifier import Classifier, Task
from windlass.build.transformer.classifier_files import (
    begun_classifier,
    body_links,
    classifier_links,
    load_body,
    load_head,
    save_classifier,
)
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.embedder_files import Embedder, read_limit, read_recipe, save_embedder
from windlass.build.transformer.families.links import Link
from windlass.build.transformer.hf import (
    CONFIG,
    load_config,
    load_links,
    load_model,
    read_config,
    save_model,
    tied_head,
)
from windlass.build.transformer.model import Model
from windlass.build.transformer.reward_model import RewardModel, reward_links, save_reward_model
from windlass.core.errors import InputError
from windlass.core.files import write_json

_TASKS: dict[str, Task] = {"SEQ_CLS": "texts", "TOKEN_CLS": "tokens", "QUESTION_ANS": "spans"}
Whole = Model | Classifier | Embedder | RewardModel


@dataclass(frozen=True, slots=True)
class Body:
    model: Whole
    """As it is before the adapter; what the adapter holds whole, such as a head, is still empty or by chance."""
    links: Sequence[Link]
    """How its tensors are called in the adapter's files."""
    tied: str | None
    """As in `hf.tied_head`."""
    save: Callable[[Path], None]
    """Writes `config.json` and the weights of the model, merged by then, as transformers reads them."""
    needs: str | None = None
    """A tensor that the base cannot have, so that the adapter must."""


def body_of(base: Path, adapter: Path) -> Body:
    """The base in one folder as the adapter in the other was trained in it. Raises `InputError` for a base that has no
    such form."""
    named = task_of(adapter) or ""
    if named == "FEATURE_EXTRACTION":
        return _embedder(base, adapter)
    causal = load_config(base).causal
    if named == "SEQ_CLS" and causal:
        return _reward(base)
    task = _TASKS.get(named)
    if task is not None and (adapter / CONFIG).is_file():  # which names the labels
        return _classifier(base, adapter, task)
    model, values = load_model(base), read_config(base)

    def save(folder: Path) -> None:
        save_model(model, folder, family=values["model_type"])
        kept = {name: value for name, value in values.items() if name != "dtype"}  # special tokens among them
        write_json(folder / CONFIG, {**kept, "torch_dtype": "float32"})

    return Body(model, load_links(base), tied_head(base), save)


def _classifier(base: Path, adapter: Path, task: Task) -> Body:
    head, values = load_head(adapter, task), read_config(adapter)
    model, _ = begun_classifier(base, head)

    def save(folder: Path) -> None:
        save_classifier(model, folder, values["model_type"])
        kept = {name: value for name, value in values.items() if name != "dtype"}
        write_json(folder / CONFIG, {**kept, "torch_dtype": "float32"})

    return Body(model, classifier_links(base, head), None, save, "output.weight")


def _embedder(base: Path, adapter: Path) -> Body:
    """Pooling and prompts are those beside the adapter, or else the base's."""
    encoder, _ = load_body(base)
    where = adapter if (adapter / "modules.json").is_file() else base
    recipe = read_recipe(where)
    model, values = Embedder(encoder, recipe.pooling), read_config(base)
    limit = read_limit(where) or encoder.config.context
    tokens = {role: values.get(f"{role}_token_id") for role in ("bos", "eos", "pad")}

    def save(folder: Path) -> None:
        save_embedder(model, folder, values["model_type"], recipe, limit=limit, **tokens)

    return Body(model.eval(), body_links(base, "encoder."), None, save)


def _reward(base: Path) -> Body:
    decoder = load_model(base)
    if not isinstance(decoder, Decoder):
        raise InputError(
            f"{base} holds a model that is not a decoder.", "Name the base that the adapter was trained on."
        )
    model, specials = RewardModel(decoder), load_specials(base)
    pad = specials.separator if specials.pad is None else specials.pad

    def save(folder: Path) -> None:
        save_reward_model(model, folder, bos=specials.bos, eos=specials.separator, pad=pad)

    return Body(model.eval(), reward_links(load_links(base)), None, save, "score.weight")
