"""What counting alone makes of the examples that an encoder or an encoder-decoder was measured on.

Both baselines read as much of the training text as `MOST_TOKENS` allows, tokenized as the model read it, and are asked
for the very tokens that the model was asked for.
"""

from __future__ import annotations

import numpy as np

from windlass.build.training.data.batches import IGNORE, Examples
from windlass.build.training.job import Inputs, Texts, open_inputs, read_texts
from windlass.build.training.measuring.heldout import spread
from windlass.build.training.settings import PretrainSettings
from windlass.core.artifacts import Artifact
from windlass.core.config import strict
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.evaluate.neighbours import HIDDEN, Guesses, Neighbours
from windlass.evaluate.ngram import NGram

MOST_TOKENS = 20_000_000
_ASKED = 20_000
"""Hidden tokens that the counts of neighbours are asked for: each costs a pass over the vocabulary."""
_LONGEST_GRAM = 4


def counted(ws: Workspace, model: Artifact) -> str | None:
    """A table of the model beside its baseline, nats a target and share right; None where there is none to compare."""
    settings = strict(PretrainSettings, model.card["settings"], where=f"the card of {model.ref}")
    inputs = open_inputs(
        ws, ws.artifacts.get(model.parent("corpus")), ws.artifacts.get(model.parent("tokenizer")), settings
    )
    if settings.objective_kind == "masked":
        baseline = _neighbours(inputs, read_texts(inputs))
    elif settings.objective_kind == "spans":
        baseline = _without_source(inputs, read_texts(inputs))
    else:
        return None
    right = model.card.get("heldout_accuracy")
    ours = (model.ref, model.card["heldout_loss"], None if right is None else f"{right:.1%}", "all held-out text")
    rows = [(row[0], f"{row[1]:.3f}", row[2] or "", row[3]) for row in (ours, baseline)]
    return table(("model", "nats a target", "right", "measured on"), rows)


Row = tuple[str, float, str | None, str]


def _neighbours(inputs: Inputs, texts: Texts) -> Row:
    """Each hidden token guessed from what stands beside it, which may be hidden too."""
    model = Neighbours(texts.train.tokens[:MOST_TOKENS], inputs.sizes.model.vocab_size)
    mask = inputs.specials.need("mask")
    found = [_asked(texts.unseen, number, mask) for number in spread(texts.unseen, _ASKED)]
    left, hidden, right = (np.concatenate(parts) for parts in zip(*found, strict=True))
    guesses: Guesses = model.guess(left, hidden, right)
    how = f"{guesses.count:,} hidden tokens, spread evenly"
    return "counts of both neighbours", guesses.nats / guesses.count, f"{guesses.right / guesses.count:.1%}", how


def _asked(examples: Examples, number: int, mask: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left neighbour, hidden token and right neighbour of every target of an example."""
    batch = examples.batch([(0, number)])
    inputs, targets = batch.inputs_BT[0].numpy(), batch.targets_BT[0].numpy()
    seen = np.concatenate([[HIDDEN], np.where(inputs == mask, HIDDEN, inputs), [HIDDEN]])
    places = np.flatnonzero(targets != IGNORE)
    return seen[places], targets[places], seen[places + 2]


def _without_source(inputs: Inputs, texts: Texts) -> Row:
    """The targets by an n-gram model of other targets: what can be known without reading the text with the gaps."""
    longest = texts.examples.batch([(0, 0)]).targets_BT.shape[1]
    train = _targets(texts.examples, MOST_TOKENS // 4 // longest)
    heldout = _targets(texts.unseen, len(texts.unseen))
    model = NGram(train, inputs.sizes.model.vocab_size, _LONGEST_GRAM)
    nats = {order: -float(model.log_probabilities(heldout, order).mean()) for order in range(2, _LONGEST_GRAM + 1)}
    order = min(nats, key=lambda n: nats[n])
    return f"{order}-gram of targets, no source", nats[order], None, "all held-out text, the best order on it"


def _targets(examples: Examples, most: int) -> list[np.ndarray]:
    return [examples.batch([(0, number)]).targets_BT[0].numpy() for number in range(min(len(examples), most))]
