"""Models as Hugging Face folders: `config.json` + `model.safetensors`, read and written without transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields as fields_of
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.families import FAMILIES, Family
from windlass.build.transformer.families.fields import Fields
from windlass.build.transformer.families.links import Link, export, fill
from windlass.build.transformer.model import Model, model_of
from windlass.core.errors import InputError
from windlass.core.files import disk_errors, sha256_file, sha256_json, write_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
GENERATION = "generation_config.json"
SHARD = 1_000_000_000
"""Bytes of a file of weights that is written piece by piece, unless one tensor alone has more."""


def from_hf(values: Mapping[str, Any], where: str) -> TransformerConfig:
    """Reads a `config.json`. What would be computed differently is refused by name, never ignored."""
    fields = Fields(values, where)
    fields.only("quantization_config", None)
    family = _family(values.get("model_type"), where)
    try:
        return family.from_hf(fields)
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise InputError(
            f"{where}: a value has the wrong kind ({type(error).__name__}: {error}).",
            "Take the config.json that came with the weights.",
        ) from error


def to_hf(
    config: TransformerConfig,
    family: str | None = None,
    *,
    bos: int | None = None,
    eos: int | None = None,
    pad: int | None = None,
) -> dict[str, Any]:
    """The configuration as `transformers` reads it (versions 4 and 5).

    `bos` begins every text (of an encoder-decoder: every target), `eos` ends it, `pad` fills the rest of a row.
    `family` is a `model_type`; left out, the first that fits. Raises `InputError` naming the fields that the family
    cannot express.
    """
    tried = {family: _family(family, "family")} if family else FAMILIES
    reasons = []
    for name, module in tried.items():
        values = {
            "architectures": [module.ARCHITECTURE],
            "model_type": name,
            **module.to_hf(config),
            "bos_token_id": bos,
            "eos_token_id": eos,
            "pad_token_id": pad,
            "torch_dtype": "float32",
            "use_cache": True,
        }
        if config.decoder_layers:
            values["decoder_start_token_id"] = bos
        if not (lost := _lost(config, values)):
            return values
        reasons.append(f"{name} cannot express {', '.join(lost)}")
    raise InputError(
        f"This model cannot be written as a Hugging Face folder: {'; '.join(reasons)}.",
        "Only these fields stand in the way; with their defaults it can.",
    )


def _lost(config: TransformerConfig, values: Mapping[str, Any]) -> list[str]:
    """The fields that do not come back from what a family wrote."""
    try:
        again = from_hf(values, CONFIG)
    except InputError as error:
        return [error.message]
    return [
        f"{field.name} {getattr(config, field.name)!r}"
        for field in fields_of(config)
        if getattr(again, field.name) != getattr(config, field.name)
    ]


def save_model(
    model: Model,
    folder: Path,
    *,
    family: str | None = None,
    bos: int | None = None,
    eos: int | None = None,
    pad: int | None = None,
    generation: Mapping[str, Any] | None = None,
) -> None:
    """Writes `config.json`, `model.safetensors` (float32) and, unless it is an encoder, `generation_config.json`.

    `family` is the `model_type` to write; left out, the first that can express the configuration. The tokens are
    those of `to_hf`. `generation`: how answers are written, beside these tokens and instead of them.
    """
    values = to_hf(model.config, family, bos=bos, eos=eos, pad=pad)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, values)
    if not isinstance(model, Encoder):
        tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        usual = {token: values[token] for token in tokens if token in values} | {
            "do_sample": isinstance(model, Decoder)
        }
        write_json(folder / GENERATION, usual | dict(generation or {}))
    links = FAMILIES[values["model_type"]].links(model.config)
    tensors = export({name: tensor.float() for name, tensor in model.state_dict().items()}, links)
    with disk_errors(folder):
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def write_shards(folder: Path, sizes: Mapping[str, int], tensor_of: Callable[[str], Tensor], limit: int = SHARD) -> int:
    """Writes tensors, each made when its turn comes, as `model.safetensors`, or as files of at most `limit` bytes with
    their index where there are more. `sizes`: bytes by name. Returns how many files."""
    groups: list[list[str]] = []
    held = 0
    for name, size in sizes.items():
        if not groups or held + size > limit:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    where: dict[str, str] = {}
    for number, names in enumerate(groups, 1):
        file = WEIGHTS if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        with disk_errors(folder):
            save_file({name: tensor_of(name) for name in names}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    if len(groups) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        write_json(folder / f"{WEIGHTS}.index.json", index)
    return len(groups)


@contextmanager
def tensors_of(folder: Path, renamed: Callable[[str], str | None]) -> Iterator[Tensors]:
    """The tensors of a folder's weight files, each read when asked for, under the names that `renamed` gives them
    (None: left out)."""
    with ExitStack() as stack:
        yield Tensors(_weight_files(folder), renamed, stack)


def load_config(folder: Path) -> TransformerConfig:
    """The shape of the model in `folder`. Raises `InputError` when it is absent, broken or of an unknown family."""
    return from_hf(read_config(folder), str(folder / CONFIG))


def load_links(folder: Path) -> list[Link]:
    """How the tensors of the model in `folder` are called there. Raises as `load_config` does."""
    values = read_config(folder)
    return list(FAMILIES[values["model_type"]].links(from_hf(values, str(folder / CONFIG))))


def tied_head(folder: Path) -> str | None:
    """What the head's matrix is called there in models whose head is the embedding; None when this one has its own."""
    values = read_config(folder)
    config, family = from_hf(values, str(folder / CONFIG)), FAMILIES[values["model_type"]]
    if not config.tied or config.headless:
        return None
    return next(link.theirs[0] for link in family.links(replace(config, tied=False)) if link.ours == ("head.weight",))


