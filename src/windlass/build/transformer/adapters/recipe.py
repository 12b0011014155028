"""`adapter_config.json` as PEFT writes it, read strictly: what would be computed differently is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from windlass.build.transformer.adapters.modules import names
from windlass.core.errors import InputError, Unsupported

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_NO_MATTER = frozenset(
    (
        "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules",
        "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights", "bias",
        # how it was trained, and on what
        "auto_mapping", "base_model_name_or_path", "peft_version", "revision", "task_type", "inference_mode",
        "lora_dropout", "fan_in_fan_out", "megatron_core", "qalora_group_size", "eva_config", "init_ia3_weights",
    )
)  # fmt: skip
"""Fields that are read, or that change nothing about what the adapter computes. Any other one must be empty."""
_ALTERS_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


class Recipe:
    """What the file says of every module."""

    def __init__(self, path: Path, *, kinds: Collection[str] = ("LORA",), more: Collection[str] = ()) -> None:
        """`kinds` that the caller computes, and what `more` fields it heeds. Raises `InputError` and `Unsupported`."""
        self.where = str(path)
        self.whole = "modules_to_save" in more
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not valid JSON ({error}).") from error
        if not isinstance(values, dict):
            raise InputError(f"{path} holds no JSON object.")
        self.values: dict[str, Any] = values
        self.kind = str(values.get("peft_type"))
        if self.kind not in kinds:
            known = " and ".join(kinds)
            raise Unsupported(
                f"{path}: peft_type is {values.get('peft_type')!r}.", f"Adapters of type {known} are known."
            )
        if values.get("bias", "none") != "none":
            raise Unsupported(f"{path}: bias is {values['bias']!r}.", "Train with bias='none', or merge the adapter.")
        start = values.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(_ALTERS_THE_BASE):
            raise Unsupported(
                f"{path}: init_lora_weights is {start!r}, which alters the base model.",
                "Save with path_initial_model_for_weight_conversion, which makes it an ordinary LoRA.",
            )
        for field, value in values.items():
            if field not in _NO_MATTER and field not in more and value:
                raise Unsupported(
                    f"{path}: {field} is {json.dumps(value)[:80]}.",
                    "Merge such an adapter into its base and serve that.",
                )
        self.rooted = bool(values.get("use_rslora"))
        self.magnitudes = bool(values.get("use_dora"))
        if self.kind == "LORA":
            self._rank = self._number("r", values.get("r"))
            self._alpha = self._number("lora_alpha", values.get("lora_alpha"))
            self._ranks, self._alphas = self._pattern("rank_pattern"), self._pattern("alpha_pattern")

    def rank(self, module: str) -> int:
        return int(_matching(self._ranks, module, self._rank))

    def alpha(self, module: str) -> float:
        return _matching(self._alphas, module, self._alpha)

    def feeds(self, module: str) -> bool:
        """Whether (IA)3 rescales the module's inputs instead of its outputs."""
        return self._named(module, self.values.get("feedforward_modules") or [])

    def chosen(self, modules: Iterable[str]) -> set[str]:
        """The modules that the adapter is said to be for."""
        wanted = self.values.get("target_modules")
        if not wanted or not isinstance(wanted, str | list):
            raise InputError(f"{self.where}: target_modules is {wanted!r}, but names modules.")
        left_out = self.values.get("exclude_modules") or []
        return {m for m in modules if self._named(m, wanted) and not self._named(m, left_out) and self._layer(m)}

    def _named(self, module: str, wanted: str | Collection[str]) -> bool:
        if wanted == "all-linear":
            return True
        if isinstance(wanted, str):
            try:
                return re.fullmatch(wanted, module) is not None
            except re.error as error:
                raise InputError(f"{self.where}: {wanted!r} is no pattern ({error}).") from error
        return any(names(ending, module) for ending in wanted)

    def _layer(self, module: str) -> bool:
        layers = self.values.get("layers_to_transform")
        if layers is None:
            return True
        number = re.search(r"\.(\d+)\.", module)
        return number is not None and int(number[1]) in ([layers] if isinstance(layers, int) else layers)

    def _pattern(self, field: str) -> dict[str, float]:
        values = self.values.get(field) or {}
        if not isinstance(values, dict):
            raise InputError(f"{self.where}: {field} is {values!r}, but holds a number for each module.")
        return {key: self._number(f"{field}[{key!r}]", value) for key, value in values.items()}

    def _number(self, field: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InputError(f"{self.where}: {field} is {value!r}, but must be a positive number.")
        return float(value)


def _matching(pattern: Mapping[str, float], module: str, otherwise: float) -> float:
    """The first entry whose key, an expression, the module's name ends with."""
    keys = (key for key in pattern if re.match(rf"(.*\.)?({key})$", module))
    return next((pattern[key] for key in keys), otherwise)
