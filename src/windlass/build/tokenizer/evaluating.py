"""A tokenizer measured on a corpus: by kind and language of documents, numbers, code, what comes back, what is used.

Rates are of held-out text. What is used of the vocabulary is counted on training text as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from windlass.build.corpus import corpus_documents
from windlass.build.corpus.language import identify
from windlass.build.tokenizer.counting import pieces
from windlass.build.tokenizer.loading import batches
from windlass.build.tokenizer.lossless import first_difference
from windlass.build.tokenizer.measuring import TokenCount
from windlass.build.tokenizer.probes import NUMBER, RANDOM_TEXTS, longest_tokens, numbers, unicode_share
from windlass.build.tokenizer.specials import Specials
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TRAIN_BYTES = 20_000_000
"""Of training text that is looked at, for time's sake."""


def evaluate_tokenizer(
    tokenizer: Tokenizer, specials: Specials, corpus: Artifact, *, by_language: bool = False
) -> dict[str, Any]:
    """A report as JSON, which `docs/tokenizer.md` explains. Without held-out text the groups of documents are empty.

    `by_language`: whether the languages of documents are told apart where the corpus does not name them.
    """
    heldout, train = _Tally(specials, by_language), _Tally(specials, False)
    for document, ids, back in _tokenized(tokenizer, corpus_documents(corpus, "heldout")):
        heldout.add(document, ids, back)
    for document, ids, back in _tokenized(tokenizer, corpus_documents(corpus, "train")):
        train.add(document, ids, back)
        if train.all.bytes >= TRAIN_BYTES:
            break
    shown = heldout if heldout.all.tokens else train
    if not shown.all.tokens:
        raise InputError(f"{corpus.ref} holds no text to measure a tokenizer on.", "Name a corpus with text.")
    used = heldout.used | train.used
    vocabulary = set(tokenizer.get_vocab().values())
    unused = vocabulary - used - specials.ids
    return {
        "vocab_size": len(vocabulary),
        "special_tokens": len(specials.ids),
        "heldout": heldout.rows(heldout.kinds),
        "parts": heldout.rows(heldout.parts),
        "languages": heldout.rows(heldout.languages),
        "numbers": numbers(tokenizer, shown.numbers),
        "train": train.all.as_json(),
        "train_limited_to_bytes": TRAIN_BYTES if train.all.bytes >= TRAIN_BYTES else None,
        "round_trip": {
            "heldout": heldout.share_unchanged,
            "train": train.share_unchanged,
            "first_changed": heldout.changed or train.changed,
            "random_texts": RANDOM_TEXTS,
            "random": unicode_share(tokenizer),
        },
        "unknown": None if specials.unk is None else round(shown.unknown / shown.all.tokens, 6),
        "unused": len(unused),
        "unused_share": round(len(unused) / len(vocabulary), 4),
        "longest_tokens": longest_tokens(tokenizer, specials.ids),
    }


class _Tally:
    """What was counted over a run of documents."""

    def __init__(self, specials: Specials, by_language: bool) -> None:
        self._unk, self._by_language = specials.unk, by_language
        self.all = TokenCount()
        self.kinds: dict[str, TokenCount] = {}
        self.parts: dict[str, TokenCount] = {}
        self.languages: dict[str, TokenCount] = {}
        self.used: set[int] = set()
        self.numbers: Counter[str] = Counter()
        self.unknown = 0
        self.unchanged = 0
        self.changed: dict[str, str] | None = None

    def add(self, document: Document, ids: list[int], back: str) -> None:
        text = document.text
        groups = (
            (self.kinds, document.metadata["kind"]),
            (self.parts, document.metadata.get("part")),
            (self.languages, self._language(document)),
        )
        counts = [group.setdefault(name, TokenCount()) for group, name in groups if name]
        for count in (self.all, *counts):
            count.add(text, len(ids))
        self.used.update(ids)
        self.unknown += ids.count(self._unk) if self._unk is not None else 0
        self.numbers.update(NUMBER.findall(text))
        if text == back:
            self.unchanged += 1
        elif self.changed is None:
            at = first_difference(text, back)
            self.changed = {"document": document.id, "text": text[at : at + 40], "came_back": back[at : at + 40]}

    def _language(self, document: Document) -> str | None:
        """As the corpus says. Code is in none that people speak."""
        said: str | None = document.metadata.get("language")
        if said or not self._by_language or document.metadata["kind"] == "source":
            return said
        return identify(document.text).code

    @property
    def share_unchanged(self) -> float | None:
        return round(self.unchanged / self.all.documents, 4) if self.all.documents else None

    def rows(self, groups: Mapping[str, TokenCount]) -> dict[str, Any]:
        """Measures by group, sorted, and of all together; empty when there is no group."""
        if not groups:
            return {}
        return {name: groups[name].as_json() for name in sorted(groups)} | {"all": self.all.as_json()}


def _tokenized(tokenizer: Tokenizer, documents: Iterable[Document]) -> Iterator[tuple[Document, list[int], str]]:
    """Each document with its tokens and with what these spell; long texts go through the tokenizer in pieces."""
    for batch in batches(documents):
        parts = [list(pieces(document.text)) for document in batch]
        encoded = iter(tokenizer.encode_batch_fast([p for ps in parts for p in ps], add_special_tokens=False))
        for document, own in zip(batch, parts, strict=True):
            ids = [number for _ in own for number in next(encoded).ids]
            yield document, ids, str(tokenizer.decode(ids, skip_special_tokens=False))
