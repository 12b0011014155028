"""Whether a model fits into this machine's memory, said before minutes are spent on loading it."""

from __future__ import annotations

from pathlib import Path

import torch

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.hf import load_config
from windlass.core.errors import InputError

_SPARE = 256 << 20
"""Bytes beside weights and cache: one pass's activations, the interpreter, other processes' needs of the moment."""
_CGROUP = Path("/sys/fs/cgroup")


def bytes_per_token(config: TransformerConfig, size: int = 4) -> int:
    """What the engine remembers of one position, in numbers of `size` bytes: keys, values, and the last hidden
    vector."""
    return size * (2 * config.layers * config.kv_heads * config.head_dim + config.hidden)


def available() -> int | None:
    """Bytes that this process may still take, by the kernel and by the container's limit; None where neither says."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        pass  # not Linux
    try:
        most, used = ((_CGROUP / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        found += [int(most) - int(used)] if most != "max" else []
    except OSError:
        pass  # no container
    return min(found, default=None)


def positions_to_keep(config: TransformerConfig, wanted: int, device: torch.device, size: int) -> int:
    """`wanted`, or as many positions as fit into half of the memory that is free now."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available()
    return wanted if free is None else min(wanted, free // 2 // bytes_per_token(config, size))


def check_memory(folder: Path, kv_tokens: int = 0) -> None:
    """Raises `InputError` with both numbers when the weights of the model in `folder`, in float32, and so many
    remembered positions do not fit."""
    config, free = load_config(folder), available()
    weights, cache = 4 * config.parameters, kv_tokens * bytes_per_token(config)
    if free is not None and weights + cache + _SPARE > free:
        raise InputError(
            f"{folder} needs about {_gib(weights + cache + _SPARE)} of memory ({_gib(weights)} for weights, "
            f"{_gib(cache)} for {kv_tokens:,} remembered tokens), but only {_gib(free)} are free.",
            "Choose a smaller model, let the engine remember fewer tokens, or end other programs.",
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
