"""WordPiece with BERT's conventions (Devlin et al. 2019): made for encoders, and not lossless.

Text is cleaned, in general lower-cased and stripped of accents, and split at white space and at every mark; a word with
a character that the vocabulary lacks becomes one [UNK]. The report says how much of the text comes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from windlass.build.tokenizer.counting import WordCounts
from windlass.build.tokenizer.kind import Kind, Rules, anything_but, frequent_characters, split_at_delimiters

if TYPE_CHECKING:
    from tokenizers import Tokenizer

INSIDE = "##"
"""Marks a piece that does not begin a word."""

COVERAGE = 0.9995


def _rules(cased: bool) -> Rules:
    from tokenizers import normalizers, pre_tokenizers

    return normalizers.BertNormalizer(lowercase=not cased), pre_tokenizers.BertPreTokenizer()


def _learn(
    words: WordCounts, rules: Rules, vocab_size: int, roles: Mapping[str, str], special: Sequence[str]
) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, processors, trainers

    alphabet = frequent_characters(words.counts, COVERAGE, (vocab_size - len(special)) // 4)
    foreign = anything_but(alphabet)
    known = {word: count for word, count in words.counts.items() if not foreign.search(word)}
    # The trainer numbers pieces as a hash table happens to list them, and breaks ties between merges by number. Named
    # as special tokens, the single characters have fixed numbers.
    singles = sorted({word[0] for word in known}) + sorted({INSIDE + c for word in known for c in word[1:]})
    learner = Tokenizer(models.WordPiece(unk_token=roles["unk"]))
    learner.pre_tokenizer = split_at_delimiters()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[*special, *singles],
        continuing_subword_prefix=INSIDE,
        show_progress=False,
    )
    learner.train_from_iterator(replace(words, counts=known).texts(), trainer)
    tokenizer = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token=roles["unk"]))
    tokenizer.add_special_tokens(list(special))
    tokenizer.normalizer, tokenizer.pre_tokenizer = rules
    tokenizer.decoder = decoders.WordPiece(INSIDE, cleanup=True)
    cls, sep = roles["cls"], roles["sep"]
    ends = [(token, tokenizer.token_to_id(token)) for token in (cls, sep)]
    tokenizer.post_processor = processors.TemplateProcessing(f"{cls} $A {sep}", f"{cls} $A {sep} $B:1 {sep}:1", ends)
    return tokenizer


WORDPIECE = Kind(
    title="WordPiece",
    lossless=False,
    roles={"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    rules=_rules,
    learn=_learn,
)
