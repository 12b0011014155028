"""What a model wrote, as a value of the type that was asked for; or what is wrong with it, so that it can be mended."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from windlass.apply.tasks.forms.schema import Shape, Unfit
from windlass.apply.tasks.forms.strict import Strict

T = TypeVar("T")

_FENCE = re.compile(r"```[a-zA-Z]*[ \t]*\n(.*?)```", re.DOTALL)
_TRAILING = re.compile(r",(\s*[}\]])")


def _number(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_float=_number, parse_constant=_no_number)
"""As `json.loads`, which takes NaN and Infinity, and reads 1e999 as one of them."""


class Reader(Generic[T]):
    """Reads answers of one type. `strict`: they come in the form of `Strict`."""

    def __init__(self, shape: Shape[T], strict: Strict | None = None) -> None:
        self.shape = shape
        self.strict = strict

    @property
    def schema(self) -> Mapping[str, Any]:
        """What the provider is told to obey."""
        return self.shape.schema if self.strict is None else self.strict.schema

    def value(self, text: str, context: Mapping[str, Any] | None = None) -> T:
        """Raises `Unfit`."""
        plain = json_in(text)
        return self.shape.value(plain if self.strict is None else self.strict.decode(plain), context)

    def written(self, value: T) -> str:
        """A value as a model would have to write it: for examples."""
        plain = self.shape.plain(value, as_written=True)
        return json.dumps(plain if self.strict is None else self.strict.encode(plain), ensure_ascii=False)


def json_in(text: str) -> Any:
    """The JSON value of an answer: the whole of it, or the one that stands in a fence or between words.

    A comma too many is forgiven, nothing else: what would have to be guessed is asked for again. Raises `Unfit`.
    """
    problem = "the answer is empty"
    for candidate in _candidates(text):
        try:
            return _DECODER.decode(candidate)
        except RecursionError:
            raise Unfit(["the whole: nested too deeply"]) from None
        except json.JSONDecodeError as error:
            problem = f"not JSON: {error.msg} at character {error.pos} ({candidate[max(0, error.pos - 20) :][:40]!r})"
        except ValueError as error:  # a number that is none; Python also refuses whole ones of thousands of digits
            problem = str(error).partition(";")[0]
    raise Unfit([f"the whole: {problem}"])


def _candidates(text: str) -> Iterator[str]:
    """Likeliest last, as the last one's fault is the one that is told."""
    stripped = text.strip()
    if not stripped:
        return
    yield stripped
    fences = _FENCE.findall(stripped)
    inner = fences[0].strip() if len(fences) == 1 else stripped
    if inner != stripped:
        yield inner
    begin = min((at for at in (inner.find("{"), inner.find("[")) if at >= 0), default=-1)
    end = max(inner.rfind("}"), inner.rfind("]"))
    if 0 <= begin < end:
        cut = inner[begin : end + 1]
        if cut != inner:
            yield cut
        if (mended := _without_trailing_commas(cut)) != cut:
            yield mended


def _without_trailing_commas(text: str) -> str:
    """Commas before a closing bracket are dropped, those inside of texts stay."""
    parts = re.split(r'("(?:[^"\\]|\\.)*")', text)
    return "".join(part if n % 2 else _TRAILING.sub(r"\1", part) for n, part in enumerate(parts))
