"""Writers are killed, disks filled, processes many: an index holds whole documents, and finds what they say."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from versions import EMBEDDER, entry, texts_of

from windlass.apply.rag.indexes.embedded import writing
from windlass.apply.rag.indexes.live import EmbeddedIndex, open_live
from windlass.core.errors import DiskFull, WindlassError, WorkspaceBusy

WRITER = f"""
import json, random, sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from versions import EMBEDDER, entry
from windlass.apply.rag.indexes.embedded import writing
from windlass.apply.rag.indexes.live import open_live

writing._FEW = 20  # so that vectors are written anew again and again
folder, seed = Path(sys.argv[1]), int(sys.argv[2])

def say(*what):
    sys.stdout.write(" ".join(map(str, what)) + "\\n")
    sys.stdout.flush()
"""

KILLED = (
    WRITER
    + """
draw = random.Random(seed)
index = open_live(folder, EMBEDDER)
say("open")
turn = seed * 1000
while True:
    turn += 1
    some = draw.sample(range(30), 6)
    if draw.random() < 0.3:
        index.delete([f"d{n}" for n in some])
        say("delete", turn, *some)
    else:
        index.put([entry(n, turn) for n in some])
        say("put", turn, *some)
"""
)


def assert_whole(index: EmbeddedIndex) -> dict[str, int]:
    """Every document is there with all of its passages, of one version, or not at all; returns the versions."""
    held = index.held()
    hits = index.search("pump water", 10_000)
    assert len(hits) == len(index) == len({hit.passage for hit in hits})
    found: dict[str, list[str]] = {}
    for hit in hits:
        found.setdefault(hit.citation.document, []).append(hit.citation.quote)
    assert found.keys() == held.keys()
    versions = {}
    for name, digest in held.items():
        number, turn = map(int, digest.split("-"))
        assert sorted(found[name]) == sorted(texts_of(number, turn)), name
        versions[name] = turn
    for name in list(held)[:5]:
        (best, *_) = index.search(f"document{name[1:]} turn{versions[name]} part1", 1, {"document": name})
        assert "part1" in best.citation.quote and best.parts["bm25"] > 0
        asked = EMBEDDER.embed([f"T{versions[name]}\n{best.citation.quote}"], "query").vectors
        assert (index.vectors_of([best.passage]) @ asked.T).item() == pytest.approx(1, abs=1e-5), "its own vector"
        assert index.document_of(best.passage).metadata["turn"] == versions[name]
    return versions


def kill_writers(folder: Path, trials: int) -> None:
    draw = random.Random(7)
    expected: dict[str, int] = {}
    for trial in range(1, trials + 1):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder), str(trial)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None and process.stderr is not None
        lines = [process.stdout.readline() for _ in range(draw.randint(1, 12))]
        time.sleep(draw.random() * 0.05)
        process.kill()
        # By the streams: `communicate` reads beside them, and would not see the lines that they hold already.
        out, err = process.stdout.read(), process.stderr.read()
        process.wait()
        process.stdout.close()
        process.stderr.close()
        assert err == b"", err.decode()
        said = [line.decode().split() for line in [*lines, *out.splitlines(keepends=True)] if line.endswith(b"\n")]
        for what, turn, *numbers in (words for words in said if len(words) > 1):
            for number in numbers:
                if what == "put":
                    expected[f"d{number}"] = int(turn)
                else:
                    expected.pop(f"d{number}", None)
        index = open_live(folder, EMBEDDER)
        versions = assert_whole(index)
        index.close()
        # What was acknowledged is there. One more write may have been committed without a word, and all of it.
        last = max((int(words[1]) for words in said if len(words) > 1), default=trial * 1000)
        unsaid = {name for name in versions.keys() | expected.keys() if versions.get(name) != expected.get(name)}
        assert len(unsaid) <= 6 and all(versions.get(name, last + 1) == last + 1 for name in unsaid)
        expected = versions


def test_killed_anywhere_a_writer_leaves_whole_documents(tmp_path: Path) -> None:
    kill_writers(tmp_path / "index", 5)


@pytest.mark.slow
def test_killed_many_times_a_writer_leaves_whole_documents(tmp_path: Path) -> None:
    kill_writers(tmp_path / "index", 60)


READER = (
    WRITER
    + """
