"""AdamW for tables of which a step reads few rows: all that AdamW computes, except what would change nothing.

An embedding has a row for each token, tens of thousands, and a step of short texts reads some hundred of them: of
MiniLM's 22.7 million weights 11.7 million are such rows. A dense gradient of the table has to be filled with zeros,
measured and clipped, and then takes moments that are zeros almost everywhere through the update.

A row that no step has read yet has no gradient, and moments of zero, and AdamW without weight decay leaves it where it
is; so it is left out, and the result is the same. A row that was read once stays in, since its moments move it further
while nobody reads it. The variants that are called lazy or sparse (`torch.optim.SparseAdam`) leave it out then too,
and are other optimizers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from windlass.build.training.distributed.workers import Workers
from windlass.build.transformer.encoder import Encoder

_AT_ONCE = 1 << 18
"""Numbers of a table that are updated at a time: they and their moments then stay in the cache meanwhile."""


def name_rows(model: nn.Module, workers: Workers) -> None:
    """Lets every encoder whose embedding is trained give it a gradient of the rows that it reads alone, where one
    process on a CPU trains it. Workers exchange dense gradients; and a GPU goes over a table in no time, but waits
    where the number of rows has to be known."""
    for module in model.modules():
        if isinstance(module, Encoder):
            table = module.embedding  # no leaf: one of which only some rows are trained
            module.by_rows = (
                workers.count == 1 and workers.device.type == "cpu" and table.requires_grad and table.is_leaf
            )


def numbers_of(parameter: Tensor) -> Tensor:
    """The numbers of a parameter's gradient, to be changed in place: all, or those of the rows that it names."""
    assert parameter.grad is not None
    if not parameter.grad.is_sparse:
        return parameter.grad
    parameter.grad = parameter.grad.coalesce()  # a row that is named several times has the sum
    return parameter.grad.values()


class RowAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`, the fused one, for gradients of both kinds. Its state is the same, so a checkpoint does not
    know of which kind they were."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._read: dict[Tensor, Tensor] = {}
        """For each row of a table whether it was ever read."""

    def forget(self) -> None:
        """Which rows were read is found out anew in the next step: the state may be another one by then."""
        self._read.clear()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.grad.is_sparse and not group["weight_decay"]:
                    self._update_rows(parameter, parameter.grad.coalesce(), group)
                    parameter.grad = None
                else:
                    self._read.pop(parameter, None)
                    if parameter.grad.is_sparse:  # weight decay moves all rows
                        parameter.grad = parameter.grad.to_dense()
        super().step()

    def _update_rows(self, table_VC: Tensor, gradient_VC: Tensor, group: dict[str, Any]) -> None:
        state = self.state[table_VC]
        named_N = gradient_VC.indices()[0]
        read_L = self._with(named_N, table_VC)
        gradient_LC = table_VC.new_zeros(len(read_L), table_VC.shape[1])
        gradient_LC[torch.searchsorted(read_L, named_N)] = gradient_VC.values()
        at_once = max(1, _AT_ONCE // table_VC.shape[1])
        wholes = (table_VC, state["exp_avg"], state["exp_avg_sq"])
        parts = (torch.split(whole, at_once) for whole in (read_L, gradient_LC))
        for rows_R, gradient_RC in zip(*parts, strict=True):
            weights_RC, first_RC, second_RC = (whole.index_select(0, rows_R) for whole in wholes)
            adamw(
                [weights_RC], [gradient_RC], [first_RC], [second_RC], [], [state["step"].clone()], fused=True,
                lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1], eps=group["eps"], weight_decay=0.0,
                amsgrad=False, maximize=False,
            )  # fmt: skip
            for whole, part in zip(wholes, (weights_RC, first_RC, second_RC), strict=True):
                whole.index_copy_(0, rows_R, part)
        state["step"] += 1

    def _with(self, rows_N: Tensor, table_VC: Tensor) -> Tensor:
        """These rows and all that were read before, in their order."""
        if table_VC not in self._read:  # a row of which nothing is left in the moments might as well be unread
            state = self.state[table_VC]
            self._read[table_VC] = state["exp_avg"].any(1) | state["exp_avg_sq"].any(1)
        read_V = self._read[table_VC]
        read_V[rows_N] = True
        return read_V.nonzero().squeeze(1)
