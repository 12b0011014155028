"""Reading benchmarks: those that come with windlass by name, and the user's own by their files."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path

from windlass.core.config import strict
from windlass.core.errors import ConfigError, InputError
from windlass.core.files import sha256_json
from windlass.evaluate.harness.answer import Answer
from windlass.evaluate.harness.benchmark import Benchmark
from windlass.evaluate.harness.choice import Choice
from windlass.evaluate.harness.continuation import Continuation
from windlass.evaluate.harness.perplexity import Perplexity
from windlass.evaluate.harness.program import Program
from windlass.evaluate.harness.schema import Schema

SHIPPED = Path(__file__).parent / "benchmarks"
KINDS: Mapping[str, type[Benchmark]] = {
    "choice": Choice,
    "schema": Schema,
    "continuation": Continuation,
    "answer": Answer,
    "program": Program,
    "perplexity": Perplexity,
}


def shipped() -> list[str]:
    """The names of the benchmarks that come with windlass."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def read_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, or of that file if it ends in .toml.

    Raises `InputError` for a name that nothing has, `ConfigError` naming the key of the file that is wrong.
    """
    if name.endswith(".toml"):
        return read_definition(Path(name))
    if name not in shipped():
        near = difflib.get_close_matches(name, shipped(), n=1)
        hint = f"Did you mean '{near[0]}'?" if near else "`windlass eval --list` shows them."
        raise InputError(f"There is no benchmark '{name}'.", hint + " One of your own is named by its file, NAME.toml.")
    return read_definition(SHIPPED / f"{name}.toml")


def read_definition(path: Path) -> Benchmark:
    """Raises `ConfigError` naming the key that is wrong."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Name the file of a benchmark.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", "Mend the line it names.") from error
    digest = sha256_json(values)
    kind = values.pop("kind", None)
    if kind not in KINDS:
        raise ConfigError(f"{path}: 'kind' is {kind!r}.", f"Allowed: {', '.join(KINDS)}.")
    for reserved in ("name", "digest"):
        if reserved in values:
            raise ConfigError(f"{path}: unknown key '{reserved}'.", "A benchmark is called as its file.")
    return strict(KINDS[kind], {**values, "name": path.stem, "digest": digest}, where=str(path))
