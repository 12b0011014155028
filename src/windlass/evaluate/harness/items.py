"""From a benchmark and the user's data to items: each a row with the requests that it makes."""

from __future__ import annotations

import difflib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError, NotFound, WindlassError
from windlass.core.files import sha256_json
from windlass.evaluate.harness import templates
from windlass.evaluate.harness.benchmark import Benchmark
from windlass.evaluate.harness.framing import Example, Frame
from windlass.evaluate.harness.requests import Request
from windlass.evaluate.harness.rows import File, Row, read_files


@dataclass(frozen=True, slots=True)
class Asking:
    """How a benchmark is asked, where that is left to who asks."""

    shots: int | None = None
    """Examples before each question; None: as the benchmark says."""
    seed: int | None = None
    """Draws the examples; None: the first ones."""
    limit: int | None = None
    """At most so many rows of each file, the first ones."""
    chat: bool = False
    """Through the model's chat template."""
    system: str | None = None
    """In place of the benchmark's own instructions."""

    def __post_init__(self) -> None:
        if self.shots is not None and self.shots < 0:
            raise InputError(f"There cannot be {self.shots} examples.", "Give 0 or more shots.")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"A limit of {self.limit} leaves nothing.", "Give 1 or more.")


@dataclass(frozen=True, slots=True)
class Item:
    id: str
    """File and row, such as `valid:12`: the same for every model."""
    cluster: str
    """Empty: it hangs together with no other."""
    slices: Mapping[str, str]
    row: Row
    requests: Sequence[Request]


@dataclass(frozen=True, slots=True)
class Exam:
    """A benchmark, ready to be asked."""

    benchmark: Benchmark
    items: Sequence[Item]
    dataset: str
    """Digest of definition and data: results on the same one compare."""
    files: Mapping[str, str]
    """Each file that was read, below the data folder, and its SHA-256."""
    shots: int
    held_out: int
    """Rows that are not asked, as they are examples."""
    asking: Asking = field(default_factory=Asking)
    part: str = ""
    """Which of the benchmark's files; empty: all."""

    @property
    def name(self) -> str:
        return f"{self.benchmark.name}/{self.part}" if self.part else self.benchmark.name

    def made_with(self) -> dict[str, Any]:
        """What could change a result, besides the model."""
        return {
            "benchmark": self.name,
            "definition": self.benchmark.digest,
            "files": dict(self.files),
            "shots": self.shots,
            "seed": self.asking.seed,
            "limit": self.asking.limit,
            "chat": self.asking.chat,
            "system": self.asking.system,
        }


def make_exam(benchmark: Benchmark, folder: Path, asking: Asking | None = None, only: str = "") -> Exam:
    """Reads the data and makes the items. `only`: of a benchmark of many files, those whose names in braces match.

    Raises `NotFound` naming data that is missing, `InputError` naming the row that does not fit the definition.
    """
    asking = asking or Asking()
    there = files_of(benchmark, folder)
    files = [file for file in there if _wanted(file, only)]
    if not files:
        parts = sorted({name for file in there for name in file.names.values()})
        near = difflib.get_close_matches(only, parts, n=1)
        hint = f"Did you mean '{benchmark.name}/{near[0]}'?" if near else f"Its parts: {', '.join(parts) or 'none'}."
        raise InputError(f"'{benchmark.name}' has no part '{only}'.", hint)
    number = benchmark.shots.number if asking.shots is None else asking.shots
    read = {_placed(folder, one): one.digest for one in files}
    items: list[Item] = []
    held_out = 0
    for file in files:
        pool = file
        if number and benchmark.shots.data:
            (pool, *_) = read_files(folder, benchmark.shots.data, rows=benchmark.rows, bound=file.names)
            read[_placed(folder, pool)] = pool.digest
        chosen = _drawn(pool, number, asking.seed)
        frame = Frame(
            system=_instructions(benchmark, folder, file, asking, read),
            examples=[_example(benchmark, pool, place) for place in chosen],
            chat=asking.chat,
            delimiter=benchmark.delimiter,
        )
        hidden = set(chosen) if pool is file else set()
        held_out += len(hidden)
        places = [place for place in range(len(file.rows)) if place not in hidden][: asking.limit]
        items += [_item(benchmark, file, place, frame) for place in places]
    if not items:
        raise InputError(f"'{benchmark.name}' has no row left beside its examples.", "Ask for fewer examples.")
    dataset = sha256_json(
        {"definition": benchmark.digest, "files": [[_placed(folder, one), one.digest] for one in files]}
    )
    return Exam(benchmark, items, dataset, read, number, held_out, asking, only)


def files_of(benchmark: Benchmark, folder: Path) -> list[File]:
    """All files of a benchmark's data. Raises as `read_files`."""
    found: list[File] = []
    try:
        for path in benchmark.paths:
            found += read_files(folder, path, rows=benchmark.rows, split=benchmark.split)
    except NotFound as missing:
        where = f" It is of {benchmark.source}." if benchmark.source else ""
        raise NotFound(missing.message, missing.hint + where) from missing
    return found


def _wanted(file: File, only: str) -> bool:
    return not only or any(fnmatchcase(name, only) for name in file.names.values())


def _placed(folder: Path, file: File) -> str:
    return file.path.relative_to(folder).as_posix()


def _drawn(pool: File, number: int, seed: int | None) -> list[int]:
    if number > len(pool.rows):
        raise InputError(f"{pool.path} holds {len(pool.rows)} rows, but {number} examples are wanted.")
    if seed is None:
        return list(range(number))
    return random.Random(seed).sample(range(len(pool.rows)), number)


def _instructions(benchmark: Benchmark, folder: Path, file: File, asking: Asking, read: dict[str, str]) -> str:
    if asking.system is not None:
        return asking.system
    if benchmark.lead is None:
        with _Named(file, 0):
            return templates.text(benchmark.system, benchmark.complete(file.rows[0])) if benchmark.system else ""
    (found, *_) = read_files(folder, benchmark.lead.file, bound=file.names)
    read[_placed(folder, found)] = found.digest
    text = str(found.rows[0]["text"])
    return text.partition(benchmark.lead.after)[2] if benchmark.lead.after else text


def _example(benchmark: Benchmark, pool: File, place: int) -> Example:
    with _Named(pool, place):
        return benchmark.example(benchmark.complete(pool.rows[place]))


def _item(benchmark: Benchmark, file: File, place: int, frame: Frame) -> Item:
    with _Named(file, place):
        row = benchmark.complete(file.rows[place])
        requests = tuple(benchmark.requests(row, frame))
        benchmark.check(row)
        cluster = sha256_json(templates.text(benchmark.cluster, row))[:16] if benchmark.cluster else ""
        slices = {kind: templates.text(template, row) for kind, template in benchmark.slices.items()}
        return Item(f"{row['file']}:{place + 1}", cluster, slices, row, requests)


class _Named:
    """Names file and row in what goes wrong with it."""

    def __init__(self, file: File, place: int) -> None:
        self._where = f"{file.path}, row {place + 1}"

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, WindlassError):
            raise InputError(f"{self._where}: {error.message}", error.hint) from error
