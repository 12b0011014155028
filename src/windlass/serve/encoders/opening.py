"""What kind of encoder a model's folder holds: one that makes vectors, ranks documents, sorts texts into classes, or
tells numbers from them."""

from __future__ import annotations

from pathlib import Path

from windlass.build.transformer.hf import CONFIG, from_hf, read_config
from windlass.core.errors import Unsupported
from windlass.serve.encoders.cross_encoder import CrossEncoder, TextClassifier, ranks
from windlass.serve.encoders.embedder import SentenceEncoder

_POOLED = "modules.json"
"""Of sentence-transformers: it may keep the encoder in a folder of its own."""
_INSTEAD = "transformers reads it, and `windlass ask --reader` answers with one that finds answers."


_UNSERVED = {"ForTokenClassification": "tags words", "ForQuestionAnswering": "finds answers in texts"}
"""Endings of architectures that no endpoint is for."""


def holds_encoder(folder: Path) -> bool:
    """Whether a model's folder is for `encoder_in`; only its configuration is read. Raises `InputError` naming what is
    wrong with that."""
    if (folder / _POOLED).is_file() and not (folder / CONFIG).is_file():
        return True
    if not (folder / CONFIG).is_file():
        return False
    config = from_hf(read_config(folder), str(folder / CONFIG))
    return not (config.causal or config.decoder_layers)


def encoder_in(folder: Path, name: str | None = None) -> SentenceEncoder | CrossEncoder | TextClassifier | None:
    """The encoder in `folder`, called `name` or else as the folder; None where there is another kind of model, or no
    folder.

    Raises `InputError` naming the file at fault, and `Unsupported` for an encoder that no endpoint is for.
    """
    name = name or folder.resolve().name
    if (folder / _POOLED).is_file() and not (folder / CONFIG).is_file():
        return SentenceEncoder.from_folder(folder, name=name)
    if not (folder / CONFIG).is_file():
        return None
    values = read_config(folder)
    if any(str(one).endswith("ForSequenceClassification") for one in values.get("architectures") or ()):
        judge = CrossEncoder if ranks(folder) else TextClassifier
        return judge.from_folder(folder, name=name)
    for ending, does in _UNSERVED.items():
        if any(str(one).endswith(ending) for one in values.get("architectures") or ()):
            raise Unsupported(f"{folder} holds an encoder that {does}, for which there is no endpoint.", _INSTEAD)
    return SentenceEncoder.from_folder(folder, name=name) if holds_encoder(folder) else None
