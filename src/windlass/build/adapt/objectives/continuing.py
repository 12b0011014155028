"""Continual pre-training: a decoder reads on, text of a new kind, and what it forgets of the old kind is measured.

Documents stand one behind another with a separator between them, none of which sees another, and are cut into windows:
every token is read once an epoch, and nothing is cropped or padded. A share of the windows holds old documents
(`data.documents`). The learning rate is warmed up again from zero and falls again, as in the first pre-training.

Both kinds are measured in bits per byte of held-out documents, which compares texts of any sort, before the first step
and after the last; forgotten is what the old kind costs more than it did before the first step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from windlass.build.adapt.data.documents import ReplayedExamples, Texts, texts_of
from windlass.build.adapt.objectives.comparing import decoder_of
from windlass.build.adapt.objectives.preparing import LossOf, Prepared
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.beginning import attached
from windlass.build.adapt.peft.storing import save_tuned, stored_kind
from windlass.build.training.compiling import prepare_blocks
from windlass.build.training.data.batches import CausalExamples
from windlass.build.training.data.shard import Shard, shard_of
from windlass.build.training.distributed.parallel import Spread
from windlass.build.training.fitting import Tick
from windlass.build.training.measuring.heldout import HeldOut, score
from windlass.build.training.objectives import arithmetic, causal
from windlass.build.training.settings import dtype_of
from windlass.core.errors import InputError

_WINDOW = 2048
"""Tokens of a window at most, where nothing else is asked for."""
_SHARE = 0.25


class Kind(NamedTuple):
    """One kind of text, as the base's tokens."""

    train: Shard
    heldout: Shard


@dataclass(frozen=True, slots=True)
class Kept:
    """What the model makes of documents of both kinds that it was not trained on."""

    new: HeldOut
    old: HeldOut
    share: float
    """Of the old kind, in what is trained on."""
    old_before: float
    """Bits per byte of the old kind before the first step."""

    @property
    def loss(self) -> float:
        return (1 - self.share) * self.new.loss + self.share * self.old.loss

    @property
    def forgotten(self) -> float:
        """Bits per byte; below 0, more was learned of the old kind than forgotten."""
        return self.old.bits_per_byte - self.old_before

    def metrics(self) -> dict[str, float]:
        return {
            "heldout_loss": self.loss,
            "heldout_new_loss": self.new.loss,
            "heldout_new_bpb": self.new.bits_per_byte,
            "heldout_old_loss": self.old.loss,
            "heldout_old_bpb": self.old.bits_per_byte,
            "heldout_forgotten_bpb": self.forgotten,
        }

    def __str__(self) -> str:
        return f"new documents {self.new}; old documents {self.old}, {self.forgotten:+.4f} since the start"


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a base that is no decoder, for rows without text, and when there are too few."""
    settings = opened.settings
    data, seed = settings.data, settings.run.seed
    share = _SHARE if data.replay_share is None else data.replay_share
    model = decoder_of(opened)
    new, old, lines = read(opened)
    size = window(opened, new.train)
    fresh, known = (CausalExamples(kind.train, size, isolate=True, seed=seed) for kind in (new, old))
    examples = ReplayedExamples(fresh, known, share, seed)
    attached(model, opened)
    compiler, how = prepare_blocks(model, settings.run, settings.schedule)
    math = arithmetic(model, dtype=dtype_of(settings.run), compiler=compiler)
    before: list[float] = []

    def scored(loss_of: LossOf, shard: Shard, most: int | None = None, tick: Tick | None = None) -> HeldOut:
        return score(loss_of, size, shard, isolate=True, batch=data.micro_batch or 8, most=most, tick=tick)

    def begin(loss_of: Spread) -> None:
        model.eval()  # no dropout
        before.append(scored(loss_of.shared, old.heldout).bits_per_byte)
        model.train()

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> Kept:
        half = None if most is None else most // 2
        found = scored(loss_of, new.heldout, half, tick)
        return Kept(found, scored(loss_of, old.heldout, half, _after(tick, found.tokens)), share, before[0])

    def save(folder: Path) -> None:
        save_tuned(model, opened, folder, "CAUSAL_LM")

    replayed = (
        f"{len(examples):,} windows of {size:,} tokens an epoch, {examples.replayed:,} of them "
        f"({examples.replayed / len(examples):.0%}) of old documents"
    )
    facts: dict[str, object] = {
        "documents": new.train.documents,
        "tokens": len(new.train),
        "replayed_from": data.replay if opened.replay_artifact is None else opened.replay_artifact.ref,
        "replayed_share": f"{examples.replayed / len(examples):.1%}",
    }
    return Prepared(
        model,
        partial(causal, model, math=math),
        examples,
        size,
        measure,
        save,
        [*lines, replayed, how],
        facts,
        stored_kind(settings),
        begin=begin,
    )


def read(opened: Opened) -> tuple[Kind, Kind, list[str]]:
    """New and old documents as tokens, and lines about them."""
    data, seed, specials = opened.settings.data, opened.settings.run.seed, opened.specials
    assert opened.replay is not None, "the settings demand old documents"
    new = texts_of(opened.file, opened.dataset, data, seed, opened.columns)
    old = texts_of(opened.replay, opened.replay_artifact, data, seed)
    known = {*new.train, *new.heldout}
    apart = Texts(*([text for text in texts if text not in known] for texts in old))
    if not all(apart):
        raise InputError(
            f"data.replay: all {'held-out' if apart.train else 'training'} documents of {data.replay} are among those "
            "of data.dataset too, so nothing of it is old.",
            "Name text of the kind that the base has read, and that is not in data.dataset.",
        )
    lines = []
    if twice := sum(map(len, old)) - sum(map(len, apart)):
        lines.append(f"left out: {twice:,} old documents that are among the new ones too")
    kinds = []
    for name, texts in (("new", new), ("old", apart)):
        kind = Kind(*(shard_of(part, opened.tokenizer, specials.separator, specials.bos) for part in texts))
        lines.append(
            f"{name}: {kind.train.documents:,} documents of {len(kind.train):,} tokens to train on, "
            f"{kind.heldout.documents:,} of {kind.heldout.bytes:,} bytes held out"
        )
        kinds.append(kind)
    return kinds[0], kinds[1], lines


def window(opened: Opened, shard: Shard) -> int:
    """Tokens of a window. Raises `InputError` when the settings ask for more than the base reads."""
    most, asked = opened.context, opened.settings.model.context
    if asked is not None and asked > most:
        raise InputError(
            f"model.context is {asked:,} tokens, but {opened.base_name} reads {most:,}.", "Choose a smaller one."
        )
    return asked or min(most, _WINDOW, len(shard) - 1)


def _after(tick: Callable[[int], None] | None, done: int) -> Tick | None:
    return None if tick is None else lambda more: tick(done + more)
