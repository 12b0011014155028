"""Prompts: one form as value, files and artifact; versions, labels, differences; bad files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from windlass.apply.prompts import Example, Prompt, artifact, diff, read_prompt, write_prompt
from windlass.core.errors import InputError, NotFound, WorkspaceBusy
from windlass.core.workspace import Workspace
from windlass.loop.releasing import releases

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.booleans() | numbers | texts


def tree(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(leaf, lambda s: st.lists(s, max_size=3) | st.dictionaries(texts, s, max_size=3), max_leaves=6)


examples = st.builds(Example, st.dictionaries(texts, tree(leaves | st.none()), max_size=3), tree(leaves), texts)
prompts = st.builds(
    Prompt,
    texts.filter(lambda text: text.strip("\ufeff \t\r\n\f\v\x1c\x1d\x1e\x1f\x85\xa0\u2028\u2029").strip() != ""),
    st.none() | st.lists(examples, max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": numbers, "model": texts, "think": st.booleans(), "stop": st.lists(texts, max_size=2),
            "extra": st.dictionaries(texts, tree(leaves), max_size=3),
        },
    ),
)  # fmt: skip


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made:
        yield made


@settings(max_examples=50)
@given(prompts)
@example(Prompt("+++\nnot settings\n+++"))
@example(Prompt("a", [], {"extra": {"\x7f\n+++\n": [[], {}, -0.0, 1e300, 5e-324]}}))
@example(Prompt("\ufeff a\r\nb\r \u2028c \n"))
def test_a_file_and_the_prompt_in_it_are_the_same(tmp_path_factory: pytest.TempPathFactory, prompt: Prompt) -> None:
    path = tmp_path_factory.getbasetemp() / "one.md"
    write_prompt(path, prompt)
    written = [file.read_bytes() for file in sorted(path.parent.glob("one.*"))]
    read = read_prompt(path)
    assert read == prompt and repr(read) == repr(prompt), "types and the order of keys as well: 1 is not 1.0"
    write_prompt(path, read)
    assert [file.read_bytes() for file in sorted(path.parent.glob("one.*"))] == written
    assert len(written) == 1 + (prompt.examples is not None)


def test_files_and_artifacts_are_the_same_to_the_byte(ws: Workspace, tmp_path: Path) -> None:
    prompt = Prompt("Say how.", [Example({"review": "Lovely!"}, "good", "It sings.")], {"temperature": 0.2})
    path = tmp_path / "tone.md"
    write_prompt(path, prompt)
    assert path.read_text() == "+++\ntemperature = 0.2\n+++\nSay how.\n"
    made = artifact.add(ws, "tone", read_prompt(path))
    assert (made.path / "prompt.md").read_bytes() == path.read_bytes()
    assert (made.path / "examples.jsonl").read_bytes() == (tmp_path / "tone.examples.jsonl").read_bytes()
    assert made.digest == artifact.digest(prompt) and artifact.read(made) == prompt
    again = artifact.add(ws, "tone", Prompt("\nSay how.\r\n", prompt.examples, {"temperature": 0.2}))
    assert again.ref == made.ref == "tone@1", "the same words are the same version"
    ws.artifacts.verify(made)


def test_a_plain_text_file_is_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "p.md"
    path.write_bytes("\ufeffSay how.\r\nBriefly.\r\n".encode())
    assert read_prompt(path) == Prompt("Say how.\nBriefly.")


@pytest.mark.parametrize(
    ("text", "shown", "why"),
    [
        ("+++\ntemperature = 1\nwords", None, r"does not close it"),
        ("+++\ntemperature = \n+++\nx", None, r"p\.md: what stands between \+\+\+ is not TOML: .*line 2"),
        ("+++\ntemprature = 1\n+++\nx", None, r"p\.md: A prompt has no setting 'temprature'"),
        ("+++\ntemperature = true\n+++\nx", None, "'temperature' of a prompt cannot be True"),
        ("+++\nextra = {a = 1979-05-27}\n+++\nx", None, "date in the setting 'extra'"),
        ("+++\ntemperature = nan\n+++\nx", None, "nothing that JSON holds: 'nan'"),
        ("\n \n", None, "without instructions"),
        ("x", '{"inputs": {}, "answer": 1}\n{"inputs": 1}', "examples.jsonl, line 2 is no example"),
        ("x", "[", "examples.jsonl, line 1 is not JSON"),
        ("x", '{"inputs": {}, "answer": NaN}', "nothing that JSON holds"),
        ("x", '{"inputs": {"a": "\\ud800"}, "answer": 1}', "half a character in example 1"),
    ],
)
def test_files_that_are_no_prompt(tmp_path: Path, text: str, shown: str | None, why: str) -> None:
    path = tmp_path / "p.md"
    path.write_text(text)
    if shown is not None:
        (tmp_path / "p.examples.jsonl").write_text(shown)
    with pytest.raises(InputError, match=why):
        read_prompt(path)


def test_versions_and_labels(ws: Workspace) -> None:
    one, two = (artifact.add(ws, "tone", Prompt(text)) for text in ("One.", "Two."))
    assert [record.ref for record in artifact.versions(ws, "tone")] == ["tone@2", "tone@1"]
    for reference, meant in (("tone@1", one), ("tone", two), ("tone@latest", two), (one.digest[:10], one)):
        assert artifact.find(ws, reference).digest == meant.digest
    with pytest.raises(NotFound, match="no label 'staging'"):
        artifact.find(ws, "tone:staging")
    for prompt in (one, two, two, one):
        artifact.label(ws, prompt, "tone", "staging")
        assert artifact.find(ws, "tone:staging").ref == prompt.ref
    assert len(ws.store.releases("tone:staging")) == 3, "to say the same twice is no change"
    artifact.label(ws, two, "tone", "live", "by hand")
    assert artifact.labels(ws, "tone") == {"live": two.digest, "staging": one.digest}
    assert artifact.labels(ws, "ton") == {}


def test_live_is_what_the_task_serves(ws: Workspace) -> None:
    """The gate, a label set by hand and a rollback are one list of changes."""
    one, two = (artifact.add(ws, "tone", Prompt(text)) for text in ("One.", "Two."))
    artifact.label(ws, one, "tone", "live")
    releases.promote(ws, "tone", artifact.variant_of(ws, "tone", two), None, "better")
    assert artifact.find(ws, "tone:live").ref == "tone@2"
    releases.rollback(ws, "tone")
    assert artifact.find(ws, "tone:live").ref == "tone@1"


def test_names_that_cannot_be(ws: Workspace) -> None:
    with ws.artifacts.build("dataset", "rows") as draft:
        (draft.path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="the name of a dataset"):
        artifact.add(ws, "rows", Prompt("x"))
    with pytest.raises(InputError, match="is a dataset, not a prompt"):
        artifact.find(ws, "rows@1")
    made = artifact.add(ws, "tone", Prompt("x"))
    for bad in ("Live", "1", "", "a b", "latest", "a:b"):
        with pytest.raises(InputError, match="cannot be a label"):
            artifact.label(ws, made, "tone", bad)
    assert artifact.is_reference("tone@3") and artifact.is_reference("tone:live")
    assert not any(map(artifact.is_reference, ("tone", "Say: yes", "a@b", "tone:", "http://x", "Summarise:\nthis")))


def test_two_who_move_a_label_at_once(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (artifact.add(ws, "tone", Prompt(text)) for text in ("One.", "Two."))
    seen = ws.store.releases("tone:a")
    artifact.label(ws, one, "tone", "a")
    monkeypatch.setattr(ws.store, "releases", lambda task=None: seen)
    with pytest.raises(WorkspaceBusy):
        artifact.label(ws, two, "tone", "a")


def test_differences_are_read_and_applied(tmp_path: Path) -> None:
    old = Prompt("Say how.\nBe brief.", None, {"temperature": 0.2})
    new = Prompt("Say how.\nBe kind.", [Example({"x": "é"}, 1)], {"temperature": 0.3})
    shown = diff(old, new, ("tone@1", "tone@2"))
    assert [line for line in shown.split("\n") if line[0] in "+-"] == [
        "--- tone@1/prompt.md", "+++ tone@2/prompt.md", "-temperature = 0.2", "+temperature = 0.3", "-Be brief.",
        "+Be kind.", "--- /dev/null", "+++ tone@2/examples.jsonl", '+{"inputs": {"x": "é"}, "answer": 1}',
    ]  # fmt: skip
    assert diff(old, old) == ""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "prompt.md").write_text("+++\ntemperature = 0.2\n+++\nSay how.\nBe brief.\n")
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=f"{shown}\n".encode(), check=True)
    assert read_prompt(tmp_path / "prompt.md").instructions == new.instructions
    assert json.loads((tmp_path / "examples.jsonl").read_text())["inputs"] == {"x": "é"}
