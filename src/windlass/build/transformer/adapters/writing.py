"""An adapter written as PEFT reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from windlass.build.transformer.adapters.base import BASE
from windlass.build.transformer.adapters.files import PREFIX, key_of
from windlass.build.transformer.adapters.modules import adaptable, short
from windlass.build.transformer.adapters.parts import Adapter, LowRank, Part, Rescaled, joined
from windlass.build.transformer.adapters.recipe import CONFIG, WEIGHTS
from windlass.build.transformer.adapters.row_files import FIELD, written_rows
from windlass.build.transformer.families.links import Link
from windlass.core.errors import Unsupported
from windlass.core.files import disk_errors, write_json


def write_adapter(
    folder: Path,
    adapter: Adapter,
    links: Sequence[Link],
    state: Mapping[str, Tensor],
    *,
    base: str,
    digest: str | None = None,
    bits: int | None = None,
    task: str | None = None,
    dropout: float = 0.0,
    tied: str | None = None,
) -> None:
    """Writes the adapter of a model with these links and tensors; PEFT reads the folder.

    `base` is the base's name, `digest` that of its weights, `bits` as in `bits_of`, `task` PEFT's task_type, `tied` as
    in reading. `state` is looked into only where several of our maps are one module elsewhere and not all of them are
    adapted.
    """
    tensors: dict[str, Tensor] = {}
    modules: dict[str, Part] = {}
    links = list(links)
    targets = adaptable(links)
    for module, link in targets.items():
        parts = [adapter.parts.get(name.removesuffix(".weight")) for name in link.ours]
        if any(part is not None for part in parts):
            modules[module] = part = _of_module(parts, link, state)
            tensors |= {key_of(module, kind): tensor for kind, tensor in _tensors(part).items()}
    whole, saved = _whole_tensors(adapter, links, state, tied)
    rows, tokens = written_rows(adapter.rows, links)
    tensors |= whole | {PREFIX + name: tensor for name, tensor in rows.items()}
    known = {name.rpartition(".")[0] for link in links for name in link.theirs}
    values: dict[str, Any] = {
        **_described(modules, known),
        "fan_in_fan_out": any(targets[module].transposed for module in modules),
        "target_modules": short(modules, known),
        "modules_to_save": saved,
    }
    if values["peft_type"] == "LORA":
        values |= {"lora_dropout": dropout, "bias": "none", FIELD: tokens}
    write_folder(folder, values, tensors, base=base, digest=digest, bits=bits, task=task)


def _whole_tensors(
    adapter: Adapter, links: Sequence[Link], state: Mapping[str, Tensor], tied: str | None
) -> tuple[dict[str, Tensor], list[str] | None]:
    """The tensors that were trained as they are, by the file's keys, and PEFT's `modules_to_save`. An embedding that is
    the head too is written as both: PEFT would train on with the old head otherwise."""
    tensors: dict[str, Tensor] = {}
    for link in links:
        if any(name in adapter.whole for name in link.ours):
            tensors |= link.export({**state, **adapter.whole})
            if link.ours == ("embedding",) and tied is not None:
                tensors[tied] = adapter.whole["embedding"].clone()
    modules = sorted({name.rpartition(".")[0] for name in tensors})
    return {PREFIX + name: tensor for name, tensor in tensors.items()}, modules or None


def write_folder(
    folder: Path,
    values: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    base: str,
    digest: str | None,
    bits: int | None = None,
    task: str | None,
) -> None:
    """Writes the files of an adapter of any kind: `values` of its configuration, and those that all kinds have."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {"base_model_name_or_path": base, "task_type": task, "inference_mode": True}
    write_json(folder / CONFIG, {**values, **own})
    if digest is not None:
        write_json(folder / BASE, {"name": base, "weights": digest} | ({} if bits is None else {"bits": bits}))
    with disk_errors(folder):
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, folder / WEIGHTS, {"format": "pt"})


def _of_module(parts: Sequence[Part | None], link: Link, state: Mapping[str, Tensor]) -> Part:
    """One part for their module of those for our maps."""
    if len(parts) == 1 and parts[0] is not None:
        return parts[0]
    rescaled = [part if isinstance(part, Rescaled) else None for part in parts]
    if any(part is not None and part.on_input for part in rescaled):
        raise Unsupported(f"'{link.theirs[0]}' is several maps here, whose inputs are rescaled differently.")
    if any(part is not None for part in rescaled):
        factors = [
            torch.ones(len(state[name])) if part is None else part.factors
            for part, name in zip(rescaled, link.ours, strict=True)
        ]
        return Rescaled(torch.cat(factors), False)
    low = [part if isinstance(part, LowRank) else None for part in parts]
    outputs = [len(state[name] if part is None else part.up_NR) for part, name in zip(low, link.ours, strict=True)]
    part = joined(low, outputs)
    if part.magnitude_N is None:
        return part
    lengths = [  # a row that nothing is added to keeps its length
        state[name].float().norm(dim=1) if own is None or own.magnitude_N is None else own.magnitude_N
        for own, name in zip(low, link.ours, strict=True)
    ]
    return replace(part, magnitude_N=torch.cat(lengths))


def _tensors(part: Part) -> dict[str, Tensor]:
    if isinstance(part, Rescaled):
        return {"ia3_l": part.factors[None] if part.on_input else part.factors[:, None]}
    found = {"lora_A.weight": part.down_RK, "lora_B.weight": part.up_NR}
    if part.magnitude_N is not None:
        found["lora_magnitude_vector"] = part.magnitude_N
    return found


def _described(modules: Mapping[str, Part], known: Collection[str]) -> dict[str, Any]:
    """The fields that tell how the tensors are meant: the commonest rank and alpha, and which modules have others."""
    low = {module: part for module, part in modules.items() if isinstance(part, LowRank)}
    if not low:
        fed = [module for module, part in modules.items() if isinstance(part, Rescaled) and part.on_input]
        return {"peft_type": "IA3", "feedforward_modules": short(fed, known)}
    rank = Counter(part.rank for part in low.values()).most_common(1)[0][0]
    alpha = Counter(part.alpha for part in low.values()).most_common(1)[0][0]
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": _number(alpha),
        "rank_pattern": {module: part.rank for module, part in low.items() if part.rank != rank},
        "alpha_pattern": {module: _number(part.alpha) for module, part in low.items() if part.alpha != alpha},
        "use_rslora": any(part.rooted for part in low.values()),
        "use_dora": any(part.magnitude_N is not None for part in low.values()),
        "init_lora_weights": True,
    }


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
