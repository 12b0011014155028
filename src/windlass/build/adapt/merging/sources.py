"""The models of a merge, opened together: what cannot become one model is refused before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import FAMILIES
from windlass.build.transformer.hf import CONFIG, Tensors, from_hf, read_config, tensors_of
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, Unsupported

_TOKENIZER = "tokenizer.json"
_ALIKE = ("architectures", "id2label", "problem_type")
"""What `config.json` says beside the shape, and has to say alike."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model: an artifact, or a folder in Hugging Face layout."""

    name: str
    folder: Path
    artifact: Artifact | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """Models whose tensors have the same names and shapes, each tensor read when it is asked for."""

    tensors: Sequence[Tensors]
    names: Sequence[str]
    copies: Mapping[str, str] = field(default_factory=dict)
    """A second copy of the embedding -> the first. Both must stay the same, so chance treats them as one."""

    def each(self, name: str) -> list[Tensor]:
        return [one[name] for one in self.tensors]


@contextmanager
def opened_together(sources: Sequence[Source]) -> Iterator[Opened]:
    """The first is what the others are compared with. Raises `InputError` naming what differs."""
    for other in sources[1:]:
        _check_config(sources[0], other)
        _check_tokenizer(sources[0], other)
    for one in sources:
        if more := sorted(path for path in one.folder.glob("*/*.safetensors")):
            raise Unsupported(f"{more[0]}: a part of {one.name} beside its transformer cannot be merged.")
    with ExitStack() as stack:
        tensors = [stack.enter_context(tensors_of(one.folder, lambda name: name)) for one in sources]
        everywhere = set(tensors[0]).intersection(*tensors[1:])
        copies = [_copies(one, source, everywhere) for one, source in zip(tensors, sources, strict=True)]
        for own, copied in zip(tensors, copies, strict=True):
            for name in [name for name in copied if any(name not in one for one in tensors)]:
                own.drop(name)  # a copy that only some files hold is no tensor of its own
                del copied[name]
        _check_tensors(sources, tensors)
        alike = set(copies[0].items()).intersection(*(copied.items() for copied in copies[1:]))
        yield Opened(tensors, list(tensors[0]), dict(alike))


def shape_of(source: Source) -> TransformerConfig:
    """Whatever head the model has. Raises `InputError` for a folder that is no model of a known family."""
    values = read_config(source.folder)
    family = FAMILIES.get(str(values.get("model_type")))
    own = values if family is None else values | {"architectures": [family.ARCHITECTURE]}
    return from_hf(own, str(source.folder / CONFIG))


def _check_config(first: Source, other: Source) -> None:
    shapes = [replace(shape_of(one), context=1) for one in (first, other)]  # how far it reads is no weight
    values = [read_config(one.folder) for one in (first, other)]
    for name, one, another in [
        ("model_type", *(value["model_type"] for value in values)),
        *((own.name, *(getattr(shape, own.name) for shape in shapes)) for own in fields(TransformerConfig)),
        *((name, *(value.get(name) for value in values)) for name in _ALIKE),
    ]:
        if one != another:
            raise InputError(
                f"{first.name} and {other.name} are models of different kinds: {name} is {one!r} in one and "
                f"{another!r} in the other.",
                "Merge models that were trained from one base.",
            )


def _check_tokenizer(first: Source, other: Source) -> None:
    """The same numbers must mean the same tokens, and texts must be split the same way."""
    paths = [one.folder / _TOKENIZER for one in (first, other)]
    if not all(path.is_file() for path in paths):
        return
    contents = [_json(path) for path in paths]
    one, another = (_tokens(content) for content in contents)
    if one != another:
        token = min((set(one.items()) ^ set(another.items())), key=lambda item: (item[1], item[0]))[0]
        raise InputError(
            f"The tokenizers of {first.name} and {other.name} differ: {token!r} is {_id(one, token)} in one and "
            f"{_id(another, token)} in the other.",
            "Rows of the embedding would be mixed that belong to different tokens. Merge models of one tokenizer.",
        )
    for part in ("normalizer", "pre_tokenizer"):
        if contents[0].get(part) != contents[1].get(part):
            raise InputError(
                f"The tokenizers of {first.name} and {other.name} have the same tokens, but differ in their {part}.",
                "Texts would be split in a way that one of the models has never seen.",
            )


def _tokens(content: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = content.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # Unigram lists (piece, score)
        vocabulary = {str(entry[0]): number for number, entry in enumerate(vocabulary)}
    return {**vocabulary, **{str(own["content"]): int(own["id"]) for own in content.get("added_tokens", ())}}


def _id(tokens: Mapping[str, int], token: str) -> str:
    return f"number {tokens[token]}" if token in tokens else "no token"


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}).", "Fetch it again.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object.", "Fetch it again.")
    return value


def _copies(tensors: Tensors, source: Source, everywhere: Collection[str]) -> dict[str, str]:
    """Second copies of the embedding in a file, such as a tied head: name -> that of the embedding."""
    config, family = shape_of(source), FAMILIES[read_config(source.folder)["model_type"]]
    own = next(link.theirs[0] for link in family.links(config) if link.ours == ("embedding",))
    wide = (name for name in tensors if len(shape := tensors.measure(name)[0]) == 2 and shape[0] == config.vocab_size)
    tables = sorted(wide, key=lambda name: (name != own, name not in everywhere, name))
    return {name: tables[0] for name in tables[1:] if torch.equal(tensors[name], tensors[tables[0]])}


def _check_tensors(sources: Sequence[Source], tensors: Sequence[Tensors]) -> None:
    for other, theirs in zip(sources[1:], tensors[1:], strict=True):
        if apart := sorted(set(tensors[0]) ^ set(theirs)):
            holder, lacker = (sources[0], other) if apart[0] in tensors[0] else (other, sources[0])
            raise InputError(
                f"{holder.name} holds the tensor '{apart[0]}', which {lacker.name} lacks.",
                "Merge models of one architecture; one with a head cannot be merged with one without.",
            )
        for name in tensors[0]:
            one, another = tensors[0].measure(name)[0], theirs.measure(name)[0]
            if one != another:
                raise InputError(
                    f"'{name}' has shape {one} in {sources[0].name}, but {another} in {other.name}.",
                    "Merge models of one architecture and vocabulary.",
                )
