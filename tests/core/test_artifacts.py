"""Artifacts: content addresses, whole or absent, read-only, found again, and made by many at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windlass.core.artifacts import Artifact, Artifacts
from windlass.core.errors import InputError, NotFound, WorkspaceCorrupt
from windlass.core.sqlite_store import SqliteStore


@pytest.fixture
def artifacts(tmp_path: Path) -> Iterator[Artifacts]:
    store = SqliteStore(tmp_path / "windlass.db")
    yield Artifacts(tmp_path / "artifacts", store)
    store.close()


def make(
    artifacts: Artifacts, text: str = "hello", name: str = "corpus", kind: str = "corpus", **parents: str
) -> Artifact:
    with artifacts.build(kind, name) as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "a.txt").write_text(text)
        (draft.path / "b.txt").write_text("b")
        draft.card["licence"] = "CC0"
        for role, digest in parents.items():
            draft.add_parent(role, digest)
    return draft.done


def test_an_artifact_is_a_folder_with_a_record(artifacts: Artifacts) -> None:
    parent = make(artifacts, "parent", "source")
    made = make(artifacts, corpus=parent.digest)
    assert made.ref == "corpus@1"
    assert made.path == artifacts.folder / made.digest
    assert (made.path / "sub/a.txt").read_text() == "hello"
    assert set(made.record.files) == {"sub/a.txt", "b.txt"}
    assert made.record.size == 6
    assert made.card == {"licence": "CC0"}
    assert made.parent("corpus") == parent.digest
    assert artifacts.get("corpus") == artifacts.get(made.digest[:12]) == artifacts.find("corpus@1")
    with pytest.raises(NotFound, match="no parent in the role 'model'"):
        made.parent("model")
    with pytest.raises(NotFound, match="no artifact 'nothing'"):
        artifacts.get("nothing")
    assert artifacts.find("nothing") is None
    artifacts.verify(made)


def test_the_digest_covers_kind_files_and_parents_and_not_the_card(artifacts: Artifacts) -> None:
    first = make(artifacts)
    others = [
        make(artifacts, "other text"),
        make(artifacts, kind="dataset"),
        make(artifacts, corpus="0" * 64),
        make(artifacts, corpus="1" * 64),
        make(artifacts, model="0" * 64),
    ]
    assert len({a.digest for a in [first, *others]}) == 6
    with artifacts.build("corpus", "corpus") as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "a.txt").write_text("hello")
        (draft.path / "b.txt").write_text("b")
        draft.card["licence"] = "another"
    assert draft.done == first


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["a", "b", "c/d", "c/e"]), st.binary(max_size=20), min_size=1))
def test_equal_files_mean_equal_digests_and_nothing_else_does(artifacts: Artifacts, files: dict[str, bytes]) -> None:
    def build(order: list[str]) -> Artifact:
        with artifacts.build("corpus", "property") as draft:
            for name in order:
                (draft.path / name).parent.mkdir(exist_ok=True)
                (draft.path / name).write_bytes(files[name])
        return draft.done

    made = build(sorted(files))
    assert build(sorted(files, reverse=True)).digest == made.digest
    assert {name: (made.path / name).read_bytes() for name in made.record.files} == files
    same = [a for a in artifacts.store.artifacts() if dict(a.files) == dict(made.record.files)]
    assert [a.digest for a in same] == [made.digest]


def test_files_are_read_only(artifacts: Artifacts) -> None:
    made = make(artifacts)
    for name in made.record.files:
        assert (made.path / name).stat().st_mode & 0o222 == 0


def test_a_failed_build_leaves_nothing(artifacts: Artifacts) -> None:
    with pytest.raises(ZeroDivisionError), artifacts.build("corpus", "corpus") as draft:
        (draft.path / "a").write_text("a")
        _ = 1 / 0
    assert list(artifacts.folder.iterdir()) == []
    assert artifacts.find("corpus") is None


def test_drafts_without_files_or_with_links_are_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without files"), artifacts.build("corpus", "corpus") as draft:
        (draft.path / "empty").mkdir()
    (tmp_path / "elsewhere").write_text("x")
    linked = pytest.raises(InputError, match=r"link in the draft of 'corpus' is not a plain file")
    with linked, artifacts.build("corpus", "corpus") as draft:
        (draft.path / "link").symlink_to(tmp_path / "elsewhere")
    assert list(artifacts.folder.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a@1", "a/b", "../a", ".hidden", "-x", "a b", "ä", "a\n", "x" * 101])
def test_names_that_cannot_be_used_are_refused(artifacts: Artifacts, name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name"), artifacts.build("corpus", name):
        pytest.fail("the block must not run")
    with pytest.raises(InputError, match="cannot be the kind"), artifacts.build(name, "corpus"):
        pytest.fail("the block must not run")


def test_changed_lost_and_added_files_are_found_out_and_making_it_again_mends_it(artifacts: Artifacts) -> None:
    made = make(artifacts)
    target = made.path / "b.txt"
    target.chmod(0o644)
    target.write_text("c")
    with pytest.raises(WorkspaceCorrupt, match=r"b\.txt .*was changed"):
        artifacts.verify(made)
    target.unlink()
    with pytest.raises(WorkspaceCorrupt, match=r"b\.txt .*is missing"):
        artifacts.verify(made)
    assert make(artifacts) == made
    artifacts.verify(made)
    (made.path / "stranger").write_text("x")
    with pytest.raises(WorkspaceCorrupt, match="stranger does not belong to corpus@1"):
        artifacts.verify(made)


def test_a_lost_folder_is_reported_when_the_artifact_is_opened(artifacts: Artifacts) -> None:
    made = make(artifacts)
    os.rename(made.path, made.path.with_name("gone"))
    with pytest.raises(WorkspaceCorrupt, match="files of corpus@1 are missing"):
        artifacts.get("corpus")


def test_many_builders_of_the_same_content_get_the_same_artifact(artifacts: Artifacts) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: make(artifacts, f"text {number % 2}"), range(32)))
    assert len({a.digest for a in made}) == 2
    assert {a.record.version for a in made} == {1, 2}
    assert len(list(artifacts.folder.iterdir())) == 2
    for artifact in made:
        artifacts.verify(artifact)


def test_drafts_of_dead_processes_are_removed_and_those_of_living_ones_stay(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    code = """
import os, sys
from pathlib import Path
from windlass.core.artifacts import Artifacts
from windlass.core.sqlite_store import SqliteStore
home = Path(sys.argv[1])
with Artifacts(home / "artifacts", SqliteStore(home / "windlass.db")).build("corpus", "corpus") as draft:
    (draft.path / "half").write_text("x")
    print(draft.path, flush=True)
    sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        draft = Path(child.stdout.readline().strip())
        make(artifacts)
        assert (draft / "half").exists(), "its process lives"
        child.kill()
    make(artifacts, "other")
    assert not draft.exists()
    assert artifacts.store.artifacts(name="corpus", limit=9)[0].version == 2