def weights_digest(folder: Path) -> str:
    """Of the weights alone: the same with any tokenizer beside them."""
    return sha256_json({path.name: sha256_file(path) for path in _weight_files(folder)})


def load_model(folder: Path) -> Model:
    """The model in a Hugging Face folder, in float32 and ready for inference.

    One weights file or the shards of `model.safetensors.index.json`, read tensor by tensor. Raises `InputError`
    naming the first tensor that is missing, unknown or of another shape.
    """
    values = read_config(folder)
    config, family = from_hf(values, str(folder / CONFIG)), FAMILIES[values["model_type"]]
    with tensors_of(folder, lambda name: family.renamed(name, config)) as tensors:
        config = _with_own_head(config, family, tensors)
        with torch.device("meta"):
            model = model_of(config)
        model.to_empty(device="cpu")
        fill(model.state_dict(), list(family.links(config)), tensors, str(folder))
    return model.eval()


def load_decoder(folder: Path) -> Decoder:
    """`load_model` for callers that continue text. Raises `InputError` when the folder holds another architecture."""
    model = load_model(folder)
    if not isinstance(model, Decoder):
        raise InputError(f"{folder} holds a model that is not a decoder.", "Give the folder of a decoder: Llama, ...")
    return model


def load_encoder(folder: Path) -> Encoder:
    """`load_model` for callers that need the vectors of texts. Raises `InputError` for another architecture."""
    model = load_model(folder)
    if not isinstance(model, Encoder):
        raise InputError(f"{folder} holds a model that is not an encoder.", "Give the folder of an encoder: BERT, ...")
    return model


def _with_own_head(config: TransformerConfig, family: Family, tensors: Tensors) -> TransformerConfig:
    """A tied model's file may hold a second copy of its head, which is dropped; one that differs unties the model, as
    it does in transformers 5 (whose T5 1.1 says that it is tied, and is not)."""
    if not config.tied:
        return config
    names = {link.ours[0]: link.theirs[0] for link in family.links(replace(config, tied=False))}
    head, embedding = names.get("head.weight", ""), names["embedding"]
    if head not in tensors or embedding not in tensors:
        return config
    if not torch.equal(tensors[head], tensors[embedding]):
        return replace(config, tied=False)
    tensors.drop(head)
    return config


def _family(model_type: Any, where: str) -> Family:
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise InputError(
            f"{where}: model_type {model_type!r} is not a family that can be read.",
            f"Known are: {', '.join(FAMILIES)}.",
        )
    return FAMILIES[model_type]


def read_config(folder: Path) -> dict[str, Any]:
    """The values of `config.json`."""
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Give the folder of a Hugging Face model.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no JSON object.", "Give the folder of a Hugging Face model.")
    return values


def _weight_files(folder: Path) -> list[Path]:
    index = folder / f"{WEIGHTS}.index.json"
    if not index.exists():
        if not (folder / WEIGHTS).exists() and (pickled := sorted(folder.glob("pytorch_model*.bin"))):
            raise InputError(
                f"{pickled[0]} is a pickle, which can run any code when it is read.",
                f"Take the model's {WEIGHTS}, or write one with save_pretrained where you trust the file.",
            )
        return [folder / WEIGHTS]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{index} is not an index of weight files: {error}.") from error
    if outside := [name for name in names if Path(str(name)).name != name]:
        raise InputError(f"{index} names '{outside[0]}', which is not a file beside it.")
    return sorted(folder / name for name in names)


class Tensors(Mapping[str, Tensor]):
    """The tensors of several files, each read only when asked for, so that no second copy of the model is held."""

    def __init__(self, paths: Sequence[Path], renamed: Callable[[str], str | None], stack: ExitStack) -> None:
        """`renamed`: a name as a file has it -> as the family's table has it, or None to leave the tensor out."""
        self._where: dict[str, tuple[Any, str]] = {}
        for path in paths:
            try:
                path.open("rb").close()  # safetensors says "no such file", whatever the reason
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise InputError(
                    f"{path} cannot be read: {error}.", "The file is absent, damaged or not yours to read."
                ) from error
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                known = renamed(name)
                if known in self._where:
                    raise InputError(f"{path}: the weights hold '{known}' twice.", "Is another model's file beside it?")
                if known:
                    self._where[known] = (file, name)

    def __getitem__(self, name: str) -> Tensor:
        file, written = self._where[name]
        tensor: Tensor = file.get_tensor(written)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def measure(self, name: str) -> tuple[list[int], str]:
        """Shape, and type as safetensors calls it (`BF16`), from the file's header."""
        file, written = self._where[name]
        part = file.get_slice(written)
        return list(part.get_shape()), str(part.get_dtype())

    def nbytes(self, name: str) -> int:
        """As it is stored."""
        shape, kind = self.measure(name)
        bits = 8 if kind == "BOOL" else int("".join(filter(str.isdigit, kind.partition("_")[0])))
        return math.prod(shape) * bits // 8

    def drop(self, name: str) -> None:
        """Leaves a tensor out."""
        del self._where[name]
