"""The baselines: against the command-line compressors, and in the order that theory demands."""

from __future__ import annotations

import math
import random
import re
import shutil
import subprocess

import pytest

from windlass.core.errors import InputError
from windlass.evaluate import compression

WORDS = re.findall("[a-z]+", "the model reads a text and predicts the next token of every line in it with some care")


def documents(count: int, seed: int, words: int = 400) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choice(WORDS) for _ in range(words)) for _ in range(count)]


@pytest.mark.parametrize(("program", "bits"), [("gzip", compression.gzip_bits), ("xz", compression.xz_bits)])
def test_sizes_are_those_of_the_programs(program: str, bits: object) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    text = "\n".join(documents(20, 1)).encode()
    level = "-9" if program == "gzip" else "-9e"
    size = len(subprocess.run([program, level, "-c"], input=text, capture_output=True, check=True).stdout)
    assert bits(text) == pytest.approx(8 * size / len(text), rel=0.005)  # type: ignore[operator]


def test_training_text_helps_where_it_repeats() -> None:
    text = documents(1, 2, 2000)[0].encode()
    assert compression.xz_bits(text, after=text) < 0.1 * compression.xz_bits(text)


def test_the_ngram_approaches_the_entropy_of_its_source() -> None:
    # Words are drawn evenly and independently: no model can spend fewer bits than this on average.
    distinct = sorted(set(WORDS))
    counts = [WORDS.count(word) / len(WORDS) for word in distinct]
    entropy = -sum(p * math.log2(p) for p in counts)
    length = sum((len(word) + 1) * p for word, p in zip(distinct, counts, strict=True))
    found = compression.baselines(documents(60, 3), documents(20, 4))
    assert entropy / length < found.bits_per_byte[compression.NGRAM] < 1.1 * entropy / length
    assert found.bits_per_byte[compression.NGRAM] < found.bits_per_byte[compression.GZIP]
    assert found.ngram_order in compression.ORDERS


def test_no_text_is_refused() -> None:
    with pytest.raises(InputError, match="need two training documents"):
        compression.baselines(["", "a"], ["b"])
    with pytest.raises(InputError):
        compression.baselines(["a", "b"], [""])
