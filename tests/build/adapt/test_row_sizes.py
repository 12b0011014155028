"""How long a row is: every example that is kept fits, none is cropped, and those that are left out are counted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuned_world import asked

from windlass.build.adapt.data.lengths import row_size
from windlass.core.errors import InputError


@dataclass
class Base:
    """What `row_size` asks of the inputs."""

    context: int
    settings: Any
    base_name: str = "base"


def base(context: int, wanted: int | None = None, overlong: str = "refuse") -> Any:
    return Base(context, asked("rows.jsonl", model__context=wanted, data__overlong=overlong))


LENGTHS = st.lists(st.integers(1, 700), min_size=1, max_size=20)


@given(LENGTHS, st.integers(8, 600), st.none() | st.integers(8, 600), st.sampled_from(["refuse", "drop"]))
def test_what_is_kept_fits_and_what_is_not_is_counted(
    lengths: list[int], context: int, wanted: int | None, overlong: str
) -> None:
    examples = [[number] * length for number, length in enumerate(lengths)]
    limit = wanted or context
    fitting = [example for example in examples if len(example) <= limit]
    opened = base(context, wanted, overlong)
    if wanted is not None and wanted > context:
        with pytest.raises(InputError, match=f"model.context is {wanted} tokens, but base reads {context}"):
            row_size(opened, examples)
        return
    if len(fitting) < len(examples) and (overlong == "refuse" or not fitting):
        left = f"{len(examples) - len(fitting)} of {len(examples)} examples .* the longest has {max(lengths)}"
        with pytest.raises(InputError, match=left):
            row_size(opened, examples)
        return
    size, kept, lines = row_size(opened, examples)
    assert kept == fitting and max(map(len, kept)) <= size <= context
    assert size == wanted if wanted is not None else size in (context, 256, max(map(len, kept)))
    numbers = [list(map(int, re.findall(r"\d+", line))) for line in lines]
    left_out = [len(examples) - len(fitting), len(examples), limit, max(lengths)]
    assert numbers == ([left_out] if len(fitting) < len(examples) else [])


def test_the_length_may_be_that_of_a_part() -> None:
    rows = [("a", [1] * 5), ("b", [1] * 50)]
    size, kept, lines = row_size(base(20, overlong="drop"), rows, lambda row: len(row[1]))
    assert (size, kept, len(lines)) == (20, rows[:1], 1)


def test_nothing_at_all_is_refused_and_no_riddle() -> None:
    with pytest.raises(InputError, match="no example"):
        row_size(base(20), list[list[int]]())
