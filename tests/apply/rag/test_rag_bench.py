"""That `bench.rag` measures what it says: who lost a document, who found too few or too much, and who was faster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import rag
from bench._rag_contenders import Ask, asked
from bench._rag_data import DOCUMENT, TENANTS, K, Passages, write_files

COUNT = TENANTS * DOCUMENT * 2


@pytest.fixture(scope="module")
def data() -> Passages:
    """Two documents a tenant, without an embedder."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((COUNT + 40, 16), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = ["anchor", "barrel", "cable", "derrick", "eyelet", "ferry", "gantry", "hoist"]
    texts = [" ".join(rng.choice(words, 6)) + f" {i}" for i in range(COUNT)]
    tenants = [f"t{i // DOCUMENT % TENANTS:02d}" for i in range(COUNT)]
    asked_by = [f"t{i * 7 % TENANTS:02d}" for i in range(40)]
    return Passages(texts, tenants, vectors[:COUNT], [texts[i * 3] for i in range(40)], asked_by, vectors[COUNT:])


def own(data: Passages, i: int) -> list[int]:
    return [n for n, tenant in enumerate(data.tenants) if tenant == data.asked_by[i]]


def test_answers_that_are_short_or_show_what_the_filter_forbids_are_counted(data: Passages) -> None:
    whole: Ask = lambda i: own(data, i)[:K]  # noqa: E731
    took = asked(data, whole, range(4, 9))
    assert len(took["us"]) == 5 and min(took["us"]) > 0 and (took["short"], took["outside"]) == (0, 0)
    assert asked(data, lambda i: whole(i)[:-1] if i == 5 else whole(i), range(8))["short"] == 1
    assert asked(data, lambda i: [*whole(i)[:-1], whole(i)[0]], range(8))["short"] == 8, "twice the same is one"
    strange = asked(data, lambda i: [*whole(i)[:-1], *set(range(COUNT)).difference(own(data, i))][:K], range(3))
    assert (strange["short"], strange["outside"]) == (0, 3)


def test_contenders_run_in_processes_of_their_own(data: Passages, tmp_path: Path) -> None:
    data.save(tmp_path / "passages")
    where = (str(tmp_path / "passages"), str(tmp_path / "index"))
    with rag.started(sys.executable, "query", "windlass", *where) as one:
        assert one.line()["build_s"] > 0
        took = one.ask(first=10, count=20)
        assert len(took["us"]) == 20 and (took["short"], took["outside"]) == (0, 0) and took["resident"] > 10**6
    with rag.started(sys.executable, "query", "nobody", *where) as nobody, pytest.raises(rag.Missing, match="nobody"):
        nobody.line()
    with pytest.raises(rag.Missing, match="there is no"), rag.started(str(tmp_path / "python"), "query", "x", *where):
        pass


def test_the_ingest_of_a_folder_is_checked_after_the_clock_has_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    assert write_files(folder, 3) == (3, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    turn = rag.ingested(sys.executable, "windlass", folder, tmp_path / "store")
    assert turn.documents == 3 and turn.chunks >= 3 and turn.tokens > turn.chunks and turn.letters > turn.tokens
    assert turn.start_s > 0 and turn.work_s > 0 and turn.found == min(K, turn.chunks)


def test_what_the_figures_stand_for() -> None:
    def turns(start: float, *works: float, tokens: int = 1000) -> list[rag.Turn]:
        saved = {"documents": 5, "chunks": 50, "tokens": tokens, "letters": 500, "found": K}
        return [rag.Turn(start, work, 2 * work, **saved) for work in works]

    found = {"windlass": turns(1, 9, 11), "llama_index": turns(5, 35, 43), "haystack": turns(2, 23, 25, tokens=900)}
    found |= {"windlass_f32": turns(1, 24, 23), "haystack_bf16": turns(2, 13, 16)}
    result: dict[str, Any] = rag.ingest_result(found, 5)
    assert result["against"] == "haystack" and result["tokens_ratio"] == pytest.approx(1.111, abs=1e-3)
    assert result["ratio"] == pytest.approx((25 / 10 + 27 / 12) / 2, abs=1e-3)
    assert result["work_ratio"] == result["cpu_ratio"] == pytest.approx((23 / 9 + 25 / 11) / 2, abs=1e-3)
    assert (result["ratio_f32"], result["ratio_bf16"]) == (pytest.approx((1 + 27 / 24) / 2, abs=1e-3), 1.5)
    with pytest.raises(SystemExit, match="5 of 6"):
        rag.ingest_result(found, 6)
    assert rag.ingest_result({"windlass": found["windlass"]}, 5)["ratio"] is None

    answers = {
        "windlass": rag.Answers(1.0, [2000, 1000, 9000]), "chroma": rag.Answers(1.0, [8000, 4000, 5000], short=3),
        "lancedb": rag.Answers(1.0, [7000, 7000, 7000]),
    }  # fmt: skip
    result |= rag.query_result(answers)
    assert (result["query_ratio"], result["query_against"]) == (0.4, "chroma")
    assert result["under_returned"] == {"windlass": 0, "chroma": 3, "lancedb": 0}
    assert rag.holds(result) and not rag.holds({**result, "pgvector_ratio": 1.3})
    answers["windlass"].add([1.0], 0.1, short=1, outside=0, resident=5)
    assert not rag.holds({**result, **rag.query_result(answers)}) and not rag.holds({})
