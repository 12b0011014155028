"""Does text come back? Every text is encoded, decoded and compared."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from windlass.build.tokenizer.loading import batches
from windlass.core.errors import WindlassError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def round_trips(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each text with what it becomes when it is encoded and decoded."""
    for batch in batches(texts):
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        yield from zip(
            batch,
            tokenizer.decode_batch([encoding.ids for encoding in encodings], skip_special_tokens=False),
            strict=True,
        )


def check_lossless(tokenizer: Tokenizer, texts: Iterable[str]) -> int:
    """Encodes and decodes every text; returns how many. Raises `WindlassError` showing the first that changes."""
    count = 0
    for text, back in round_trips(tokenizer, texts):
        if text != back:
            at = first_difference(text, back)
            raise WindlassError(
                f"The tokenizer is not lossless: {text[at : at + 20]!r} came back as {back[at : at + 20]!r}.",
                "Report this text as a fault of windlass.",
            )
        count += 1
    return count


def first_difference(text: str, back: str) -> int:
    """Where two texts part, in characters."""
    return next((i for i, (a, b) in enumerate(zip(text, back)) if a != b), min(len(text), len(back)))


def random_texts(count: int, seed: int = 0) -> Iterator[str]:
    """Texts over all of Unicode, with many marks, spaces and line ends among them."""
    generator = random.Random(seed)
    common = " \n\t\r'\"-_=#09aZéß漢🙂\u200d\u0301\ufeff"
    for _ in range(count):
        places = (generator.choice((0x100, 0x3000, 0xD800, 0x110000)) for _ in range(generator.randrange(60)))
        codes = (generator.randrange(limit) for limit in places)
        mixed = (chr(c) if not 0xD800 <= c < 0xE000 and c % 3 else generator.choice(common) for c in codes)
        yield "".join(mixed)
