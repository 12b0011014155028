"""Words that mean the same, from a place of the user's: METEOR counts them as matches, and nothing is downloaded.

a file     a group of such words a line, `begin, start, commence`, as search engines take them; # begins a comment
a folder   a WordNet: index.noun, data.noun, noun.exc, and the same of verb, adj and adv (wndb(5WN), morphy(7WN))

METEOR asks by stems, and compares stems. Those of a file are made when it is read. In a WordNet a stem is looked up as
it stands, as NLTK does it: a word that is not its own stem, such as `automobile`, is not found there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from windlass.core.errors import InputError
from windlass.evaluate.metrics.text.stemming import stem

Synonyms = Callable[[str], Collection[str]]
"""From the stem of a word, in lower case, to the stems that may stand for it."""

_PARTS = ("noun", "verb", "adj", "adv")
_ENDINGS: Mapping[str, Sequence[tuple[str, str]]] = {
    "noun": (("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
             ("men", "man"), ("ies", "y")),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip
"""Of the inflected forms, what takes the place of what: morphy(7WN)."""


def read_synonyms(place: Path) -> Synonyms:
    """Raises `InputError` naming what is missing, or the line that is no group."""
    if place.is_dir():
        return WordNet(place)
    try:
        lines = place.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(
            f"{place} cannot be read: {said}.", "Name a file of synonyms, or a folder of WordNet."
        ) from error
    known: dict[str, set[str]] = defaultdict(set)
    for number, line in enumerate(lines, 1):
        if not (said := line.partition("#")[0].strip()):
            continue
        group = [stem(word.strip().lower()) for word in said.split(",")]
        if len(group) < 2 or not all(group) or "=>" in said:
            raise InputError(f"{place}, line {number} is no group of words.", "Write them so: begin, start, commence")
        for word in group:
            known[word].update(group)
    if not known:
        raise InputError(f"{place} holds no synonyms.", "Write a group a line: begin, start, commence")
    return lambda word: known.get(word, ())


class WordNet:
    """Of a word, all that share a sense with it or with its base form, in whichever part of speech; single words."""

    def __init__(self, folder: Path) -> None:
        """Raises `InputError` for a folder that lacks one of the files, or holds another thing under its name."""
        self._folder = folder if (folder / "index.noun").is_file() else folder / "dict"
        self._senses = {part: self._index(part) for part in _PARTS}
        self._irregular = {part: self._exceptions(part) for part in _PARTS}
        self._data = {part: self._read(f"data.{part}") for part in _PARTS}
        self._synonyms = lru_cache(maxsize=100_000)(self._looked_up)

    def __call__(self, word: str) -> frozenset[str]:
        return self._synonyms(word.lower())

    def _looked_up(self, word: str) -> frozenset[str]:
        return frozenset(
            member
            for part in _PARTS
            for form in self._forms(word, part)
            for offset in self._senses[part].get(form, ())
            for member in self._members(part, offset)
            if "_" not in member
        )

    def _forms(self, word: str, part: str) -> set[str]:
        """The word and its base forms: an irregular one where it is listed, else what its ending leaves."""
        other = self._irregular[part].get(word)
        if other is None:
            other = [word[: len(word) - len(old)] + new for old, new in _ENDINGS[part] if word.endswith(old)]
        return {word, *other}

    def _members(self, part: str, offset: int) -> list[str]:
        data = self._data[part]
        fields = data[offset : data.find(b"\n", offset)].decode("utf-8", "replace").split()
        try:
            if int(fields[0]) != offset:
                raise ValueError(fields[0])
            words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        except (IndexError, ValueError) as error:
            where = f"{self._folder / f'data.{part}'}, byte {offset}"
            raise InputError(f"{where}: no sense of WordNet begins there.", "Copy the folder again.") from error
        return [word.partition("(")[0] for word in words]  # behind an adjective may stand where it goes

    def _index(self, part: str) -> dict[str, list[int]]:
        """Lemma -> where its senses begin, in bytes."""
        name = f"index.{part}"
        found: dict[str, list[int]] = {}
        for number, line in enumerate(self._lines(name), 1):
            if not line or line.startswith(" "):  # the licence
                continue
            try:
                lemma, _, senses, pointers, *rest = line.split()
                found[lemma] = [int(one) for one in rest[int(pointers) + 2 :]]
                if len(found[lemma]) != int(senses):
                    raise ValueError(senses)
            except ValueError as error:
                raise InputError(f"{self._folder / name}, line {number}, is no entry of WordNet.") from error
        return found

    def _exceptions(self, part: str) -> dict[str, list[str]]:
        return {form: base for form, *base in filter(None, map(str.split, self._lines(f"{part}.exc")))}

    def _lines(self, name: str) -> list[str]:
        return self._read(name).decode("utf-8", "replace").split("\n")

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise InputError(
                f"{self._folder / name} cannot be read: {error.strerror}.",
                "A WordNet has index, data and exceptions of noun, verb, adj and adv.",
            ) from error
