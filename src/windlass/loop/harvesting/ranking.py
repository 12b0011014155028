"""What a reranker learns from, out of an index: what users asked, and what the documents ask themselves.

Only public documents are learned from: a model repeats what it has read to whoever asks it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing

from windlass.apply.rag.indexes.search import HybridIndex
from windlass.apply.rag.retrieving.ranking_rows import Answered, rows, self_asked
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder
from windlass.core.workspace import Workspace

_UNSEEN = ("dev", "test")
"""Splits that are measured on."""


def ranking_dataset(
    ws: Workspace,
    index: Artifact,
    embedder: Embedder,
    *,
    questions: Artifact | None = None,
    most: int = 5000,
    negatives: int = 5,
    seed: int = 0,
    name: str = "ranking",
) -> Artifact:
    """A dataset for `windlass tune rank`. `questions`: a dataset whose items name a question and the document that
    answers it, as a harvest's do; items of a `dev` or `test` split are left out. `most`: questions in all, at most; the
    users' come first.

    The same arguments give the same digest. Raises `InputError` when nothing can be learned from.
    """
    adapter = next((digest for role, digest in index.record.parents if role == "adapter"), None)
    with closing(HybridIndex.open(index, embedder, None if adapter is None else ws.artifacts.get(adapter))) as opened:
        asked = [] if questions is None else list(_asked(questions))
        itself = list(self_asked(opened.passages(), seed=seed))
        room = max(most - len(asked), 0)
        chosen = random.Random(seed).sample(itself, room) if room < len(itself) else itself
        from_users = list(rows(opened, asked[:most], negatives=negatives, seed=seed))
        made = [*from_users, *rows(opened, chosen, negatives=negatives, seed=seed)]
    if not made:
        raise InputError(
            f"{index.ref} gives nothing to learn ranking from: {len(asked):,} questions, {len(itself):,} headings and "
            "sentences, none with both a right and a wrong passage.",
            "Index more than one document, or name a dataset of questions.",
        )
    with ws.artifacts.build("dataset", name) as draft:
        with (draft.path / "items.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        draft.add_parent("index", index)
        if questions is not None:
            draft.add_parent("questions", questions)
        draft.card = {
            "description": "Questions with passages that answer them, and others that the search found for them.",
            "items": len(made),
            "from_users": len(from_users),
            "asked_by_the_documents": len(made) - len(from_users),
            "without_a_passage": min(len(asked), most) + len(chosen) - len(made),
            "licence": None,
        }
    return draft.done


def _asked(questions: Artifact) -> Iterator[Answered]:
    path = questions.path / "items.jsonl"
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                item = json.loads(line)
                question, document, split = item["question"], item.get("document"), item.get("split")
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{path}, line {number}: not a question ({error!r}).", "Give a dataset of questions."
                ) from error
            if document is not None and split not in _UNSEEN:
                yield Answered(str(question), str(document))
