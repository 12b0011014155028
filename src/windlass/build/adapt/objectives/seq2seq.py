"""Supervised fine-tuning of an encoder-decoder: the prompt goes into the encoder, the answer comes from the decoder.

Only the answer is predicted, so only it is learned. The loss is that of the pre-training objective (`spans`), which is
the negative log-likelihood of a target given its source.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from windlass.build.adapt.data.lengths import row_size
from windlass.build.adapt.data.sources import Asked, SourceExamples, asked_of
from windlass.build.adapt.data.splitting import split_off
from windlass.build.adapt.objectives.preparing import LossOf, Prepared, scheduled
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.beginning import attached
from windlass.build.adapt.peft.storing import save_tuned, stored_kind
from windlass.build.training.compiling import prepare_blocks
from windlass.build.training.examples import start_token
from windlass.build.training.fitting import Tick
from windlass.build.training.measuring.heldout import HeldOut, score_examples
from windlass.build.training.objectives import arithmetic, spans
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.hf import read_config
from windlass.core.errors import InputError


def prepare(opened: Opened, model: EncoderDecoder) -> Prepared:
    """Raises `InputError` for rows that nothing can be learned from, or that do not fit."""
    settings, data = opened.settings, opened.settings.data
    size, pairs, left_out = row_size(opened, asked_of(opened, opened.rows()))
    by_row: dict[int, list[Asked]] = {}
    for pair in pairs:
        by_row.setdefault(pair.row, []).append(pair)
    parts = split_off(list(by_row.values()), lambda row: row[0].source.tobytes(), data.heldout, settings.run.seed)
    train, heldout = ([pair for row in part for pair in row] for part in parts)
    start, pad = begin_of(opened), start_token(opened.specials)
    examples, unseen = (
        SourceExamples(part, size, pad=pad, start=start, packing=data.packing) for part in (train, heldout)
    )
    attached(model, opened)
    compiler, how = prepare_blocks(model, settings.run, scheduled(settings, len(examples)))
    math = arithmetic(model, dtype=dtype_of(settings.run), accuracy=True, compiler=compiler)

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> HeldOut:
        return score_examples(loss_of, unseen, batch=data.micro_batch or 8, most=most, tick=tick)

    def save(folder: Path) -> None:
        save_tuned(model, opened, folder, "SEQ_2_SEQ_LM", start=start)

    read, learned = (sum(len(side) for side in sides) for sides in zip(*((p.source, p.answer) for p in train)))
    sources, answers = examples.sizes
    padding = 1 - (read + learned) / (len(examples) * (sources + answers))
    lines = [
        *left_out,
        f"{len(train):,} answers to train on, {len(heldout):,} held out; {read:,} tokens are read by the encoder, "
        f"{learned:,} are learned",
        f"{len(examples):,} rows of {sources} and {answers} positions, {padding:.1%} of them padding",
    ]
    facts: dict[str, object] = {"examples": len(train), "tokens": read + learned, "learned_tokens": learned}
    loss = partial(spans, model, math=math)
    return Prepared(
        model, loss, examples, max(examples.sizes), measure, save, [*lines, how], facts, stored_kind(settings)
    )


def begin_of(opened: Opened) -> int:
    """The token that every answer begins with. Raises `InputError` when the base names one that is no token."""
    named = read_config(opened.base).get("decoder_start_token_id")
    start = start_token(opened.specials) if named is None else named
    if not isinstance(start, int) or not 0 <= start < opened.config.vocab_size:
        raise InputError(f"{opened.base_name}: decoder_start_token_id is {start!r}, which is no token.", "Mend it.")
    return start
