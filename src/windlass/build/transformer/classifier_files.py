"""Encoders with a head as Hugging Face folders, read and written: sequence and token classification, spans of answers.

model = load_classifier(folder)                               # with the head that the folder has
model = begun_classifier(folder, head_for(folder, labels))    # any encoder's folder, and a new head
save_classifier(model, folder, "bert")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from windlass.build.transformer.classifier import Classifier, Head, Kind, Task
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.families import FAMILIES
from windlass.build.transformer.families.fields import ACTIVATIONS as WORDS
from windlass.build.transformer.families.fields import Fields
from windlass.build.transformer.families.links import Link, export, fill, same
from windlass.build.transformer.hf import CONFIG, WEIGHTS, from_hf, read_config, tensors_of, to_hf
from windlass.core.errors import InputError
from windlass.core.files import disk_errors, write_json

_SUFFIXES: dict[Task, str] = {
    "texts": "ForSequenceClassification", "tokens": "ForTokenClassification", "spans": "ForQuestionAnswering"
}  # fmt: skip
_KINDS: dict[str, Kind] = {
    "single_label_classification": "one of",
    "multi_label_classification": "any of",
    "regression": "number",
}
_SPREAD = 0.02
"""Deviation of a new head's weights: BERT's."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a family keeps the parts."""

    stem: str
    """What the names of its architectures begin with."""
    prefix: str
    """Of the encoder's tensors, which an encoder alone does without."""
    parts: Mapping[Task, tuple[str | None, str]]
    """Dense layer, and scores."""
    norm: str | None
    head: Callable[[Fields], dict[str, Any]]

    def architecture(self, task: Task) -> str:
        return self.stem + _SUFFIXES[task]

    def links(self, config: TransformerConfig, head: Head) -> Iterator[Link]:
        """Of the head."""
        dense, output = self.parts[head.task]
        parts = [("output", output, True)]
        if dense is not None:
            parts.append(("dense", dense, head.bias))
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


def _of(stem: str, prefix: str, dense: str, output: str, activation: str = "tanh") -> _Layout:
    """BERT and its relatives, which judge tokens by one matrix."""
    parts: dict[Task, tuple[str | None, str]] = {
        "texts": (dense, output), "tokens": (None, "classifier"), "spans": (None, "qa_outputs")
    }  # fmt: skip
    return _Layout(stem, prefix, parts, None, _first(activation))


_ALIKE: tuple[str | None, str] = ("head.dense", "classifier")
_LAYOUTS = {
    "bert": _of("Bert", "bert.", "bert.pooler.dense", "classifier"),
    "roberta": _of("Roberta", "roberta.", "classifier.dense", "classifier.out_proj"),
    "xlm-roberta": _of("XLMRoberta", "roberta.", "classifier.dense", "classifier.out_proj"),
    "distilbert": _of("DistilBert", "distilbert.", "pre_classifier", "classifier", "relu"),
    "modernbert": _Layout(
        "ModernBert", "model.", {"texts": _ALIKE, "tokens": _ALIKE, "spans": _ALIKE}, "head.norm", _modernbert
    ),
}


# Reading ------------------------------------------------------------------------------------------------------------


def load_classifier(folder: Path, task: Task = "texts") -> Classifier:
    """The model in a Hugging Face folder, in float32 and ready for inference.

    Raises `InputError` for a folder that holds no model for the task of a known family, naming the field or the first
    tensor that is missing, unknown or of another shape.
    """
    values, where = read_config(folder), str(folder / CONFIG)
    layout, head = _read(values, where, task)
    config, links = _body(values, where)
    own = {name for link in layout.links(config, head) for name in link.theirs}
    renamed = _encoder_names(values, config)
    model = _empty(config, head)
    with tensors_of(folder, lambda name: name if name in own else renamed(name)) as tensors:
        fill(model.state_dict(), _joined(layout, config, links, head), tensors, str(folder))
    return model.eval()


def load_head(folder: Path, task: Task = "texts") -> Head:
    """What the configuration alone says of the labels. Raises as `load_classifier` does."""
    return _read(read_config(folder), str(folder / CONFIG), task)[1]


