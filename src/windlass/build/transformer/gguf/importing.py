"""A GGUF file as a decoder of ours, or as a Hugging Face model folder."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.families.links import fill
from windlass.build.transformer.gguf import metadata, vocabulary
from windlass.build.transformer.gguf.architectures import Architecture, links, to_ours
from windlass.build.transformer.gguf.container import Reader
from windlass.build.transformer.hf import save_model
from windlass.core.artifacts import Artifact
from windlass.core.chat_template import TEMPLATE_FILE
from windlass.core.errors import InputError
from windlass.core.files import sha256_file, write_json
from windlass.core.workspace import Workspace

VECTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


@dataclass(frozen=True, slots=True)
class Read:
    """What a file held."""

    name: str
    architecture: str
    types: Mapping[str, int]
    """How many tensors of each type."""
    parameters: int
    tokenizer: bool
    chat_template: bool


def load_gguf(path: Path) -> Decoder:
    """The decoder in a GGUF file, in float32 and ready for inference.

    Raises `InputError` naming what is malformed, missing, of another shape, or not computed here.
    """
    return _decoder(Reader(path))


def import_gguf(path: Path, folder: Path) -> Read:
    """Writes what a GGUF file holds as a Hugging Face folder: config, float32 weights, tokenizer and chat template.

    Raises `InputError` as `load_gguf` does; then nothing is written.
    """
    reader = Reader(path)
    model = _decoder(reader)
    where, values = str(path), reader.values
    found = vocabulary.read(values, model.config.vocab_size, where)
    template = values.get("tokenizer.chat_template")
    row = metadata.architecture(values, where)
    family = None if row.name == "llama" else row.family  # Llama's name stands for Mistral's and Mixtral's too
    specials = found[1] if found else vocabulary.Specials()
    folder.mkdir(parents=True, exist_ok=True)
    ends = specials.eos[0] if specials.eos else None
    save_model(model, folder, family=family, bos=specials.bos, eos=ends, pad=specials.pad)
    if len(specials.eos) > 1:
        write_json(
            folder / "generation_config.json",
            {"bos_token_id": specials.bos, "eos_token_id": list(specials.eos), "pad_token_id": specials.pad},
        )
    if found is not None:
        content = found[0]
        (folder / "tokenizer.json").write_text(vocabulary.as_json(content), encoding="utf-8")
        words = values["tokenizer.ggml.tokens"]
        roles = {"bos": specials.bos, "eos": ends, "pad": specials.pad}
        named = {f"{role}_token": words[number] for role, number in roles.items() if number is not None}
        write_json(
            folder / "tokenizer_config.json",
            {"tokenizer_class": "PreTrainedTokenizerFast", **named, "clean_up_tokenization_spaces": False,
             "model_max_length": model.config.context},
        )  # fmt: skip
        if isinstance(template, str):
            (folder / TEMPLATE_FILE).write_text(template, encoding="utf-8")
    types = Counter(stored.layout.name for stored in reader.tensors.values())
    name = values.get("general.name")
    return Read(
        name if isinstance(name, str) else path.stem,
        row.name,
        dict(types),
        sum(parameter.numel() for parameter in model.parameters()),
        found is not None,
        found is not None and isinstance(template, str),
    )


def store_gguf(ws: Workspace, path: Path, *, name: str | None = None) -> tuple[Artifact, Read]:
    """`import_gguf` into an artifact of kind `model`; `name` is by default that of the file."""
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")
    with (
        ws.runs.start("import", name, config={"gguf": sha256_file(path)}) as run,
        ws.artifacts.build("model", name, run=run.id) as draft,
    ):
        read = import_gguf(path, draft.path)
        draft.card.update(
            {
                "description": f"{read.name}, imported from {path.name}",
                "licence": None,
                "architecture": "decoder",
                "parameters": read.parameters,
                "imported_from": {"format": "gguf", "architecture": read.architecture, "types": dict(read.types)},
            }
        )
    return draft.done, read


def _decoder(reader: Reader) -> Decoder:
    where, tensors = str(reader.path), reader.tensors
    row = metadata.architecture(reader.values, where)
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise InputError(f"{where}: the tensor 'token_embd.weight' is missing, or no matrix.", "It is no decoder.")
    vectors = {name: torch.from_numpy(tensors[name].decoded()) for name in VECTORS if name in tensors}
    if (layers := reader.values.get(f"{row.name}.block_count", 0)) not in range(len(tensors)):
        raise InputError(f"{where}: {row.name}.block_count is {layers!r}, but there are {len(tensors)} tensors.")
    # Rows beyond a tokenizer's are kept, so the embedding says how many there are.
    config = metadata.read(
        reader.values,
        vectors,
        where,
        tied="output.weight" not in tensors,
        biases={
            "qkv_bias": row.fixed.get("qkv_bias", "blk.0.attn_q.bias" in tensors or "blk.0.attn_qkv.bias" in tensors),
            "output_bias": "blk.0.attn_output.bias" in tensors,
            "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        },
        vocab=embedding.shape[0],
    )
    expected, held = config.parameters, sum(math.prod(stored.shape) for stored in tensors.values())
    if expected > held:
        # Told before memory for it is taken: a few bytes of a damaged file can announce a huge model.
        raise InputError(f"{where}: its key-values describe {expected:,} numbers, its tensors hold {held:,}.")
    with torch.device("meta"):
        model = Decoder(config)
    model.to_empty(device="cpu")
    fill(model.state_dict(), list(links(config, row)), _Decoded(reader, config, row), where)
    return model.eval()


class _Decoded(Mapping[str, Tensor]):
    """The file's tensors as ours, each decoded when it is asked for."""

    def __init__(self, reader: Reader, config: TransformerConfig, row: Architecture) -> None:
        self._tensors = {name: stored for name, stored in reader.tensors.items() if name not in VECTORS}
        self._config, self._row, self._where = config, row, reader.path

    def __getitem__(self, name: str) -> Tensor:
        tensor = torch.from_numpy(self._tensors[name].decoded())
        try:
            return to_ours(name, tensor, self._config, self._row)
        except RuntimeError as error:
            raise InputError(
                f"{self._where}: '{name}' has shape {list(tensor.shape)}, which its key-values do not allow."
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: Any) -> bool:
        return name in self._tensors
