"""How a model is spread over the workers: DDP gives each a whole copy, FSDP2 a part of every tensor.

Both act where a module is *called*, so an objective, which is a function of a model and a batch, becomes the forward
pass of a module around the model. With one worker it stays the plain function.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from windlass.build.training.data.batches import Batch
from windlass.build.training.distributed.pieces import fill, whole
from windlass.build.training.distributed.workers import Workers
from windlass.build.training.objectives import Loss

Kind = Literal["ddp", "fsdp"]
Survey = Callable[["Spread", Sequence[Batch]], Sequence[Batch]]
"""Looks at the passes of a step before any of them, for objectives that compare examples of different passes."""


class Spread:
    """The objective of a model that is spread over the workers; a function of a batch, as it was before.

    The gradients of a backward pass are the workers' *mean*, so whoever wants those of the sum over all rows scales the
    loss by the number of workers. `model` is moved to the device and spread in place: make its optimizer afterwards.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_of: Callable[[Batch], Loss],
        workers: Workers,
        kind: Kind,
        survey: Survey | None = None,
    ) -> None:
        self.workers, self._survey = workers, survey
        self._module: Any = _Pass(model.to(workers.device), loss_of)
        if workers.count > 1 and kind == "ddp":
            cuda = workers.device.type == "cuda"
            self._module = DistributedDataParallel(self._module, device_ids=[workers.device] if cuda else None)
        elif workers.count > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), src=0)
            mesh = init_device_mesh(workers.device.type, (workers.count,))
            for block in _blocks(model):
                fully_shard(block, mesh=mesh)
            fully_shard(self._module, mesh=mesh)

    def __call__(self, batch: Batch) -> Loss:
        total, counted, metrics = self._module(batch.to(self.workers.device))
        return Loss(total, counted, metrics)

    @torch.no_grad()
    def seen(self, batch: Batch) -> Loss:
        """The loss of a batch that is only looked at. All workers must call it together."""
        loss = self(batch)
        if isinstance(self._module, FSDPModule):
            self._module.reshard()  # as a backward pass would: what is whole now would outlive a change of the weights
        return loss

    def surveyed(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """The passes of a step, each with what all of them say together, where the objective asks for it."""
        return batches if self._survey is None else self._survey(self, batches)

    @torch.no_grad()
    def shared(self, batch: Batch) -> Loss:
        """The loss of a batch that is to be measured only: the workers share its rows, and all get the same sums."""
        number, count = self.workers.number, self.workers.count
        sharing = batch.divisible >= count > 1
        loss = self.seen(batch.rows(slice(number, None, count)) if sharing else batch)
        if not sharing:
            return loss
        names = sorted(loss.metrics)
        nats, counted, *sums = self.workers.total(
            float(loss.sum), loss.counted, *(float(loss.metrics[name]) for name in names)
        )
        return Loss(torch.tensor(nats), int(counted), dict(zip(names, map(torch.tensor, sums))))

    def exchange(self, last: bool) -> None:
        """Whether the next backward pass also exchanges gradients: only the last one of a step needs to."""
        if isinstance(self._module, FSDPModule):
            self._module.set_requires_gradient_sync(last)
        elif isinstance(self._module, DistributedDataParallel):
            self._module.require_backward_grad_sync = last


class _Pass(nn.Module):
    def __init__(self, model: nn.Module, loss_of: Callable[[Batch], Loss]) -> None:
        super().__init__()
        self.model = model
        self._loss_of = loss_of

    def forward(self, batch: Batch) -> tuple[Tensor, int, dict[str, Tensor]]:
        """A tuple, since FSDP2 looks for tensors in what a module returns."""
        loss = self._loss_of(batch)
        return loss.sum, loss.counted, dict(loss.metrics)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The repeated parts, each gathered only while it works: the members of the model's lists of modules."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)


def gathered(model: nn.Module, workers: Workers) -> Any:
    """The whole model in the leader's host memory, None on the others. All workers must call it together."""
    tensors = model.state_dict()
    if workers.count == 1 and workers.device.type == "cpu":
        return model
    plain: Any = type(model)(model.config) if workers.leads else None
    places = plain.state_dict() if workers.leads else {}
    for name, tensor in tensors.items():
        full = whole(tensor)
        if workers.leads:
            fill(places[name], full)
    return plain


@contextlib.contextmanager
def made_whole(model: nn.Module, workers: Workers) -> Iterator[None]:
    """Within the block the leader's model, whatever it is made of, has whole parameters in host memory; then it goes on
    as it was. All workers must enter it together."""
    before: list[tuple[nn.Module, str, nn.Parameter]] = []
    if workers.count > 1 or workers.device.type != "cpu":
        wholes: dict[nn.Parameter, nn.Parameter] = {}  # a tensor may stand in two places
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                full = whole(parameter)
                if workers.leads:
                    before.append((module, name, parameter))
                    if parameter not in wholes:
                        wholes[parameter] = nn.Parameter(full.cpu(), requires_grad=parameter.requires_grad)
                    setattr(module, name, wholes[parameter])
    try:
        yield
    finally:
        for module, name, parameter in before:
            setattr(module, name, parameter)
