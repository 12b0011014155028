"""An index that follows its sources: what did not change costs nothing, what changed is whole, what is gone is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_world import SMALL, World, contents, opened_below

from windlass.apply.rag.chunking import ChunkSettings
from windlass.apply.rag.chunking.chunker import Chunker
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.ingest.access import AccessRules
from windlass.apply.rag.ingest.ingesting import ingest
from windlass.core.documents import Document, Entry
from windlass.core.errors import DiskFull, InputError
from windlass.core.readers import ReadReport, SourceFile

PUMP = "# Pump\n\nThe red pump moves nine litres of water in a minute.\n"
OVEN = "# Oven\n\nBread bakes for forty minutes and is then left to cool.\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.write("pump.md", PUMP)
    world.write("kitchen/oven.md", OVEN)
    yield world
    world.close()


def found(world: World, query: str, **options: Any) -> list[str]:
    return [hit.citation.document for hit in world.index.search(query, 10, **options)]


def test_what_was_ingested_is_found_under_the_place_of_its_file(world: World) -> None:
    report = world.ingest()
    assert (report.files, report.files_read, report.added, report.changed, report.removed) == (2, 2, 2, 0, 0)
    assert report.passages == report.holds_passages == len(world.index) and report.holds_documents == 2
    hit = world.index.search("red pump water", 1)[0]
    assert hit.citation.document == hit.citation.source == "docs/pump.md"
    assert PUMP[hit.citation.start : hit.citation.end] == hit.citation.quote


def test_unchanged_files_are_not_even_opened(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ingest()
    world.embedder.texts.clear()
    remembered: list[Any] = []
    monkeypatch.setattr(world.stamps, "put", remembered.extend)
    with opened_below(world.docs) as opened:
        report = world.ingest()
    assert opened == [] and world.embedder.texts == [] and remembered == []
    assert (report.files, report.files_as_before, report.unchanged, report.passages) == (2, 2, 2, 0)


def test_a_changed_file_alone_is_read_and_its_new_passages_alone_are_embedded(world: World) -> None:
    world.write(
        "long.md", "# Long\n\n" + "\n\n".join(f"Paragraph {n} says the number {n} twice over." for n in range(9))
    )
    world.ingest()
    world.embedder.texts.clear()
    text = (world.docs / "long.md").read_text()
    world.write("long.md", text.replace("number 4 twice", "number 4 once"))
    with opened_below(world.docs) as opened:
        report = world.ingest()
    assert {Path(path).name for path in opened} == {"long.md"}
    assert (report.changed, report.unchanged, report.added) == (1, 2, 0)
    assert 1 <= len(world.embedder.texts) == report.embedded <= 2 < report.passages
    assert all("number 4 twice" not in hit.citation.quote for hit in world.index.search("number 4", 100))


def test_touched_but_equal_files_are_read_and_not_put(world: World) -> None:
    world.ingest()
    before = world.index.digest
    os.utime(world.docs / "pump.md", ns=(1, 1))
    report = world.ingest()
    assert (report.files_read, report.files_as_before, report.unchanged, report.changed) == (1, 1, 2, 0)
    assert world.index.digest == before


def test_a_deleted_file_is_removed_and_a_moved_one_costs_no_embedding(world: World) -> None:
    world.ingest()
    world.embedder.texts.clear()
    (world.docs / "kitchen" / "oven.md").rename(world.docs / "bread.md")
    report = world.ingest()
    assert (report.added, report.removed, report.embedded) == (1, 1, 0) and world.embedder.texts == []
    assert set(world.index.held()) == {"docs/pump.md", "docs/bread.md"}
    (world.docs / "bread.md").unlink()
    assert world.ingest().removed == 1
    assert found(world, "bread bakes") == ["docs/pump.md"]


def test_folders_do_not_delete_each_others_documents(world: World) -> None:
    other = world.home / "other"
    other.mkdir()
    (other / "pump.md").write_text(PUMP.replace("red", "blue"))
    world.ingest(world.root(other))
    world.ingest()
    assert set(world.index.held()) == {"docs/pump.md", "docs/kitchen/oven.md", "other/pump.md"}
    (other / "pump.md").write_text("# Empty\n\nNothing left.\n")
    (world.docs / "pump.md").unlink()
    assert world.ingest(world.root(other)).removed == 0
    assert world.ingest(world.root(world.docs / "kitchen")).removed == 0, "a part of a folder speaks for that part"
    assert world.ingest().removed == 1
    assert set(world.index.held()) == {"docs/kitchen/oven.md", "other/pump.md"}


def test_one_file_of_a_folder_is_the_same_document(world: World) -> None:
    world.ingest()
    report = world.ingest(world.root(world.docs / "pump.md"))
    assert (report.files, report.unchanged, report.removed) == (1, 1, 0)


def test_rows_are_documents_and_a_row_that_is_gone_is_removed(world: World) -> None:
    rows = world.write("prices.jsonl", "".join(f'{{"text": "Item {n} costs {n} dollars."}}\n' for n in range(5)))
    assert world.ingest().added == 7
    world.embedder.texts.clear()
    rows.write_text(rows.read_text().replace("Item 3 costs 3", "Item 3 costs 33").rpartition('{"text": "Item 4')[0])
    report = world.ingest()
    assert (report.changed, report.removed, report.unchanged, report.embedded) == (1, 1, 5, 1)
    assert "docs/prices.jsonl:5" not in world.index.held()
    assert report.reading.parts["rows"] == 4


def test_another_way_of_cutting_reads_and_puts_all_again(world: World) -> None:
    world.ingest()
    assert world.ingest(chunks=ChunkSettings(target=200, limit=300)).changed == 2


def test_metadata_and_labels_of_a_root_reach_the_search(world: World) -> None:
    world.ingest(world.root(team="mills"))
    assert found(world, "pump", where={"team": "mills"}) and not found(world, "pump", where={"team": "ovens"})
    assert world.ingest(world.root(team="ovens")).changed == 2, "another label is another document"
    with pytest.raises(InputError, match="cannot be labelled 'kind'"):
        world.root(kind="x")


def test_labels_of_access_are_enforced_and_follow_the_rules(world: World) -> None:
    rules = AccessRules((("kitchen/**", ("cooks",)), ("nowhere/**", ("nobody",))))
    report = world.ingest(world.root(access=rules))
    assert report.labels == {"cooks": 1} and report.public == 1 and report.unmatched == ["nowhere/**"]
    assert found(world, "bread oven") == ["docs/pump.md"]
    assert found(world, "bread oven", access=["cooks"])[0] == "docs/kitchen/oven.md"
    again = world.ingest(world.root(access=rules))
    assert again.files_as_before == 2 and again.labels == {"cooks": 1}, "what is not opened is counted all the same"
    world.embedder.texts.clear()
    opened = world.ingest(world.root())
    assert opened.changed == 1 and world.embedder.texts == [], "other labels cost no embedding"
    assert "docs/kitchen/oven.md" in found(world, "bread oven")


class Lines:
    """A source of which tests say what it has, and what goes wrong."""

    name, licence = "lines", ""

    def __init__(self, files: dict[str, list[Document]], broken: tuple[str, ...] = ()) -> None:
        self.listed, self.broken = files, broken

    def files(self, report: ReadReport, stamps: Any = None) -> Iterator[SourceFile]:
        for name in self.listed:
            yield SourceFile(name, "", lambda notes, name=name: self._read(name, notes))

    def _read(self, name: str, notes: ReadReport) -> Iterator[Document]:
        if name in self.broken:
            notes.skip(name, "cannot be read", "Permission denied")
            return
        yield from self.listed[name]

    def documents(self, report: ReadReport) -> Iterator[Document]:
        raise NotImplementedError


def page(id: str, text: str, **metadata: Any) -> Document:
    return Document(id, id, id, text, metadata=metadata)


def test_a_private_document_of_a_source_is_not_opened_by_a_rule(world: World) -> None:
    source = Lines(
        {"chat": [page("chat#1", "The salary pump.", access=["slack:board"]), page("chat#2", "Hello pump.")]}
    )
    root = world.root(access=AccessRules((("**", ("staff",)),)))
    world.ingest(type(root)(source, "slack", {}, root.access))
    assert found(world, "pump", access=["staff"]) == ["slack/chat#2"]
    assert found(world, "pump", access=["slack:board"]) == ["slack/chat#1"]
    assert found(world, "pump") == []


def test_what_cannot_be_read_now_stays_and_is_named(world: World) -> None:
    source = Lines({"a": [page("a", "First pump.")], "b": [page("b:1", "Second pump."), page("b:2", "Third pump.")]})
    root = type(world.root())(source, "lines")
    world.ingest(root)
    source.broken = ("b",)
    report = world.ingest(root)
    assert (report.files_kept, report.unchanged, report.removed) == (1, 3, 0)
    assert "lines/b: cannot be read (Permission denied)" in [str(note) for note in report.reading.skipped]
    source.broken, source.listed = (), {"a": source.listed["a"]}
    assert world.ingest(root).removed == 2


def test_an_id_given_twice_is_kept_once_and_named(world: World) -> None:
    source = Lines({"a": [page("a#x", "One pump."), page("a#x", "Another pump.")]})
    report = world.ingest(type(world.root())(source, "lines"))
    assert (report.added, report.repeated_ids) == (1, 1)
    assert found(world, "another pump") == ["lines/a#x"] and len(world.index) == 1


def test_repeated_texts_are_named_and_empty_pages_too(world: World) -> None:
    world.write("copy.md", PUMP)
    world.write("blank.md", "\n\n")
    world.write("picture.png", "x")
    report = world.ingest()
    assert report.repeated == [("docs/pump.md", "docs/copy.md")] and report.repeated_count == 1
    notes = [str(note) for note in report.reading.skipped]
    assert "docs/blank.md: empty" in notes and any(note.startswith("docs/picture.png: of a type") for note in notes)
    again = world.ingest()
    assert again.files_as_before == 4 and [str(note) for note in again.reading.skipped] == notes
    shown = "\n".join([*(f"{name} {count}" for name, count in report.rows()), *report.notes()])
    assert "docs/blank.md" in shown and "copy.md" in shown


def test_what_was_mended_is_named(world: World) -> None:
    (world.docs / "latin.txt").write_bytes("Käse kostet vier Kronen.".encode("latin-1"))
    notes = world.ingest().notes()
    assert [note.split()[:2] for note in notes] == [["mended", "docs/latin.txt:"]]


def test_an_empty_folder_removes_nothing_unless_that_is_said(world: World) -> None:
    world.ingest()
    for path in (world.docs / "pump.md", world.docs / "kitchen" / "oven.md"):
        path.unlink()
    with pytest.raises(InputError, match="The index still holds 2 documents of it, and nothing was removed"):
        world.ingest()
    other = world.write("../other/note.md", "# Note\n\nA note.\n").parent
    report = world.ingest(world.root(), world.root(other))
    assert report.empty == ["docs"] and report.removed == 0 and len(world.index.held()) == 3
    assert world.ingest(allow_empty=True).removed == 2
    with pytest.raises(InputError, match="There is nothing to read in docs: it is empty"):
        world.ingest()


def test_a_dry_run_counts_and_does_nothing(world: World) -> None:
    plan = world.ingest(dry=True)
    assert (plan.added, plan.passages > 0, plan.dry) == (2, True, True)
    assert not world.index.held() and world.embedder.texts == [] and not world.stamps.all()
    world.ingest()
    (world.docs / "pump.md").unlink()
    world.write("kitchen/oven.md", OVEN + "\nIt is hot.\n")
    plan = world.ingest(dry=True)
    assert (plan.changed, plan.removed) == (1, 1) and set(world.index.held()) == {
        "docs/pump.md",
        "docs/kitchen/oven.md",
    }
    assert ingest(None, [world.root()], Chunker(HashingEmbedder(), SMALL), dry=True).added == 1


def test_ctrl_c_ends_after_the_running_batch_and_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        world.write(f"{number:02}.md", f"# Page {number}\n\nPump number {number} is red.\n")
    monkeypatch.setattr("windlass.apply.rag.ingest.ingesting._BATCH", 4)

    class Interrupt:
        requested = False

    interrupt, puts = Interrupt(), []
    put = world.index.put

    def counted(entries: Any) -> None:
        put(entries)
        puts.append(len(list(entries)))
        interrupt.requested = len(puts) >= 3

    monkeypatch.setattr(world.index, "put", counted)
    report = world.ingest(interrupt=interrupt)
    assert report.stopped and report.removed == 0
    assert 12 <= len(world.index.held()) == sum(puts) <= 32, "what was read ahead is finished, nothing is begun"
    monkeypatch.undo()
    world.embedder.texts.clear()
    report = world.ingest()
    assert not report.stopped and report.documents == 42 and len(world.embedder.texts) < 42


def test_what_the_index_lost_is_read_again(world: World) -> None:
    """The memory of files is never believed against the index."""
    world.ingest()
    world.index.delete(["docs/pump.md"])
    report = world.ingest()
    assert (report.added, report.files_as_before) == (1, 1)
    world.stamps.forget(world.stamps.all())
    assert world.ingest().unchanged == 2


def test_a_full_disk_is_one_clear_error_and_what_was_put_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        world.write(f"{number:02}.md", f"# Page {number}\n\nPump number {number} is red.\n")
    monkeypatch.setattr("windlass.apply.rag.ingest.ingesting._BATCH", 4)
    put, calls = world.index.put, []

    def full(entries: list[Entry]) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise DiskFull("No space left on the disk.", "Free some space.")
        put(entries)

    monkeypatch.setattr(world.index, "put", full)
    with pytest.raises(DiskFull):
        world.ingest()
    assert len(world.index.held()) == 8
    monkeypatch.undo()
    assert world.ingest().documents == 22


def test_another_embedder_than_the_indexs_is_refused(world: World) -> None:
    with pytest.raises(InputError, match="holds vectors of hashing-32"):
        ingest(world.index, [world.root()], Chunker(HashingEmbedder(64), SMALL))


def test_two_ingests_of_the_same_files_give_the_same_index(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for number in range(30):
        world.write(f"{number:02}.md", f"# Page {number}\n\nPump number {number} is red.\n")
    other = World(tmp_path_factory.mktemp("other"))
    for path in sorted(world.docs.rglob("*.md"), reverse=True):
        place = other.docs / path.relative_to(world.docs)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(path.read_bytes())
    world.ingest()
    other.ingest()
    assert world.index.digest == other.index.digest
    query = "pump number 7"
    assert [h.citation for h in world.index.search(query, 40)] == [h.citation for h in other.index.search(query, 40)]
    other.close()


NAMES = st.sampled_from(["a.md", "b.md", "c.txt", "sub/a.md", "sub/deep/d.rst", "rows.jsonl"])
WORDS = st.lists(st.sampled_from(["pump", "oven", "red", "water", "bread", "hot"]), min_size=0, max_size=30)
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), NAMES, WORDS),
        st.tuples(st.just("delete"), NAMES, st.just([])),
        st.tuples(st.just("move"), NAMES, st.sampled_from([["x.md"], ["sub/y.md"]])),
    ),
    min_size=1,
    max_size=4,
)


def edit(docs: Path, kind: str, name: str, words: list[str]) -> None:
    path = docs / name
    if kind == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [" ".join(words[at : at + 5]) for at in range(0, len(words), 5)]
        rows = "".join(f'{{"text": "{line}"}}\n' for line in lines)
        path.write_text(rows if name.endswith("jsonl") else "# Head\n\n" + ".\n\n".join(lines) + "\n")
    elif path.exists():
        if kind == "delete":
            path.unlink()
        else:
            target = docs / words[0]
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)


@settings(max_examples=12, deadline=None)
@given(st.lists(EDITS, min_size=1, max_size=4))
def test_whatever_is_edited_the_index_is_what_a_fresh_one_would_be(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[str, str, list[str]]]]
) -> None:
    folder = tmp_path_factory.mktemp("edits")
    world = World(folder)
    for number, edits in enumerate(rounds):
        for kind, name, words in edits:
            edit(world.docs, kind, name, words)
        world.write("always.md", f"# Always\n\nRound {number}.\n")
        world.ingest()
        fresh = World(folder / f"fresh{number}")
        fresh.home, fresh.docs = world.home, world.docs
        fresh.ingest()
        assert contents(world.index) == contents(fresh.index)
        assert world.ingest().files_as_before == len([p for p in world.docs.rglob("*") if p.is_file()])
        fresh.close()
    world.close()
