"""A Hugging Face model folder as one GGUF file, which llama.cpp and what is built on it run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.gguf import metadata, vocabulary
from windlass.build.transformer.gguf.architectures import Architecture, links, theirs_shape, to_theirs
from windlass.build.transformer.gguf.blocks import FILE_TYPES, TYPES, WRITTEN, Floats, Layout
from windlass.build.transformer.gguf.container import Entry, Value, write
from windlass.build.transformer.gguf.vocabulary import Specials
from windlass.build.transformer.hf import CONFIG, load_decoder
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Written:
    """What an export did."""

    path: Path
    architecture: str
    types: Mapping[str, int]
    """How many tensors of each type."""
    bytes: int
    tokenizer: str
    """The rule for words, "sentencepiece", or "none"."""


def export_gguf(
    folder: Path,
    path: Path,
    *,
    type: str = "f16",
    name: str | None = None,
    context: int | None = None,
    tokenizer: bool = True,
    words_like: str | None = None,
) -> Written:
    """Writes the model in `folder` to `path`.

    `type` (f32, f16, bf16, q8_0, q4_0) is that of the matrices; vectors and routers stay float32, and a matrix whose
    rows do not divide into blocks becomes f16. `context` shortens the model's window. Without `tokenizer` only weights
    are written. Raises `InputError` naming what llama.cpp would compute or split differently.
    """
    if type not in WRITTEN:
        raise InputError(f"'{type}' is no type that is written.", f"Choose one of: {', '.join(WRITTEN)}.")
    decoder = load_decoder(folder)
    settings = _json(folder / CONFIG)
    config = decoder.config
    if context is not None:
        if not 1 <= context <= config.context:
            raise InputError(
                f"--context is {context}, but the model reads 1 to {config.context}.", "Give less, or leave it out."
            )
        config = replace(config, context=context)
    row = metadata.chosen(config, settings.get("model_type"))
    values, vectors = metadata.written(config, row)
    layout = TYPES[type.upper()]
    values["general.name"] = name or folder.resolve().name
    values["general.quantization_version"] = 2
    values["general.file_type"] = FILE_TYPES[layout.name]
    words: dict[str, Value] = {"tokenizer.ggml.model": "none"}
    if tokenizer:
        words = _vocabulary(folder, settings, config, words_like)
    tensors = _Tensors(decoder, config, row, vectors)
    entries = [Entry(key, shape, _layout_of(key, shape, layout)) for key, shape in tensors.shapes()]
    write(path, values | words, entries, tensors)
    rule = "sentencepiece" if words["tokenizer.ggml.model"] == "llama" else words.get("tokenizer.ggml.pre", "none")
    types = Counter(entry.layout.name for entry in entries)
    return Written(path, row.name, dict(types), path.stat().st_size, str(rule))


def _layout_of(name: str, shape: tuple[int, ...], wanted: Layout) -> Layout:
    if len(shape) == 1 or name.endswith("ffn_gate_inp.weight"):
        return TYPES["F32"]
    return TYPES["F16"] if shape[-1] % wanted.block else wanted


class _Tensors:
    """The file's tensors by name, each made of ours when it is asked for, so that no second model is held."""

    def __init__(
        self, decoder: Decoder, config: TransformerConfig, row: Architecture, vectors: metadata.Vectors
    ) -> None:
        self._state, self._config, self._row, self._vectors = decoder.state_dict(), config, row, vectors
        self._links = {link.theirs[0]: link for link in links(config, row)}

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for name, vector in self._vectors.items():
            yield name, tuple(vector.shape)
        for name, link in self._links.items():
            yield name, theirs_shape(name, tuple(link.shapes(self._state)[name]))

    def __call__(self, name: str) -> Floats:
        if name in self._vectors:
            vector: Floats = self._vectors[name].float().numpy()
            return vector
        tensor = self._links[name].export(self._state)[name].float()
        array: Floats = to_theirs(name, tensor, self._config, self._row).contiguous().numpy()
        return array


def _vocabulary(
    folder: Path, settings: Mapping[str, Any], config: TransformerConfig, words_like: str | None
) -> dict[str, Value]:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{path} is missing.", "Put the model's tokenizer there, or export --without-tokenizer.")
    generation = folder / "generation_config.json"
    found = {**settings, **(_json(generation) if generation.is_file() else {})}
    ends = found.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    specials = Specials(found.get("bos_token_id"), tuple(ends), found.get("pad_token_id"))
    template = ChatTemplate.load(folder)
    return vocabulary.written(
        _json(path), config.vocab_size, specials, None if template is None else template.source, words_like
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Give the folder of a Hugging Face model.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object.")
    return found
