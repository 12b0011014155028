"""The exam: masked, disjoint, unanswerable where it says so, stable as the corpus grows, honest about small folders."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest

from windlass.core.documents import Document, Section, write_documents
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.deriving import derive, derive_exam
from windlass.evaluate.exam.items import SPLITS, Exam, count, load_items, masked_spans, withheld_documents

NOUNS = [
    "anchor",
    "barrel",
    "candle",
    "drawer",
    "engine",
    "feather",
    "garden",
    "hammer",
    "island",
    "jacket",
    "kettle",
    "ladder",
    "magnet",
    "needle",
]
VERBS = [
    "polishes",
    "stores",
    "carries",
    "measures",
    "bends",
    "lifts",
    "sorts",
    "paints",
    "weighs",
    "folds",
    "mends",
    "turns",
    "seals",
    "grinds",
]


def page(number: int, sections: int = 3) -> Document:
    """A Markdown page whose sections begin with sentences found nowhere else."""
    rng = random.Random(number)
    text, found = "", []
    for s in range(sections):
        a, b, c = rng.sample(NOUNS, 3)
        found.append(Section(len(text), 2, f"Part {s}"))
        text += f"## Part {s}\n\nThe {a}{number} {rng.choice(VERBS)} every {b} beside the {c}{s}. "
        text += f"It was built in year {number} of this series, and chapter {s} tells how and why.\n\n"
    return Document(f"p{number}.md", f"p{number}.md", f"Page {number}", text, "markdown", tuple(found))


def docstring(number: int, cluster: str) -> Document:
    head = f"mod.function{number}(x)\n\n"
    body = f"Fetch the {NOUNS[number % 14]} numbered {number} from the {cluster} warehouse.\n\n" + (
        f"The shelf {number} of {cluster} is searched from its top to its bottom for it."
    )
    metadata = {"kind": "docstring", "cluster": cluster, "body": len(head)}
    return Document(f"d{number}", f"d{number}", f"mod.function{number}", head + body, "python", (), metadata)


PAGES = [page(i) for i in range(120)]


@pytest.fixture(scope="module")
def exam() -> Exam:
    return derive(PAGES, seed=3)


def test_most_sections_become_questions(exam: Exam) -> None:
    assert len(exam.items) >= 300
    counts = count(exam.items)
    assert all(counts[split]["answerable"] and counts[split]["unanswerable"] for split in SPLITS)
    assert counts["test"]["answerable"] > counts["dev"]["answerable"]


def test_questions_stand_in_their_masked_span_and_nowhere_else(exam: Exam) -> None:
    texts = {p.id: p.text for p in PAGES}
    for item in exam.items:
        assert texts[item.source][item.start : item.end] == item.question
        assert sum(item.question in text for text in texts.values()) == 1
    left = dict(texts)
    for document, spans in masked_spans(exam.items).items():
        for start, end in reversed(spans):
            left[document] = left[document][:start] + left[document][end:]
    indexed = " ".join(text for document, text in left.items() if document not in exam.withheld)
    assert not any(item.question in indexed for item in exam.items)


def test_splits_share_no_cluster(exam: Exam) -> None:
    clusters = [{item.cluster for item in exam.items if item.split == split} for split in SPLITS]
    assert not (clusters[0] & clusters[1] | clusters[0] & clusters[2] | clusters[1] & clusters[2])


def test_unanswerable_means_withheld(exam: Exam) -> None:
    for item in exam.items:
        assert (item.source in exam.withheld) == (item.document is None) == (not item.answerable)


def test_same_seed_same_exam_other_seed_another() -> None:
    assert derive(PAGES, seed=3) == derive(PAGES[::-1], seed=3)
    assert {i.id: i.split for i in derive(PAGES, seed=3).items} != {i.id: i.split for i in derive(PAGES, seed=4).items}


def test_a_growing_corpus_moves_no_question_to_another_split(exam: Exam) -> None:
    grown = {item.id: item.split for item in derive([*PAGES, *(page(i) for i in range(120, 160))], seed=3).items}
    assert all(grown[item.id] == item.split for item in exam.items)


def test_a_sentence_in_two_documents_is_no_question() -> None:
    copy = dataclasses.replace(PAGES[0], id="copy.md", source="copy.md")
    exam = derive([*PAGES, copy])
    assert not {"copy.md", "p0.md"} & {item.source for item in exam.items}
    assert exam.dropped["same sentence in another document"] == 6


def test_a_folder_of_copies_gets_a_warning() -> None:
    twins = [dataclasses.replace(p, id=f"{p.id}.html", source=f"{p.id}.html") for p in PAGES[1:]]
    exam = derive([*PAGES, *twins])
    assert {item.source for item in exam.items} == {"p0.md"}
    assert any("copies of pages" in warning for warning in exam.warnings)


def test_withheld_but_told_elsewhere_is_dropped() -> None:
    """A page that stays repeats the second sentence of every page: then nothing withheld is really unanswerable."""
    rest = " ".join(line.split(". ", 1)[1] for p in PAGES for line in p.text.splitlines() if line.startswith("The "))
    teller = Document("all.md", "all.md", "All", "# All\n\n" + rest, "markdown", (Section(0, 1, "All"),))
    exam = derive([*PAGES, teller], seed=3, keep=["all.md"])
    assert all(item.answerable for item in exam.items)
    assert exam.dropped["withheld, but told elsewhere too"] > 0


def test_docstrings_begin_below_the_signature_and_sources_are_hidden() -> None:
    pages = [docstring(i, f"file{i // 5}.py") for i in range(300)]
    sources = [
        Document(
            f"s{c}", f"s{c}", f"file{c}.py", "code " * 50, "python", (), {"kind": "source", "cluster": f"file{c}.py"}
        )
        for c in range(61)
    ]
    exam = derive([*pages, *sources])
    assert all(item.question.startswith("Fetch the") for item in exam.items)
    examined = {item.cluster for item in exam.items}
    assert {f"s{c}" for c in range(61) if f"file{c}.py" in examined} <= set(exam.withheld)
    assert "s60" not in exam.withheld, "a file without questions keeps its source"


def test_per_cluster_bounds_one_big_file() -> None:
    exam = derive([*PAGES, page(500, sections=90)], per_cluster=10)
    assert sum(item.cluster == "p500.md" for item in exam.items) == 10
    assert exam.dropped["enough questions of this file"] == 80


def test_a_small_folder_gets_warnings_not_errors() -> None:
    exam = derive([page(i, sections=8) for i in range(3)])
    assert {item.split for item in exam.items} == set(SPLITS)
    assert any("sections stand in as clusters" in warning for warning in exam.warnings)
    assert any("INCONCLUSIVE" in warning for warning in exam.warnings)
    assert not exam.withheld
    hidden = [item for item in exam.items if not item.answerable]
    assert hidden
    texts = {p.id: p.text for p in (page(i, sections=8) for i in range(3))}
    for item in hidden:
        assert item.question in texts[item.source][item.start : item.end] != item.question, (
            "its section is masked whole"
        )


def test_one_section_is_an_exam_too() -> None:
    exam = derive([page(1, sections=1)])
    assert [item.split for item in exam.items] == ["test"]
    assert any("harvest" in warning for warning in exam.warnings)


def test_no_question_is_an_error_that_says_why() -> None:
    lists = Document("l.md", "l.md", "L", "# L\n\n- a\n- b\n", "markdown", (Section(0, 1, "L"),))
    with pytest.raises(InputError, match=r"1 documents yields a question .*no prose below the heading"):
        derive([lists])
    with pytest.raises(InputError, match="no prose at all"):
        derive([])
    with pytest.raises(InputError, match="share of unanswerable"):
        derive(PAGES, unanswerable=0.9)


def test_the_artifact_holds_all_of_it(tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        with ws.artifacts.build("corpus", "corpus") as draft:
            write_documents(draft.path / "documents.jsonl", PAGES)
        made = derive_exam(ws, draft.done, seed=3)
        expected = derive(PAGES, seed=3)
        assert (made.kind, made.ref, made.parent("corpus")) == ("dataset", "exam@1", draft.done.digest)
        assert load_items(made) == list(expected.items)
        assert [i.split for i in load_items(made, "dev")] == ["dev"] * made.card["counts"]["dev"]["answerable"] + [
            "dev"
        ] * made.card["counts"]["dev"]["unanswerable"]
        assert withheld_documents(made) == set(expected.withheld)
        assert "| test |" in (made.path / "README.md").read_text(encoding="utf-8")
        assert derive_exam(ws, draft.done, seed=3).digest == made.digest
        first = json.loads((made.path / "items.jsonl").read_text(encoding="utf-8").splitlines()[0])
        assert {"id", "question", "document", "start", "end", "split", "cluster"} <= set(first)


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        with ws.artifacts.build("dataset", "exam") as draft:
            (draft.path / "items.jsonl").write_text('{"id": "a"}\n', encoding="utf-8")
        with pytest.raises(InputError, match=r"items\.jsonl, line 1"):
            load_items(draft.done)
