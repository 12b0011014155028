"""Rows as prompts: what a model is asked, and where its answer ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from windlass.build.adapt.data.conversations import Turn
from windlass.build.adapt.data.formats import conversation_of
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.opening import Opened
from windlass.build.tokenizer.chat import end_of_turn
from windlass.core.errors import InputError

_SAID = {"prompt": "completion", "question": "answer", "instruction": "output"}
"""What stands beside a column that asks; here it is what rewards look at, whatever its type, or not there at all."""


class Prompt(NamedTuple):
    tokens: tuple[int, ...]
    row: Row
    """What rewards judge an answer by."""


def prompts_of(opened: Opened, most: int) -> tuple[list[Prompt], list[str]]:
    """Every row as a prompt: all of it that stands before what the assistant says last; and a line about those that
    were left out, if any. `most`: tokens of an answer.

    Raises `InputError` naming a row that asks nothing, or whose prompt and answer do not fit what the model reads,
    unless the settings say to leave such rows out.
    """
    found = [Prompt(tokens_asked(opened, row, *turns_asked(row)), row) for row in opened.rows()]
    room = min(opened.settings.model.context or opened.context, opened.context)
    long = [prompt for prompt in found if len(prompt.tokens) + most > room]
    if long and (opened.settings.data.overlong == "refuse" or len(long) == len(found)):
        raise InputError(
            f"{long[0].row.where}: the prompt has {len(long[0].tokens):,} tokens, which with {most:,} of an answer "
            f"are more than the {room:,} that {opened.base_name} reads here.",
            "Leave such rows out with --set data.overlong=drop, or choose a smaller rl.answer_tokens or another base: "
            "nothing is cropped.",
        )
    kept = [prompt for prompt in found if len(prompt.tokens) + most <= room]
    told = f"left out: {len(long):,} of {len(found):,} prompts, which with {most:,} tokens of an answer do not fit"
    return kept, [told] if long else []


def ends_of(opened: Opened) -> frozenset[int]:
    """Tokens that end an answer: the end of the text, and the special token that the template puts behind a turn.
    Raises `InputError` where there is none."""
    ends = set() if opened.specials.eos is None else {opened.specials.eos}
    turn = None if opened.template is None else end_of_turn(opened.template, opened.tokenizer, opened.specials)
    if turn is not None:
        ends.add(turn)
    if not ends:
        raise InputError(f"{opened.base_name} has no token that ends an answer.", "Its tokenizer needs an eos token.")
    return frozenset(ends)


def turns_asked(row: Row) -> tuple[list[Turn], Sequence[Mapping[str, Any]]]:
    """What stands before the last answer, and the tools that it may call. Raises `InputError` naming a row that asks
    nothing."""
    unsaid = {said: "" for asked, said in _SAID.items() if asked in row.values}
    conversation = conversation_of(Row(row.where, {**row.values, **unsaid}))
    turns = list(conversation.turns)
    while turns and turns[-1].get("role") == "assistant":
        turns.pop()
    if not turns or not any(turn.get("content") for turn in turns):
        raise InputError(f"{row.where}: it asks nothing.", "Give a `prompt`, a `question`, or `messages`.")
    return turns, conversation.tools


def tokens_asked(
    opened: Opened, row: Row, turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]]
) -> tuple[int, ...]:
    """Turns of the row as the engine will read them, up to where the answer begins. Raises `InputError` naming the row
    that cannot be written for the base."""
    if opened.template is None:
        return _continued(opened, row, turns)
    known = {"tools": list(tools)} if tools else {}
    try:
        text = opened.template.render(turns, add_generation_prompt=True, **known)
    except InputError as error:
        raise InputError(f"{row.where}: {error.message}", error.hint) from error
    return tuple(opened.tokenizer.encode(text, add_special_tokens=False).ids)


def _continued(opened: Opened, row: Row, turns: Sequence[Turn]) -> tuple[int, ...]:
    """The text itself, which a base model without a template goes on with."""
    if len(turns) != 1 or not isinstance(turns[0]["content"], str):
        raise InputError(
            f"{row.where}: {opened.base_name} has no chat template, so it can only go on with one text, but this is "
            f"{json.dumps(turns, default=str)[:80]}.",
            "Give the text as `prompt`, or add a chat_template.jinja to the model.",
        )
    ids = opened.tokenizer.encode(turns[0]["content"], add_special_tokens=True).ids
    bos = opened.specials.bos
    return tuple(ids if bos is None or ids[:1] == [bos] else [bos, *ids])
