"""From files and definitions to items: rows, templates, examples, clusters; and what is wrong is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluate.harness.harness_world import write_benchmark, write_rows

from windlass.core.errors import ConfigError, InputError, NotFound
from windlass.core.values import Message
from windlass.evaluate.harness import templates
from windlass.evaluate.harness.definitions import read_benchmark
from windlass.evaluate.harness.framing import Example, Frame
from windlass.evaluate.harness.items import Asking, Exam, make_exam
from windlass.evaluate.harness.requests import Continue, Write
from windlass.evaluate.harness.rows import read_files

CHOICE = 'kind = "choice"\ndata = "rows.jsonl"\nprompt = "{q}"\nchoices = "{c}"\ngold = "{g}"\n'
ROWS = [{"q": f"question {i}", "c": ["one", "two"], "g": i % 2, "p": f"passage {i // 2}"} for i in range(6)]


def exam(folder: Path, text: str = CHOICE, asking: Asking | None = None, only: str = "") -> Exam:
    if not (folder / "rows.jsonl").exists():
        write_rows(folder / "rows.jsonl", ROWS)
    return make_exam(read_benchmark(write_benchmark(folder / "mine.toml", text)), folder, asking, only)


# ---- templates


@given(st.dictionaries(st.sampled_from(["a", "b_1", "long"]), st.text(), min_size=3), st.text())
def test_a_template_puts_fields_where_their_names_stand(row: dict[str, str], around: str) -> None:
    literal = around.replace("{", "{{").replace("}", "}}")
    assert templates.text(f"{literal}{{a}}{literal}{{long}}", row) == around + row["a"] + around + row["long"]
    assert templates.value("{b_1}", row) == row["b_1"]


def test_entries_whole_numbers_and_values() -> None:
    row = {"xs": ["p", "q"], "n": 43.0, "half": 0.5, "o": {"k": "v"}}
    assert templates.text("{xs[1]} {n} {half} {o[k]}", row) == "q 43 0.5 v"
    assert templates.value("{xs}", row) == ["p", "q"]


@pytest.mark.parametrize(
    ("template", "said"),
    [("{x}", "no field 'x'"), ("{xs[7]}", "no entry"), ("{n.real}", "no field"), ("{n!r}", "format"),
     ("{n:>9}", "format")],
)  # fmt: skip
def test_a_template_reads_fields_and_does_nothing_else(template: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        templates.text(template, {"xs": ["p"], "n": 1})


# ---- rows


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"t": "line\u2028one"}, {"t": "two"}])
    (tmp_path / "b.json").write_text('{"canary": 1, "examples": [{"t": "x"}]}')
    with gzip.open(tmp_path / "c.csv.gz", "wt", newline="") as file:
        file.write('t,u\r\n"with\nbreak",1\r\n')
    (tmp_path / "d.txt").write_text("== A\nfirst\n== B\nsecond\n")
    one = [
        read_files(tmp_path, name, rows="examples", split="(?m)^(?=== )")[0]
        for name in ("a.jsonl", "b.json", "c.csv.gz", "d.txt")
    ]
    assert [[row.get("t", row.get("text")) for row in file.rows] for file in one] == [
        ["line\u2028one", "two"], ["x"], ["with\nbreak"], ["== A\nfirst\n", "== B\nsecond\n"],
    ]  # fmt: skip
    assert one[2].rows[0]["file"] == "c" and len({file.digest for file in one}) == 4


def test_names_in_braces_are_fields(tmp_path: Path) -> None:
    for subject in ("b", "a"):
        write_rows(tmp_path / f"test/{subject}_test.jsonl", [{"t": subject}])
        write_rows(tmp_path / f"dev/{subject}_dev.jsonl", [{"t": f"dev {subject}"}])
    files = read_files(tmp_path, "test/{subject}_test.jsonl")
    assert [(file.names, file.rows[0]["subject"]) for file in files] == [
        ({"subject": "a"}, "a"),
        ({"subject": "b"}, "b"),
    ]
    (dev,) = read_files(tmp_path, "dev/{subject}_dev.jsonl", bound=files[1].names)
    assert (dev.rows[0]["t"], dev.rows[0]["subject"]) == ("dev b", "b")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2, is not valid JSON"),
        ("a.jsonl", b"[1]\n", "line 1, is not a JSON object"),
        ("a.jsonl", b"\n", "holds no row"),
        ("a.json", b'{"b": []}', "holds no list under 'rows'"),
        ("a.csv", b"a,b\n1\n", "line 2, has another number of columns"),
        ("a.jsonl.gz", b"no gzip", "cannot be read"),
        ("a.txt", b"\xff", "cannot be read"),
        ("a.parquet", b"PAR1", "no known kind"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_files(tmp_path, name, rows="rows")
    with pytest.raises(NotFound, match=r"no other\.jsonl"):
        read_files(tmp_path, "other.jsonl")


# ---- definitions


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "quiz"', "'kind' is 'quiz'"),
        (CHOICE + 'golden = "x"', "unknown key 'golden'"),
        (CHOICE.replace('gold = "{g}"\n', ""), "missing gold"),
        (CHOICE + 'metrics = ["f1"]', "metrics"),
        (CHOICE + 'cluster = "{p"', "cluster"),
        (CHOICE + "shots = 3", "'shots' must be a table"),
        (CHOICE + '[fields.x]\nof = "{q}"\nmatch = "("', "no regular expression"),
        (CHOICE + '[fields.x]\nof = "{q}"\nmatch = "x"', "has no group"),
        (CHOICE + 'name = "x"', "unknown key 'name'"),
        ("kind =", "not valid TOML"),
    ],
)
def test_a_wrong_definition_names_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_benchmark(write_benchmark(tmp_path / "mine.toml", text))


def test_a_name_that_nothing_has() -> None:
    with pytest.raises(InputError, match="no benchmark 'piqua'") as caught:
        read_benchmark("piqua")
    assert "'piqa'" in caught.value.hint


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"q": "x", "c": ["a", "b"]}, "no field 'g'"),
        ({"q": "x", "c": ["a", "b"], "g": 2}, "the place of none"),
        ({"q": "x", "c": ["a", "b"], "g": True}, "the place of none"),
        ({"q": "x", "c": ["a", "b"], "g": "c"}, "none of the choices"),
        ({"q": "x", "c": ["a"], "g": 0}, "offers no choice"),
        ({"q": "x", "c": ["a", ""], "g": 0}, "offers no choice"),
        ({"q": "x", "c": "ab", "g": 0}, "is no list"),
    ],
)
def test_a_row_that_does_not_fit_is_named_before_anything_is_asked(
    tmp_path: Path, row: dict[str, object], said: str
) -> None:
    write_rows(tmp_path / "rows.jsonl", [ROWS[0], row])
    with pytest.raises(InputError, match=rf"rows\.jsonl, row 2: .*{said}"):
        exam(tmp_path)


# ---- framing


def test_a_text_and_a_conversation() -> None:
    examples = [Example("q1", "a1"), Example("q2", "a2")]
    text = Frame("Be brief.", examples)
    assert text.prompt("q3") == "Be brief.\n\nq1 a1\n\nq2 a2\n\nq3" and text.lead == " "
    assert Frame("Ends.\n", delimiter="").prompt("q") == "Ends.\nq"
    chat = Frame("Be brief.", examples, chat=True)
    assert chat.lead == ""
    assert chat.prompt("q3") == (
        Message("system", "Be brief."), Message("user", "q1"), Message("assistant", "a1"), Message("user", "q2"),
        Message("assistant", "a2"), Message("user", "q3"),
    )  # fmt: skip


def test_examples_of_the_same_rows_are_not_asked(tmp_path: Path) -> None:
    made = exam(tmp_path, asking=Asking(shots=2))
    assert [item.id for item in made.items] == ["rows:3", "rows:4", "rows:5", "rows:6"]
    assert (made.shots, made.held_out) == (2, 2)
    first = made.items[0].requests[0]
    assert isinstance(first, Continue)
    assert first.context == "question 0 one\n\nquestion 1 two\n\nquestion 2" and first.text == " one"
    contexts = {
        str(one.context).rpartition("\n\n")[0]
        for item in made.items
        for one in item.requests
        if isinstance(one, Continue)
    }
    assert len(contexts) == 1, "what stands before is the same for all, and read once"


def test_a_seed_draws_the_examples(tmp_path: Path) -> None:
    drawn = [exam(tmp_path, asking=Asking(shots=3, seed=seed)) for seed in (1, 1, 2)]
    ids = [[item.id for item in one.items] for one in drawn]
    assert ids[0] == ids[1] != ids[2] and all(len(one) == 3 for one in ids)
    assert drawn[0].dataset == drawn[2].dataset, "how it is asked is no other dataset"


def test_examples_of_another_file_and_instructions_by_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "dev.jsonl", [{"q": "shown", "c": ["x", "y"], "g": 1}])
    text = CHOICE + 'system = "About {file}."\n[shots]\nnumber = 1\ndata = "dev.jsonl"\n'
    made = exam(tmp_path, text, Asking(limit=2))
    assert len(made.items) == 2 and made.held_out == 0
    first = made.items[0].requests[0]
    assert isinstance(first, Continue) and first.context == "About rows.\n\nshown y\n\nquestion 0"
    assert sorted(made.files) == ["dev.jsonl", "rows.jsonl"]


def test_clusters_slices_and_derived_fields(tmp_path: Path) -> None:
    text = CHOICE + 'cluster = "{p}"\n[slices]\nhalf = "{n}"\n[fields.n]\nof = "{p}"\nmatch = "passage (.)"\n'
    made = exam(tmp_path, text)
    assert [item.slices["half"] for item in made.items] == list("001122")
    clusters = [item.cluster for item in made.items]
    assert clusters[0] == clusters[1] != clusters[2] and all(clusters)


def test_parts_of_a_benchmark(tmp_path: Path) -> None:
    for part in ("physics", "law"):
        write_rows(tmp_path / f"{part}.x.jsonl", ROWS[:2])
    text = CHOICE.replace("rows.jsonl", "{subject}.x.jsonl")
    assert {item.id for item in exam(tmp_path, text, only="law").items} == {"law:1", "law:2"}
    with pytest.raises(InputError, match="no part 'art'"):
        exam(tmp_path, text, only="art")


@pytest.mark.parametrize(("asking", "said"), [({"shots": -1}, "-1 examples"), ({"limit": 0}, "limit of 0")])
def test_what_cannot_be_asked(asking: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Asking(**asking)


def test_too_many_examples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="6 rows, but 7 examples"):
        exam(tmp_path, asking=Asking(shots=7))
    with pytest.raises(InputError, match="no row left"):
        exam(tmp_path, asking=Asking(shots=6))


def test_the_definition_and_the_data_are_the_dataset(tmp_path: Path) -> None:
    first = exam(tmp_path).dataset
    assert exam(tmp_path, CHOICE + 'source = "me"').dataset != first
    write_rows(tmp_path / "rows.jsonl", ROWS[:5])
    assert exam(tmp_path).dataset != first


def test_instructions_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "lead.txt").write_text("canary\n---\nThink.")
    write_rows(tmp_path / "rows.jsonl", [{"q": "x", "a": 7}])
    text = (
        'kind = "answer"\ndata = "rows.jsonl"\nprompt = "Q: {q}"\nanswers = "{a}"\n'
        '[lead]\nfile = "lead.txt"\nafter = "---\\n"\n'
    )
    request = exam(tmp_path, text).items[0].requests[0]
    assert isinstance(request, Write) and request.prompt == "Think.\n\nQ: x"
    assert json.dumps(exam(tmp_path, text).made_with())
