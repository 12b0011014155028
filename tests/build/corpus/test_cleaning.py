"""The stages of one document: what they change, what they drop, and that sections still point at their headings."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_world import Given, left_out, lines, page, prose
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.corpus import CorpusSettings, build_corpus, corpus_documents, corpus_report, corpus_summary
from windlass.build.corpus.cleaning import Cleaning
from windlass.build.corpus.evaluation_sets import contamination, evaluation_texts
from windlass.build.corpus.rewriting import rewritten
from windlass.core.documents import Document, Section
from windlass.core.errors import ConfigError, InputError
from windlass.core.readers import canonical
from windlass.core.workspace import Workspace

QUESTION = "which small wheel with teeth keeps the drum of a windlass from running back under its heavy load"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "home") as ws:
        yield ws


def sectioned(*pieces: tuple[str, str]) -> Document:
    text, sections = "", []
    for heading, body in pieces:
        sections.append(Section(len(text), 1, heading))
        text += f"{heading}\n\n" + (f"{body}\n\n" if body else "")
    return Document("d", "d", "A title", text.strip(), "markdown", sections, {"kind": "page", "cluster": "d"})


def applied(document: Document, settings: CorpusSettings) -> tuple[Document | None, list[str]]:
    said = []
    for stage in Cleaning(settings, contamination(settings)).stages.values():
        left, reasons = stage(document)
        said += [": ".join(filter(None, reason)) for reason in reasons]
        if left is None:
            return None, said
        document = left
    return document, said


def headings(document: Document) -> list[str]:
    return [document.text[section.start :].partition("\n")[0] for section in document.sections]


def test_personal_data_is_masked_in_text_title_and_headings() -> None:
    document = sectioned(
        ("Write to anna.smith@mail.org", "Her address is anna.smith@mail.org and that of Bob is bob@mail.org."),
        ("Then wait", "Nothing else is told here about anybody at all."),
    )
    masked, said = applied(document, CorpusSettings(pii="mask"))
    assert masked is not None and said == ["email masked: 3 times"]
    assert "@" not in masked.text and masked.sections[0].heading == "Write to [EMAIL]"
    assert headings(masked) == ["Write to [EMAIL]", "Then wait"]
    assert masked.metadata["masked"] == {"email": 3}
    assert applied(document, CorpusSettings(pii="drop")) == (None, ["personal data: 3 email"])
    assert applied(document, CorpusSettings(pii="mask", pii_kinds=("phone",))) == (document, [])


def test_broken_characters_are_mended_section_by_section() -> None:
    document = sectioned(("CafÃ© and tea", "She doesnâ€™t know the cafÃ©."), ("Next", "Nothing is broken here."))
    mended, said = applied(document, CorpusSettings(repair=True))
    assert mended is not None and headings(mended) == ["Café and tea", "Next"]
    assert mended.sections[0].heading == "Café and tea" and "doesn’t know the café" in mended.text
    assert len(said) == 1 and said[0].startswith("characters mended")
    assert applied(document, CorpusSettings(repair=False))[0] is document


def test_only_the_languages_asked_for_are_kept() -> None:
    german = page("de", "Die Winde hebt eine schwere Last, und die Klinke hält sie oben, wenn man loslässt.")
    english = page("en", "A windlass lifts a heavy load, and the pawl keeps it up there when one lets go of it.")
    settings = CorpusSettings(languages=("en",))
    kept, said = applied(english, settings)
    assert kept is not None and kept.metadata["language"] == "en" and not said
    assert applied(german, settings)[1][0].startswith("another language: de")
    code = page("c", "def f(x):\n    return x + 1  # nothing that a person would say aloud", "source")
    assert applied(code, settings) == (code, [])


def test_text_of_evaluation_sets_is_cut_out_or_drops_the_document(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "exam.jsonl.gz", "wt") as file:
        file.write(json.dumps({"id": 1, "messages": [{"content": f"{QUESTION}?"}], "answer": "the pawl"}) + "\n")
    (tmp_path / "exam.json").write_text(json.dumps({"examples": [{"input": QUESTION}]}))
    document = sectioned(("One", "Before it."), ("Two", f"So we ask, {QUESTION}, and wait."), ("Three", "After it."))
    for name in ("exam.jsonl.gz", "exam.json"):
        cut, said = applied(document, CorpusSettings(decontaminate=(tmp_path / name,)))
        assert cut is not None and "small wheel" not in cut.text and canonical(cut.text) == cut.text
        assert headings(cut) == ["One", "Two", "Three"] and "and wait." in cut.text
        assert len(said) == 1 and "cut out: 18 words of" in said[0]
        dropping = CorpusSettings(decontaminate=(tmp_path / name,), contaminated="drop")
        assert applied(document, dropping)[1][0].startswith("holds text of exam.json")
    for name, message in (("nothing.jsonl", "is not there"), ("exam.pdf", "of a type"), ("bad.jsonl", "row not JSON")):
        if name != "nothing.jsonl":
            (tmp_path / name).write_text("{")
        with pytest.raises(InputError, match=message):
            contamination(CorpusSettings(decontaminate=(tmp_path / name,)))


def test_only_the_fields_asked_for_are_looked_at(tmp_path: Path) -> None:
    rows = [{"question": QUESTION, "source": "an old book about " * 5}, {"question": QUESTION.upper()}]
    (tmp_path / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "exam.csv").write_text(f"question,source\n{QUESTION},{rows[0]['source']}\n")
    (tmp_path / "exam.json").write_text(json.dumps(rows))
    for name in ("exam.jsonl", "exam.csv", "exam.json"):
        everything = list(evaluation_texts(tmp_path / name))
        chosen = list(evaluation_texts(tmp_path / name, ["question", "answer"]))
        assert len(everything) == len(chosen) + 1 and all(text.text.lower() == QUESTION.lower() for text in chosen)
        with pytest.raises(InputError, match=f"{name} has a field 'prompt'"):
            list(evaluation_texts(tmp_path / name, ["prompt"]))
    settings = CorpusSettings(decontaminate=(tmp_path / "exam.csv",), evaluation_fields=("question",))
    index = contamination(settings)
    assert index is not None and index.texts == 1 and index.find(f"So, {QUESTION}")[0].item.startswith("row 2")


@given(
    st.lists(st.tuples(st.from_regex("[A-Z][a-z]{1,9}", fullmatch=True), st.text("ab .\n", max_size=20)), min_size=1),
    st.data(),
)
def test_sections_point_at_what_they_pointed_at(pieces: list[tuple[str, str]], data: st.DataObject) -> None:
    document = sectioned(*((f"{number} {heading}", canonical(body)) for number, (heading, body) in enumerate(pieces)))
    document = Document("d", "d", "", canonical(document.text), sections=document.sections, metadata=document.metadata)
    gone = data.draw(st.sets(st.sampled_from([section.start for section in document.sections])))

    def change(start: int, piece: str) -> str:
        return "" if start in gone else canonical(piece.replace("a", "aaa").replace(".", ""))

    new = rewritten(document, change)
    assert canonical(new.text) == new.text
    assert headings(new) == [
        section.heading.replace("a", "aaa") for section in document.sections if section.start not in gone
    ]
    assert rewritten(document, lambda start, piece: piece) is document


def test_every_stage_says_what_went_in_and_came_out(workspace: Workspace) -> None:
    rows = [page(f"p{i}", prose(i) + (" bob@mail.org" if i % 3 == 0 else "")) for i in range(9)]
    rows += [page("short", "So short."), page("again", prose(1))]
    corpus = build_corpus(workspace, Given(rows), CorpusSettings(pii="mask"))
    report = corpus_report(corpus)
    stages = report["stages"]
    assert list(stages) == ["text", "quality", "personal data", "duplicates"]
    assert [stage["documents_in"] for stage in stages.values()] == [11, 11, 10, 10]
    assert stages["duplicates"]["documents_out"] == 9 == report["kept"]["all"]["documents"]
    assert stages["duplicates"]["bytes_out"] == report["kept"]["all"]["bytes"]
    assert stages["personal data"]["changed"]["email masked"]["count"] == 3
    assert {row["id"] for row in lines(corpus, "changed.jsonl")} == {"p0", "p3", "p6"}
    assert [(row["id"], row["stage"]) for row in left_out(corpus)] == [("short", "quality"), ("again", "duplicates")]
    assert sum("[EMAIL]" in document.text for document in corpus_documents(corpus)) == 3
    shown = corpus_summary(report)
    assert "email masked" in shown and "again (of p1)" in shown
    assert "3 email masked" in (corpus.path / "README.md").read_text()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rules": {"min_word": 3}}, "unknown key 'rules.min_word'"),
        ({"rules": {"min_words": "many"}}, "'rules.min_words' is 'many'"),
        ({"near": 0.2}, "between 0.5 and 1"),
        ({"heldout": 1.0}, "held-out share is 1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CorpusSettings(**values)  # type: ignore[arg-type]
