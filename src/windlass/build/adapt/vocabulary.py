"""A base whose vocabulary has more tokens: the same model for all texts without them.

A new token's rows of embedding and head begin as the mean of all rows that were there. Rows by chance, such as an
untrained head has, may get far more probability than the tokens that the model means; with the mean, the new token gets
about the share of an average one (Hewitt, "Initializing New Word Embeddings for Pretrained Language Models", 2021).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from windlass.build.tokenizer import load_tokenizer
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import FAMILIES, Family
from windlass.build.transformer.hf import (
    CONFIG,
    Tensors,
    from_hf,
    read_config,
    tensors_of,
    weights_digest,
    write_shards,
)
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.files import sha256_json, write_json
from windlass.core.workspace import Workspace

_BESIDE = (".json", ".jinja", ".txt", ".model")
_TABLES = ("embedding", "head.weight", "head_bias")


def with_tokens(
    ws: Workspace, base: Path, artifact: Artifact | None, tokens: Sequence[str]
) -> tuple[Path, Artifact, Sequence[str]]:
    """The base with these tokens, as an artifact whose parent is the base, and what was done to it. The same tokens
    make the same artifact, which is made once.

    Raises `InputError` for tokens that are there already.
    """
    name = artifact.record.name if artifact is not None else base.resolve().name
    made_of = sha256_json({"weights": weights_digest(base), "tokens": list(tokens)})
    called = f"{name[:80]}-tokens-{made_of[:8]}"
    found = ws.artifacts.find(called)
    if found is None:
        with ws.artifacts.build("model", called) as draft:
            if artifact is not None:
                draft.add_parent("base", artifact)
            facts = grow(base, draft.path, tokens)
            licence = None if artifact is None else artifact.card.get("licence")
            draft.card.update({"description": f"{name} with {len(tokens)} new tokens", "licence": licence, **facts})
        found = draft.done
    line = (
        f"{len(tokens)} new tokens ({', '.join(tokens[:4])}{', ...' if len(tokens) > 4 else ''}): {found.ref} has "
        f"{found.card['vocabulary']:,} rows, the new ones beginning as the mean of {found.card['known']:,}"
    )
    return found.path, found, [line]


@torch.no_grad()
def grow(base: Path, folder: Path, tokens: Sequence[str]) -> dict[str, object]:
    """Writes the model in `base` with these special tokens to `folder`, tensor by tensor, each in its own type.

    Rows that the base has beyond its tokenizer (padding) are used before new ones are made. Raises `InputError` for
    tokens that are there already.
    """
    values = read_config(base)
    config, family = from_hf(values, str(base / CONFIG)), FAMILIES[str(values["model_type"])]
    known, ids = _grow_tokenizer(base, folder, tokens)
    size = max(config.vocab_size, *(number + 1 for number in ids))
    known = min(known, config.vocab_size)
    with tensors_of(base, lambda name: name) as tensors:
        tables = {name for name in tensors if _is_table(name, tensors, config, family)}
        shapes = {name: tensors.measure(name)[0] for name in tensors}

        def tensor_of(name: str) -> Tensor:
            return _grown(tensors[name], known, size, ids) if name in tables else tensors[name]

        sizes = {
            name: tensors.nbytes(name) // (shape[0] if name in tables else 1) * (size if name in tables else 1)
            for name, shape in shapes.items()
        }
        write_shards(folder, sizes, tensor_of)
    for path in sorted(base.rglob("*")):
        place = path.relative_to(base)
        if path.suffix in _BESIDE and path.is_file() and not (folder / place).exists() and ".index." not in path.name:
            (folder / place).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / place)
    write_json(folder / CONFIG, {**values, "vocab_size": size})
    return {"tokens": dict(zip(tokens, ids, strict=True)), "known": known, "vocabulary": size}


def _grow_tokenizer(base: Path, folder: Path, tokens: Sequence[str]) -> tuple[int, list[int]]:
    """Writes the tokenizer; how many tokens there were, and the numbers of the new ones."""
    from tokenizers import AddedToken, Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    load_tokenizer(base)  # raises what is to be said of a file that is none
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    there = tokenizer.get_vocab(with_added_tokens=True)
    if found := [token for token in tokens if token in there]:
        raise InputError(
            f"model.new_tokens names {found[0]!r}, which is token {there[found[0]]} of the base already.",
            "Leave it out; adapter.tokens trains tokens that are there.",
        )
    known = max(there.values()) + 1
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = tokenizer.get_vocab(with_added_tokens=True)
    return known, [ids[token] for token in tokens]


def _is_table(name: str, tensors: Tensors, config: TransformerConfig, family: Family) -> bool:
    """Whether a tensor of a file has a row for each token: embedding, head, its bias, and second copies of these."""
    shape = tensors.measure(name)[0]
    if not shape or shape[0] != config.vocab_size:
        return False
    known = family.renamed(name, config)
    links = [*family.links(config), *family.links(replace(config, tied=False))]
    return known is None or any(known in link.theirs and link.ours[0] in _TABLES for link in links)


def _grown(table: Tensor, known: int, size: int, ids: Sequence[int]) -> Tensor:
    """The table with so many rows, those of `ids` the mean of the first `known`."""
    mean = table[:known].float().mean(0).to(table.dtype)
    grown = table.new_empty(size, *table.shape[1:])
    grown[: len(table)] = table
    grown[len(table) :] = mean
    grown[list(ids)] = mean
    return grown
