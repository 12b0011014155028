"""Filters that a question names: "papers of 2023 by Ada about pumps" is a search for pumps where year and author hold.

A language model says what it reads as a filter, and only what the index really has is believed: a key that no document
has, or a value that none holds, is dropped, and so is a filter that nothing passes. What was dropped stands on the
trace. A filter of the caller's own is never loosened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from windlass.apply.rag.retrieving.step import Asked, Step
from windlass.core import semconv
from windlass.core.errors import InputError, ProviderError
from windlass.core.protocols import ChatModel, Hit, Index
from windlass.core.spans import Span
from windlass.core.trace import Recorder

PROMPT = "retrieve-filter"
Facets = Callable[[Collection[str]], Mapping[str, Sequence[Any]]]
"""The values that documents hold under each key of their metadata, among those that someone with these labels may see:
what others may not see must not stand in a prompt of theirs."""


@dataclass(frozen=True, slots=True)
class Understood:
    query: str
    """What is left to search for."""
    where: Mapping[str, Any]
    """Of keys and values that the index has."""
    dropped: Sequence[str] = ()
    """Filters that it does not have, in words."""


class SelfQuery(Step):
    name = "self_query"

    def __init__(
        self, index: Index, model: ChatModel, facets: Facets, *, shown: int = 30, recorder: Recorder | None = None
    ) -> None:
        """`shown`: values of each key that the model is shown, at most; all of them are believed."""
        super().__init__(index, recorder)
        if shown < 1:
            raise InputError("At least one value of each key has to be shown.")
        self.model, self.facets, self.shown = model, facets, shown

    def _search(self, asked: Asked, span: Span) -> list[Hit]:
        facets = self._helped(span, lambda: self.facets(asked.access)) or {}
        known = {key: values for key, values in facets.items() if values}
        understood = self._helped(span, lambda: self._understood(asked, known)) if known else None
        if understood is None:
            return asked.on(self.index)
        span["windlass.queries"] = [understood.query]
        span["windlass.where"] = dict(understood.where)
        dropped = list(understood.dropped)
        hits: list[Hit] = []
        if understood.where:
            where = {**understood.where, **(asked.where or {})}
            # where a filter fell, the words that named it may still find something
            query = asked.query if dropped else understood.query
            hits = replace(asked.instead(query), where=where).on(self.index)
            if not hits:
                dropped.append(f"{json.dumps(dict(understood.where), default=str)}: no document passes")
        if dropped:
            span["windlass.dropped"] = dropped
            span[semconv.FALLBACK] = f"filters dropped: {'; '.join(dropped)}"
        return hits or asked.on(self.index)

    def _understood(self, asked: Asked, known: Mapping[str, Sequence[Any]]) -> Understood:
        lines = [f"- {key}: {self._values(values)}" for key, values in sorted(known.items())]
        said = self._said(self.model, PROMPT, "\n".join(["Keys:", *lines, "", f"Question: {asked.query}"]))
        return checked(said, asked.query, known, taken=asked.where or {})

    def _values(self, values: Sequence[Any]) -> str:
        some = ", ".join(json.dumps(value, ensure_ascii=False, default=str) for value in values[: self.shown])
        more = len(values) - self.shown
        return f"{some}, and {more} more" if more > 0 else some


def checked(said: str, question: str, known: Mapping[str, Sequence[Any]], taken: Mapping[str, Any]) -> Understood:
    """What the model said, as far as the index has it. Keys in `taken` are the caller's, and stay as they are. Raises
    `ProviderError` for an answer that is not of the form asked for."""
    start, end = said.find("{"), said.rfind("}")
    try:
        value = json.loads(said[start : end + 1]) if start >= 0 else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("where", {}), dict):
        raise ProviderError(f"The model did not answer with a filter: {said[:80]!r}.")
    where: dict[str, Any] = {}
    dropped: list[str] = []
    for key, wanted in value.get("where", {}).items():
        if key in taken:
            dropped.append(f"{key}: filtered already")
        elif key not in known:
            dropped.append(f"{key}: no document has it")
        else:
            real = {_same(one): one for one in known[key]}
            asked_for = wanted if isinstance(wanted, list) else [wanted]
            held = [real[_same(one)] for one in asked_for if _same(one) in real]
            dropped.extend(f"{key} = {one}: no document holds it" for one in asked_for if _same(one) not in real)
            if held:
                where[key] = held
    query = value.get("query")
    return Understood(query.strip() if isinstance(query, str) and query.strip() else question, where, dropped)


def _same(value: Any) -> str:
    """2023 and "2023" are the same to who reads a question, and so are Ada and ada."""
    return str(value).strip().casefold()
