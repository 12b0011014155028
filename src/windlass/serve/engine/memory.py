"""Whether a model fits into this machine's memory, said before minutes are spent on loading it.

need = need_of(config, policy="int8", kv_tokens=65_536)
need.total, need.loading            # bytes at rest; at their most, while weights are packed
check_memory(folder, policy="int8", kv_tokens=65_536)       # against what is really free
"""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.hf import load_config
from windlass.core.errors import InputError
from windlass.serve.engine.arithmetic.linears import likely

BYTES_PER_WEIGHT: Mapping[str, float] = {"fp32": 4.0, "bf16": 2.0, "int8": 1 + 4 / 128, "int4": 0.5 + 4 / 64}
"""By the policy of the matrices (`arithmetic.linears`); scales included."""
PROCESS = 700 << 20
"""Bytes of a server that has loaded torch and no model yet."""
_SPARE = 256 << 20
"""Bytes that a process takes beside what is counted here: threads, connections, fragments."""
_LEAST = 2048
"""Positions that must fit when nobody says how many are to be remembered."""
_LOGITS = 256
"""Rows of logits that are in memory at once."""
_PACKING = {"bf16": 8, "int8": 24, "int4": 24}
"""Bytes for each number of the largest matrix while it is packed: padded, divided, and as whole numbers (measured)."""
_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that serving a model takes."""

    weights: int
    packing: int
    """What the weights take beyond that while they are loaded and packed."""
    cache: int
    """What is remembered of positions."""
    work: int
    """The activations of one step."""
    process: int = PROCESS

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.work + self.process

    @property
    def loading(self) -> int:
        """The most that is held at once. Memory for positions is taken later, as they come."""
        return max(self.total, self.weights + self.packing + self.process)


def need_of(
    config: TransformerConfig, *, policy: str, kv_tokens: int, max_batch: int = 16, token_budget: int = 512
) -> Need:
    """Memory of a model whose matrices follow `policy`, with room for `kv_tokens` positions; of "auto" the most that it
    may come to. Raises `InputError` for an unknown policy."""
    if policy == "auto":
        tried = [
            need_of(config, policy=each, kv_tokens=kv_tokens, max_batch=max_batch, token_budget=token_budget)
            for each in ("int8", "bf16", "fp32")
        ]
        weights = max(need.weights for need in tried)
        return replace(tried[0], weights=weights, packing=max(need.weights + need.packing for need in tried) - weights)
    if policy not in BYTES_PER_WEIGHT:
        raise InputError(f"'{policy}' is no policy of weights.", f"Choose one of: {', '.join(BYTES_PER_WEIGHT)}.")
    whole = weights = 4 * config.parameters
    packing = 0
    if policy != "fp32":
        head = config.vocab_size * config.hidden
        packed = config.matrix_parameters if config.experts is None else 0  # experts stay float32
        made = math.ceil(BYTES_PER_WEIGHT[policy] * (packed + head))
        replaced = packed if config.tied else packed + head  # an embedding stays, whatever its copy becomes
        weights = whole - 4 * replaced + made
        largest = max(head, 2 * config.ffn * config.hidden)
        packing = whole + made + _PACKING[policy] * largest - weights  # a policy that fails its trial must be undone
    heads = (config.heads + 2 * config.kv_heads) * config.head_dim
    step = token_budget * (4 * config.hidden + heads + 3 * config.ffn) + 3 * max(max_batch, _LOGITS) * config.vocab_size
    return Need(weights, packing, kv_tokens * bytes_per_token(config), 4 * step)


def bytes_per_token(config: TransformerConfig, size: int = 4) -> int:
    """What the engine remembers of one position, in numbers of `size` bytes: keys, values, and the last hidden
    vector."""
    return size * (2 * config.layers * config.kv_heads * config.head_dim + config.hidden)


MEMORABLE = ("policy", "kv_tokens", "max_batch", "token_budget", "reproducible")
"""The arguments of `Engine` that decide how much memory it takes."""


def check_memory(
    folder: Path, *, policy: str = "auto", kv_tokens: int | None = None, max_batch: int = 16, token_budget: int = 512,
    reproducible: bool = False,
) -> None:  # fmt: skip
    """Raises `InputError` with the numbers, and what to set, when the model in `folder` does not fit. Arguments as
    those of `Engine`; without `kv_tokens` it makes do with what is left."""
    config, free = load_config(folder), available()
    tokens = min(config.context, _LEAST) if kv_tokens is None else kv_tokens
    policy = "fp32" if config.decoder_layers or (policy == "auto" and reproducible) else likely(policy)

    def fits(policy: str, tokens: int) -> bool:
        need = need_of(config, policy=policy, kv_tokens=tokens, max_batch=max_batch, token_budget=token_budget)
        return free is None or need.loading - need.process + _SPARE <= free

    if free is None or fits(policy, tokens):
        return
    need = need_of(config, policy=policy, kv_tokens=tokens, max_batch=max_batch, token_budget=token_budget)
    left = (free - _SPARE - need.weights - need.work) // bytes_per_token(config)
    ways = [f"--kv-tokens {left}"] if left >= _LEAST and fits(policy, left) else []
    ways += [f"--policy {other}" for other in BYTES_PER_WEIGHT if other != policy and fits(other, tokens)]
    raise InputError(
        f"{folder} needs about {_gib(need.loading - need.process + _SPARE)} of memory, but only {_gib(free)} are free: "
        f"{_gib(need.weights)} for weights in {policy}, {_gib(need.packing)} more while they are loaded, "
        f"{_gib(need.cache)} for {tokens:,} remembered tokens, {_gib(need.work)} for a step, {_gib(_SPARE)} to "
        "spare.",
        f"Choose {' or '.join(ways)}." if ways else "Choose a smaller model, or end other programs.",
    )


def positions_to_keep(config: TransformerConfig, wanted: int, device: torch.device, size: int) -> int:
    """`wanted`, or as many positions as fit into half of the memory that is free now."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available()
    return wanted if free is None else min(wanted, free // 2 // bytes_per_token(config, size))


def available() -> int | None:
    """Bytes that this process may still take, by the machine, its control groups (a container's limit, or a service's)
    and its own limit of addresses; None where nothing says."""
    return min([*_of_machine(), *_of_groups(), *_of_process()], default=None)


def _of_machine() -> Iterator[int]:
    found = _numbers(_PROC / "meminfo")
    if "MemAvailable:" in found:
        yield 1024 * found["MemAvailable:"]


def _of_groups() -> Iterator[int]:
    """Of version 2, and of version 1. A group is also bound by those that it lies in."""
    for line in _text(_PROC / "self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root = _CGROUP / "memory" if kinds else _CGROUP
        limit, usage = ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            most, used = _text(folder / limit).strip(), _text(folder / usage).strip()
            if most.isdigit() and used.isdigit():
                stat = _numbers(folder / "memory.stat")
                name = "total_{}_file" if kinds else "{}_file"
                files = sum(stat.get(name.format(age), 0) for age in ("active", "inactive"))
                yield int(most) - int(used) + files  # copies of files, model files too, give way to other needs
            if folder == root:
                break


def _of_process() -> Iterator[int]:
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    taken = _numbers(_PROC / "self/status").get("VmSize:")
    if most != resource.RLIM_INFINITY and taken is not None:
        yield most - 1024 * taken


def _numbers(path: Path) -> dict[str, int]:
    """The first two columns of a file of the kernel's, where the second is a number."""
    rows = [line.split() for line in _text(path).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(path: Path) -> str:
    """Empty where there is no such file: another system, or no container."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
