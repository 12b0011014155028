"""Unigram: the vocabulary under which the text is most likely (Kudo 2018), with bytes for what it cannot spell.

Two things differ from SentencePiece. Spaces stay spaces, since a stand-in character would come back as a space. And a
piece never crosses the words of the pattern, which also keeps a text such as `<0x41>` from being read as that byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from windlass.build.tokenizer.counting import DELIMITER, WordCounts
from windlass.build.tokenizer.kind import (
    PATTERN,
    Kind,
    Rules,
    anything_but,
    frequent_characters,
    split_at_delimiters,
)
from windlass.build.tokenizer.specials import END_OF_TEXT

if TYPE_CHECKING:
    from tokenizers import Tokenizer

COVERAGE = 0.9995
"""Share of the text whose characters get pieces of their own, SentencePiece's default; the rest is spelt in bytes."""


def _rules(cased: bool) -> Rules:
    from tokenizers import Regex, pre_tokenizers

    return None, pre_tokenizers.Split(Regex(PATTERN), "isolated")


def _learn(
    words: WordCounts, rules: Rules, vocab_size: int, roles: Mapping[str, str], special: Sequence[str]
) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, trainers

    reserved = len(special) + 256
    room = vocab_size - reserved
    foreign = anything_but(frequent_characters(words.counts, COVERAGE, room // 2))
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = split_at_delimiters()
    trainer = trainers.UnigramTrainer(vocab_size=room, unk_token=None, show_progress=False)
    spelt = {foreign.sub(DELIMITER, word): count for word, count in words.counts.items()}
    learner.train_from_iterator(replace(words, counts=spelt).texts(), trainer)
    pieces = _in_fixed_order(json.loads(learner.to_str())["model"]["vocab"])
    lowest = pieces[-1][1]
    bytes_ = [(f"<0x{byte:02X}>", lowest) for byte in range(256)]
    model = models.Unigram([*((token, 0.0) for token in special), *bytes_, *pieces], special.index(roles["unk"]), True)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(list(special))
    tokenizer.pre_tokenizer = rules[1]
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _in_fixed_order(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The pieces, likeliest first, without what differs from run to run.

    The trainer sums in the order of a hash table, which shows in the last digits. And characters that are kept for
    coverage alone get the lowest score plus 0.0001, 0.0002… in that same order; here all get the lowest.
    """
    lowest = min(score for _, score in pieces)
    border = lowest + 0.0001 * sum(len(piece) == 1 for piece, _ in pieces)
    fixed = [(p, lowest if len(p) == 1 and score <= border else score) for p, score in pieces]
    return sorted(((piece, round(score, 6)) for piece, score in fixed), key=lambda item: (-item[1], item[0]))


UNIGRAM = Kind(
    title="Unigram with byte fallback",
    lossless=True,
    roles={"bos": END_OF_TEXT, "eos": END_OF_TEXT, "pad": "<|pad|>", "mask": "<|mask|>", "unk": "<unk>"},
    rules=_rules,
    learn=_learn,
)
