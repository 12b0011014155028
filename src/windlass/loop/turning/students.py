"""Small models that learn a typed task from its traces: an encoder whose labels are the task's answers.

What an expensive variant answers, and people approve, is the data (distillation: Hinton et al. 2015,
https://arxiv.org/abs/1503.02531, with labels in place of probabilities). The student reads a call's inputs as the model
was shown them, and no instructions.
"""

from __future__ import annotations

import enum
import json
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from windlass.apply.prompts.value import Prompt
from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.prompt import content
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import tune
from windlass.core.artifacts import Artifact
from windlass.core.workspace import Workspace
from windlass.loop.evaluating.items import Item
from windlass.loop.tasks import LOCAL

LEAST = 40
"""Examples below which an encoder learns nothing worth a try, and in all of a label's: two."""
_RATE = 60.0
"""Short texts a second that a processor core learns, about."""
_SEEN = 4800
"""How many examples are seen, counted each time, at least."""


@dataclass(frozen=True, slots=True)
class Teaching:
    recipe: str = "classify"
    base: str | None = None
    """What is tuned; None: as the recipe says."""
    epochs: float | None = None
    """None: four, and up to twenty where examples are few: a few dozen steps leave an encoder where it began (Mosbach
    et al. 2021, https://arxiv.org/abs/2006.04884)."""
    seed: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Of the recipe besides, such as {"data.batch": 8}."""

    def epochs_of(self, examples: int) -> float:
        return self.epochs or min(max(4.0, round(_SEEN / examples)), 20.0)

    def minutes(self, examples: int) -> float:
        return examples * self.epochs_of(examples) / _RATE / 60


def labels_of(task: Task[..., Any]) -> list[str] | None:
    """The answers of a task that has only so many; None for any other, and where inputs are no texts."""
    output = task.signature.output
    if any(kind is not str and kind not in (int, float, bool) for kind in task.signature.inputs.values()):
        return None
    if typing.get_origin(output) is typing.Literal:
        return [_label(value) for value in typing.get_args(output)]
    if output is bool:
        return [_label(True), _label(False)]
    if isinstance(output, type) and issubclass(output, enum.Enum):
        return [_label(one.value) for one in output]
    return None


def teachable(items: Sequence[Item]) -> list[Item]:
    """Those whose answer is given more than once: a label with one example can be neither learned nor checked."""
    counts = Counter(_label(item.answer) for item in items)
    return [item for item in items if counts[_label(item.answer)] > 1]


def balanced(items: Sequence[Item]) -> list[Item]:
    """Examples of rare answers several times over, up to half as many as the most frequent one has."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(_label(item.answer), []).append(item)
    most = max(map(len, groups.values()))
    repeated = {label: max(1, round(most / 2 / len(group))) for label, group in groups.items()}
    return [item for item in items for _ in range(repeated[_label(item.answer)])]


def taught_student(
    ws: Workspace,
    task: Task[..., Any],
    items: Sequence[Item],
    teaching: Teaching,
    *,
    kind: str,
    source: Artifact,
    say: Callable[[str], None],
) -> Artifact:
    """A model of the workspace that learned these items. `kind`: what they are, on the dataset's card."""
    name = task.__name__
    with ws.artifacts.build("dataset", f"{name}-lessons") as draft:
        with (draft.path / "items.jsonl").open("w", encoding="utf-8") as file:
            for item in items:
                text = content(item.inputs, task.signature.inputs)
                file.write(json.dumps({"text": text, "label": _label(item.answer)}, ensure_ascii=False) + "\n")
        draft.add_parent("dataset", source)
        counts = Counter(_label(item.answer) for item in items)
        what = f"Inputs of '{name}' with {kind}."
        draft.card = {"description": what, "items": len(items), "answers": dict(counts.most_common())}
    changes: dict[str, Any] = {
        "data.dataset": draft.done.digest,
        "data.epochs": teaching.epochs_of(len(items)),
        "data.heldout": 0.05,
        "data.overlong": "cut",
        "run.name": f"{name}-student",
        "run.seed": teaching.seed,
    }
    if teaching.base is not None:
        changes["model.base"] = teaching.base
    changes |= teaching.changes
    return tune(ws, TUNING.read(teaching.recipe, changes), say=say)


def student_prompt(live: Prompt, model: Artifact) -> Prompt:
    """The live prompt carried out by the student. It is shown no examples: it would not read them."""
    kept = {name: value for name, value in live.settings.items() if name in ("attempts", "tokens")}
    return Prompt(live.instructions, (), {**kept, "model": f"{LOCAL}{model.ref}"})


def _label(answer: Any) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer)
