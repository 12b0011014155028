"""Language identification on the public translation and question sets, on programs, and on next to nothing."""

from __future__ import annotations

import gzip
import json

import pytest
from bench._data import data_folder

from windlass.build.corpus.language import LOOKED_AT, LOOKS, Language, identify

pytest.importorskip("py3langid")
DATA = data_folder()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "The people of this town have always been proud of their bridges and their bread."),
        ("de", "Die Leute in dieser Stadt waren immer stolz auf ihre Brücken und ihr Brot."),
        ("fr", "Les habitants de cette ville ont toujours été fiers de leurs ponts et de leur pain."),
        ("es", "La gente de esta ciudad siempre ha estado orgullosa de sus puentes y de su pan."),
        ("ru", "Жители этого города всегда гордились своими мостами и своим хлебом."),
        ("ja", "この町の人々は、いつも橋とパンを誇りに思ってきました。"),
        ("zh", "这个城市的人们一直为他们的桥梁和面包感到自豪。"),
        ("ar", "لطالما كان سكان هذه المدينة فخورين بجسورهم وخبزهم."),
    ],
)
def test_one_sentence_is_enough(code: str, text: str) -> None:
    found = identify(text)
    assert found.code == code and 0.3 < found.probability <= 1


@pytest.mark.parametrize("text", ["", "ok", "12 345 678 901 234", "=== --- +++ " * 20, "x = [1, 2]; y", "📞 ☎ → ∞" * 9])
def test_too_little_to_tell(text: str) -> None:
    assert identify(text).code == "und"


def test_code_in_a_page_does_not_count() -> None:
    program = "```python\n" + "def f(x: int) -> int:\n    return x + 1\n" * 3 + "```\n"
    sentence = "Diese Funktion zählt eins dazu, mehr tut sie nicht."
    assert identify(program + sentence).code == "de"
    assert identify("```\n" + "let x = 5;\n" * 200 + "```") == Language("und", 0.0)


def test_a_long_text_costs_no_more_than_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Model:
        def classify(self, text: str) -> tuple[str, float]:
            seen.append(len(text))
            return "en", 0.4

    monkeypatch.setattr("windlass.build.corpus.language._model", Model)
    assert identify("some words " * 100_000) == Language("en", 0.4)
    assert seen == [LOOKED_AT] * LOOKS


def test_public_translations_and_questions() -> None:
    if not DATA.is_dir():
        pytest.skip(f"the public data folder is not at {DATA}")
    for code in ("de", "en", "fr"):
        lines = gzip.decompress((DATA / f"translation/multi30k/val.{code}.gz").read_bytes()).decode().splitlines()[::10]
        assert sum(identify(line).code == code for line in lines) >= 0.98 * len(lines) > 90
    for code in ("de", "en", "es"):
        data = json.loads(gzip.decompress((DATA / f"qa/xquad/xquad.{code}.json.gz").read_bytes()))["data"]
        paragraphs = [paragraph["context"] for article in data for paragraph in article["paragraphs"]][::4]
        assert all(identify(paragraph).code == code for paragraph in paragraphs)
