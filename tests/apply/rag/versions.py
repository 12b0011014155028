"""Documents whose every passage says which version of them it is: mixed versions would show."""

from __future__ import annotations

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.core.documents import Document, Entry, Passage

EMBEDDER = HashingEmbedder(16)


def texts_of(number: int, turn: int) -> list[str]:
    return [f"document{number} turn{turn} part{i} pump water" for i in range(2 + (number + turn) % 4)]


def entry(number: int, turn: int) -> Entry:
    texts = texts_of(number, turn)
    text = " ".join(texts)
    name, title = f"d{number}", f"T{turn}"
    passages = [Passage(name, title, "", text.index(part), text.index(part) + len(part), part) for part in texts]
    document = Document(name, name, title, text, metadata={"turn": turn, "parts": len(texts)})
    return Entry(document, f"{number}-{turn}", passages, EMBEDDER.embed([f"{title}\n{part}" for part in texts]).vectors)
