"""Items of a task, and how a variant does on them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from windlass.apply.prompts.value import Prompt
from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.mapping import HOPELESS
from windlass.apply.tasks.outcome import NoAnswer, Outcome
from windlass.apply.tasks.prompt import Example
from windlass.apply.tasks.prompted import typed_examples
from windlass.apply.tasks.reading import json_in
from windlass.apply.tasks.schema import Shape
from windlass.core.errors import InputError, ProviderError, TimedOut, TooLong
from windlass.core.files import sha256_json
from windlass.core.protocols import ChatModel
from windlass.core.trace import carried


@dataclass(frozen=True, slots=True)
class Item:
    """Inputs by name, and the right answer, as plain JSON."""

    inputs: Mapping[str, Any]
    answer: Any
    cluster: str = ""
    """What belongs together, such as one customer's mails: never on both sides of a split. Empty: nothing else."""

    @property
    def key(self) -> str:
        return sha256_json(self.inputs)

    @property
    def group(self) -> str:
        return self.cluster or self.key


def read_items(path: Path) -> list[Item]:
    """Lines of `{"inputs": {...}, "expected": ..., "cluster": "..."}`, where the cluster may be missing. Raises
    `InputError` naming the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    return [_item(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _item(line: str, where: str) -> Item:
    try:
        said = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}.") from error
    wrong = not isinstance(said, dict) or not isinstance(said.get("inputs"), dict) or "expected" not in said
    if wrong or said.keys() - {"inputs", "expected", "cluster"}:
        raise InputError(f'{where} is not {{"inputs": {{...}}, "expected": ..., "cluster": "..."}}.')
    return Item(said["inputs"], said["expected"], str(said.get("cluster", "")))


Metric = Callable[[Any, Any], "float | tuple[float, str]"]
"""From the wanted and the given answer, as values of the task's own type, to a score; more is better. It may say in
words what is wrong: whoever rewrites the instructions reads them."""


def equal(wanted: Any, given: Any) -> float:
    """1 for the very answer, else 0."""
    return float(wanted == given)


@dataclass(frozen=True, slots=True)
class Result:
    """What a variant did with an item."""

    item: Item
    score: float | None
    """None: the provider failed, which says nothing of the prompt. To give no answer that fits is a score of 0, and so
    is a prompt that does not fit the model."""
    answer: Any = None
    """As plain JSON."""
    reasoning: str = ""
    problem: str = ""
    feedback: str = ""
    """What the metric said of it."""
    cost_usd: float | None = None
    """None: nobody knows."""
    latency_ms: float | None = None

    @property
    def example(self) -> Example:
        """The run as a demonstration: what went in, how it was thought through, and what came out."""
        return Example(self.item.inputs, self.answer, self.reasoning)


class Trial:
    """A task with the items that it is tried on, `at_once` of them. Raises `InputError` naming an item that does not
    fit the task."""

    def __init__(self, task: Task[..., Any], items: Sequence[Item], metric: Metric, *, at_once: int = 1) -> None:
        if at_once < 1:
            raise InputError(f"{at_once} items at once are none.", "Give at least 1.")
        wanted = [Example(item.inputs, item.answer) for item in items]
        typed = typed_examples(wanted, task.signature, f"items of '{task.__name__}'")
        self.task = task
        self._typed = {item.key: example for item, example in zip(items, typed)}
        self._metric = metric
        self._at_once = at_once
        self._shape: Shape[Any] = Shape(task.signature.output)

    def run(self, prompt: Prompt, model: ChatModel, items: Sequence[Item]) -> list[Result]:
        """Results in the order of the items. Raises what the budget raises, once what was under way has ended, and
        `ProviderError` for a provider that lets nobody in."""
        variant = self.task.using(prompt=prompt).using(model=model).settled()
        if self._at_once == 1:
            return [self._one(variant, item) for item in items]
        with ThreadPoolExecutor(self._at_once) as threads:
            try:
                return list(threads.map(carried(partial(self._one, variant)), items))
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def thinks(self, prompt: Prompt) -> bool:
        """Whether answers are reasoned for."""
        return self.task.using(prompt=prompt).settled().settings.think

    def _one(self, variant: Task[..., Any], item: Item) -> Result:
        typed = self._typed[item.key]
        began = time.perf_counter()
        try:
            outcome = variant.run(**typed.inputs)
        except (NoAnswer, TooLong) as error:
            return Result(item, 0.0, problem=error.message)
        except (ProviderError, TimedOut) as error:
            if getattr(error, "status", None) in HOPELESS:
                raise
            return Result(item, None, problem=error.message)
        took = (time.perf_counter() - began) * 1000
        thought = _reasoning(outcome) if variant.settings.think else ""
        said = self._metric(typed.answer, outcome.value)
        score, feedback = said if isinstance(said, tuple) else (said, "")
        answer, cost = self._shape.plain(outcome.value), outcome.cost_usd
        return Result(item, float(score), answer, thought, feedback=feedback, cost_usd=cost, latency_ms=took)


def _reasoning(outcome: Outcome[Any]) -> str:
    message = outcome.attempts[-1].response.message
    said = json_in(message.tool_calls[0].arguments if message.tool_calls else message.text)
    return str(said["reasoning"])


def parted(items: Sequence[Item], share: float, salt: str) -> tuple[list[Item], list[Item]]:
    """About `share` of the items and the others, by the hash of their clusters: items that are added later move none.

    Raises `InputError` for items that are there twice, and when a side is empty.
    """
    if len({item.key for item in items}) < len(items):
        raise InputError("Some items have the same inputs as others.", "Leave each in once.")
    taken = [_place(item.group, salt) < share for item in items]
    sides = (
        [item for item, is_taken in zip(items, taken) if is_taken],
        [item for item, is_taken in zip(items, taken) if not is_taken],
    )
    if not all(sides):
        raise InputError(f"{len(items)} items are too few to divide.", "Give more items, or more clusters of them.")
    return sides


def _place(group: str, salt: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{salt}\0{group}".encode()).digest()[:6], "big") / 2**48


def lines(items: Sequence[Item]) -> str:
    """JSON Lines."""
    return "".join(f"{json.dumps(asdict(item), ensure_ascii=False)}\n" for item in items)
