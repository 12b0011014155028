"""`kill -9` at any moment: whole documents only, and ingesting again leaves what one clean run would have left."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from ingest_world import World, contents

from windlass.apply.rag.chunking import ChunkSettings
from windlass.cli.main import main

PROGRAM = Path(__file__).parent / "ingesting_process.py"


def pages(world: World, count: int, generation: int = 0) -> dict[str, str]:
    """Writes pages; returns their texts by name, without white space."""
    rng = random.Random(f"{count} {generation}")
    written = {}
    for number in range(count):
        sentences = [f"Pump {rng.randrange(50)} moves {rng.randrange(9)} litres." for _ in range(rng.randrange(1, 12))]
        text = f"# Page {number}\n\n" + "\n\n".join(sentences) + "\n"
        world.write(f"{number % 7}/{number:03}.md", text)
        written[f"docs/{number % 7}/{number:03}.md"] = "".join(text.split())
    return written


def killed_after(home: Path, seconds: float) -> bool:
    """Whether the process was killed before it had done everything."""
    process = subprocess.Popen([sys.executable, str(PROGRAM), str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    out = process.stdout.read()
    process.wait()
    process.stdout.close()
    return "done" not in out


def check(home: Path, fresh: Path, docs: Path, versions: Sequence[Mapping[str, str]]) -> None:
    """Every document that the index holds is whole, in one of the versions that there were; after another run it is
    what a fresh index is."""
    world = World(home)
    for name in world.index.held():
        passages = sorted(world.index.passages({"document": name}), key=lambda passage: passage.start)
        held = "".join("".join(passage.quote.split()) for passage in passages)
        assert held in [version.get(name) for version in versions], name
    world.ingest()
    other = World(fresh)
    other.home, other.docs = world.home, docs
    other.ingest()
    assert contents(world.index) == contents(other.index)
    assert len(world.index) == len(other.index)
    world.close()
    other.close()


def test_killed_while_it_ingests(tmp_path: Path) -> None:
    world = World(tmp_path / "killed")
    written = pages(world, 150)
    world.close()
    interrupted = sum(killed_after(world.home, seconds) for seconds in (0.02, 0.1))
    assert interrupted
    check(world.home, tmp_path / "fresh", world.docs, [written])


@pytest.mark.slow
def test_killed_again_and_again_while_documents_change(tmp_path: Path) -> None:
    world = World(tmp_path / "killed")
    versions = [pages(world, 400)]
    rng = random.Random(7)
    world.close()
    for generation in range(12):
        versions.append(pages(world, 400 - 10 * generation, generation))
        for number in rng.sample(range(400), 20):
            (world.docs / f"{number % 7}" / f"{number:03}.md").unlink(missing_ok=True)
        killed_after(world.home, rng.uniform(0.0, 0.8))
        if generation % 4 == 3:
            check(world.home, tmp_path / f"fresh{generation}", world.docs, versions)


def test_a_full_disk_is_one_clear_error_and_the_same_command_goes_on(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("httpx2")
    world = World(tmp_path / "elsewhere")
    pages(world, 600)
    command = ["ingest", str(world.docs), "--workspace", str(small_disk), "--embedder", "hashing", "--json"]
    assert main(command) == 1
    said = capsys.readouterr()
    assert (
        said.out == ""
        and "windlass: No space left on the disk that holds" in said.err
        and "Free some space" in said.err
    )
    said_of_it = said.err[said.err.index("windlass: ") :]
    assert "Traceback" not in said.err and len(said_of_it.splitlines()) == 2
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["documents"] == report["holds_documents"] == 600
    assert report["holds_passages"] == ingested_passages(world)
    world.close()


def ingested_passages(world: World) -> int:
    return world.ingest(chunks=ChunkSettings()).holds_passages
