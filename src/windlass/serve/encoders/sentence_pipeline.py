"""What a sentence-transformers folder does behind the encoder: pooling, dense layers, and prompts before the texts.

`modules.json` lists the steps; each has a folder with its settings. What is not known is refused by name. Vectors are
scaled to unit length whether the folder says so (Normalize) or not: every embedder here promises that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from windlass.core.errors import InputError, Unsupported
from windlass.core.files import sha256_file
from windlass.core.protocols import EmbedKind
from windlass.serve.encoders.reading import present, read_json

_POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x_TC: x_TC.mean(0),
    "cls": lambda x_TC: x_TC[0],
    "lasttoken": lambda x_TC: x_TC[-1],
    "max": lambda x_TC: x_TC.amax(0),
    "mean_sqrt_len_tokens": lambda x_TC: x_TC.sum(0) / len(x_TC) ** 0.5,
}
_OLD_NAMES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.nn.modules.linear.Identity": lambda x: x,
    "torch.nn.modules.activation.Tanh": torch.tanh,
    "torch.nn.modules.activation.ReLU": torch.relu,
    "torch.nn.modules.activation.GELU": F.gelu,
}
_POOLED = "sentence_embedding"
_PASSAGE = ("passage", "document", "corpus")
"""Names that models give to the prompt of what is searched."""


class Pipeline:
    """The steps behind the encoder."""

    def __init__(self, poolings: Sequence[str], dense: Sequence[_Dense], prompts: Mapping[str, str], at: str) -> None:
        self.encoder_at = at
        """The encoder's folder inside the model's."""
        self.dimension = 0
        self._poolings, self._dense, self._prompts = list(poolings), dense, prompts

    @classmethod
    def from_folder(cls, folder: Path, device: str) -> Pipeline:
        """Raises `InputError` naming the broken file, `Unsupported` for steps that are not known."""
        modules = folder / "modules.json"
        poolings, dense, at = ["mean"], [], ""
        for module in read_json(modules) if modules.exists() else ():
            kind, path = str(module.get("type", "")).rpartition(".")[2], folder / str(module.get("path", ""))
            match kind:
                case "Transformer":
                    at = str(module.get("path", ""))
                case "Pooling":
                    poolings = _poolings(path / "config.json")
                case "Dense":
                    dense.append(_Dense(path, device))
                case "Normalize":
                    pass
                case _:
                    raise Unsupported(
                        f"{modules}: the module {kind} is not known.", "Known: Transformer, Pooling, Dense, Normalize."
                    )
        return cls(poolings, dense, _prompts(folder / "config_sentence_transformers.json"), at)

    def follow(self, hidden: int) -> None:
        """Checks that the steps fit behind an encoder of this width."""
        self.dimension = hidden * len(self._poolings)
        for dense in self._dense:
            self.dimension = dense.outputs(self.dimension)

    @property
    def recipe(self) -> dict[str, Any]:
        """All that the vectors depend on, for a digest."""
        said: dict[str, Any] = {"pooling": "+".join(self._poolings)}
        if self._dense:
            said["dense"] = [dense.digest for dense in self._dense]
        return said | ({"prompts": dict(self._prompts)} if self._prompts else {})

    def prompt(self, kind: EmbedKind) -> str:
        """What is put before texts of this kind; often nothing."""
        names = ("query",) if kind == "query" else _PASSAGE
        return next((self._prompts[name] for name in (*names, "") if name in self._prompts), "")

    def __call__(self, texts: Sequence[Tensor]) -> Tensor:
        """Token vectors (T, C) of each text -> (B, dimension), not yet of unit length."""
        pooled = [torch.cat([_POOLINGS[name](x_TC) for name in self._poolings]) for x_TC in texts]
        return self._behind(torch.stack(pooled))

    def of_means(self, means_BC: Tensor) -> Tensor:
        """The mean token vector of each text -> (B, dimension). Raises `Unsupported` where that is not how it pools:
        a part of a text has no first or last token of its own."""
        if self._poolings != ["mean"]:
            raise Unsupported(
                f"The model pools by {'+'.join(self._poolings)}: parts of a text have no vectors of their own.",
                "Late chunking needs a model that takes the mean of its tokens.",
            )
        return self._behind(means_BC)

    def _behind(self, vectors_BC: Tensor) -> Tensor:
        for dense in self._dense:
            vectors_BC = dense(vectors_BC)
        return vectors_BC


class _Dense:
    """activation(W x + b) of a pooled vector."""

    def __init__(self, folder: Path, device: str) -> None:
        settings, self._where = read_json(folder / "config.json"), folder / "model.safetensors"
        name = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
        if name not in _ACTIVATIONS:
            raise Unsupported(f"{folder}: the activation {name} is not known.", f"Known: {', '.join(_ACTIVATIONS)}.")
        for key in ("module_input_name", "module_output_name"):
            if settings.get(key, _POOLED) not in (_POOLED, None):
                raise Unsupported(f"{folder}: {key} is {settings[key]!r}.", f"Known: {_POOLED}.")
        try:
            tensors = load_file(present(self._where), device)
        except SafetensorError as error:
            raise InputError(f"{self._where} cannot be read: {error}.", "Fetch the model again.") from error
        if "linear.weight" not in tensors:
            raise InputError(f"{self._where} lacks the tensor 'linear.weight'.", "Fetch the model again.")
        self._weight = tensors["linear.weight"].float()
        self._bias = tensors["linear.bias"].float() if "linear.bias" in tensors else None
        self._activation = _ACTIVATIONS[name]
        self.digest = sha256_file(self._where) + name

    def outputs(self, inputs: int) -> int:
        if self._weight.shape[1] != inputs:
            raise InputError(
                f"{self._where}: 'linear.weight' takes {self._weight.shape[1]} numbers, but {inputs} come before it.",
                "The steps of this folder belong to different models.",
            )
        return int(self._weight.shape[0])

    def __call__(self, x_BC: Tensor) -> Tensor:
        return self._activation(F.linear(x_BC, self._weight, self._bias))


def _poolings(path: Path) -> list[str]:
    settings = read_json(path)
    if settings.get("include_prompt") is False:
        raise Unsupported(f"{path}: include_prompt is false.", "Pooling without the prompt's tokens is not known.")
    modes = settings.get("pooling_mode")
    if modes is None:
        on = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
        modes = [_OLD_NAMES.get(key, key.removeprefix("pooling_mode_")) for key in on]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if not modes or (unknown := [mode for mode in modes if mode not in _POOLINGS]):
        raise Unsupported(
            f"{path}: pooling by {', '.join(unknown) if modes else 'nothing'}.", f"Known: {', '.join(_POOLINGS)}."
        )
    return modes


def _prompts(path: Path) -> dict[str, str]:
    """Prompts by name; the default one under the empty name."""
    if not path.exists():
        return {}
    settings = read_json(path)
    prompts = {name: prompt for name, prompt in (settings.get("prompts") or {}).items() if prompt}
    default = settings.get("default_prompt_name")
    if default is not None and default in prompts:
        prompts[""] = prompts[default]
    return prompts
