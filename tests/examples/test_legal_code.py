"""The legal code that is read whole and searched: the questions fit the text, and the figures are of the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bench import whole
from bench._data import data_folder
from tests.apply.provider_world import Loopback, reply

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.core.errors import InputError
from windlass.core.protocols import Extract, Hit
from windlass.core.values import Citation

SECTIONS = {
    "Tolls": ("What do the tolls say a barge pays?", "four crowns and a half"),
    "Nights": ("At nights, when is the lock shut?", "from ten in the evening"),
    "Fires": ("How far away may fires burn?", "not nearer than sixty paces"),
}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A short code: three sections, of which a passage each is made, and a question for each."""
    for title, (_, answer) in SECTIONS.items():
        words = f"Here it says about {title.lower()} what holds for everybody who comes to the lock. " * 8
        with (tmp_path / "code.md").open("a") as file:
            file.write(f"# {title}\n\nThe rule of the {title.lower()} is this: {answer}, and no less. {words}\n\n")
    rows = [{"question": question, "answers": [answer]} for question, answer in SECTIONS.values()]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def figures(code: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    where = ["--text", str(code / "code.md"), "--questions", str(code / "questions.jsonl"), "--k", "1"]
    assert whole.main([*where, *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_what_a_provider_reads_costs_and_says_is_measured(
    code: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "embedder_named", lambda ws, name: HashingEmbedder())
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-this-test")
    with Loopback() as provider:
        for way in (3, 1):  # whole: any of three passages; then the passage found
            for _, answer in SECTIONS.values():
                said = " ".join(f'This is it [{number}: "{answer}"].' for number in range(1, way + 1))
                provider.answers.append(reply(said))
        provider.answers.append(reply("NO ANSWER"))  # nobody should ask for it
        found = figures(code, capsys, "--model", "openai:gpt-5-mini", "--base-url", provider.url)
        bodies = provider.bodies()
    assert found["questions"] == 3 == found["passages"] and len(bodies) == 6
    asked = [body["messages"][-1]["content"] for body in bodies]
    assert all(text.count("<<passage") == (3 if n < 3 else 1) for n, text in enumerate(asked))
    model = found["read"]["openai:gpt-5-mini"]
    assert model["whole"]["exact"] == model["passages"]["exact"] == 1.0 and model["f1_of_whole_more"] == [0, 0, 0]
    assert model["whole"]["tokens"] == 20 and found["ratio"] == 1.0, "as the provider counted them"
    sentence = found["read"]["best sentence"]
    assert sentence["whole"]["exact"] == 0 and sentence["whole"]["tokens"] > 2 * sentence["passages"]["tokens"]
    for row in found["usd_per_1000"].values():
        assert max(row["passages"], row["whole_cached"]) < row["whole"]


def test_prices_are_those_of_the_table() -> None:
    price = whole.pricing.Price(input=1.0, output=10.0, cache_read=0.1)
    alone, cached, passages = whole.Prompts(10_000, 9_000, 1_000).dollars(price, 4)
    answer = whole.ANSWER * 10e-6
    assert alone == pytest.approx(0.01 + answer) and passages == pytest.approx(0.001 + answer)
    assert cached == pytest.approx((0.01 + 3 * (0.001 + 0.0009)) / 4 + answer)
    unsold = whole.pricing.Price(input=1.0, output=10.0)
    assert whole.Prompts(10_000, 9_000, 1_000).dollars(unsold, 4)[1] is None


def test_what_is_wrong_with_questions_is_said(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--text", str(code / "code.md"), "--questions", str(code / "bad.jsonl")]
    for content, said in {
        '{"question": "Who?"}\n': "line 1: not a question ('answers')",
        '{"question": "Who?", "answers": ["a"]}\n': "holds 1 questions",
        '{"question": "Who?", "answers": ["seven crowns"]}\n{"question": "Who?", "answers": []}\n': "does not stand in",
    }.items():
        (code / "bad.jsonl").write_text(content)
        assert whole.main(where) == 1
        assert said in capsys.readouterr().err
    assert whole.main(["--text", "nowhere.txt"]) == 1
    assert "nowhere.txt" in capsys.readouterr().err


def test_the_examples_questions_stand_in_the_license() -> None:
    questions = whole.asked_in(whole.QUESTIONS)
    assert len(questions) >= 40 and len({question.text for question in questions}) == len(questions)
    with pytest.raises(InputError, match="does not stand"):
        whole.checked(questions, "Another text.")
    text = data_folder() / whole.LICENCE
    if not text.is_file():
        pytest.skip(f"no {text}; set WINDLASS_DATA")
    whole.checked(questions, text.read_text(encoding="utf-8"))


def test_a_reader_says_that_of_which_it_is_surest() -> None:
    class Reading:
        name, digest = "reading", None

        def find(self, question: str, texts: Sequence[str]) -> list[Extract | None]:
            return [Extract(text[:4], 0, float(len(text))) if "no" not in text else None for text in texts]

    hits = [
        Hit(n, 0.0, Citation("d", "", "", 0, len(text), text))
        for n, text in enumerate(("abcd", "efghi", "none at all"))
    ]
    assert whole.by_reader(Reading(), "What?", hits).words == "efgh"
    assert (
        whole.by_reader(Reading(), "What?", hits[2:]).words == ""
        and whole.by_reader(Reading(), "What?", hits).tokens > 3
    )
