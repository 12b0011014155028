"""Byte-level BPE: pairs are merged (Sennrich et al. 2016) over bytes (Radford et al. 2019), so any text has tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from windlass.build.tokenizer.counting import WordCounts
from windlass.build.tokenizer.kind import PATTERN, Kind, Rules, split_at_delimiters
from windlass.build.tokenizer.specials import END_OF_TEXT

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def _rules(cased: bool) -> Rules:
    from tokenizers import Regex, pre_tokenizers

    return None, pre_tokenizers.Split(Regex(PATTERN), "isolated")


def _learn(
    words: WordCounts, rules: Rules, vocab_size: int, roles: Mapping[str, str], special: Sequence[str]
) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split_at_delimiters()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Each distinct word becomes bytes once; in the rules of the trainer, each occurrence would.
    spelt = {in_bytes.pre_tokenize_str(word)[0][0]: count for word, count in words.counts.items()}
    tokenizer.train_from_iterator(replace(words, counts=spelt).texts(), trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([rules[1], in_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


BPE = Kind(
    title="byte-level BPE",
    lossless=True,
    roles={"bos": END_OF_TEXT, "eos": END_OF_TEXT, "pad": "<|pad|>", "mask": "<|mask|>"},
    rules=_rules,
    learn=_learn,
)
