"""What an index in Qdrant keeps: its state, points of documents and passages, and the conditions that choose them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from windlass.apply.rag.chunking import context_of
from windlass.apply.rag.indexes.terms import K1, B, Tokenizer
from windlass.core.documents import Entry
from windlass.core.errors import InputError, MissingExtra
from windlass.core.values import Citation

try:
    from qdrant_client import models
except ModuleNotFoundError as error:
    raise MissingExtra("An index in Qdrant", "qdrant") from error

FORMAT = 1
LENGTH = 100
"""Words of an average passage, as BM25 takes it here."""


@dataclass(frozen=True, slots=True)
class State:
    """What an index was made of, and how far it is."""

    embedder: str
    embedder_name: str
    dimension: int
    context: int
    format: int = FORMAT
    number: int = 0
    """Of the state that counts."""
    next_document: int = 1
    next_passage: int = 1


INDEXED = {"born": "integer", "died": "integer", "document": "keyword", "access": "keyword"}


def made(
    batch: Sequence[Entry], state: State, coming: int, tokenizer: Tokenizer
) -> tuple[list[models.PointStruct], list[models.PointStruct], State]:
    """The points of documents and of passages that some entries become, and the state with their numbers given out."""
    documents, passages = [], []
    for entry in batch:
        document, first = entry.document, state.next_passage
        common: dict[str, Any] = {
            "document": storable(document.id),
            "source": storable(document.source),
            "title": storable(document.title),
            "metadata": plain(document.metadata),
            "access": sorted(map(storable, document.access)),
            "born": coming,
        }
        more = {"digest": entry.digest, "format": document.format, "text": storable(document.text)}
        place = {"first": first, "passages": len(entry.passages)}
        documents.append(models.PointStruct(id=state.next_document, vector={}, payload=common | more | place))
        contexts = tokenizer.terms([context_of(passage, state.context) for passage in entry.passages])
        texts = tokenizer.terms([passage.text for passage in entry.passages])
        for i, passage in enumerate(entry.passages):
            own = {
                "owner": state.next_document,
                "title": storable(passage.title),
                "heading": storable(passage.heading),
                "context": storable(passage.context),
                "start": passage.start,
                "end": passage.end,
                "text": storable(passage.text),
            }
            vector = {
                "dense": entry.vectors[i].astype(float).tolist(),
                "words": weighted(Counter(contexts[i] + texts[i])),
            }
            passages.append(models.PointStruct(id=first + i, vector=vector, payload=common | own))
        state = replace(state, next_document=state.next_document + 1, next_passage=first + len(entry.passages))
    return documents, passages, state


def weighted(words: Counter[str]) -> models.SparseVector:
    """A passage's words, each with its share of BM25 without its rarity."""
    norm = K1 * (1 - B + B * words.total() / LENGTH)
    return sparse({word: often * (K1 + 1) / (often + norm) for word, often in words.items()})


def sparse(weights: Mapping[str, float]) -> models.SparseVector:
    """Words by number. Two of the same number, of which 100,000 words have about one pair, count as one."""
    numbered: dict[int, float] = {}
    for word, weight in weights.items():
        number = int.from_bytes(blake2b(word.encode(), digest_size=4).digest(), "big")
        numbered[number] = numbered.get(number, 0.0) + weight
    return models.SparseVector(indices=list(numbered), values=list(numbered.values()))


def citation(payload: Mapping[str, Any]) -> Citation:
    return Citation(
        payload["document"],
        payload["title"],
        payload["heading"],
        payload["start"],
        payload["end"],
        payload["text"],
        payload["source"],
    )


# conditions ---------------------------------------------------------------------------------------------------------


def visible(state: State, conditions: Sequence[Any] = ()) -> models.Filter:
    """What counts in a state, and meets the conditions."""
    return models.Filter(must=[upto("born", state.number), *conditions], must_not=[upto("died", state.number)])


def counts(payload: Mapping[str, Any], state: State) -> bool:
    """Whether a point with this payload is visible."""
    return bool(payload["born"] <= state.number and payload.get("died", state.number + 1) > state.number)


def condition(where: Mapping[str, Any], access: Collection[str]) -> list[Any]:
    """Of what the points of documents and of passages hold alike. Raises `InputError` for what Qdrant cannot ask."""
    conditions: list[Any] = []
    for key, wanted in where.items():
        field = key if key in ("document", "source") else f'metadata."{_key(storable(key))}"'
        wishes = [_equal(field, plain(value)) for value in values_of(wanted)]
        conditions.append(models.Filter(should=wishes or [_NOTHING]))
    seen = [models.IsEmptyCondition(is_empty=models.PayloadField(key="access"))]
    conditions.append(
        models.Filter(should=[*seen, *([any_of("access", sorted(map(storable, access)))] if access else [])])
    )
    return conditions


def _key(key: str) -> str:
    if '"' in key or "\\" in key:
        raise InputError(f"An index in Qdrant cannot filter by {key!r}.", "Use keys without quotes and backslashes.")
    return key


def _equal(field: str, value: Any) -> Any:
    if value is None:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=field))
    if isinstance(value, float):
        return between(field, gte=value, lte=value)
    if isinstance(value, str | int):
        return models.FieldCondition(key=field, match=models.MatchValue(value=value))
    raise InputError(f"An index in Qdrant cannot filter by {value!r}.", "Use texts, numbers or truth values.")


def any_of(field: str, values: Sequence[str]) -> Any:
    return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))


def between(field: str, **limits: float) -> Any:
    return models.FieldCondition(key=field, range=models.Range(**limits))


def upto(field: str, most: int) -> Any:
    return between(field, lte=most)


_NOTHING = models.HasIdCondition(has_id=[])


def values_of(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


def storable(text: str) -> str:
    """JSON is sent as UTF-8: lone surrogates, which no valid text has, become question marks of the same length."""
    return text.encode("utf-8", "replace").decode()


def plain(value: Any) -> Any:
    """Metadata as JSON has it."""
    if isinstance(value, Mapping):
        return {storable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return storable(value) if isinstance(value, str) else value
