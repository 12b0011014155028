"""Abstention with a promise: fitted on one half of the questions, chosen on the other, stored and served."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from windlass.apply.assistant import Assistant
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.cli.main import main
from windlass.core.documents import Document, write_documents
from windlass.core.errors import InputError
from windlass.core.protocols import Extract
from windlass.core.workspace import Workspace
from windlass.loop.assistants.calibrating import calibrate, calibrate_variant
from windlass.loop.assistants.known import Known, read_known
from windlass.loop.assistants.variant import VariantSpec, make_variant, read_variant
from windlass.loop.releasing.releases import live_variant, promote

SOUNDS = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
EMBEDDER = HashingEmbedder()


def word(rng: random.Random) -> str:
    return "".join(rng.choice(SOUNDS) for _ in range(4))


def world_of(count: int) -> tuple[list[Document], list[Known]]:
    """Pages that say which number a thing has, questions about them, and others about things that no page names."""
    rng = random.Random(4)
    documents, known = [], []
    for number in range(count):
        thing, maker, value = word(rng), word(rng), str(rng.randint(1000, 9999))
        document = f"page{number}"
        text = f"The {thing} was made by {maker} and moves {value} litres in a day."
        documents.append(Document(document, f"{document}.md", "", text))
        known.append(Known(f"How many litres moves the {thing} of {maker}?", document, document, (value,)))
        known.append(Known(f"How many litres moves the {word(rng)} of {word(rng)}?", f"none{number}", None, ()))
    return documents, known


DOCUMENTS, KNOWN = world_of(160)


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with Workspace(tmp_path_factory.mktemp("calibrating")) as workspace:
        with workspace.artifacts.build("corpus", "corpus") as draft:
            write_documents(draft.path / "documents.jsonl", DOCUMENTS)
        index = build_index(workspace, draft.done, EMBEDDER)
        promote(workspace, "assistant", make_variant(workspace, VariantSpec(), index, name="first"), None, "the first")
        yield workspace


@pytest.fixture(scope="module")
def index(ws: Workspace) -> HybridIndex:
    return HybridIndex.open(ws.artifacts.get("index"), EMBEDDER)


class Numbers:
    """A reader that finds the number of any page, surer where the page names what the question does."""

    name, digest = "numbers", None

    def find(self, question: str, texts: Sequence[str]) -> list[Extract | None]:
        found: list[Extract | None] = []
        for text in texts:
            number = next(one for one in text.split() if one.isdigit())
            shared = len(set(question.strip("?").split()) & set(text.split()))
            found.append(Extract(number, text.find(number), float(shared)))
        return found


def test_the_promise_is_made_on_questions_that_fitted_nothing(index: HybridIndex) -> None:
    found = calibrate(Assistant(index), KNOWN, 0.1)
    promise = found.guarantee
    assert promise.n + found.fitted == len(KNOWN) and promise.bound <= 0.1 and promise.risk <= 0.05
    assert 0.3 < promise.coverage < 0.6  # half of the questions have no answer
    assert found.settings.abstention.threshold == promise.threshold and found.auroc is not None and found.auroc > 0.95
    shown = found.render()
    assert "share of questions answered" in shown and "with 95 % confidence at most" in shown


def test_with_a_reader_its_rule_is_calibrated(index: HybridIndex) -> None:
    found = calibrate(Assistant(index, reader=Numbers()), KNOWN, 0.1)
    assert found.settings.reading.threshold == found.guarantee.threshold and found.guarantee.coverage > 0.3
    assert found.settings.abstention == Assistant(index).settings.abstention
    assistant = Assistant(index, found.settings, reader=Numbers())
    for known in KNOWN[:40]:
        best = assistant.readings(assistant.find(known.question))[0]
        if known.answers and best.probability >= found.guarantee.threshold:
            assert best.answer.quote == known.answers[0]


def test_too_little_promises_nothing(index: HybridIndex) -> None:
    with pytest.raises(InputError, match="prove for no threshold") as refused:
        calibrate(Assistant(index), KNOWN[:40], 0.05)
    assert "59 or more" in str(refused.value)
    with pytest.raises(InputError, match="too few"):
        calibrate(Assistant(index), KNOWN[:1], 0.1)


def test_questions_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    rows = [
        {"question": "Who?", "answers": ["nobody", "no one"]},
        {"question": "When?", "context": "SQuAD's form", "answers": [{"text": "1999", "answer_start": 3}]},
        {"question": "Where?", "document": "a.md"},
        {"question": "Why?", "document": None, "cluster": "x"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert read_known(path) == [
        Known("Who?", "Who?", None, ("nobody", "no one")),
        Known("When?", "SQuAD's form", None, ("1999",)),
        Known("Where?", "a.md", "a.md", None),
        Known("Why?", "x", None, None),
    ]
    who, _, where, why = read_known(path)
    assert who.right("d", "It was nobody.", read=False) and not who.right("d", "It was somebody.", read=True)
    assert where.right("a.md", "", read=False) and not where.right("b.md", "", read=True)
    assert not why.right("a.md", "", read=False) and not Known("?", "c", None, ()).right("d", "x", read=False)
    for line, says in (("nonsense", "line 1: not a question"), ('{"question": "x"}', "and `answers` or `document`"),
                       ('{"question": "x", "answers": [3]}', "list of texts"), ("", "holds no questions")):  # fmt: skip
        path.write_text(line)
        with pytest.raises(InputError, match=says):
            read_known(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_known(tmp_path / "absent")


def test_a_calibrated_variant_is_stored_and_served(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": k.question, "answers": k.answers, "cluster": k.cluster}) + "\n"
                            for k in KNOWN))  # fmt: skip
    variant, found = calibrate_variant(ws, risk=0.1, questions=path, embedder=EMBEDDER)
    assert read_variant(variant).settings == found.settings and variant.card["risk"] == 0.1
    assert live_variant(ws, "assistant").digest != variant.digest
    pytest.importorskip("torch")
    monkeypatch.setattr("windlass.serve.encoders.embedder.MiniLM.load", lambda **_: EMBEDDER)
    asked = ["eval", "live", "--risk", "0.1", "--questions", str(path), "--workspace", str(ws.root.parent)]
    assert main([*asked, "--promote"]) == 0
    out = capsys.readouterr().out
    assert "served by 'assistant' from now on" in out and "share of questions answered" in out
    assert live_variant(ws, "assistant").digest == variant.digest
    assert main(["eval", "live", "--promote", "--workspace", str(ws.root.parent)]) == 2
    assert "belong to a calibration" in capsys.readouterr().err
