"""Encoders that judge texts, from Hugging Face folders of sequence classification models.

`CrossEncoder` reads a query and a document as one pair and says how well they belong together; `TextClassifier` gives
each text, or pair of texts, the probabilities of the model's labels, or the numbers of a regression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding
from torch import Tensor

from windlass.build.transformer.classifier import Classifier, Task
from windlass.build.transformer.classifier_files import load_classifier, load_head
from windlass.build.transformer.linear import Linear
from windlass.core.errors import Unsupported
from windlass.core.files import sha256_file, sha256_json
from windlass.core.protocols import Classes, Relevance
from windlass.serve.encoders.embedder import Precision
from windlass.serve.encoders.reading import Reader, Text, batches, longest_text, present, read_json
from windlass.serve.one_thread import in_one_thread

_IDENTITY, _SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"
_RANKER = "It is a reranker: open it as a CrossEncoder."


class Judge:
    """A classifier and its tokenizer. Safe to share between threads."""

    task: Task = "texts"

    def __init__(
        self, name: str, digest: str, model: Classifier, reader: Reader, typed: bool, precision: Precision
    ) -> None:
        """`typed`: the two texts of a pair are told apart by types of segments."""
        self.name = name
        self.digest = digest
        self._model = model.requires_grad_(False)
        self._reader = reader
        self._dtype: torch.dtype = getattr(torch, precision)
        self._typed = typed
        for part in model.modules():
            if isinstance(part, Linear):
                part.to(self._dtype)

    @classmethod
    def from_folder(
        cls, folder: Path, *, name: str | None = None, precision: Precision = "float32", device: str = "cpu"
    ) -> Self:
        """Loads config.json, model.safetensors and tokenizer.json. Raises `InputError` naming the file, field or tensor
        at fault, `Unsupported` for a model of another kind."""
        model = load_classifier(folder, cls.task)
        config, name = model.encoder.config, name or folder.name
        reader = Reader.from_folder(folder, name, config.vocab_size, longest_text(folder, config.context))
        typed = config.token_types > 1
        if typed and (path := folder / "tokenizer_config.json").exists():
            typed = "token_type_ids" in (read_json(path).get("model_input_names") or ["token_type_ids"])
        settings = {"tokenizer": reader.digest, "max_tokens": reader.limit, "typed": typed, "precision": precision}
        files = {file: sha256_file(present(folder / file)) for file in ("config.json", "model.safetensors")}
        return cls(name, sha256_json(files | settings), model.to(device), reader, typed, precision)

    def _logits(self, texts: Sequence[Text]) -> tuple[NDArray[np.float32], int, int]:
        """(texts, labels), and how many tokens were read and texts cut."""
        encodings = self._reader.read(texts)
        logits = np.empty((len(encodings), len(self._model.head.labels)), dtype=np.float32)
        for batch, found_BL in self._passes(encodings):
            logits[batch] = found_BL
        return logits, sum(len(e.ids) for e in encodings), self._reader.cut(encodings)

    def _passes(self, encodings: Sequence[Encoding]) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """What the model says of them, some at a time: their positions, and its logits."""
        for batch in batches(encodings):
            yield batch, in_one_thread(partial(self._pass, [encodings[i] for i in batch]))

    @torch.inference_mode()
    def _pass(self, rows: Sequence[Encoding]) -> NDArray[np.float32]:
        device = self._model.encoder.embedding.device
        tokens_1T = torch.tensor([[token for row in rows for token in row.ids]], device=device)
        types_1T = torch.tensor([[kind for row in rows for kind in row.type_ids]], device=device)
        types, lengths = types_1T if self._typed else None, [len(row.ids) for row in rows]
        found: Tensor = self._model(tokens_1T, lengths, types_BT=types, dtype=self._dtype)
        logits: NDArray[np.float32] = found.float().cpu().numpy()
        return logits


class CrossEncoder(Judge):
    """Implements `core.protocols.Reranker`. Scores lie between 0 and 1, unless the folder's settings ask for the
    model's own numbers."""

    _bounded = True

    @classmethod
    def from_folder(cls, folder: Path, **settings: Any) -> Self:
        made = super().from_folder(folder, **settings)
        if (count := len(made._model.head.labels)) != 1:
            raise Unsupported(
                f"{folder}: the model has {count} labels, but a reranker gives one score.", "It is a classifier."
            )
        asked = read_json(folder / "config.json").get("sentence_transformers") or {}
        function = asked.get("activation_fn", _SIGMOID)
        if function not in (_IDENTITY, _SIGMOID):
            raise Unsupported(f"{folder}: the activation {function} is not known.", "Known: Sigmoid, Identity.")
        made._bounded = function == _SIGMOID
        return made

    def rank(self, query: str, documents: Sequence[str]) -> Relevance:
        """Raises `InputError` naming the document that is not a text."""
        logits, tokens, cut = self._logits([(query, document) for document in documents])
        scores = torch.from_numpy(logits[:, 0])
        return Relevance((scores.sigmoid() if self._bounded else scores).tolist(), tokens, cut)


class TextClassifier(Judge):
    """Implements `core.protocols.Classifying`."""

    @classmethod
    def from_folder(cls, folder: Path, **settings: Any) -> Self:
        if ranks(folder):
            raise Unsupported(f"{folder}: the model says how well two texts belong together, and no classes.", _RANKER)
        return super().from_folder(folder, **settings)

    @property
    def labels(self) -> Sequence[str]:
        return self._model.head.labels

    def classify(self, texts: Sequence[Text]) -> Classes:
        """Probabilities of labels that exclude each other add up to 1; others are independent. A regression gives its
        numbers as they are. Raises `InputError` naming the entry that is neither a text nor a pair of texts."""
        logits, tokens, cut = self._logits(texts)
        kind, logits_BL = self._model.head.kind, torch.from_numpy(logits)
        if kind == "number":
            return Classes(logits, tokens, cut, numbers=True)
        return Classes((logits_BL.softmax(-1) if kind == "one of" else logits_BL.sigmoid()).numpy(), tokens, cut)


def ranks(folder: Path) -> bool:
    """Whether a sequence classification model's one score says how well two texts belong together.

    Rerankers are published without a `problem_type`, or with the settings of sentence-transformers, as `windlass tune
    rank` writes them. A model that says that it is a regression, or that its label may hold or not, is what it says.
    """
    head, values = load_head(folder), read_json(folder / "config.json")
    if len(head.labels) != 1 or head.kind == "any of":
        return False
    return values.get("problem_type") != "regression" or bool(values.get("sentence_transformers"))
