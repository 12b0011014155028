"""Rows of embedding and head that were trained beside an adapter: PEFT's `trainable_token_indices`.

PEFT calls the tensor a delta, but what it holds is what stands in the rows. A head that is the embedding has no rows of
its own in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from windlass.build.transformer.adapters.modules import names
from windlass.build.transformer.adapters.parts import Rows
from windlass.build.transformer.adapters.recipe import Recipe
from windlass.build.transformer.families.links import Link
from windlass.core.errors import InputError

FIELD = "trainable_token_indices"
SUFFIX = ".token_adapter.trainable_tokens_delta"
_TABLES = ("embedding", "head.weight")


def read_rows(
    tensors: Mapping[str, Tensor],
    recipe: Recipe,
    links: Sequence[Link],
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, Rows]:
    """`tensors` are those of the file whose keys end in `SUFFIX`, by their module. Raises `InputError` for rows that
    the configuration does not name, and for such as the model does not have."""
    tables = tables_of(links)
    wanted = recipe.values.get(FIELD) or []
    embedding = next(module for module, ours in tables.items() if ours.endswith("embedding"))
    by_module = wanted if isinstance(wanted, dict) else {embedding: wanted}
    found: dict[str, Rows] = {}
    for module, vectors_NC in tensors.items():
        ours = tables.get(module)
        ids = next((ids for ending, ids in by_module.items() if names(ending, module)), None)
        if ours is None or ids is None:
            raise InputError(
                f"{recipe.where}: the file holds rows of '{module}', which {FIELD} or the model does not know.",
                "Is it an adapter of another base model?",
            )
        rows, width = shapes[ours]
        if not isinstance(ids, list) or not all(isinstance(one, int) and one >= 0 for one in ids):
            raise InputError(f"{recipe.where}: {FIELD} is {ids!r}, but holds numbers of tokens.")
        if list(vectors_NC.shape) != [len(ids), width] or len(set(ids)) < len(ids):
            raise InputError(
                f"{recipe.where}: the rows of '{module}' have the shape {list(vectors_NC.shape)}, but {FIELD} names "
                f"{len(set(ids))} tokens, and rows have {width} numbers here."
            )
        if ids and max(ids) >= rows:
            raise InputError(
                f"{recipe.where}: the adapter was trained with a token of number {max(ids)}, but this base has a "
                f"vocabulary of {rows} tokens.",
                "Name the base that has the adapter's tokens, such as the one that model.new_tokens made.",
            )
        found[ours] = Rows(tuple(ids), vectors_NC)
    return found


def written_rows(
    rows: Mapping[str, Rows], links: Sequence[Link]
) -> tuple[dict[str, Tensor], dict[str, list[int]] | None]:
    """The tensors by module and suffix, and what stands in the field."""
    modules = {ours: module for module, ours in tables_of(links).items()}
    tensors = {modules[ours] + SUFFIX: own.vectors_NC for ours, own in rows.items()}
    field = {modules[ours].rpartition(".")[2]: list(own.ids) for ours, own in rows.items()}
    return tensors, field or None


def tables_of(links: Sequence[Link]) -> dict[str, str]:
    """Their modules that have a row for each token -> our names."""
    return {
        link.theirs[0].removesuffix(".weight"): ours
        for link in links
        for ours in link.ours
        if ours in _TABLES or ours.endswith(tuple(f".{table}" for table in _TABLES))
    }
