"""Adapters as PEFT writes them: `adapter_config.json` + `adapter_model.safetensors`, read strictly.

An adapter adds to some of a model's matrices the product of two thin ones: W x + s B A x, where A has r rows and
s = alpha / r (LoRA: Hu et al., arXiv 2106.09685), or alpha / sqrt(r) (rsLoRA: Kalajdzievski, arXiv 2312.03732).
Ranks and alphas may differ from matrix to matrix. What changes more than that (DoRA, trained biases, embeddings or
heads, initialisations that alter the base) is refused by name, and so is a file that does not hold exactly what its
configuration says.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.families import FAMILIES
from windlass.build.transformer.families.links import Link
from windlass.build.transformer.hf import to_hf
from windlass.core.errors import InputError, Unsupported
from windlass.core.files import sha256_file, sha256_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
_NO_MATTER = frozenset(
    (
        "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules",
        "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights", "bias",
        # how it was trained, and on what
        "auto_mapping", "base_model_name_or_path", "peft_version", "revision", "task_type", "inference_mode",
        "lora_dropout", "fan_in_fan_out", "megatron_core", "qalora_group_size", "eva_config",
    )
)  # fmt: skip
"""Fields that are read, or that change nothing about what the adapter computes. Any other one must be empty."""
_ALTERS_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


class Thin(NamedTuple):
    """What is added to one matrix of N outputs and K inputs."""

    down_RK: Tensor
    up_RN: Tensor
    """Scaled, and transposed, so that several adapters are joined along their ranks."""


@dataclass(frozen=True, slots=True, eq=False)
class LoRA:
    """One adapter in memory."""

    digest: str
    """Changes whenever what it computes may."""
    thin: Mapping[str, Thin]
    """By the name of the decoder's own map: `blocks.0.attention.query`."""
    bytes: int


def size(folder: Path) -> int:
    """Numbers that the adapter in `folder` holds, from the file's header alone."""
    with _opened(_present(folder, WEIGHTS)) as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def read_lora(folder: Path, config: TransformerConfig, dtype: torch.dtype, device: torch.device) -> LoRA:
    """The adapter in `folder` for decoders of this shape.

    Raises `InputError` naming the file, field or key that is missing, unknown or of another shape, and `Unsupported`
    for what adapters can be but these cannot.
    """
    recipe = _Recipe(_present(folder, CONFIG))
    path = _present(folder, WEIGHTS)
    with _opened(path) as file:
        found = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    modules = _modules_of(found, str(path))
    targets = _targets(config, modules, str(path))
    chosen = recipe.chosen(targets)
    for module in sorted(chosen | modules):
        if module not in modules:
            raise InputError(
                f"{path} lacks '{_key(module, 'A')}', which target_modules of {CONFIG} promises.",
                "The file was cut short, or the adapter was made for a model with fewer layers.",
            )
        if module not in chosen:
            raise InputError(f"{path} holds '{_key(module, 'A')}', which target_modules of {CONFIG} does not name.")
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Decoder(config).state_dict().items()}
    thin: dict[str, Thin] = {}
    for module in modules:
        thin |= _thin(module, targets[module], shapes, recipe, found, str(path))
    thin = {name: Thin(*(tensor.to(device, dtype) for tensor in pair)) for name, pair in thin.items()}
    held = sum(t.numel() * t.element_size() for pair in thin.values() for t in pair)
    digest = sha256_json({"weights": sha256_file(path), "config": recipe.values})
    return LoRA(digest, thin, held)


