"""Questions that nobody asked: made of the passages where there is no traffic yet to learn from.

By rule, without any model: a passage is asked for by its heading, as a question, or by the rare words of one of its
sentences, as people type them into a search box. Or a language model writes them, as a typed task. Both are worth less
than what users ask: words are those of the passage (by rule: all of them), so a search by words looks too good on them.

They never mix with feedback unseen: they are a dataset of their own, `synthetic` on its card and `how` of each item,
and the report of a turn says what was learned from. Nothing is made of what the exam's dev and test questions are
about.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from importlib import resources

import numpy as np

from windlass.apply.prompts.value import Prompt
from windlass.apply.rag.indexes.search import HybridIndex
from windlass.apply.rag.sentences import sentence_spans
from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.surroundings import Surroundings, surrounded
from windlass.apply.wrappers.budget import OverBudget
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.protocols import ChatModel, Embedder
from windlass.core.trace import Recorder
from windlass.core.values import Citation
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import load_items
from windlass.loop.harvesting.data_card import data_card
from windlass.loop.harvesting.harvest import Guarded, HarvestItem, clusters_of, question_key
from windlass.loop.turning.curate import sift

Ask = Callable[[Citation], str | None]
"""A question that the passage answers; None: it answers none worth asking."""
_OPENINGS = ("What is {}?", "How does {} work?", "{}", "Where is {} explained?")
_WORD = re.compile(r"[^\W\d_][\w'-]{2,}")
_FEWEST, _MOST = 3, 7
"""Words of a question that is typed into a search box."""


def synthetic_questions(
    ws: Workspace,
    index: Artifact,
    exam: Artifact,
    embedder: Embedder,
    *,
    ask: Ask | None = None,
    by: str = "rules",
    most: int = 2000,
    seed: int = 0,
    name: str = "synthetic",
) -> Artifact:
    """A dataset of made-up questions to learn retrieval from. `ask`: who makes them, called `by`; None: rules.

    The same arguments give the same digest. Raises `InputError` when no passage yields a question.
    """
    adapter = next((digest for role, digest in index.record.parents if role == "adapter"), None)
    corpus = ws.artifacts.get(index.parent("corpus"))
    clusters, guarded = clusters_of(corpus), Guarded.of(exam)
    apart = [item.question for item in load_items(exam) if item.split != "harvest"]
    with closing(HybridIndex.open(index, embedder, None if adapter is None else ws.artifacts.get(adapter))) as opened:
        passages = [one for one in opened.passages() if one.document in clusters]
        ask = ask or by_rules(opened, seed)
        left: Counter[str] = Counter()
        order = random.Random(seed).sample(range(len(passages)), len(passages))
        made = list(_made((passages[at] for at in order), ask, clusters, guarded, left, most))
    sifted = sift([item.question for item in made], apart)
    items = sorted((made[at] for at in sifted.kept), key=lambda item: item.id)
    left.update(sifted.left_out)
    if not items:
        raise InputError(
            f"None of {len(passages):,} passages of {index.ref} yields a question to learn from.",
            "Index more documents than the exam asks about.",
        )
    with ws.artifacts.build("dataset", name) as draft:
        with (draft.path / "items.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in items)
        for role, parent in (("index", index), ("corpus", corpus), ("exam", exam)):
            draft.add_parent(role, parent)
        draft.card = {
            "description": f"Made-up questions (by {by}) with the documents that answer them. Nobody asked them.",
            "synthetic": True,
            "by": by,
            "items": len(items),
            "how": {"synthetic": len(items)},
            "skipped": dict(left.most_common()),
        }
        use = "training retrieval before there is feedback. Prefer what users ask as soon as there is some."
        counted = {f"{len(items):,} made-up questions. Left out:": left}
        (draft.path / "README.md").write_text(
            data_card("Synthetic questions", draft.card, counted, use), encoding="utf-8"
        )
    return draft.done


def _made(
    passages: Iterable[Citation], ask: Ask, clusters: dict[str, str], guarded: Guarded, left: Counter[str], most: int
) -> Iterator[HarvestItem]:
    asked: set[str] = set()
    for passage in passages:
        if len(asked) >= most:
            return
        cluster = clusters[passage.document]
        why = guarded.why("", passage.document, cluster)
        try:
            question = None if why else ask(passage)
        except OverBudget:
            left["not asked for, as the budget is spent"] += 1
            return
        key = question_key(question or "")
        if why is None:
            why = "without a question" if not key else guarded.why(key, passage.document, cluster)
        if why is None and key in asked:
            why = "that repeat another one"
        if why is not None:
            left[why] += 1
            continue
        asked.add(key)
        digest = hashlib.sha256(f"synthetic\n{passage.document}\n{key}".encode()).hexdigest()[:16]
        yield HarvestItem(digest, str(question), passage.document, [], "synthetic", cluster, [])


def by_rules(index: HybridIndex, seed: int = 0) -> Ask:
    """By turns a passage's heading and the rarest words of one of its sentences, as far as it has them."""
    draw = random.Random(seed)
    turn = 0

    def ask(passage: Citation) -> str | None:
        nonlocal turn
        turn += 1
        ways = [_by_heading, lambda one, rng: _by_words(index, one, rng)]
        for way in ways if turn % 2 else reversed(ways):
            if (question := way(passage, draw)) is not None:
                return question
        return None

    return ask


def by_model(model: ChatModel, recorder: Recorder | None = None) -> Ask:
    """A language model writes them, as a typed task with the prompt `question.md`; none where it says that there is
    nothing to ask."""
    prompt = resources.files(__package__).joinpath("question.md").read_text(encoding="utf-8")
    around = Surroundings(None, recorder=recorder)
    asking = Task(_question).using(prompt=Prompt(prompt), model=model)

    def ask(passage: Citation) -> str | None:
        with surrounded(around):
            said = asking(passage.title, passage.quote).strip()
        return None if said.casefold().strip(".") in ("", "none") else said.splitlines()[0]

    return ask


def _question(title: str, passage: str) -> str:
    """See `question.md`."""
    raise NotImplementedError("typed functions have no body")


def _by_heading(passage: Citation, draw: random.Random) -> str | None:
    heading = passage.heading.rpartition(" > ")[2] or passage.title
    return draw.choice(_OPENINGS).format(heading.strip()) if len(_WORD.findall(heading)) >= 2 else None


def _by_words(index: HybridIndex, passage: Citation, draw: random.Random) -> str | None:
    """The rarest words of a sentence, in its order, the rest of them forgotten: what somebody remembers of it."""
    spans = [(a, b) for a, b in sentence_spans(passage.quote) if len(_WORD.findall(passage.quote[a:b])) > _FEWEST]
    if not spans:
        return None
    start, stop = draw.choice(spans)
    words = list(dict.fromkeys(_WORD.findall(passage.quote[start:stop])))
    rare = _rarity(index, words)
    count = min(draw.randint(_FEWEST, _MOST), len(words))
    chosen = sorted(np.argsort(-rare, kind="stable")[:count].tolist())
    return " ".join(words[at] for at in chosen)


def _rarity(index: HybridIndex, words: Sequence[str]) -> np.ndarray:
    """Of each word: one over one more than the passages that hold it; 0 for words that the index passes over."""
    found = []
    for terms in index.lexical.tokenizer.terms(list(words)):
        scores = index.lexical.scores(terms)
        found.append(1.0 / (1.0 + np.count_nonzero(scores)) if len(terms) else 0.0)
    return np.array(found)
