"""What holds for every way of cutting, and what each is for."""

from __future__ import annotations

import dataclasses
import time
from itertools import pairwise

import numpy as np
import pytest
from chunk_world import Words, documents
from hypothesis import example, given, settings
from hypothesis import strategies as st

from windlass.apply.rag.chunking import RECIPES, ChunkSettings, chunk
from windlass.apply.rag.chunking.fixed import token_windows
from windlass.apply.rag.chunking.semantic import likeness
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.core.documents import Document, Section
from windlass.core.errors import InputError

EMBEDDER = Words()
SMALL = {
    "structure": ChunkSettings(target=60, limit=100, pieces=80),
    "fixed": ChunkSettings("fixed", target=60, limit=100),
    "fixed, overlapping": ChunkSettings("fixed", target=60, limit=100, overlap=25),
    "tokens": ChunkSettings("fixed", target=12, limit=100, unit="tokens"),
    "tokens, overlapping": ChunkSettings("fixed", target=12, limit=100, overlap=5, unit="tokens"),
    "sentence": ChunkSettings("sentence", target=60, limit=100, pieces=80),
    "sentence, overlapping": ChunkSettings("sentence", target=60, limit=100, pieces=80, overlap=30),
    "semantic": ChunkSettings("semantic", target=60, limit=100, pieces=80),
}


@pytest.mark.parametrize("kind", SMALL)
@given(case=documents())
@settings(max_examples=120)
def test_nothing_is_lost_and_nothing_masked_is_found(kind: str, case: tuple[Document, list[tuple[int, int]]]) -> None:
    document, masked = case
    wanted = SMALL[kind]
    passages = list(chunk(document, masked, wanted, EMBEDDER))
    assert passages == list(chunk(document, masked, wanted, EMBEDDER))
    covered = [0] * len(document.text)
    reach = 0
    for passage in passages:
        assert passage.text == document.text[passage.start : passage.end] and passage.text.strip()
        assert len(passage.text.lstrip(" \t")) <= (wanted.target if kind.startswith("fixed") else wanted.limit)
        assert len(passage.text) <= wanted.limit + wanted.limit // 8
        assert passage.end > reach, "a passage holds nothing that the one before does not hold"
        reach = passage.end
        for i in range(passage.start, passage.end):
            covered[i] += 1
    hidden = {i for start, end in masked for i in range(start, end)}
    for i, character in enumerate(document.text):
        assert wanted.overlap or covered[i] <= 1
        assert covered[i] == 0 or i not in hidden
        assert covered[i] > 0 or i in hidden or character.isspace(), (i, character)
    starts = [passage.start for passage in passages]
    assert starts == sorted(starts)


@pytest.mark.parametrize("kind", ["structure", "fixed", "tokens", "sentence", "semantic"])
@pytest.mark.parametrize(
    "line",
    ["a" * 60_000, "A b. " * 12_000, "." * 60_000, "a | " * 15_000, " " * 60_000 + "x", "x,\t" * 20_000],
    ids=["word", "sentences", "dots", "bars", "white", "words"],
)
def test_one_endless_line_takes_time_in_proportion(kind: str, line: str) -> None:
    """Ten times the line takes about ten times as long, and not a hundred times."""

    def seconds(text: str) -> float:
        started = time.process_time()
        passages = list(chunk(Document("x", "x.txt", "x", text, "markdown"), (), RECIPES[kind], HashingTokens()))
        assert max((len(p.text) for p in passages), default=0) <= RECIPES[kind].limit
        return time.process_time() - started

    short = min(seconds(line[: len(line) // 10]) for _ in range(2))
    assert seconds(line) < 40 * short + 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["structure", "fixed", "tokens", "sentence", "semantic"])
def test_five_megabytes_in_one_line(kind: str) -> None:
    line = "The pump moves water. It is red, as e.g. No. 7 was! " * 100_000
    passages = list(chunk(Document("x", "x.txt", "x", line), (), RECIPES[kind], HashingTokens()))
    assert max(len(p.text) for p in passages) <= RECIPES[kind].limit
    assert passages[-1].end == len(line.rstrip())
    assert all(after.start <= before.end + 1 for before, after in pairwise(passages))


class HashingTokens(HashingEmbedder):
    """Costs nothing, so that cutting is what takes time."""

    def __init__(self) -> None:
        super().__init__(8)

    def embed(self, texts, kind="passage"):  # type: ignore[no-untyped-def]
        return dataclasses.replace(super().embed([""]), vectors=np.ones((len(texts), 8), np.float32))

    token_starts = Words.token_starts
    embed_spans = Words.embed_spans


def test_many_code_blocks_and_blank_lines_take_time_in_proportion() -> None:
    text = "Words.\n\n```\nx = 1\n\ny = 2\n```\n\n" * 4_000
    started = time.process_time()
    list(chunk(Document("x", "x.md", "x", text, "markdown")))
    assert time.process_time() - started < 15


def test_fixed_windows_repeat_the_end_of_the_one_before_and_tear_no_word() -> None:
    text = " ".join(f"word{i:03}" for i in range(60))
    passages = list(chunk(Document("d", "d", "", text), (), ChunkSettings("fixed", target=100, limit=120, overlap=40)))
    for before, after in pairwise(passages):
        assert 24 <= before.end - after.start <= 40
        assert after.text.startswith("word") and len(before.text.split()[-1]) == 7


def test_windows_of_tokens_have_that_many() -> None:
    text = "Pump no. 7, built in 1972, moves water; bread rises. " * 20
    wanted = ChunkSettings("fixed", target=20, limit=800, overlap=6, unit="tokens")
    passages = list(chunk(Document("d", "d", "", text), (), wanted, EMBEDDER))
    counts = [len(EMBEDDER.token_starts(p.text)) for p in passages]
    assert set(counts[:-1]) == {20} and counts[-1] <= 20
    shared = [len(EMBEDDER.token_starts(text[b.start : a.end])) for a, b in pairwise(passages)]
    assert set(shared) == {6}


def test_windows_of_sentences_hold_whole_ones() -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    sentences = [f"Sentence {word} is here." for word in words]
    document = Document("d", "d", "", " ".join(sentences))
    plain = [p.text for p in chunk(document, (), ChunkSettings("sentence", target=80, limit=200))]
    assert plain == [" ".join(sentences[i : i + 3]) for i in (0, 3, 6)]
    doubled = [p.text for p in chunk(document, (), ChunkSettings("sentence", target=80, limit=200, overlap=30))]
    assert doubled == [" ".join(sentences[i : i + 3]) for i in (0, 2, 4)] + [" ".join(sentences[6:])]


def test_semantic_cuts_where_the_subject_changes() -> None:
    pumps = "The pump moves water. A pump needs oil. Water fills the pump. The pump is old. Oil the pump and its water."
    bread = "Bread rises in the oven. Bake the bread. The oven bakes bread. Hot bread leaves the oven. Bread and oven."
    document = Document("d", "d", "", f"{pumps} {bread}")
    passages = list(chunk(document, (), ChunkSettings("semantic", target=110, limit=180), HashingEmbedder()))
    assert [p.text for p in passages] == [pumps, bread]


def test_likeness_compares_three_rows_on_each_side() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9, 5)).astype(np.float32)
    for i, found in enumerate(likeness(rows), start=1):
        before, after = rows[max(0, i - 3) : i].sum(0), rows[i : i + 3].sum(0)
        assert found == pytest.approx(before @ after / np.linalg.norm(before) / np.linalg.norm(after), abs=1e-5)


