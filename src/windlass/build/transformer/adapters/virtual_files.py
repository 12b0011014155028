"""PEFT's files of prompt tuning and prefix tuning: one tensor, `prompt_embeddings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from windlass.build.transformer.adapters.files import present, tensors_of
from windlass.build.transformer.adapters.parts import Virtual, VirtualKind
from windlass.build.transformer.adapters.recipe import CONFIG, WEIGHTS, Recipe
from windlass.build.transformer.adapters.writing import write_folder
from windlass.build.transformer.config import TransformerConfig
from windlass.core.errors import InputError

KINDS: dict[str, VirtualKind] = {"PROMPT_TUNING": "prompt", "PREFIX_TUNING": "prefix"}
FIELDS = (
    "num_virtual_tokens", "token_dim", "num_attention_heads", "num_layers", "num_transformer_submodules",
    # how the numbers began, or were computed before they were saved
    "encoder_hidden_size", "prefix_projection", "prompt_tuning_init", "prompt_tuning_init_text", "init_weights",
    "tokenizer_name_or_path", "tokenizer_kwargs",
)  # fmt: skip
_KEY = "prompt_embeddings"


def read_virtual(folder: Path, recipe: Recipe, config: TransformerConfig) -> Virtual:
    """Raises `InputError` naming the key or number that does not fit the model, and for a file that holds more."""
    path, kind = present(folder, WEIGHTS), KINDS[recipe.kind]
    tensors = tensors_of(path)
    if list(tensors) != [_KEY]:
        raise InputError(f"{path} holds {sorted(tensors)[:4]}, but an adapter of this kind holds '{_KEY}' alone.")
    wanted = [recipe.values.get("num_virtual_tokens"), _width(kind, config)]
    if list(tensors[_KEY].shape) != wanted:
        raise InputError(
            f"{path}: '{_KEY}' has shape {list(tensors[_KEY].shape)}, but {wanted[0]} virtual tokens on this model "
            f"need {wanted}.",
            f"Is it an adapter of another base model, or was num_virtual_tokens of {CONFIG} changed?",
        )
    if not tensors[_KEY].isfinite().all():
        raise InputError(f"{path}: '{_KEY}' holds numbers that are not finite.", "Its training diverged.")
    return Virtual(kind, tensors[_KEY])


def write_virtual(
    folder: Path,
    virtual: Virtual,
    config: TransformerConfig,
    *,
    base: str,
    digest: str | None = None,
    task: str | None = None,
) -> None:
    """As `write_adapter`."""
    prefix = virtual.kind == "prefix"
    heads = config.kv_heads if prefix else config.heads
    values: dict[str, Any] = {
        "peft_type": next(theirs for theirs, ours in KINDS.items() if ours == virtual.kind),
        "num_virtual_tokens": len(virtual.vectors),
        "token_dim": heads * config.head_dim if prefix else config.hidden,
        "num_attention_heads": heads,
        "num_layers": config.layers,
        "num_transformer_submodules": 1,
    }
    write_folder(folder, values, {_KEY: virtual.vectors}, base=base, digest=digest, task=task)


def _width(kind: VirtualKind, config: TransformerConfig) -> int:
    return config.hidden if kind == "prompt" else config.layers * 2 * config.kv_heads * config.head_dim