index = open_live(folder, EMBEDDER)
say("open")
turns, ends = [], time.monotonic() + 60
while time.monotonic() < ends:
    with index.reading() as now:
        hits = now.search("pump water", 10_000)
        seen = {(h.citation.document, now.metadata_of([h.citation.document])[0]["turn"]) for h in hits}
        parts = sum(one["parts"] for one in now.metadata_of(sorted({h.citation.document for h in hits})))
    assert len(hits) == parts == len(now), (len(hits), parts, len(now))
    assert len({turn for _, turn in seen}) <= 1, seen  # each put replaces them all: nobody sees two turns at once
    turn = max((turn for _, turn in seen), default=-1)
    assert not turns or turn >= turns[-1]
    if not turns or turn != turns[-1]:
        turns.append(turn)
    if turn == 25:
        break
say(json.dumps(turns))
"""
)


def test_readers_in_other_processes_see_each_commit_whole(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    open_live(folder, EMBEDDER).close()
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, str(folder), "0"], stdout=subprocess.PIPE) for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdout is not None and reader.stdout.readline() == b"open\n"
    write = (
        WRITER + "index = open_live(folder, EMBEDDER)\nfor t in range(26): index.put([entry(n, t) for n in range(8)])"
    )
    subprocess.run([sys.executable, "-c", write, str(folder), "0"], check=True)
    for reader in readers:
        out, _ = reader.communicate()
        assert reader.returncode == 0
        turns = json.loads(out)
        assert turns[-1] == 25 and turns == sorted(set(turns))


def test_two_writers_take_turns(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    write = WRITER + (
        "index = open_live(folder, EMBEDDER)\n"
        "for t in range(12): index.put([entry(100 * seed + n, t) for n in range(4)]); index.delete([f'd{100 * seed}'])"
    )
    writers = [subprocess.Popen([sys.executable, "-c", write, str(folder), str(seed)]) for seed in (1, 2, 3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    index = open_live(folder, EMBEDDER)
    assert sorted(index.held()) == sorted(f"d{100 * seed + n}" for seed in (1, 2, 3) for n in (1, 2, 3))
    assert set(assert_whole(index).values()) == {11}


def test_a_writer_that_waits_too_long_says_for_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BUSY", 0.1)
    index, other = (open_live(tmp_path / "index", EMBEDDER) for _ in range(2))
    with index._connections.lent() as connection, writing.writing(connection.db, index.folder):
        with pytest.raises(WorkspaceBusy, match="Another process has been writing") as refused:
            other.delete(["x"])
        assert other.search("pump") == [], "readers do not wait"
    assert "Wait until it has finished" in refused.value.hint


def test_on_a_full_disk_what_was_put_stays_and_work_goes_on_once_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_000_000)
    index = open_live(small_disk / "index", EMBEDDER)
    done = 0
    with pytest.raises(DiskFull, match="No space left on the disk that holds") as refused:
        while True:
            index.put([entry(number, 1) for number in range(done, done + 50)])
            done += 50
    assert refused.value.hint and done > 0
    assert len(assert_whole(index)) == done
    ballast.unlink()
    index.put([entry(number, 2) for number in range(done, done + 50)])
    assert len(assert_whole(index)) == done + 50
    index.close()


@pytest.mark.parametrize("damage", ["truncated", "text", "flipped"])
def test_a_damaged_database_is_named(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "index"
    write = WRITER + "index = open_live(folder, EMBEDDER); index.put([entry(n, 0) for n in range(200)]); index.close()"
    subprocess.run([sys.executable, "-c", write, str(folder), "0"], check=True)
    path = folder / "index.db"
    data = path.read_bytes()
    changed = {
        "truncated": data[: len(data) // 2 - len(data) // 2 % 4096],
        "text": b"no index at all\n" * 500,
        "flipped": data[:4096] + bytes(b ^ 0xFF for b in data[4096:]),
    }
    path.write_bytes(changed[damage])
    with pytest.raises(WindlassError, match=r"index\.db") as refused:
        assert_whole(open_live(folder, EMBEDDER))
    assert refused.value.hint
