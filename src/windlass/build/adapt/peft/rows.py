"""Rows of embedding and head that are trained alone: a few tokens learn, and the others stay as they are.

What is trained has a row for each of these tokens, so neither its gradients' moments nor its file grow with the
vocabulary. That is PEFT's `trainable_token_indices`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from windlass.build.transformer.adapters.parts import Rows
from windlass.build.transformer.model import Model


class TrainedRows(nn.Module):
    """Puts rows of its own into a table whenever somebody looks at it."""

    ids_N: Tensor

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.register_buffer("ids_N", torch.tensor(rows.ids), persistent=False)
        self.vectors_NC = nn.Parameter(rows.vectors_NC.float().clone())

    def forward(self, table_VC: Tensor) -> Tensor:
        return table_VC.index_copy(0, self.ids_N, self.vectors_NC.to(table_VC.dtype))

    def value(self) -> Rows:
        return Rows(tuple(self.ids_N.tolist()), self.vectors_NC.detach())


def begun_rows(model: nn.Module, ids: Sequence[int]) -> dict[str, Rows]:
    """Of embedding and head, as far as these are not trained whole: the rows as they are."""
    number = torch.tensor(ids, dtype=torch.long)
    tables = {f"{owner}.{name}".lstrip("."): getattr(module, name) for owner, module, name in _tables(model)}
    return {
        name: Rows(tuple(ids), table.detach()[number].float())
        for name, table in tables.items()
        if ids and not table.requires_grad
    }


def put_rows(model: nn.Module, rows: Mapping[str, Rows]) -> None:
    """In place."""
    for path, own in rows.items():
        owner, _, name = path.rpartition(".")
        parametrize.register_parametrization(model.get_submodule(owner), name, TrainedRows(own), unsafe=True)


def rows_of(model: nn.Module) -> dict[str, TrainedRows]:
    """What `put_rows` put there, by the table's name."""
    found: dict[str, TrainedRows] = {}
    for path, module in model.named_modules():
        if isinstance(module, TrainedRows):
            owner, name = path.split("parametrizations.")  # "decoder.head.parametrizations.weight.0"
            found[owner + name.rpartition(".")[0]] = module
    return found


def merge_rows(model: nn.Module) -> None:
    """Makes plain tables of all that `put_rows` changed, in place."""
    for path in rows_of(model):
        owner, _, name = path.rpartition(".")
        parametrize.remove_parametrizations(model.get_submodule(owner), name, leave_parametrized=True)


def _tables(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(owner's name, owner, attribute) of each table with a row for each token."""
    path, inner = next((path, one) for path, one in model.named_modules() if isinstance(one, Model))
    yield path, inner, "embedding"
    head = getattr(inner, "head", None)
    if head is not None:
        yield f"{path}.head".lstrip("."), head, "weight"
