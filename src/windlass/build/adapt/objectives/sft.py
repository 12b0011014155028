"""Supervised fine-tuning: the next token of what an assistant says, given all that stands before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from windlass.build.adapt.data.continuations import ContinuationEncoder
from windlass.build.adapt.data.conversations import ConversationEncoder, Encoded
from windlass.build.adapt.data.formats import continuation_of, conversation_of
from windlass.build.adapt.data.lengths import row_size
from windlass.build.adapt.data.packing import PackedExamples
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.data.splitting import split_off
from windlass.build.adapt.objectives import seq2seq
from windlass.build.adapt.objectives.preparing import LossOf, Prepared, scheduled
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.beginning import attached
from windlass.build.adapt.peft.storing import save_tuned, stored_kind
from windlass.build.training.compiling import prepare_blocks
from windlass.build.training.fitting import Tick
from windlass.build.training.measuring.heldout import HeldOut, score_examples
from windlass.build.training.objectives import arithmetic, causal
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.encoder_decoder import EncoderDecoder


@dataclass(frozen=True, slots=True)
class ConversationRows:
    """What is learned from, packed."""

    train: PackedExamples
    unseen: PackedExamples
    """Held out."""
    size: int
    """Positions of a row."""
    lines: Sequence[str]
    facts: dict[str, object]


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for rows that nothing can be learned from, that need a template where there is none, or that
    do not fit."""
    settings = opened.settings
    model = opened.model()
    if isinstance(model, EncoderDecoder):
        return seq2seq.prepare(opened, model)
    assert isinstance(model, Decoder)
    rows = conversation_rows(opened, opened.rows())
    attached(model, opened)
    compiler, how = prepare_blocks(model, settings.run, scheduled(settings, len(rows.train)))
    by_text = compiler is None and settings.adapter.kind not in ("prompt", "prefix")  # what is before a text, repeats
    math = arithmetic(model, dtype=dtype_of(settings.run), accuracy=True, compiler=compiler, by_text=by_text)

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> HeldOut:
        return score_examples(loss_of, rows.unseen, batch=settings.data.micro_batch or 8, most=most, tick=tick)

    def save(folder: Path) -> None:
        save_tuned(model, opened, folder, "CAUSAL_LM")

    loss = partial(causal, model, math=math)
    return Prepared(
        model, loss, rows.train, rows.size, measure, save, [*rows.lines, how], rows.facts, stored_kind(settings)
    )


def conversation_rows(opened: Opened, given: Iterable[Row]) -> ConversationRows:
    """Raises `InputError` for rows that nothing can be learned from, that need a template where there is none, or that
    do not fit."""
    settings = opened.settings
    whole = encoded_rows(opened, given)
    size, encoded, left_out = row_size(opened, whole)
    train, heldout = split_off(
        encoded, lambda example: example.tokens.tobytes(), settings.data.heldout, settings.run.seed
    )
    pad = opened.specials.separator if opened.specials.pad is None else opened.specials.pad
    examples = PackedExamples(train, size, pad=pad, packing=settings.data.packing)
    unseen = PackedExamples(heldout, size, pad=pad)
    tokens, learned = sum(map(len, train)), sum(int(one.learned.sum()) for one in train)
    lines = [
        *left_out,
        f"{len(train):,} examples to train on, {len(heldout):,} held out; {tokens:,} tokens, of which {learned:,} "
        f"({learned / tokens:.0%}) are learned",
        f"{len(examples):,} rows of {size} positions, {1 - tokens / (len(examples) * size):.1%} of them padding",
    ]
    facts: dict[str, object] = {
        "examples": len(train),
        "overlong": len(whole) - len(encoded),
        "tokens": tokens,
        "learned_tokens": learned,
    }
    return ConversationRows(examples, unseen, size, lines, facts)


def encoded_rows(opened: Opened, rows: Iterable[Row]) -> list[Encoded]:
    """Conversations where the base has a template, plain continuations where it has none."""
    if opened.template is None:
        plain = ContinuationEncoder(opened.tokenizer, opened.specials)
        return [plain.encode(*continuation_of(row), row.where) for row in rows]
    encoder = ConversationEncoder(opened.tokenizer, opened.template, end=opened.specials.eos)
    return [encoder.encode(conversation_of(row)) for row in rows]
