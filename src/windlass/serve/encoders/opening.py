"""What kind of encoder a model's folder holds: one that makes vectors, or one that ranks documents."""

from __future__ import annotations

from pathlib import Path

from windlass.build.transformer.hf import CONFIG, from_hf, read_config
from windlass.serve.encoders.cross_encoder import CrossEncoder
from windlass.serve.encoders.embedder import SentenceEncoder

_POOLED = "modules.json"
"""Of sentence-transformers: it may keep the encoder in a folder of its own."""


def encoder_in(folder: Path) -> SentenceEncoder | CrossEncoder | None:
    """The embedder or reranker in `folder`, by its name; None where there is another kind of model, or no folder.

    Raises `InputError` naming the file at fault, `Unsupported` for classifiers of several labels.
    """
    name = folder.resolve().name
    if (folder / _POOLED).is_file() and not (folder / CONFIG).is_file():
        return SentenceEncoder.from_folder(folder, name=name)
    if not (folder / CONFIG).is_file():
        return None
    values = read_config(folder)
    if any(str(one).endswith("ForSequenceClassification") for one in values.get("architectures") or ()):
        return CrossEncoder.from_folder(folder, name=name)
    config = from_hf(values, str(folder / CONFIG))
    return None if config.causal or config.decoder_layers else SentenceEncoder.from_folder(folder, name=name)
