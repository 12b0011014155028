"""Quotations that stand, to the letter, in what a task was given; what does not is asked for again.

class Claim(BaseModel):
    claim: str
    evidence: Quote

@task
def claims(report: str) -> list[Claim]:
    \"\"\"List what this report claims.\"\"\"

claims(text)[0].evidence        # Citation(document="report", start=210, end=248, quote="…")

The model writes the words and nothing else; where they stand is found, so that no place is ever made up. Words and
passages are compared as `apply.verbatim` says, and a quotation cuts through no word and no number. The value is a
`Citation`: `quote` is what the passage has from `start` to `end`, in characters.

Quoted from is the task's only input that can hold text; or, where some inputs are typed as `Citation`s (what a search
finds), those. Any other task names what it quotes from: `Annotated[Citation, Verbatim("report")]`. The passages are all
texts in these inputs, of lists, mappings and records too; their ids are their places: `report`, `mails.2.body`. A
`Citation` keeps the id and the offsets of its document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from datetime import date, time
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from windlass.apply.tasks.forms.schema import AS_WRITTEN, MARK, Shape
from windlass.apply.verbatim import Text, parting
from windlass.core.errors import InputError
from windlass.core.values import AudioPart, Citation, FilePart, ImagePart

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler, ValidationInfo
    from pydantic_core import core_schema

_PASSAGES = "windlass.passages"
"""Where validators find them: among the inputs, under a name that no input has."""
_WORDLESS = (int, float, date, time, Enum, ImagePart, AudioPart, FilePart)


class Verbatim:
    """Marks a `Citation` as a quotation from these inputs, or from those that the module says."""

    def __init__(self, *inputs: str) -> None:
        self.inputs = inputs

    def __repr__(self) -> str:
        return f"Verbatim({', '.join(map(repr, self.inputs))})"

    def sources(self, types: Mapping[str, Any]) -> Sequence[str]:
        """The names of the inputs that are quoted from. Raises `InputError` where that is not clear."""
        if unknown := [name for name in self.inputs if name not in types]:
            raise InputError(f"{self!r}: there is no input '{unknown[0]}'.", f"The inputs are {', '.join(types)}.")
        named = self.inputs or [name for name, kind in types.items() if Citation in _kinds(kind)]
        texts = named or [name for name, kind in types.items() if not _wordless(kind)]
        if not texts:
            raise InputError("There is nothing to quote from: no input holds text.", "Give the task its passages.")
        if not named and len(texts) > 1:
            raise InputError(
                f"Which input is quoted from is not clear: {', '.join(texts)}.",
                f'Write Annotated[Citation, Verbatim("{texts[-1]}")] in place of Quote.',
            )
        return texts

    # what pydantic asks -----------------------------------------------------------------------------------------------

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        from pydantic_core import core_schema

        written = core_schema.plain_serializer_function_ser_schema(_written, info_arg=True)
        return core_schema.with_info_plain_validator_function(self._read, metadata={MARK: self}, serialization=written)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        where = f" from {' or '.join(self.inputs)}" if self.inputs else ""
        return {"type": "string", "description": f"Words quoted{where} to the letter, without quotation marks."}

    def _read(self, value: Any, info: ValidationInfo) -> Citation:
        """What a model wrote; or a value that was found before, which is looked up again where there are passages."""
        if isinstance(value, Citation):
            return value
        passages: Mapping[str, Sequence[_Passage]] | None = (info.context or {}).get(_PASSAGES)
        words = value.get("quote") if isinstance(value, Mapping) else value
        if not isinstance(words, str):
            raise _problem("is no text")
        if passages is not None:
            return _found(words, passages[repr(self)])
        if isinstance(value, Mapping):
            try:
                return Citation(**value)
            except TypeError:
                raise _problem("is not what was written of it") from None
        if info.mode == "python":  # written in code, for an example: it stands nowhere yet
            return Citation("", "", "", 0, len(words), words)
        raise _problem("is words alone, and there are no passages to find them in")


Quote = Annotated[Citation, Verbatim()]
"""The type of a quotation."""


@dataclass(frozen=True)
class _Passage:
    citation: Citation

    @cached_property
    def text(self) -> Text:
        return Text(self.citation.quote)


def context(shape: Shape[Any] | None, inputs: Mapping[str, Any], types: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the validators of a type see: the inputs of the call, and what its quotations are from. Raises `InputError`
    where that is not clear."""
    if shape is None or not shape.marks:
        return inputs
    passages = {}
    for mark in shape.marks:
        held = {name: inputs[name] for name in mark.sources(types) if name in inputs}
        passages[repr(mark)] = [_Passage(one) for name, value in held.items() for one in _texts(name, value)]
    return {**inputs, _PASSAGES: passages}


def _found(words: str, passages: Sequence[_Passage]) -> Citation:
    """Raises what pydantic makes a problem of."""
    if not words.strip():
        raise _problem("is empty")
    cut: str | None = None
    for passage in passages:
        for place in passage.text.places(words):
            if passage.text.whole(place):
                start, end = passage.text.span(place)
                at = passage.citation.start
                return replace(passage.citation, start=at + start, end=at + end, quote=passage.text.source[start:end])
            around = passage.text.read[max(0, place[0] - 20) : place[1] + 20]
            cut = cut or f"cuts through a word or a number of '{passage.citation.document}', which reads {around!r}"
    if cut is not None:
        raise _problem(cut)
    near = parting(words, [passage.text for passage in passages])
    if near is None:
        raise _problem(f"stands in none of the {len(passages)} passages, nor does anything like it")
    raise _problem(f"is not to the letter. In '{passages[near.text].citation.document}', which is nearest, {near}")


def _problem(told: str) -> Exception:
    from pydantic_core import PydanticCustomError

    return PydanticCustomError("verbatim", "The quotation {told}", {"told": told})


def _written(value: Citation, info: Any) -> Any:
    """The whole of it; or the words alone, as a model has to write it."""
    return value.quote if info.context is AS_WRITTEN else asdict(value)


def _texts(place: str, value: Any) -> Iterator[Citation]:
    """All texts in a value."""
    if isinstance(value, Citation):
        yield value
    elif isinstance(value, str):
        yield Citation(place, "", "", 0, len(value), value)
    else:
        for name, one in _parts(value):
            yield from _texts(f"{place}.{name}", one)


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif is_dataclass(value):
        yield from ((field.name, getattr(value, field.name)) for field in fields(value))
    elif (names := getattr(type(value), "model_fields", None)) is not None:
        yield from ((name, getattr(value, name)) for name in names)


def _kinds(kind: Any) -> Iterator[Any]:
    yield kind
    for part in get_args(kind):
        yield from _kinds(part)


def _wordless(kind: Any) -> bool:
    """Whether values of this type hold no text that could be quoted."""
    return get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, _WORDLESS))
