"""Decoders as Hugging Face folders: `config.json` + `model.safetensors`, read and written without transformers.

A family is a configuration plus a table of names; the arithmetic stays in `decoder.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from windlass.build.transformer.config import DecoderConfig, from_hf, to_hf
from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError
from windlass.core.files import disk_errors, write_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

_OUTER = {"embedding": "model.embed_tokens.weight", "norm.weight": "model.norm.weight", "head.weight": "lm_head.weight"}
_BLOCK = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
    "mlp.gate.weight": "mlp.gate_proj.weight",
    "mlp.up.weight": "mlp.up_proj.weight",
    "mlp.down.weight": "mlp.down_proj.weight",
}


def weight_names(config: DecoderConfig) -> dict[str, str]:
    """Our name of each tensor -> its name in a Llama checkpoint."""
    names = {ours: theirs for ours, theirs in _OUTER.items() if not (config.tied and ours == "head.weight")}
    for layer in range(config.layers):
        for ours, theirs in _BLOCK.items():
            names[f"blocks.{layer}.{ours}"] = f"model.layers.{layer}.{theirs}"
    return names


def save_decoder(model: Decoder, folder: Path, *, bos: int | None = None, eos: int | None = None) -> None:
    """Writes `config.json`, `generation_config.json` and `model.safetensors` (float32) into `folder`."""
    write_json(folder / CONFIG, to_hf(model.config, bos=bos, eos=eos))
    write_json(folder / "generation_config.json", {"bos_token_id": bos, "eos_token_id": eos, "do_sample": True})
    state = model.state_dict()
    tensors = {theirs: state[ours].float().contiguous() for ours, theirs in weight_names(model.config).items()}
    with disk_errors(folder):
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_config(folder: Path) -> DecoderConfig:
    """The shape of the model in `folder`. Raises `InputError` when it is absent, broken or of another family."""
    path = folder / CONFIG
    try:
        return from_hf(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Give the folder of a Hugging Face model.") from error


def load_decoder(folder: Path) -> Decoder:
    """The model in a Hugging Face Llama folder, in float32 and ready for inference.

    One weights file or the shards of `model.safetensors.index.json`. Raises `InputError` naming the first tensor
    that is missing, unknown or of another shape.
    """
    config = load_config(folder)
    with torch.device("meta"):
        model = Decoder(config)
    model.to_empty(device="cpu")
    model.reset_rotations()
    tensors: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        tensors.update(_read(path))
    _fill(model, tensors, str(folder))
    return model.eval()


def _weight_files(folder: Path) -> list[Path]:
    index = folder / f"{WEIGHTS}.index.json"
    if not index.exists():
        return [folder / WEIGHTS]
    try:
        return sorted({folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{index} is not an index of weight files: {error}.") from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be read: {error}.", "The file is absent or damaged; fetch it again."
        ) from error


@torch.no_grad()
def _fill(model: Decoder, tensors: Mapping[str, Tensor], where: str) -> None:
    state = model.state_dict()
    names = weight_names(model.config)
    known = set(names.values())
    # Old checkpoints carry these beside the weights: a copy of the tied head, and the RoPE frequencies.
    ignorable = {
        t for t in tensors if t.endswith("rotary_emb.inv_freq") or (model.config.tied and t == "lm_head.weight")
    }
    for unknown in sorted(set(tensors) - known - ignorable):
        raise InputError(f"{where}: the weights hold an unknown tensor '{unknown}'.", "Weights and config disagree.")
    for ours, theirs in names.items():
        if theirs not in tensors:
            raise InputError(f"{where}: the weights lack the tensor '{theirs}'.", "Weights and config disagree.")
        if tensors[theirs].shape != state[ours].shape:
            raise InputError(
                f"{where}: '{theirs}' has shape {list(tensors[theirs].shape)}, but config.json says "
                f"{list(state[ours].shape)}.",
                "Weights and config disagree.",
            )
        state[ours].copy_(tensors[theirs])