class _Recipe:
    """What `adapter_config.json` says."""

    def __init__(self, path: Path) -> None:
        self._where = str(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not valid JSON ({error}).") from error
        if not isinstance(values, dict):
            raise InputError(f"{path} holds no JSON object.")
        self.values: dict[str, Any] = values
        if values.get("peft_type") != "LORA":
            raise Unsupported(f"{path}: peft_type is {values.get('peft_type')!r}.", "Adapters of type LORA are known.")
        if values.get("bias", "none") != "none":
            raise Unsupported(f"{path}: bias is {values['bias']!r}.", "Train with bias='none', or merge the adapter.")
        start = values.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(_ALTERS_THE_BASE):
            raise Unsupported(
                f"{path}: init_lora_weights is {start!r}, which alters the base model.",
                "Save with path_initial_model_for_weight_conversion, which makes it an ordinary LoRA.",
            )
        for field, value in values.items():
            if field not in _NO_MATTER and value:
                raise Unsupported(
                    f"{path}: {field} is {json.dumps(value)[:80]}.",
                    "Merge such an adapter into its base and serve that.",
                )
        self._rank = self._number("r", values.get("r"))
        self._alpha = self._number("lora_alpha", values.get("lora_alpha"))
        self._root = bool(values.get("use_rslora"))
        self._ranks, self._alphas = self._pattern("rank_pattern"), self._pattern("alpha_pattern")

    def rank(self, module: str) -> int:
        return int(_matching(self._ranks, module, self._rank))

    def scale(self, module: str) -> float:
        rank = self.rank(module)
        alpha = float(_matching(self._alphas, module, self._alpha))
        return alpha / (math.sqrt(rank) if self._root else rank)

    def chosen(self, modules: Mapping[str, Link]) -> set[str]:
        """The modules that the adapter is said to be for."""
        wanted = self.values.get("target_modules")
        if not wanted or not isinstance(wanted, str | list):
            raise InputError(f"{self._where}: target_modules is {wanted!r}, but names modules.")
        left_out = self.values.get("exclude_modules") or []
        return {m for m in modules if self._named(m, wanted) and not self._named(m, left_out) and self._layer(m)}

    def _named(self, module: str, wanted: str | Sequence[str]) -> bool:
        if wanted == "all-linear":
            return True
        if isinstance(wanted, str):
            try:
                return re.fullmatch(wanted, module) is not None
            except re.error as error:
                raise InputError(f"{self._where}: {wanted!r} is no pattern ({error}).") from error
        return any(module == name or module.endswith(f".{name}") for name in wanted)

    def _layer(self, module: str) -> bool:
        layers = self.values.get("layers_to_transform")
        if layers is None:
            return True
        number = re.search(r"\.(\d+)\.", module)
        return number is not None and int(number[1]) in ([layers] if isinstance(layers, int) else layers)

    def _pattern(self, field: str) -> dict[str, float]:
        values = self.values.get(field) or {}
        if not isinstance(values, dict):
            raise InputError(f"{self._where}: {field} is {values!r}, but holds a number for each module.")
        return {key: self._number(f"{field}[{key!r}]", value) for key, value in values.items()}

    def _number(self, field: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InputError(f"{self._where}: {field} is {value!r}, but must be a positive number.")
        return float(value)


def _matching(pattern: Mapping[str, float], module: str, otherwise: float) -> float:
    """The first entry whose key, an expression, the module's name ends with."""
    keys = (key for key in pattern if re.match(rf"(.*\.)?({key})$", module))
    return next((pattern[key] for key in keys), otherwise)


def _key(module: str, which: str) -> str:
    return f"{_PREFIX}{module}.lora_{which}.weight"


def _modules_of(tensors: Mapping[str, Tensor], where: str) -> set[str]:
    """Which modules the file holds, each with both of its matrices and nothing else."""
    modules = set()
    for key in tensors:
        match = re.fullmatch(re.escape(_PREFIX) + r"(.+)\.lora_([AB])\.weight", key)
        if match is None:
            raise Unsupported(
                f"{where} holds '{key}', which is no part of a plain LoRA.", "Only lora_A and lora_B weights are known."
            )
        other = _key(match[1], "B" if match[2] == "A" else "A")
        if other not in tensors:
            raise InputError(f"{where} holds '{key}', but lacks '{other}'.", "The file is damaged; save it again.")
        modules.add(match[1])
    if not modules:
        raise InputError(f"{where} holds no tensors.", "Save the adapter again.")
    return modules


def _targets(config: TransformerConfig, modules: set[str], where: str) -> dict[str, Link]:
    """Modules of the base by their names in its family -> our maps. Several families may have this shape under
    different names; the one that knows all of `modules` is meant."""
    unknown = ""
    for name, family in FAMILIES.items():
        try:
            to_hf(config, name)
        except InputError:
            continue
        links = {link.theirs[0].removesuffix(".weight"): link for link in family.links(config) if _adaptable(link)}
        missing = sorted(modules - links.keys())
        if not missing:
            return links
        unknown = unknown or missing[0]
    raise InputError(
        f"{where} is for the module '{unknown}', which this model does not have, or to which no adapter can be added.",
        "Adapters are added to the matrices of attention and MLPs; is this adapter of another base model?",
    )


def _adaptable(link: Link) -> bool:
    inner = r"blocks\.\d+\.(attention\.(query|key|value|output)|mlp\.(shared\.)?(gate|up|down))\.weight"
    return len(link.theirs) == 1 and all(re.fullmatch(inner, ours) for ours in link.ours)


def _thin(
    module: str,
    link: Link,
    shapes: Mapping[str, torch.Size],
    recipe: _Recipe,
    tensors: Mapping[str, Tensor],
    where: str,
) -> dict[str, Thin]:
    """What is added to each of our maps that their module consists of (query, key and value may be one of theirs)."""
    rank, outputs = recipe.rank(module), [shapes[ours][0] for ours in link.ours]
    wanted = {_key(module, "A"): [rank, shapes[link.ours[0]][1]], _key(module, "B"): [sum(outputs), rank]}
    for key, shape in wanted.items():
        if list(tensors[key].shape) != shape:
            raise InputError(
                f"{where}: '{key}' has shape {list(tensors[key].shape)}, but rank {rank} on this model needs {shape}.",
                f"Is it an adapter of another base model, or was r or rank_pattern of {CONFIG} changed?",
            )
        if not tensors[key].isfinite().all():
            raise InputError(f"{where}: '{key}' holds numbers that are not finite.", "Its training diverged.")
    down_RK, up_NR = (tensors[key] for key in wanted)
    parts = torch.split(up_NR * recipe.scale(module), outputs)
    return {
        ours.removesuffix(".weight"): Thin(down_RK, part.T.contiguous())
        for ours, part in zip(link.ours, parts, strict=True)
    }


def _present(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"{path} is missing.", f"An adapter's folder holds {CONFIG} and {WEIGHTS}, as PEFT saves them."
        )
    return path


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "The file is damaged; fetch it again.") from error
