"""What an index in PostgreSQL does when the server is not there, dies, or lets nobody in."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import _postgres_server

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.core.documents import Document, Entry, Passage
from windlass.core.errors import InputError, WindlassError, WorkspaceError

if (why := _postgres_server.missing()) is not None:
    pytest.skip(why, allow_module_level=True)

from windlass.apply.rag.indexes.postgres import PostgresIndex, PostgresSettings

EMBEDDER = HashingEmbedder(16)
PASSAGES = 7


def entry(number: int, version: int) -> Entry:
    """A document whose passages all say which version they are of."""
    text = "".join(f"version {version:06} part {part} of {number:06}. " for part in range(PASSAGES))
    size = len(text) // PASSAGES
    document = Document(f"d{number}", f"d{number}", f"d{number}", text)
    passages = [
        Passage(document.id, "", "", at, at + size, text[at : at + size]) for at in range(0, size * PASSAGES, size)
    ]
    return Entry(document, str(version), passages, EMBEDDER.embed([p.text for p in passages]).vectors)


@pytest.fixture
def server() -> Iterator[_postgres_server.PostgresServer]:
    with _postgres_server.PostgresServer() as server:
        yield server


WRITER = """
import sys
from windlass.apply.rag.indexes.postgres import PostgresIndex
sys.path.insert(0, sys.argv[2])
from test_postgres_faults import EMBEDDER, entry
index = PostgresIndex(sys.argv[1], EMBEDDER)
version = 0
while True:
    version += 1
    numbers = [version % 5, 5 + version % 7, 20 + version]
    index.put(entry(number, version) for number in numbers)
    print(version, flush=True)
    if version % 4 == 0:
        index.delete([f"d{20 + version - 1}"])
        print(-version, flush=True)
"""


def test_a_killed_server_loses_nothing_and_keeps_whole_documents_only(
    server: _postgres_server.PostgresServer, tmp_path: Path
) -> None:
    index = PostgresIndex(server.dsn, EMBEDDER)
    index.put([entry(1000, 1)])
    for life in range(2):
        told = tmp_path / f"told{life}"
        with told.open("wb") as file:
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, server.dsn, str(Path(__file__).parent)],
                stdout=file,
                stderr=subprocess.PIPE,
            )
        until = time.monotonic() + 120
        while told.stat().st_size < 40 and writer.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        server.kill()
        _, said = writer.communicate(timeout=120)
        assert b"does not answer" in said and b"WorkspaceError" in said, said
        with pytest.raises(WorkspaceError, match="does not answer") as error:
            index.held()
        assert "See that the server runs" in error.value.hint
        server.start()
        held = index.held()  # the same object, which connects again
        expected: dict[str, int] = {}
        lines = [int(line) for line in told.read_bytes().split(b"\n")[:-1]]
        assert len(lines) > 4
        for version in lines:
            if version > 0:
                expected |= {f"d{number}": version for number in (version % 5, 5 + version % 7, 20 + version)}
            else:
                del expected[f"d{20 - version - 1}"]
        last = max(lines)
        # What was acknowledged is there, unless what was under way replaced or removed it as a whole.
        on_its_way = {f"d{number}" for number in ((last + 1) % 5, 5 + (last + 1) % 7, 20 + last + 1)}
        removing = {f"d{20 + last - 1}"} if last % 4 == 0 else set()
        for document, version in expected.items():
            allowed = {str(version)} | ({str(last + 1)} if document in on_its_way else set())
            assert held.get(document) in allowed | ({None} if document in removing else set())
        whole(index)
        index.delete(set(held) - {"d1000"})
    index.close()


def whole(index: PostgresIndex) -> None:
    """Every document has all of its passages, of one version, and nothing else is there."""
    held = index.held()
    assert len(index) == PASSAGES * len(held)
    seen: dict[str, list[str]] = {}
    for hit in index.search("version part", len(index)):
        seen.setdefault(hit.citation.document, []).append(hit.citation.quote)
    assert seen.keys() == held.keys()
    for document, quotes in seen.items():
        assert len(quotes) == PASSAGES and {int(q.split()[1]) for q in quotes} == {int(held[document])}
        text = index.document_of(index.search("part", 1, {"document": document})[0].passage).text
        assert text == "".join(sorted(quotes, key=lambda q: int(q.split()[3])))


def opened(dsn: str) -> PostgresIndex:
    return PostgresIndex(dsn, EMBEDDER, settings=PostgresSettings(timeout_s=5))


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (("postgres://windlass@/", "postgres://nobody:hush-hush@/"), InputError, "does not let this user in"),
        (("/postgres?", "/elsewhere?password=hush-hush&"), InputError, "is no database"),
        (("?host=", "?password=hush-hush&host=/nowhere"), WorkspaceError, "does not answer"),
        (("@/postgres?host=", ":hush-hush@127.0.0.1:1/postgres?x="), WorkspaceError, "does not answer"),
        (("postgres://windlass@/", "postgres://windlass:hush-hush@[/"), InputError, "is no"),
    ],
    ids=["user", "database", "socket", "port", "address"],
)
def test_what_is_wrong_is_told_without_the_password(
    change: tuple[str, str], kind: type[WindlassError], said: str
) -> None:
    with pytest.raises(kind, match=said) as error:
        opened(_postgres_server.shared().dsn.replace(*change))
    shown: BaseException | None = error.value
    while shown is not None:
        assert "hush" not in str(shown)
        shown = shown.__cause__


def test_a_user_who_may_nothing_is_told_what_is_needed() -> None:
    admin = opened(_postgres_server.shared().dsn)
    admin._database.run(
        lambda db: db.execute("CREATE ROLE guest LOGIN; REVOKE CREATE ON DATABASE postgres FROM PUBLIC")
    )
    try:
        with pytest.raises(InputError, match="does not allow this user enough") as error:
            PostgresIndex(_postgres_server.shared().dsn.replace("windlass@", "guest@"), EMBEDDER, name="guests")
        assert "CREATE" in error.value.hint
    finally:
        admin._database.run(lambda db: db.execute("DROP ROLE guest"))
        admin.close()


def test_a_closed_index_says_so() -> None:
    index = opened(_postgres_server.shared().dsn)
    index.close()
    index.close()
    with pytest.raises(InputError, match="was closed"):
        index.held()
