"""Embedders as sentence-transformers folders: an encoder, how its vectors become one, and prompts before the texts.

`serve.encoders.sentence_pipeline` reads more kinds of steps than are trained here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.hf import save_model
from windlass.core.errors import InputError, Unsupported
from windlass.core.files import write_json

Pooling = Literal["mean", "cls"]
_PASSAGE = ("passage", "document", "corpus")
_STEPS = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What stands around the encoder."""

    pooling: Pooling = "mean"
    prompts: Mapping[str, str] = field(default_factory=dict)
    """By name."""
    default: str | None = None
    """Name of the prompt for texts of no other."""

    def prompt(self, query: bool) -> str:
        """What is put before queries, or before the texts that are searched; often nothing."""
        names = ("query",) if query else _PASSAGE
        return next((self.prompts[name] for name in (*names, self.default or "") if name in self.prompts), "")


class Embedder(nn.Module):
    """One vector of unit length for each text."""

    __call__: Callable[..., Tensor]

    def __init__(self, encoder: Encoder, pooling: Pooling) -> None:
        super().__init__()
        self.encoder, self.pooling = encoder, pooling

    def forward(
        self,
        tokens_1T: Tensor,
        lengths: Sequence[int],
        *,
        types_BT: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """(texts, C) in float32; the arguments are those of `Encoder.hidden`."""
        x_TC = self.encoder.hidden(tokens_1T, lengths=lengths, types_BT=types_BT, dtype=dtype)[0].float()
        texts = torch.split(x_TC, list(lengths))
        return F.normalize(torch.stack([text[0] if self.pooling == "cls" else text.mean(0) for text in texts]), dim=-1)


def read_recipe(folder: Path) -> Recipe:
    """Of a model's folder; without settings of sentence-transformers, the mean of the vectors. Raises `InputError`
    naming a broken file, and `Unsupported` for steps that cannot be trained here."""
    pooling: Pooling = "mean"
    modules = folder / "modules.json"
    for module in _json(modules) if modules.is_file() else ():
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind not in _STEPS:
            raise Unsupported(f"{modules}: the step {kind} cannot be trained.", f"Known are: {', '.join(_STEPS)}.")
        if kind == "Pooling":
            pooling = _pooling(folder / str(module.get("path", "")) / "config.json")
    path = folder / "config_sentence_transformers.json"
    settings = _json(path) if path.is_file() else {}
    prompts = {name: prompt for name, prompt in (settings.get("prompts") or {}).items() if prompt}
    return Recipe(pooling, prompts, settings.get("default_prompt_name"))


def read_limit(folder: Path) -> int | None:
    """Tokens of a text that are read, where settings of sentence-transformers say so."""
    path = folder / "sentence_bert_config.json"
    limit = _json(path).get("max_seq_length") if path.is_file() else None
    return limit if isinstance(limit, int) else None


def save_embedder(
    model: Embedder,
    folder: Path,
    family: str,
    recipe: Recipe,
    *,
    limit: int,
    bos: int | None = None,
    eos: int | None = None,
    pad: int | None = None,
) -> None:
    """Writes the encoder as transformers reads it, and around it what sentence-transformers reads. `limit`: tokens of
    a text that are read; the other arguments are those of `hf.save_model`."""
    save_model(model.encoder, folder, family=family, bos=bos, eos=eos, pad=pad)
    save_recipe(folder, recipe, model.encoder.config.hidden, limit)


def save_recipe(folder: Path, recipe: Recipe, width: int, limit: int) -> None:
    """The files of sentence-transformers alone."""
    steps = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(steps)
    ]
    write_json(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    ways = {f"pooling_mode_{way}": False for way in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")}
    ways["pooling_mode_cls_token" if recipe.pooling == "cls" else "pooling_mode_mean_tokens"] = True
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **ways})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    settings = {
        "prompts": dict(recipe.prompts), "default_prompt_name": recipe.default, "similarity_fn_name": "cosine"
    }  # fmt: skip
    write_json(folder / "config_sentence_transformers.json", settings)


def _pooling(path: Path) -> Pooling:
    settings = _json(path)
    modes = settings.get("pooling_mode") or [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, value in settings.items()
        if key.startswith("pooling_mode_") and value is True
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if modes == ["mean"] and settings.get("include_prompt") is not False:
        return "mean"
    if modes == ["cls"]:
        return "cls"
    raise Unsupported(f"{path}: pooling by {', '.join(modes) or 'nothing'}.", "Trained are mean and cls.")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Fetch the model again.") from error
