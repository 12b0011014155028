"""What kind of encoder a model's folder holds: one that makes vectors, ranks documents, or sorts texts into classes."""

from __future__ import annotations

from pathlib import Path

from windlass.build.transformer.classifier_files import load_head
from windlass.build.transformer.hf import CONFIG, from_hf, read_config
from windlass.serve.encoders.cross_encoder import CrossEncoder, TextClassifier
from windlass.serve.encoders.embedder import SentenceEncoder

_POOLED = "modules.json"
"""Of sentence-transformers: it may keep the encoder in a folder of its own."""


def encoder_in(folder: Path) -> SentenceEncoder | CrossEncoder | TextClassifier | None:
    """The encoder in `folder`, by the folder's name; None where there is another kind of model, or no folder. A
    sequence classification model of one label gives a score, and so is a reranker.

    Raises `InputError` naming the file at fault.
    """
    name = folder.resolve().name
    if (folder / _POOLED).is_file() and not (folder / CONFIG).is_file():
        return SentenceEncoder.from_folder(folder, name=name)
    if not (folder / CONFIG).is_file():
        return None
    values = read_config(folder)
    if any(str(one).endswith("ForSequenceClassification") for one in values.get("architectures") or ()):
        judge = CrossEncoder if len(load_head(folder).labels) == 1 else TextClassifier
        return judge.from_folder(folder, name=name)
    config = from_hf(values, str(folder / CONFIG))
    return None if config.causal or config.decoder_layers else SentenceEncoder.from_folder(folder, name=name)
