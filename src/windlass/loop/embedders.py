"""Embedders by the names that people give them: the one that comes with windlass, a folder, a model, an address."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urldefrag

from windlass.apply.providers import known
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder
from windlass.core.workspace import Workspace
from windlass.loop.encoders import encoder_place

DEFAULT = "minilm"
_PUBLISHED = "all-MiniLM-L6-v2"
"""What it calls itself, and is called in messages."""
_PRECISIONS = ("float32", "bfloat16")


def usual() -> str:
    """The name of what a new index is embedded with, unless somebody says: MiniLM, in bfloat16 where the processor
    multiplies that, which is much faster there and ranks as well (`python -m bench.rag`, docs/lab.md)."""
    from windlass.serve.encoders.embedder import multiplies_bfloat16

    return f"{DEFAULT}:bfloat16" if multiplies_bfloat16() else DEFAULT


def embedder_named(ws: Workspace | None, name: str = DEFAULT) -> Embedder:
    """The embedder of that name.

    - `minilm` (in float32), or `minilm:bfloat16`: all-MiniLM-L6-v2, which comes with windlass, and may be called so;
    - a folder in the layout of sentence-transformers, or an encoder of the workspace;
    - `https://host/v1#model`: an OpenAI-compatible endpoint; `provider:model`: a provider that windlass knows;
    - `hashing`: shared spelling only, but instant and without a model, to try things out.

    Raises `InputError` for anything else, and what loading it raises.
    """
    kind, colon, rest = name.partition(":")
    if name == "hashing":
        return HashingEmbedder()
    if kind in (DEFAULT, _PUBLISHED) and (not colon or rest in _PRECISIONS):
        from windlass.serve.encoders.embedder import MiniLM

        return MiniLM.load(precision="bfloat16") if rest == "bfloat16" else MiniLM.load()
    if name.startswith(("http://", "https://")):
        address, model = urldefrag(name)
        if not model:
            raise InputError(f"{name} names no model.", f"Write {address}#model.")
        return known.embedder(f"openai:{model}", base_url=address)
    if kind in known.PROVIDERS and colon:
        return known.embedder(name)
    return _local(ws, name)


def called(name: str) -> str:
    """What the embedder of that name is called in messages: as it calls itself, as far as that is known unloaded."""
    kind, colon, precision = name.partition(":")
    plain = not colon or precision == _PRECISIONS[0]
    return (_PUBLISHED if plain else f"{_PUBLISHED}:{precision}") if kind in (DEFAULT, _PUBLISHED) else name


def _local(ws: Workspace | None, name: str) -> Embedder:
    from windlass.serve.encoders.embedder import SentenceEncoder
    from windlass.serve.encoders.opening import encoder_in

    with encoder_place(ws, name) as (folder, called):
        encoder = encoder_in(folder, called) if Path(folder).is_dir() else None
    if not isinstance(encoder, SentenceEncoder):
        raise InputError(
            f"'{name}' is no embedder" + (": it sorts texts or ranks them." if encoder else "."),
            "Name minilm, a folder of sentence-transformers, an encoder of the workspace, provider:model or an "
            "address#model.",
        )
    return encoder


def lasting_name(ws: Workspace, name: str) -> str:
    """A name under which the same embedder will be found from another folder, and after the next training."""
    if Path(name).is_dir():
        return str(Path(name).resolve())
    artifact = ws.artifacts.find(name) if ":" not in name and name not in (DEFAULT, "hashing") else None
    return name if artifact is None else artifact.digest