def has_head(folder: Path, task: Task) -> bool:
    """Whether the folder's model was saved with a head for the task."""
    values = read_config(folder)
    layout = _LAYOUTS.get(str(values.get("model_type")))
    return layout is not None and values.get("architectures") == [layout.architecture(task)]


def load_body(folder: Path) -> tuple[Encoder, list[str]]:
    """The encoder alone, whatever head it was saved with, and the names of the tensors that were left out.

    Raises `InputError` for a model of no known family, and naming the first tensor that is missing or misshapen.
    """
    values, where = read_config(folder), str(folder / CONFIG)
    config, links = _body(values, where)
    known = {name for link in links for name in link.theirs}
    renamed, left = _encoder_names(values, config), []

    def by_name(name: str) -> str | None:
        bare = renamed(name)
        if bare in known:
            return bare
        left.append(name)
        return None

    with torch.device("meta"):
        encoder = Encoder(config)
    encoder.to_empty(device="cpu")
    with tensors_of(folder, by_name) as tensors:
        fill(encoder.state_dict(), links, tensors, str(folder))
    return encoder.eval(), sorted(left)


def head_for(folder: Path, labels: Sequence[str], kind: Kind = "one of", task: Task = "texts") -> Head:
    """A new head as the family of the model in `folder` has it. Raises `InputError` for a model of no known family."""
    values, where = read_config(folder), str(folder / CONFIG)
    layout = _layout(values, where)
    dense = layout.parts[task][0] is not None
    return Head(tuple(labels), kind, **layout.head(Fields(values, where)), task=task, dense=dense)


@torch.no_grad()
def begun_classifier(folder: Path, head: Head, seed: int = 0) -> tuple[Classifier, list[str]]:
    """The encoder in `folder` with a new head, and the names of the tensors that were left out. A dense layer that the
    folder holds, such as BERT's pooler, is taken over, as in transformers."""
    encoder, left = load_body(folder)
    layout = _LAYOUTS[family_of(folder)]
    model = _empty(encoder.config, head)
    model.encoder = encoder
    generator, state = torch.Generator().manual_seed(seed), model.state_dict()
    kept: dict[str, str] = {}
    for link in layout.links(encoder.config, head):
        (ours,), (theirs,) = link.ours, link.theirs
        if ours.endswith("bias"):
            state[ours].zero_()
        elif ours.startswith("norm."):
            state[ours].fill_(1.0)
        else:
            state[ours].normal_(0.0, _SPREAD, generator=generator)
        if not ours.startswith("output."):
            kept |= {name: ours for name in (theirs, theirs.removeprefix(layout.prefix)) if name in left}
    with tensors_of(folder, lambda name: name if name in kept else None) as tensors:
        for name in tensors:
            state[kept[name]].copy_(tensors[name])
    return model.eval(), [name for name in left if name not in kept]


def classifier_links(folder: Path, head: Head) -> list[Link]:
    """How the tensors of a model with this head on the encoder in `folder` are called in Hugging Face's."""
    values = read_config(folder)
    config, links = _body(values, str(folder / CONFIG))
    layout = _LAYOUTS[values["model_type"]]
    return _joined(layout, config, links, head, layout.prefix)


def body_links(folder: Path, ours: str) -> list[Link]:
    """How the tensors of the encoder in `folder` are called when it stands alone; `ours`: before our own names."""
    links = _body(read_config(folder), str(folder / CONFIG))[1]
    return [replace(link, ours=tuple(ours + name for name in link.ours)) for link in links]


def family_of(folder: Path) -> str:
    """The `model_type`."""
    return str(read_config(folder)["model_type"])


def _joined(
    layout: _Layout, config: TransformerConfig, body: Sequence[Link], head: Head, prefix: str = ""
) -> list[Link]:
    """Encoder and head as one table; `prefix`: before their names for the encoder's tensors."""
    whole = [
        replace(
            link,
            ours=tuple(f"encoder.{name}" for name in link.ours),
            theirs=tuple(prefix + name for name in link.theirs),
        )
        for link in body
    ]
    return [*whole, *layout.links(config, head)]


def _body(values: Mapping[str, Any], where: str) -> tuple[TransformerConfig, list[Link]]:
    """The encoder without whatever head, and its tensors' names."""
    layout = _layout(values, where)
    config = from_hf({**values, "architectures": [f"{layout.stem}Model"]}, where)
    return config, list(FAMILIES[values["model_type"]].links(config))


