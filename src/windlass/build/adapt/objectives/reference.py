"""What the reference model makes of every answer: asked once before training, and kept beside the examples.

The reference is the model as training begins. So there is never a second model in memory, whatever of the first is
trained, and no pass of the training is spent on the reference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from windlass.build.adapt.data.answers import SIDES, AnswerBatch, AnswerExamples, Look
from windlass.build.training.distributed.parallel import Spread
from windlass.core.progress import Progress


def remember(examples: AnswerExamples, model: nn.Module, loss_of: Spread, size: int) -> None:
    """Fills `examples.reference`, `size` examples a pass. All workers must call it together; they share the passes."""
    workers, found = loss_of.workers, np.zeros(examples.tokens, np.float32)
    passes = [range(i, min(i + size, len(examples))) for i in range(0, len(examples), size)]
    training = model.training
    model.eval()  # no dropout
    with Progress("reference", len(passes), "passes", out=workers.screen, start=0) as progress:
        for turn in range(0, len(passes), workers.count):
            # All make equally many passes, since FSDP2 gathers the weights for all at once.
            mine = passes[min(turn + workers.number, len(passes) - 1)]
            batch = examples.batch([(0, number) for number in mine])
            look = Look(batch.inputs_BT, batch.targets_BT, lengths_D=batch.lengths_D, places_D=batch.places_D)
            nats_T = loss_of.seen(look).metrics["nats"][0].float().cpu().numpy()
            if turn + workers.number < len(passes):
                _place(found, examples, mine, batch, nats_T)
            progress.update(min(turn + workers.count, len(passes)))
    model.train(training)
    if workers.count > 1:
        found = np.array(workers.total(*found.tolist()), np.float32)
    examples.reference = found


def _place(
    found: NDArray[np.float32],
    examples: AnswerExamples,
    numbers: range,
    batch: AnswerBatch,
    nats_T: NDArray[np.float32],
) -> None:
    """The nats of a pass to where its texts have them."""
    assert batch.places_D is not None
    end = 0
    for place, length in zip(batch.places_D.tolist(), batch.lengths, strict=True):
        start = examples.start(numbers[place // SIDES], place % SIDES)
        found[start : start + length] = nats_T[end : end + length]
        end += length
