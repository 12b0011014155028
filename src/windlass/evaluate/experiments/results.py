"""What one variant did with the items of a dataset: one value per item, repeat and metric, or the reason why not.

This is the one thing that a comparison takes, wherever it comes from: an exam of retrieval, a typed task, a benchmark
of a model, judges, people. Costs (`cost_usd`) and times (`latency_ms`) are metrics like any other. What is not known
is absent: never 0, never NaN.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError
from windlass.core.files import write_json

OUTPUT = "output"
"""In `ItemResult.errors`: the variant gave no output at all (its provider failed), so that no metric has a value."""
JUDGES = "judges"
"""In `Results.made_with`: metric -> what is known of the judge that gave its values (`judges.trust`)."""
FORMAT = "windlass.results/1"


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One item, once."""

    item: str
    """What the item is called in its dataset. Both sides of a comparison call it alike."""
    cluster: str = ""
    """What belongs together and is not independent, such as one customer's mails. Empty: the item itself."""
    repeat: int = 0
    """Which time it is, from 0, where items are asked several times."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Metric -> finite value. A metric that does not apply to this item stands neither here nor in `errors`."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """Metric -> why it has no value though it should have one; `OUTPUT` -> why there is nothing to score."""
    output: Any = None
    """What the variant gave, as plain JSON."""
    slices: Mapping[str, str] = field(default_factory=dict)
    """Kind of slice -> the one that the item belongs to: {"language": "de"}."""
    trace: str | None = None
    """Of the call that gave the output, where one was kept."""
    input: Any = None
    """What was asked, as plain JSON, for whoever reads the report."""
    expected: Any = None

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(
                    f"The metric '{name}' of item '{shortened(self.item)}' is {value!r}, which is no finite number.",
                    "Put the reason into `errors`: `split_values` does.",
                )
            if name in self.errors:
                raise InputError(f"The metric '{name}' of item '{shortened(self.item)}' has both a value and an error.")
        if self.repeat < 0:
            raise InputError(
                f"Item '{shortened(self.item)}' has the repeat {self.repeat}.", "Repeats are counted from 0."
            )

    @property
    def group(self) -> str:
        return self.cluster or self.item

    @property
    def failed(self) -> str | None:
        """Why there is no output; None where there is one."""
        return self.errors.get(OUTPUT)

    def problem(self, metric: str) -> str | None:
        """Why it has no value of this metric; None where it has one, or where the metric does not apply."""
        return self.errors.get(metric) or self.failed


@dataclass(frozen=True, slots=True)
class Results:
    """One variant on one dataset. Raises `InputError` for no items, and for one that is there twice."""

    variant: str
    """What it is called in reports."""
    digest: str | None
    """Of the variant's artifact; None: it is no artifact."""
    dataset: str
    """Digest of the dataset: only results on the same one can be compared."""
    items: Sequence[ItemResult]
    scorers: Mapping[str, str] = field(default_factory=dict)
    """Metric -> SHA-256 of the code that computed it."""
    split: str = ""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that could change a result: digests of prompt and model, settings, seeds, version."""

    def __post_init__(self) -> None:
        if not self.items:
            raise InputError(f"The results of {self.variant} hold no items.", "Give a dataset that is not empty.")
        twice = [key for key, n in Counter((one.item, one.repeat) for one in self.items).items() if n > 1]
        if twice:
            item, repeat = twice[0]
            raise InputError(
                f"The results of {self.variant} hold item '{shortened(item)}' (repeat {repeat}) twice"
                + (f", and {len(twice) - 1:,} more." if len(twice) > 1 else "."),
                "Leave each item in once; ask it several times as repeats 0, 1, 2.",
            )
        groups: dict[str, str] = {}
        for one in self.items:
            if groups.setdefault(one.item, one.group) != one.group:
                raise InputError(
                    f"In the results of {self.variant} item '{shortened(one.item)}' belongs to the clusters "
                    f"'{shortened(groups[one.item])}' and '{shortened(one.group)}'."
                )

    @property
    def metrics(self) -> list[str]:
        """Those that any item has a value of, or an error in its place, in the order in which they come."""
        names = dict.fromkeys(name for one in self.items for name in (*one.values, *one.errors))
        return [name for name in names if name != OUTPUT]

    @property
    def repeats(self) -> int:
        return 1 + max(one.repeat for one in self.items)

    def to_json(self) -> dict[str, Any]:
        rows = [_row(one) for one in self.items]
        return {"format": FORMAT, **{f.name: getattr(self, f.name) for f in fields(self)}, "items": rows}

    @classmethod
    def from_json(cls, row: Mapping[str, Any], where: str = "these results") -> Results:
        """Raises `InputError` for what is of another form."""
        if not isinstance(row, Mapping) or row.get("format") != FORMAT:
            raise InputError(f"{where} is not of the form {FORMAT}.", "Evaluate the variant again.")
        try:
            said = {name: value for name, value in row.items() if name != "format"}
            return cls(**{**said, "items": tuple(ItemResult(**one) for one in row["items"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"{where} cannot be read: {error}.", "Evaluate the variant again.") from error
        except InputError as error:
            raise InputError(f"{where}: {error.message}", error.hint) from error

    def write(self, path: Path) -> None:
        write_json(path, self.to_json())


def shortened(item: str) -> str:
    """What an item is called, for a message: of a digest its first digits."""
    return item if len(item) <= 24 else f"{item[:12]}…"


def split_values(said: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Values and errors of what metrics gave: NaN, an infinity, or no number at all is an error with its reason;
    None is a metric that does not apply."""
    values: dict[str, float] = {}
    errors: dict[str, str] = {}
    for name, value in said.items():
        if value is None:
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            errors[name] = f"gave {value!r}, which is no number"
            continue
        except OverflowError:
            errors[name] = "gave a number that is too large"
            continue
        if math.isfinite(number):
            values[name] = number
        else:
            errors[name] = f"gave {number}"
    return values, errors


def counted_errors(items: Iterable[ItemResult], metric: str) -> Counter[str]:
    """Reason -> how many items have no value of the metric for it."""
    return Counter(reason for one in items if (reason := one.problem(metric)) is not None)


def _row(one: ItemResult) -> dict[str, Any]:
    """Without what is as it would be anyway."""
    plain = ItemResult(one.item)
    said = {f.name: getattr(one, f.name) for f in fields(one)}
    return {name: value for name, value in said.items() if name == "item" or value != getattr(plain, name)}