def _encoder_names(values: Mapping[str, Any], config: TransformerConfig) -> Callable[[str], str | None]:
    """A name in some file -> that of an encoder alone."""
    family, prefix = FAMILIES[values["model_type"]], _LAYOUTS[values["model_type"]].prefix
    return lambda name: family.renamed(name.removeprefix(prefix), config)


def _empty(config: TransformerConfig, head: Head) -> Classifier:
    with torch.device("meta"):
        model = Classifier(config, head)
    return model.to_empty(device="cpu")


def _layout(values: Mapping[str, Any], where: str) -> _Layout:
    layout = _LAYOUTS.get(str(values.get("model_type")))
    if layout is None:
        raise InputError(
            f"{where}: model_type is {values.get('model_type')!r}, which is no encoder that heads are known for.",
            f"Known are: {', '.join(_LAYOUTS)}.",
        )
    return layout


def _read(values: dict[str, Any], where: str, task: Task) -> tuple[_Layout, Head]:
    layout = _LAYOUTS.get(str(values.get("model_type")))
    if layout is None or values.get("architectures") != [layout.architecture(task)]:
        known = ", ".join(layout.architecture(task) for layout in _LAYOUTS.values())
        raise InputError(
            f"{where}: architectures is {values.get('architectures')}.", f"Classifiers known are: {known}."
        )
    return layout, _head(Fields(values, where), layout, task)


def _head(fields: Fields, layout: _Layout, task: Task) -> Head:
    names = fields.get("id2label", {str(i): f"LABEL_{i}" for i in range(fields.get("num_labels", 2))})
    if not isinstance(names, dict) or sorted(map(str, names)) != sorted(map(str, range(len(names)))) or not names:
        raise fields.refused("id2label", names)
    labels = tuple(str(names[key]) for key in sorted(names, key=int))
    if task == "spans" and len(labels) != 2:
        raise fields.refused("id2label", names)
    usual = "regression" if len(labels) == 1 and task == "texts" else "single_label_classification"
    kind = fields.choice("problem_type", usual, _KINDS)
    return Head(labels, kind, **layout.head(fields), task=task, dense=layout.parts[task][0] is not None)


# Writing ------------------------------------------------------------------------------------------------------------


def save_classifier(
    model: Classifier,
    folder: Path,
    family: str,
    *,
    bos: int | None = None,
    eos: int | None = None,
    pad: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Writes `config.json`, with the labels' names, and `model.safetensors` (float32), as transformers reads them.

    `family` is the `model_type`; the tokens are those of `hf.to_hf`; `more` goes into the configuration as it is.
    """
    config, layout = model.encoder.config, _LAYOUTS[family]
    folder.mkdir(parents=True, exist_ok=True)
    save_head(model, folder, family, bos=bos, eos=eos, pad=pad, more=more)
    links = _joined(layout, config, list(FAMILIES[family].links(config)), model.head, layout.prefix)
    tensors = export({name: tensor.float() for name, tensor in model.state_dict().items()}, links)
    with disk_errors(folder):
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def save_head(
    model: Classifier,
    folder: Path,
    family: str,
    *,
    bos: int | None = None,
    eos: int | None = None,
    pad: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Writes `config.json` alone, which names the labels; as `save_classifier`."""
    values = to_hf(model.encoder.config, family, bos=bos, eos=eos, pad=pad)
    write_json(folder / CONFIG, values | _described(model.head, family) | dict(more or {}))


def _described(head: Head, family: str) -> dict[str, Any]:
    """What `config.json` says of the head."""
    values: dict[str, Any] = {
        "architectures": [_LAYOUTS[family].architecture(head.task)],
        "id2label": {str(number): label for number, label in enumerate(head.labels)},
        "label2id": {label: number for number, label in enumerate(head.labels)},
    }
    if head.task == "texts":
        values["problem_type"] = next(word for word, kind in _KINDS.items() if kind == head.kind)
    if family == "modernbert":
        values["classifier_pooling"] = {"first": "cls", "mean": "mean"}[head.pooling]
        values["classifier_bias"] = head.bias
        values["classifier_activation"] = {"gelu_tanh": "gelu_new"}.get(head.activation, head.activation)
    return values
