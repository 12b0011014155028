"""Tokenizers of every kind, and a writer that draws at random among the tokens a constraint allows."""

from __future__ import annotations

import functools
import random

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from windlass.build.tokenizer.training import train
from windlass.serve.engine.constraints.constraint import Constraint

TEXT = [
    'The cat\'s name is {"name": "Tom", "age": 12, "tags": ["a", "b"]}, and it sat on the mat.\n',
    "Eine Katze schläft; ein Hund läuft. 日本語のテキスト 🎈 true false null -1.5e10\n",
] * 20
END = "<|endoftext|>"


@functools.cache
def trained(kind: str) -> Tokenizer:
    return train(TEXT, 420, kind=kind, special=["<tool>"], allow_smaller=True).tokenizer


@functools.cache
def llama_like() -> Tokenizer:
    """As Llama 2's: spaces are written as ▁, one is put before every text and dropped again, bytes as a fallback."""
    words = ["▁the", "▁cat", "▁{", '"', "{", "}", ":", ",", "▁", "a", "b", "c", "n", "▁a", '":', '{"', "name", "abc"]
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256))]
    tokenizer = Tokenizer(models.Unigram([*pieces, *((word, -1.0 - len(word) / 99) for word in words)], 0, True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    return tokenizer


@functools.cache
def metaspace() -> Tokenizer:
    """As T5's: Metaspace before and after, and no bytes to fall back to."""
    letters = ["▁", *map(chr, range(33, 127)), "▁the", "▁cat", '"name', '":', "▁{"]
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((word, -1.0 - len(word) / 99) for word in letters)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


@functools.cache
def untidied_wordpiece() -> Tokenizer:
    letters = [chr(number) for number in range(33, 127)]
    vocab = {word: place for place, word in enumerate(["[UNK]", "[SEP]", "cat", "##cat", *letters])}
    vocab |= {f"##{letter}": len(vocab) + place for place, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece("##", cleanup=False)
    tokenizer.add_special_tokens(["[UNK]", "[SEP]"])
    return tokenizer


def end_of(tokenizer: Tokenizer) -> int:
    return next(number for word in (END, "</s>", "[SEP]") if (number := tokenizer.token_to_id(word)) is not None)


def draw(
    constraint: Constraint, size: int, eos: int, seed: int, *, longest: int = 400, jump: bool = False
) -> list[int]:
    """Tokens drawn uniformly among those allowed, the last one without what ends the text; at most `longest`.

    Uniform draws seldom end a string, so the end is taken with a third of the probability where it is allowed.
    """
    chance = random.Random(seed)
    written: list[int] = []
    while not constraint.ended and len(written) < longest:
        forced = constraint.forced() if jump else []
        for token in forced:
            constraint.accept(token)
            written.append(token)
        if constraint.ended:
            break
        logits = torch.zeros(size + 7)  # padded, as some models are
        constraint.allow(logits)
        allowed = torch.nonzero(logits == 0).flatten().tolist()
        if not forced and not jump and len(allowed) == 1:
            token = allowed[0]
        elif eos in allowed and chance.random() < 0.3:
            token = eos
        else:
            token = chance.choice(allowed)
        if token == eos:
            constraint.accept(token)
            break
        constraint.accept(token)
        written.append(token)
    return written
