"""Rows with the answers of a teacher: what sequence-level distillation learns from, as a dataset of its own.

Answers are drawn from the teacher's whole distribution at `rl.temperature`, by the sampler that reinforcement learning
uses; a low temperature comes near to its likeliest answers (Kim and Rush, arXiv 1606.07947). They are text, so teacher
and student need not share tokens. The same teacher, rows, seed and settings write the same answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.opening import Opened, taught_by
from windlass.build.adapt.rl.practice import seed_of
from windlass.build.adapt.rl.prompts import ends_of, prompts_of, turns_asked
from windlass.build.adapt.rl.rollouts import PlainRollouts, Rollout, Writing
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_model
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace

_AT_ONCE = 256
"""Prompts given to the sampler together."""


def answered(ws: Workspace, opened: Opened) -> Opened:
    """The same with rows that the teacher answered. Raises `InputError` for an encoder and for a teacher that is no
    decoder, for rows that ask nothing, and when no answer came to its end."""
    if not opened.config.causal and not opened.config.decoder_layers:
        raise InputError(
            f"objective.answers is 'teacher', but {opened.base_name} is an encoder, which writes none.",
            "Leave it out: an encoder learns what the teacher thinks of each label.",
        )
    teaching, asked = taught_by(opened), opened.settings.rl
    teacher = load_model(teaching.base)
    if not isinstance(teacher, Decoder):
        raise InputError(f"objective.teacher: {teaching.base_name} is no decoder.", "Name one.")
    prompts, left_out = prompts_of(teaching, asked.answer_tokens)
    writing = Writing(asked.answer_tokens, ends_of(teaching), asked.temperature)
    rollouts = (opened.rollouts or PlainRollouts)(teacher.eval().requires_grad_(False), writing)
    written: list[Rollout] = []
    for first in range(0, len(prompts), _AT_ONCE):
        some = [prompt.tokens for prompt in prompts[first : first + _AT_ONCE]]
        seeds = [seed_of(opened.settings.run.seed, 0, (0, first + place), 0) for place in range(len(some))]
        written += rollouts.sample(some, seeds)
    texts = [str(teaching.tokenizer.decode(list(one.tokens), skip_special_tokens=True)).strip() for one in written]
    cut = sum(not one.ended for one in written)
    rows = [
        _answered(opened, prompt.row, text)
        for prompt, one, text in zip(prompts, written, texts, strict=True)
        if one.ended and text
    ]
    if not rows:
        raise InputError(
            f"Of {len(written):,} answers of {teaching.base_name} {cut:,} were cut at {asked.answer_tokens:,} tokens, "
            "and the others are empty, so nothing can be learned from them.",
            "Allow longer ones with rl.answer_tokens, or choose another teacher.",
        )
    stored = _stored(ws, opened, rows, len(written), cut)
    line = (
        f"{teaching.base_name} answered {len(written):,} rows: {len(rows):,} answers are learned, {cut:,} were cut at "
        f"{asked.answer_tokens:,} tokens and {len(written) - len(rows) - cut:,} were empty; {stored.ref} holds them"
    )
    return replace(
        opened, file=stored.path / "items.jsonl", dataset=stored, columns={}, notes=[*opened.notes, *left_out, line]
    )


def _answered(opened: Opened, row: Row, text: str) -> dict[str, Any]:
    turns, tools = turns_asked(row)
    if opened.template is None:
        return {"prompt": turns[0]["content"], "completion": text}
    messages = [*map(dict, turns), {"role": "assistant", "content": text}]
    return {"messages": messages, **({"tools": list(tools)} if tools else {})}


def _stored(ws: Workspace, opened: Opened, rows: Sequence[dict[str, Any]], asked: int, cut: int) -> Artifact:
    with ws.artifacts.build("dataset", "answers-of-teacher") as draft:
        with (draft.path / "items.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if opened.dataset is not None:
            draft.add_parent("dataset", opened.dataset)
        if opened.teacher_artifact is not None:
            draft.add_parent("teacher", opened.teacher_artifact)
        rl = opened.settings.rl
        draft.card = {
            "description": f"Answers of {opened.settings.objective.teacher}",
            "items": len(rows),
            "asked": asked,
            "cut": cut,
            "temperature": rl.temperature,
            "answer_tokens": rl.answer_tokens,
            "seed": opened.settings.run.seed,
        }
    return draft.done
