"""What an assistant remembers of a conversation: its latest turns, to understand the next question by.

A question such as "and how often?" is made to stand alone before anything is searched; nothing else of a conversation
reaches the search, the passages or the answer, and what was remembered stands on the trace. With a language model the
model rewrites it (`rag.retrieving.rewriting`); here is the rule for those who have none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from windlass.apply.rag.answers.claims import content
from windlass.core.values import Message

_POINTS = re.compile(
    r"^\s*(?:and|but|so|also|what about|how about|what if|why not|which one|how so|und|aber|et|mais|y)\b"
    r"|\b(?:it|its|they|them|their|theirs|he|him|his|she|her|hers|this|that|these|those|there|the same|the former"
    r"|the latter)\b",
    re.IGNORECASE,
)
"""Words that point at something said before."""
_MOST = 6
"""Words that are taken from before."""


def recalled(messages: Sequence[Message], turns: int) -> list[Message]:
    """The last `turns` questions before the last one, with what was answered to them."""
    said = [message for message in messages if message.role in ("user", "assistant") and message.text.strip()]
    last = max((place for place, message in enumerate(said) if message.role == "user"), default=0)
    asked = [place for place, message in enumerate(said[:last]) if message.role == "user"]
    return said[asked[-turns] : last] if turns and len(asked) >= turns else said[:last] if turns else []


def points_back(question: str) -> bool:
    """Whether it says too little by itself: it points at something else, or names nothing."""
    return _POINTS.search(question) is not None or len(content(question)) < 2


def standing_alone(question: str, history: Sequence[Message]) -> str:
    """The question with the words of the latest one that stood alone, if it does not itself."""
    if not points_back(question):
        return question
    mine = {stem for stem, _ in content(question)}
    for number in range(len(history) - 1, -1, -1):
        before = history[number]
        if before.role != "user" or points_back(before.text):
            continue
        answered = {stem for message in history[number + 1 : number + 2] for stem, _ in content(message.text)}
        words = {stem: word for stem, word in content(before.text) if stem not in mine}
        told = [word for stem, word in words.items() if stem in answered] or list(words.values())
        return f"{question} ({' '.join(told[:_MOST])})" if told else question
    return question
