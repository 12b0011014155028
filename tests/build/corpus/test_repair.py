"""Unicode repair: what ftfy mends is mended, what is right is left alone, and prose costs no more than a glance."""

from __future__ import annotations

import gzip
import json

import pytest
from bench._data import data_folder
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.corpus.repair import repaired
from windlass.core.readers import canonical

ftfy = pytest.importorskip("ftfy")
DATA = data_folder()
TABLES = ("cp1252", "latin-1", "cp1250", "iso8859-2", "cp1251", "mac_roman", "cp437", "cp1253", "cp1254", "cp1257")
WORDS = [
    "Élan",
    "naïve",
    "café",
    "–",
    "“quoted”",
    "René’s",
    "Ångström",
    "señor",
    "Привет",
    "её",
    "Γειά",
    "日本語",
    "é…",
]


def by_ftfy(text: str) -> str:
    """ftfy's own answer for every line."""
    return canonical("\n".join(ftfy.fix_encoding(line) for line in text.split("\n")))


def test_the_usual_accidents_are_mended_and_counted() -> None:
    text = "Itâ€™s RenÃ©eâ€™s cafÃ©.\n\nA clean line: naïve – “yes”.\n\nÃœber alles."
    assert repaired(text) == (
        "It’s Renée’s café.\n\nA clean line: naïve – “yes”.\n\nÜber alles.",
        "2 wrongly decoded lines mended",
    )


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_undone_as_ftfy_undoes_it(table: str) -> None:
    tried = 0
    for word in WORDS:
        broken = word.encode().decode(table, "ignore")
        line = canonical(f"He said {broken} and then he left.")
        assert repaired(line)[0] == by_ftfy(line), (word, line)
        tried += broken != word
    assert tried > 5


@pytest.mark.parametrize(
    "text",
    [
        "“Curly” ‘quotes’ — dashes… and naïve café, Ångström, Straße, señor, façade",
        "Привет, как дела? Всё её ещё объём",
        "Γειά σου Κόσμε, Ἀθῆναι",
        "日本語の文章です。한국어 문장입니다。",
        "x² ± 3 µm ≤ 5 °C, 10 € £5 ½ × 2 → ∞",
        "plain ASCII & &amp; <b>html</b> ﬁ",
        "def f(x):\n    return 'naïve' + \"\\u00e9\"  # a comment",
    ],
)
def test_what_is_right_is_left_alone(text: str) -> None:
    assert repaired(text) == (text, None)


@given(st.text(st.sampled_from("abé’ÃÂâ€™©“”\n Ð¿рñ\xa0?")), st.sampled_from(WORDS))
def test_any_text_comes_out_canonical_and_as_ftfy_says(text: str, word: str) -> None:
    text = canonical(f"{text} {word}")
    mended, note = repaired(text)
    assert canonical(mended) == mended and (note is None) == (mended == text)
    assert mended == by_ftfy(text)


@pytest.mark.slow
def test_no_line_of_real_pages_is_missed_that_ftfy_would_mend() -> None:
    if not DATA.is_dir():
        pytest.skip(f"the public data folder is not at {DATA}")
    mended = 0
    for name in ("web/c4_demo", "docs/rust-lang__rfcs"):
        with gzip.open(DATA / f"pretrain/{name}.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
            for line in file:
                text = canonical(json.loads(line)["text"])
                assert repaired(text)[0] == by_ftfy(text)
                mended += repaired(text)[1] is not None
    assert mended
