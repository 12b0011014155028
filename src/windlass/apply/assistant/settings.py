"""What a variant of the assistant can change."""

from __future__ import annotations

from dataclasses import dataclass, field

from windlass.apply.rag.answers.abstention import AbstentionRule
from windlass.apply.rag.answers.disagreement import Contradictions
from windlass.apply.rag.answers.quoting import QuoteSettings
from windlass.apply.rag.answers.reading import ReadingRule
from windlass.apply.rag.answers.untrusted import Injections, Spotlight
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.retrieving import RetrieveSettings
from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class AssistantSettings:
    """Everything a variant of the assistant can change besides its index and model."""

    k: int = 6
    """Passages given to the language model or the reader, or looked at for quotations."""
    search: SearchSettings = field(default_factory=SearchSettings)
    retrieve: RetrieveSettings = field(default_factory=RetrieveSettings)
    """Further steps around the search. What the abstention rule decides by is the plain search all the same."""
    abstention: AbstentionRule = field(default_factory=AbstentionRule)
    reading: ReadingRule = field(default_factory=ReadingRule)
    """With a reader this rule decides, which knows what the search found and what the reader made of it."""
    quotes: QuoteSettings = field(default_factory=QuoteSettings)
    whole: int = 0
    """Above 0: the language model gets all documents in place of passages where they fit its window and cost less,
    if so many questions are asked while they are in its provider's cache (`rag.answers.whole`). 0: never."""
    memory: int = 4
    """Turns of the conversation that are remembered to understand the next question by. 0: none."""
    spotlight: Spotlight = "delimit"
    """How passages are shown to a language model: between marks, with a mark between all words, or encoded."""
    injections: Injections = "withhold"
    """Sentences of documents that read like orders to a model: left out, only named in a warning, or not looked for."""
    contradictions: Contradictions = "rule"
    """Passages that contradict what is cited are named below the answer, as a rule finds them or a language model does
    (`rag.answers.disagreement`); or they are not looked for."""

    def __post_init__(self) -> None:
        if self.k < 1 or self.whole < 0 or self.memory < 0:
            raise InputError("An assistant needs k of at least 1, and whole and memory of at least 0.")
