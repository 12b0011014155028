"""Rankings and judgements as trec_eval has them, in two files.

a run         query Q0 document rank score name
judgements    query 0 document relevance
"""

from __future__ import annotations

import math
from pathlib import Path

from windlass.core.errors import InputError
from windlass.evaluate.metrics.forms import Rows


def read_trec(run: Path, judgements: Path) -> Rows:
    """Documents stand by falling score, of equal ones by falling id, as trec_eval sorts them, whatever the rank says. A
    query that was judged and not answered counts as an empty ranking; one without a relevant document is left out.
    Raises `InputError` naming the line that is none.
    """
    wanted: dict[str, dict[str, float]] = {}
    for where, (query, _, document, relevance) in _fields(judgements, 4):
        wanted.setdefault(query, {})[document] = max(0.0, _number(relevance, where))
    found: dict[str, list[tuple[float, str]]] = {}
    for where, (query, _, document, _, score, *_) in _fields(run, 6):
        found.setdefault(query, []).append((_number(score, where), document))
    queries = [query for query, right in wanted.items() if any(right.values())]
    if not queries:
        raise InputError(f"{judgements} holds no relevant document.", "Lines are `query 0 document relevance`.")
    if not found.keys() & wanted.keys():
        raise InputError(f"No query of {run} is judged in {judgements}.", "Do the names of queries match?")
    return Rows(
        [[document for _, document in sorted(found.get(query, []), reverse=True)] for query in queries],
        [wanted[query] for query in queries],
        None,
        [f"{run}, query {query}" for query in queries],
    )


def _fields(path: Path, number: int) -> list[tuple[str, list[str]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path} cannot be read: {said}.", "Give a file of trec_eval's form.") from error
    rows = [(f"{path}, line {at}", line.split()) for at, line in enumerate(lines, 1) if line.strip()]
    for where, fields in rows:
        if len(fields) != number:
            raise InputError(f"{where} has {len(fields)} fields and not {number}.", "As trec_eval has them.")
    return rows


def _number(text: str, where: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{where}: {text!r} is no number.", "As trec_eval has them.")
    return found