def test_sections_stay_whole_for_the_semantic_kind_too() -> None:
    text = "# A\n" + "The pump moves water. " * 6 + "\n# B\n" + "The pump moves water. " * 6
    at = text.index("# B")
    document = Document("d", "d.md", "", text, "markdown", [Section(0, 1, "A"), Section(at, 1, "B")])
    passages = list(chunk(document, (), ChunkSettings("semantic", target=120, limit=200), HashingEmbedder()))
    assert [p.heading for p in passages] == ["A", "B"]


def test_functions_of_other_languages_are_not_torn_when_they_fit() -> None:
    functions = [f"func f{i}(x int) int {{\n\ty := x + {i}\n\n\treturn y * {'z' * 200}\n}}\n" for i in range(8)]
    passages = list(chunk(Document("m", "m.go", "m", "\n".join(functions), "code")))
    assert len(passages) > 2
    assert all(p.text.startswith("func ") and p.text.endswith("}") for p in passages)


def test_settings_that_mean_nothing_are_refused() -> None:
    for dials, said in (
        ({"kind": "magic"}, "kind 'magic'"),
        ({"overlap": 10}, "do not overlap"),
        ({"kind": "fixed", "overlap": 300}, "cannot overlap by 300"),
        ({"unit": "tokens"}, "measured in characters"),
        ({"target": 900}, "0 < target < limit"),
    ):
        with pytest.raises(InputError, match=said):
            ChunkSettings(**dials)  # type: ignore[arg-type]
    assert ChunkSettings.named("sentence", target=300).overlap == RECIPES["sentence"].overlap
    assert ChunkSettings.named("sentence", late="true", written=False).late is True
    for name, value in (("target", "wide"), ("late", "perhaps"), ("late", 1), ("kind", 3), ("overlap", True)):
        with pytest.raises(InputError, match=f"'{name}' is {value!r}"):
            ChunkSettings.named("sentence", **{name: value})
    with pytest.raises(InputError, match=r"named 'magic'"):
        ChunkSettings.named("magic")
    with pytest.raises(InputError, match=r"have no 'size'"):
        ChunkSettings.named("fixed", size=3)


def test_what_needs_an_embedder_says_so() -> None:
    document = Document("d", "d", "", "Some text.")
    with pytest.raises(InputError, match="'semantic' in characters are cut with an embedder"):
        list(chunk(document, (), ChunkSettings("semantic")))
    with pytest.raises(InputError, match="'hashing-256' gives vectors of whole texts only"):
        list(chunk(document, (), RECIPES["tokens"], HashingEmbedder()))


@given(
    st.lists(st.sampled_from([1, 3, 40, 250]), min_size=1, max_size=30),
    st.integers(2, 8),
    st.integers(0, 7),
    st.booleans(),
)
@example([5, 1, 250, 1, 1, 1, 250, 1], 4, 2, True)
def test_windows_of_tokens_follow_each_other(lengths: list[int], size: int, overlap: int, cut: bool) -> None:
    """Also where a token is longer than a passage may be, and the next window begins within what was cut."""
    starts = np.cumsum([0, *lengths])[:-1]
    high, limit = sum(lengths), 100 if cut else None
    spans = list(token_windows(starts, 0, high, size, min(overlap, size - 1), limit))
    assert spans[0][0] == 0 and spans[-1][1] == high
    assert all(one[0] < other[0] <= one[1] < other[1] for one, other in pairwise(spans))
    assert not cut or all(end - start <= 100 for start, end in spans)
