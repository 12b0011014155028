"""How much memory a run will take, found out before it takes it.

Weights, gradients and the optimizer's state follow from the shape. What a pass keeps for its way back is counted, not
guessed: the model runs on PyTorch's `meta` device, which computes shapes and no numbers, and every tensor that autograd
would keep is added up. Compiled blocks keep less; what is said of them is an upper bound.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from windlass.build.training.data.batches import Batch
from windlass.build.training.head import chunk_size
from windlass.build.training.optim.adamw8 import BLOCK
from windlass.build.training.settings import PretrainSettings
from windlass.build.training.sizes import Sizes
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.model import model_of

_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one worker."""

    process: int
    """Python and PyTorch themselves, as this process stands."""
    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    head: int
    working: int = 0
    """What a pass holds for a moment: a block's gradients, holes between tensors, and code that libraries make."""

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in self.__slots__)

    def rows(self) -> list[tuple[str, int]]:
        return [(name, getattr(self, name)) for name in self.__slots__]


def estimate(settings: PretrainSettings, sizes: Sizes, batch: Batch) -> Memory:
    """Of a run whose passes read batches shaped as `batch`, on one worker that holds the whole model."""
    config, parameters = sizes.model, sizes.model.parameters
    width = 2 if settings.run.precision == "bf16" else _FLOAT
    contrastive = settings.objective_kind == "contrastive"
    positions = min(batch.counted, chunk_size(config.vocab_size))
    return Memory(
        process=resident(),
        weights=parameters * _FLOAT,
        gradients=parameters * _FLOAT,
        optimizer=_optimizer(settings, config),
        average=parameters * _FLOAT if settings.optimizer.ema else 0,
        activations=_activations(settings, config, batch),
        head=0 if contrastive else positions * config.vocab_size * bytes_of_logit(width),
    )


def available() -> int | None:
    """Bytes that this machine can still give: of its GPU, or else of its memory; None where it does not tell."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = dict(line.split(":", 1) for line in lines)
    return int(found["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in found else None


def _optimizer(settings: PretrainSettings, config: TransformerConfig) -> int:
    inside = config.matrix_parameters
    outside = config.parameters - inside
    if settings.optimizer.kind == "muon":
        return (inside + 2 * outside) * _FLOAT
    if settings.optimizer.kind == "adamw":
        return 2 * config.parameters * _FLOAT
    return 2 * config.parameters * (BLOCK + _FLOAT) // BLOCK


def bytes_of_logit(width: int) -> int:
    """Bytes for each logit: itself, in float32, its share of the softmax, and the gradient."""
    return 3 * _FLOAT + (2 * width if width != _FLOAT else 0)


def _activations(settings: PretrainSettings, config: TransformerConfig, batch: Batch) -> int:
    """What one pass keeps until its way back."""
    if config.experts is not None:  # a pass through experts depends on numbers; the visited ones are as wide as this
        ffn = config.experts.active * config.experts.ffn + config.experts.shared_ffn
        config = replace(config, experts=None, ffn=ffn)
    dtype = torch.bfloat16 if settings.run.precision == "bf16" else None
    with torch.device("meta"):
        model = model_of(config).train()
    shapes = batch.to(torch.device("meta"))
    with counted_activations(model) as kept:
        if isinstance(model, EncoderDecoder):
            assert shapes.source_BS is not None
            model.hidden(
                shapes.source_BS,
                shapes.inputs_BT,
                source_documents_BS=shapes.source_documents_BS,
                target_documents_BT=shapes.documents_BT,
                dtype=dtype,
            )
        else:
            for tokens, owners in (
                (shapes.inputs_BT, shapes.documents_BT),
                (shapes.source_BS, shapes.source_documents_BS),
            ):
                if tokens is not None:
                    model.hidden(tokens, documents_BT=owners, dtype=dtype)
    whole = kept()
    if not settings.run.recompute:
        return whole
    layers = config.layers + config.decoder_layers
    inputs = batch.tokens * config.hidden * (2 if dtype is not None else _FLOAT) * config.layers
    return inputs + whole // layers


@contextlib.contextmanager
def counted_activations(model: nn.Module) -> Iterator[Callable[[], int]]:
    """Yields a function that tells the bytes which the passes within the block keep for their way back, the model's own
    weights aside."""
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}  # holds the tensors too, or their storages' numbers would be given again

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield lambda: sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def resident() -> int:
    """Bytes of memory that this process holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return most_resident()
    return pages * resource.getpagesize()


def most_resident() -> int:
    """Bytes of memory that this process has held at once since it began."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
