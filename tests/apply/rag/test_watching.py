"""Watching: what changed is ingested when it has come to rest, and what is being written holds nothing else up."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from ingest_world import World

from windlass.apply.rag.ingest.watching import Looks, watch


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.write("pump.md", "# Pump\n\nThe pump is red.\n")
    world.write("oven.md", "# Oven\n\nThe oven is hot.\n")
    yield world
    world.close()


def test_a_change_is_seen_once_it_has_come_to_rest(world: World) -> None:
    looks = Looks([world.root()])
    assert looks.changes() == (False, set())
    world.write("pump.md", "# Pump\n\nThe pump is bl")
    assert looks.changes() == (False, {"docs/pump.md"})
    world.write("pump.md", "# Pump\n\nThe pump is blue now.\n")
    world.write("new.md", "# New\n\nNew.\n")
    assert looks.changes() == (False, {"docs/pump.md", "docs/new.md"}), "it is still being written"
    assert looks.changes() == (True, set())
    assert looks.changes() == (False, set())


def test_what_is_written_for_long_holds_nothing_else_up(world: World) -> None:
    looks = Looks([world.root()])
    log = world.write("log.txt", "x\n")
    (world.docs / "oven.md").unlink()
    seen = []
    for number in range(4):
        log.write_text("x\n" * (number + 2))
        seen.append(looks.changes())
    assert seen[0] == (False, {"docs/log.txt", "docs/oven.md"})
    assert seen[1:] == [(True, {"docs/log.txt"}), *[(False, {"docs/log.txt"})] * 2]
    assert looks.changes() == (True, set()) and looks.changes() == (False, set())


def test_a_file_that_is_being_written_stays_as_it_was(world: World) -> None:
    world.ingest()
    world.write("pump.md", "# Pump\n\nThe pu")
    world.write("half.md", "# Ha")
    (world.docs / "oven.md").unlink()
    report = world.ingest(being_written={"docs/pump.md", "docs/half.md", "docs/oven.md"})
    assert (report.files_kept, report.changed, report.added, report.removed) == (2, 0, 0, 0)
    assert set(world.index.held()) == {"docs/pump.md", "docs/oven.md"}
    assert world.index.search("red pump", 1)[0].citation.quote.endswith("The pump is red.")
    report = world.ingest()
    assert (report.changed, report.added, report.removed) == (1, 1, 1)


def test_files_that_vanish_between_listing_and_reading(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is deleted as soon as it was listed, before it can be read."""
    world.ingest()
    for number in range(5):
        world.write(f"{number}.md", f"# {number}\n\nPump {number}.\n")
    root = world.root()
    listed = type(root.source).files

    def vanishing(self: object, *arguments: object) -> Iterator[object]:
        for file in listed(self, *arguments):  # type: ignore[arg-type]
            if file.name[0].isdigit():
                os.unlink(world.docs / file.name)
            yield file

    monkeypatch.setattr(type(root.source), "files", vanishing)
    report = world.ingest(root)
    assert report.files_kept == 5 and report.added == 0 and report.unchanged == 2
    monkeypatch.undo()
    report = world.ingest()
    assert (report.files, report.removed, report.unchanged) == (2, 0, 2)


def test_watching_ingests_at_once_and_after_changes_until_it_is_told_to_stop(world: World) -> None:
    class Interrupt:
        requested = False

    interrupt, calls = Interrupt(), []

    def ingest(being_written: Collection[str]) -> None:
        calls.append(world.ingest(being_written=being_written))
        if len(calls) == 1:
            world.write("new.md", "# New\n\nA new violin.\n")
        interrupt.requested = len(calls) == 2

    watch([world.root()], ingest, interrupt, every=0.01)
    assert [(report.added, report.unchanged) for report in calls] == [(2, 0), (1, 2)]
    assert world.index.search("violin", 1)[0].citation.document == "docs/new.md"
