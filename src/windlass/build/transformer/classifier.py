"""An encoder that judges whole texts: one vector per text, a dense layer, and a score for each label.

    model = load_classifier(folder)                          # BertForSequenceClassification, ModernBertFor...
    logits_BL = model(tokens_1T, lengths)                    # one row of whole texts, one after another
    logits_BL = model(tokens_1T, lengths, types_BT=types)    # pairs, where the model knows types of segments

Cross-encoders are such models with one label, which says how well the second text answers the first (Nogueira & Cho,
arXiv 1901.04085).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.families import FAMILIES
from windlass.build.transformer.families.fields import ACTIVATIONS as WORDS
from windlass.build.transformer.families.fields import Fields
from windlass.build.transformer.families.links import Link, fill, same
from windlass.build.transformer.hf import CONFIG, from_hf, read_config, tensors_of
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.mlp import ACTIVATIONS
from windlass.build.transformer.norm import norm_of
from windlass.core.errors import InputError

Kind = Literal["one of", "any of", "number"]


@dataclass(frozen=True, slots=True)
class Head:
    """What stands behind the encoder."""

    labels: tuple[str, ...]
    kind: Kind
    """The labels exclude each other, or not, or each is a number."""
    pooling: Literal["first", "mean"]
    bias: bool
    """Of the dense layer."""
    activation: str
    normed: bool


class Classifier(nn.Module):
    __call__: Callable[..., Tensor]

    def __init__(self, config: TransformerConfig, head: Head) -> None:
        super().__init__()
        self.head = head
        self.encoder = Encoder(config)
        self.dense = Linear(config.hidden, config.hidden, head.bias)
        self.activation = torch.tanh if head.activation == "tanh" else ACTIVATIONS[head.activation]
        self.norm = norm_of(config) if head.normed else nn.Identity()
        self.output = Linear(config.hidden, len(head.labels), bias=True)

    def forward(
        self,
        tokens_1T: Tensor,
        lengths: Sequence[int],
        *,
        types_BT: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Logits (texts, labels); the arguments are those of `Encoder.hidden`."""
        x_TC = self.encoder.hidden(tokens_1T, lengths=lengths, types_BT=types_BT, dtype=dtype)[0]
        texts = torch.split(x_TC, list(lengths))
        x_BC = torch.stack([text[0] if self.head.pooling == "first" else text.mean(0) for text in texts])
        logits_BL: Tensor = self.output(self.norm(self.activation(self.dense(x_BC))))
        return logits_BL


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a family keeps the parts."""

    architecture: str
    headless: str
    """What the encoder alone is called, whose tensors have no `prefix`."""
    prefix: str
    dense: str
    output: str
    norm: str | None
    head: Callable[[Fields], dict[str, Any]]

    def links(self, config: TransformerConfig, head: Head) -> Iterator[Link]:
        parts = [("dense", self.dense, head.bias), ("output", self.output, True)]
        if self.norm is not None:
            parts.append(("norm", self.norm, config.norm_bias))
        for ours, theirs, biased in parts:
            for kind in ("weight", "bias") if biased else ("weight",):
                yield same(f"{ours}.{kind}", f"{theirs}.{kind}")


def _modernbert(fields: Fields) -> dict[str, Any]:
    return {
        "pooling": fields.choice("classifier_pooling", "cls", {"cls": "first", "mean": "mean"}),
        "bias": bool(fields.get("classifier_bias", False)),
        "activation": fields.choice("classifier_activation", "gelu", WORDS),
        "normed": True,
    }


def _first(activation: str) -> Callable[[Fields], dict[str, Any]]:
    return lambda fields: {"pooling": "first", "bias": True, "activation": activation, "normed": False}


_LAYOUTS = {
    "bert": _Layout(
        "BertForSequenceClassification", "BertModel", "bert.", "bert.pooler.dense", "classifier", None, _first("tanh")
    ),
    "roberta": _Layout(
        "RobertaForSequenceClassification", "RobertaModel", "roberta.", "classifier.dense", "classifier.out_proj", None,
        _first("tanh"),
    ),
    "xlm-roberta": _Layout(
        "XLMRobertaForSequenceClassification", "XLMRobertaModel", "roberta.", "classifier.dense", "classifier.out_proj",
        None, _first("tanh"),
    ),
    "distilbert": _Layout(
        "DistilBertForSequenceClassification", "DistilBertModel", "distilbert.", "pre_classifier", "classifier", None,
        _first("relu"),
    ),
    "modernbert": _Layout(
        "ModernBertForSequenceClassification", "ModernBertModel", "model.", "head.dense", "classifier", "head.norm",
        _modernbert,
    ),
}  # fmt: skip
_KINDS: dict[str, Kind] = {
    "single_label_classification": "one of",
    "multi_label_classification": "any of",
    "regression": "number",
}


def load_classifier(folder: Path) -> Classifier:
    """The model in a Hugging Face folder, in float32 and ready for inference.

    Raises `InputError` for a folder that holds no sequence classification model of a known family, naming the field or
    the first tensor that is missing, unknown or of another shape.
    """
    values, where = read_config(folder), str(folder / CONFIG)
    layout, head = _read(values, where)
    config = from_hf(values | {"architectures": [layout.headless]}, where)
    family = FAMILIES[values["model_type"]]
    links = list(layout.links(config, head))
    own = {name for link in links for name in link.theirs}
    links += [replace(link, ours=tuple(f"encoder.{name}" for name in link.ours)) for link in family.links(config)]

    def renamed(name: str) -> str | None:
        if name in own:
            return name
        return family.renamed(name.removeprefix(layout.prefix), config)

    with torch.device("meta"):
        model = Classifier(config, head)
    model.to_empty(device="cpu")
    with tensors_of(folder, renamed) as tensors:
        fill(model.state_dict(), links, tensors, str(folder))
    return model.eval()


def load_head(folder: Path) -> Head:
    """What the configuration alone says of the labels. Raises as `load_classifier` does."""
    return _read(read_config(folder), str(folder / CONFIG))[1]


def _read(values: dict[str, Any], where: str) -> tuple[_Layout, Head]:
    layout = _LAYOUTS.get(str(values.get("model_type")))
    if layout is None or values.get("architectures") != [layout.architecture]:
        known = ", ".join(layout.architecture for layout in _LAYOUTS.values())
        raise InputError(
            f"{where}: architectures is {values.get('architectures')}.", f"Classifiers known are: {known}."
        )
    return layout, _head(Fields(values, where), layout)


def _head(fields: Fields, layout: _Layout) -> Head:
    names = fields.get("id2label", {str(i): f"LABEL_{i}" for i in range(fields.get("num_labels", 2))})
    if not isinstance(names, dict) or sorted(map(str, names)) != sorted(map(str, range(len(names)))) or not names:
        raise fields.refused("id2label", names)
    labels = tuple(str(names[key]) for key in sorted(names, key=int))
    kind = fields.choice("problem_type", "regression" if len(labels) == 1 else "single_label_classification", _KINDS)
    return Head(labels, kind, **layout.head(fields))
