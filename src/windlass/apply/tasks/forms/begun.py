"""As much of a value as the beginning of its wire form tells: what is shown while an answer is still being written.

Whatever is shown stays true: what a longer beginning shows holds it. So JSON that stands as a text shows once the text
has ended, an entry of a dictionary once its value has begun, and of a union what all branches that are still possible
agree on.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from itertools import takewhile
from typing import Any

from windlass.apply.tasks.forms.codec import Anything, Codec, Items, Named, OneOf, Pairs, Plain, Properties
from windlass.apply.tasks.forms.partial import NOTHING
from windlass.apply.tasks.forms.strict import ROOT, Strict

IMPOSSIBLE = object()
"""Nothing that can become a value of this place."""


def shown(strict: Strict, sent: Any, whole: bool) -> Any:
    """The plain value of what came so far, or `NOTHING`. `whole`: nothing more will come."""
    if whole:
        return strict.decode(sent)
    if not strict.bare:
        if not isinstance(sent, Mapping) or ROOT not in sent:
            return NOTHING
        sent = sent[ROOT]
    value = _begun(strict.root, sent)
    return NOTHING if value is IMPOSSIBLE else value


def _begun(codec: Codec, sent: Any) -> Any:
    """Of a place that may still be written: everything in it is whole but the last."""
    match codec:
        case Plain(schema):
            return sent if _may_become(schema, sent) else IMPOSSIBLE
        case Anything():
            return NOTHING if isinstance(sent, str) else IMPOSSIBLE
        case Items(places=places) if places:
            return _tuple(places, sent)
        case Items(item):
            return _list(item, sent)
        case Properties(known):
            return _properties(codec, known, sent)
        case Pairs():
            return _pairs(codec, sent)
        case OneOf(branches):
            return _union(codec, branches, sent)
        case Named(name, found):
            return _begun(found(name), sent)
    raise AssertionError(codec)


def _may_become(schema: Mapping[str, Any], sent: Any) -> bool:
    if isinstance(sent, str) and "enum" in schema:
        return any(isinstance(option, str) and option.startswith(sent) for option in schema["enum"])
    return Plain(schema).read(sent)


def _whole(codec: Codec, sent: Any) -> Any:
    """Servers that do not hold answers to the schema leave properties out: that alone makes nothing impossible."""
    return IMPOSSIBLE if _begun(codec, sent) is IMPOSSIBLE else codec.decode(sent)


def _list(item: Codec, sent: Any) -> Any:
    if not isinstance(sent, list):
        return IMPOSSIBLE
    values = [_whole(item, one) for one in sent[:-1]] + [_begun(item, one) for one in sent[-1:]]
    return IMPOSSIBLE if any(one is IMPOSSIBLE for one in values) else [one for one in values if one is not NOTHING]


def _tuple(places: Any, sent: Any) -> Any:
    """Its places may be written in any order; those behind a gap wait."""
    names = [f"item_{n}" for n in range(len(places))]
    found = _object(dict(zip(names, places)), sent)
    if not isinstance(found, dict):
        return found
    values = [found.get(name, NOTHING) for name in names]
    return values[: next((n for n, one in enumerate(values) if one is NOTHING), len(values))]


def _properties(codec: Properties, known: Mapping[str, Codec], sent: Any) -> Any:
    absent = codec.absent
    if isinstance(sent, Mapping):
        sent = {name: one for name, one in sent.items() if one is not None or name not in absent}
    return _object(known, sent)


def _object(known: Mapping[str, Codec], sent: Any) -> Any:
    if not isinstance(sent, Mapping) or not sent.keys() <= known.keys():
        return IMPOSSIBLE
    last = next(reversed([*sent]), None)
    found = {name: (_begun if name == last else _whole)(known[name], one) for name, one in sent.items()}
    if any(one is IMPOSSIBLE for one in found.values()):
        return IMPOSSIBLE
    return {name: one for name, one in found.items() if one is not NOTHING}


def _pairs(codec: Pairs, sent: Any) -> Any:
    if not isinstance(sent, list):
        return IMPOSSIBLE
    found: dict[Any, Any] = {}
    for n, entry in enumerate(sent):
        if not isinstance(entry, Mapping) or not entry.keys() <= {"key", "value"}:
            return IMPOSSIBLE
        last = n == len(sent) - 1
        if last and [*entry] != ["key", "value"]:  # the key may go on
            continue
        key, value = _whole(codec.key, entry.get("key")), (_begun if last else _whole)(codec.value, entry.get("value"))
        if key is IMPOSSIBLE or value is IMPOSSIBLE:
            return IMPOSSIBLE
        if value is not NOTHING:
            found.setdefault(key, value)
    return found


def _union(codec: OneOf, branches: Any, sent: Any) -> Any:
    if codec.marked():
        if not isinstance(sent, Mapping) or len(sent) > 1:
            return IMPOSSIBLE
        for n, branch in enumerate(branches):
            if f"choice_{n}" in sent:
                return _begun(branch, sent[f"choice_{n}"])
        return IMPOSSIBLE if sent else NOTHING
    possible = [one for branch in branches if (one := _begun(branch, sent)) is not IMPOSSIBLE]
    return reduce(_common, possible) if possible else IMPOSSIBLE


def _common(one: Any, other: Any) -> Any:
    """What both say."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = {name: _common(one[name], other[name]) for name in one if name in other}
        return {name: value for name, value in both.items() if value is not NOTHING}
    if isinstance(one, list) and isinstance(other, list):
        values: list[Any] = []
        for a, b in zip(one, other):
            if (value := _common(a, b)) is not NOTHING:
                values.append(value)
            if a != b:
                break
        return values
    if isinstance(one, str) and isinstance(other, str):
        return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other)))
    return one if one == other and type(one) is type(other) else NOTHING
