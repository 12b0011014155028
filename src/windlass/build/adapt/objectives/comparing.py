"""What the objectives on judged answers have in common before their first pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from windlass.build.adapt.data.answers import AnswerExamples, Answers, encode_answers
from windlass.build.adapt.data.continuations import ContinuationEncoder
from windlass.build.adapt.data.conversations import Conversation, ConversationEncoder, Encoded
from windlass.build.adapt.data.lengths import row_size
from windlass.build.adapt.data.preferences import HINT, Judged
from windlass.build.adapt.opening import Opened
from windlass.build.training.compiling import prepare_blocks
from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError


def decoder_of(opened: Opened) -> Decoder:
    """The base, which is one: other bases are refused when they are opened."""
    model = opened.model()
    assert isinstance(model, Decoder)
    return model


def encoded(
    opened: Opened, judged: Sequence[Judged], mismatched: Sequence[Judged] | None = None
) -> tuple[list[tuple[Judged, Answers]], list[str]]:
    """The examples as tokens, and lines about those that were left out.

    Raises `InputError` for conversations where the base has no template, and for examples that are longer than a row.
    """
    encode = _plain(opened)
    if opened.template is not None:
        encode = ConversationEncoder(opened.tokenizer, opened.template, end=opened.specials.eos).encode
    others = [None] * len(judged) if mismatched is None else mismatched
    found, alike = [], []
    for one, other in zip(judged, others, strict=True):
        answers = encode_answers(encode, one, other)
        chosen, rejected, _ = answers.sides
        if chosen is not None and rejected is not None and np.array_equal(chosen.tokens, rejected.tokens):
            alike.append(one.where)
        else:
            found.append((one, answers))
    lines = []
    if alike:
        line = f"{alike[0]}: chosen and rejected are the same tokens, as the template writes them"
        if opened.settings.data.unusable == "refuse" or not found:
            raise InputError(f"{line}.", HINT)
        lines.append(f"left out: {len(alike):,} of {len(judged):,} pairs, such as {line}")
    _, kept, overlong = row_size(opened, found, lambda example: len(example[1]))
    return kept, [*lines, *overlong]


def _plain(opened: Opened) -> Callable[[Conversation], Encoded]:
    """For a base without a template: the answer goes on where the prompt ends."""
    encoder = ContinuationEncoder(opened.tokenizer, opened.specials)

    def encode(conversation: Conversation) -> Encoded:
        texts = [turn.get("content") for turn in conversation.turns]
        if len(texts) != 2 or conversation.first != 1 or not all(isinstance(text, str) for text in texts):
            raise InputError(
                f"{conversation.where}: the base has no chat template, and this row is no plain prompt with an answer.",
                'Choose how a conversation is written (--set model.template=plain, "chatml" or a file).',
            )
        return encoder.encode(str(texts[0]), str(texts[1]), conversation.where)

    return encode


def described(train: AnswerExamples, heldout: AnswerExamples, what: str) -> str:
    return (
        f"{len(train):,} {what} to train on, {len(heldout):,} held out; {train.tokens:,} tokens without padding, of "
        f"which {train.learned:,} ({train.learned / train.tokens:.0%}) are of answers that count"
    )


def uncompiled(opened: Opened, model: nn.Module) -> str:
    """Prepares the blocks as the settings ask, and says how. Raises `InputError` when compiling is demanded."""
    asked = opened.settings.run
    if asked.compile == "yes":
        raise InputError(
            "run.compile is 'yes', but rows of whole answers have no two passes of one shape.",
            "Leave it out: without padding they are fast as they are.",
        )
    prepare_blocks(model, replace(asked, compile="no"), opened.settings.schedule)
    return "not compiled: rows of whole answers have no two passes of one shape"
