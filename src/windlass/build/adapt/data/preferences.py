"""What was thought of answers: which of two is better, whether one is good, or how good it is.

| columns                             | format                                                                      |
|-------------------------------------|-----------------------------------------------------------------------------|
| `prompt`, `chosen`, `rejected`      | each a text or messages; the answers may repeat the prompt                  |
| `chosen`, `rejected`                | whole conversations: messages, or texts with "Human:" and "Assistant:"      |
| `conversations`, `chosen`, `rejected` | LLaMA-Factory; also `messages` or `instruction` and `input` before them   |
| `input`, `preferred_output`, `non_preferred_output` | OpenAI's own                                                |
| `prompt`, `completion`, `label`     | whether the answer is good; also `messages`, which end with it, and `label` |
| `prompt`, `completion`, `reward`    | how good it is, in several rows of one prompt; also `score`                 |

An answer is all that stands behind the last turn of the user.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from windlass.build.adapt.data.conversations import Turn
from windlass.build.adapt.data.formats import conversation_of, system_of, tools_of, turns_of
from windlass.build.adapt.data.rows import Row
from windlass.core.errors import InputError

HINT = "Mend the row, or leave such rows out with --set data.unusable=drop."
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_SCORES = ("reward", "score")
_ASKED = ("prompt", "question", "conversations", "messages")
_SAID = ("completion", "response", "answer")


@dataclass(frozen=True, slots=True)
class Judged:
    """Two answers to one prompt, of which one was preferred; or one, which was liked (chosen) or not (rejected)."""

    prompt: Sequence[Turn]
    chosen: Sequence[Turn] | None
    rejected: Sequence[Turn] | None
    where: str
    """The row, for errors."""
    tools: Sequence[Mapping[str, Any]] = ()

    @property
    def asked(self) -> str:
        """The prompt as a text that is the same for equal prompts."""
        return json.dumps([self.prompt, self.tools], sort_keys=True, default=str)


class Unusable(InputError):
    """A row that can be read, but from which nothing can be learned."""


def pairs_of(rows: Sequence[Row], unusable: Literal["refuse", "drop"] = "refuse") -> tuple[list[Judged], list[str]]:
    """The pairs, and lines about what was left out.

    Raises `InputError` naming the row that is no pair. One whose answers are equal or empty, or stand behind different
    prompts, is refused too, unless `unusable` says to leave such rows out.
    """
    if any(name in rows[0].values for name in _SCORES) and "chosen" not in rows[0].values:
        return _ranked(rows)
    return _usable(rows, _pair, unusable)


def feedback_of(rows: Sequence[Row], unusable: Literal["refuse", "drop"] = "refuse") -> tuple[list[Judged], list[str]]:
    """Single answers with their labels; of pairs, both answers. Raises as `pairs_of` does."""
    if "label" in rows[0].values:
        return _usable(rows, _liked, unusable)
    pairs, lines = pairs_of(rows, unusable)
    chosen = [Judged(pair.prompt, pair.chosen, None, pair.where, pair.tools) for pair in pairs]
    rejected = [Judged(pair.prompt, None, pair.rejected, pair.where, pair.tools) for pair in pairs]
    return [one for both in zip(chosen, rejected, strict=True) for one in both], lines


def _usable(
    rows: Iterable[Row], read: Callable[[Row], Judged], unusable: Literal["refuse", "drop"]
) -> tuple[list[Judged], list[str]]:
    found: list[Judged] = []
    left: list[str] = []
    for row in rows:
        try:
            found.append(read(row))
        except Unusable as error:
            if unusable == "refuse":
                raise
            left.append(error.message)
    if left and not found:
        raise InputError(f"No row is left to learn from. {left[0]}")
    lines = [f"left out: {len(left):,} of {len(left) + len(found):,} rows, such as {left[0]}"] if left else []
    return found, lines


# Pairs --------------------------------------------------------------------------------------------------------------


def _pair(row: Row) -> Judged:
    if "preferred_output" in row.values:
        row = _of_openai(row)
    if not {"chosen", "rejected"} <= row.values.keys():
        raise InputError(
            f"{row.where}: the columns are {', '.join(map(str, row.values)) or 'none'}, which is no pair of answers.",
            "Give `prompt`, `chosen` and `rejected`, or whole conversations as `chosen` and `rejected`.",
        )
    before = _before(row)
    prompts, answers = zip(*(_side(row, column, before) for column in ("chosen", "rejected")), strict=True)
    if prompts[0] != prompts[1]:
        raise Unusable(f"{row.where}: chosen and rejected answer different prompts.", HINT)
    for column, answer in zip(("chosen", "rejected"), answers, strict=True):
        _check_says(row, column, answer)
    if answers[0] == answers[1]:
        raise Unusable(f"{row.where}: chosen and rejected are the same answer.", HINT)
    return Judged(prompts[0], answers[0], answers[1], row.where, tools_of(row))


def _of_openai(row: Row) -> Row:
    asked = row.values.get("input")
    if not isinstance(asked, Mapping) or "messages" not in asked or "non_preferred_output" not in row.values:
        raise InputError(f"{row.where}: preferred_output needs an input with messages, and non_preferred_output.")
    values = {**asked, "chosen": row.values["preferred_output"], "rejected": row.values["non_preferred_output"]}
    return Row(row.where, values)


def _before(row: Row) -> list[Turn]:
    """What the row has before the answers, if it has it apart."""
    if "instruction" in row.values:  # Alpaca's columns, of which the answer is left empty
        return list(conversation_of(Row(row.where, {**row.values, "output": ""})).turns[:-1])
    for column in _ASKED:
        if column in row.values:
            return [*system_of(row), *turns_of(row, column, "user")]
    return []


def _side(row: Row, column: str, before: list[Turn]) -> tuple[list[Turn], list[Turn]]:
    """The prompt and the answer of one side."""
    value = row.values[column]
    spoken = isinstance(value, str) and not before
    turns = _spoken(row, column, str(value)) if spoken else turns_of(row, column, "assistant")
    begun = [turn for turn in turns if turn.get("role") in ("user", "system")]
    if not begun:
        turns = [*before, *turns]
    elif any(turn.get("role") in ("user", "system") and turn not in begun for turn in before):
        raise Unusable(f"{row.where}: {column} is a conversation, but not about this row's prompt.", HINT)
    last = max((place for place, turn in enumerate(turns) if turn.get("role") == "user"), default=-1)
    if last < 0:
        raise InputError(
            f"{row.where}: {column} is an answer, but nothing says to what.",
            "Give a `prompt`, or whole conversations with a turn of the user.",
        )
    return turns[: last + 1], turns[last + 1 :]


def _spoken(row: Row, column: str, text: str) -> list[Turn]:
    """A conversation as Anthropic's sets write it: turns that begin with "Human:" or "Assistant:" on a new line."""
    parts = re.split(r"(?:^|\n\n)(Human|Assistant):", text)
    if len(parts) < 3 or parts[0].strip():
        raise InputError(
            f"{row.where}: {column} is a text without a prompt, and no conversation with 'Human:' and 'Assistant:'.",
            "Give a `prompt`, or messages.",
        )
    return [
        {"role": _SPEAKERS[speaker], "content": said.strip()}
        for speaker, said in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _check_says(row: Row, column: str, answer: Sequence[Turn]) -> None:
    says = any(str(turn.get("content") or "").strip() or turn.get("tool_calls") for turn in answer)
    if not answer or not says or answer[-1].get("role") != "assistant":
        raise Unusable(f"{row.where}: {column} is empty, or does not end with what the assistant says.", HINT)


# Single answers -----------------------------------------------------------------------------------------------------


def _answered(row: Row) -> tuple[list[Turn], list[Turn]]:
    """The prompt and the one answer of a row."""
    column = next((name for name in _SAID if name in row.values), None)
    if column is not None:
        before, answer = _before(row), turns_of(row, column, "assistant")
    else:
        turns, column = _before(row), "messages" if "messages" in row.values else "conversations"
        last = max((place for place, turn in enumerate(turns) if turn.get("role") == "user"), default=-1)
        before, answer = turns[: last + 1], turns[last + 1 :]
    if not before:
        raise InputError(
            f"{row.where}: the columns are {', '.join(map(str, row.values))}, which is no prompt with an answer.",
            "Give `prompt` and `completion`, or `messages`.",
        )
    _check_says(row, column, answer)
    return before, answer


def _liked(row: Row) -> Judged:
    said = row.values.get("label")
    label = _LABELS.get(str(said).lower())
    if label is None:
        raise InputError(
            f"{row.where}: label is {json.dumps(said, default=str)[:80]}, but must be true or false.",
            "Say of each answer whether it is good.",
        )
    before, answer = _answered(row)
    chosen, rejected = (answer, None) if label else (None, answer)
    return Judged(before, chosen, rejected, row.where, tools_of(row))


_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def _ranked(rows: Sequence[Row]) -> tuple[list[Judged], list[str]]:
    """Pairs of scored answers to one prompt: the best with the worst, the second best with the second worst, ..., each
    answer in one pair; what is left are answers with equal scores, or without another."""
    groups: dict[str, list[tuple[float, Judged]]] = {}
    for row in rows:
        before, answer = _answered(row)
        one = Judged(before, answer, None, row.where, tools_of(row))
        groups.setdefault(one.asked, []).append((_score(row), one))
    pairs = []
    for group in groups.values():
        order = sorted(group, key=lambda scored: -scored[0])
        for (high, best), (low, worst) in zip(order[: len(order) // 2], reversed(order)):
            if high > low and best.chosen != worst.chosen:
                pairs.append(Judged(best.prompt, best.chosen, worst.chosen, best.where, best.tools))
    if not pairs:
        raise InputError(
            f"{rows[0].where}: no prompt has two answers with different rewards, so none is preferred to another.",
            "Give several answers to each prompt.",
        )
    left = len(rows) - 2 * len(pairs)
    lines = [f"left out: {left:,} of {len(rows):,} answers, without another of the same prompt and another reward"]
    return pairs, lines if left else []


def _score(row: Row) -> float:
    found = next((row.values[name] for name in _SCORES if name in row.values), None)
    try:
        score = float(str(found))  # a number, or as CSV has it
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"{row.where}: the reward is {json.dumps(found, default=str)[:80]}, but must be a number.")
    return score
