"""Trying a prompt on inputs that are typed, or taken from a row of a dataset, with a model that is set up.

Looking at the page asks nothing of anyone; only the button does, within a budget for a day. The call is recorded under
a span named `try`, so that it is not taken for the task's own traffic.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from windlass.apply.prompts import artifact as prompts
from windlass.apply.prompts.value import Prompt
from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.outcome import NoAnswer, Outcome
from windlass.apply.tasks.running import Model
from windlass.apply.tasks.surroundings import Surroundings, surrounded
from windlass.apply.wrappers.budget import Budget, OverBudget
from windlass.apply.wrappers.ledger import Ledger, Slot, ledger_path, period
from windlass.core.artifacts import Artifact
from windlass.core.errors import ConfigError, InputError, NotFound, WindlassError
from windlass.core.values import Usage
from windlass.core.workspace import Workspace
from windlass.studio.prompts import fields
from windlass.studio.stand_in import FORMS, forms, stand_in
from windlass.studio.web import Studio, Visit
from windlass.studio.writing import take_place

BUDGET = "studio"
"""Under which tries are charged in the workspace's ledger."""
MAX_BYTES = 1_000_000
"""Of the form."""
MAX_ROW = 200_000
"""Bytes of a row that is put into the form."""
DATASETS = 200
"""Offered, the newest."""
SERVED = "served:"
"""Before the name of a model of the server, in the form."""
_WHOLE = r"[1-9][0-9]{0,14}"


@dataclass(frozen=True, slots=True)
class Box:
    """One input in the form."""

    name: str
    text: str
    json: bool = False
    """Whether the text is JSON, as for everything but texts."""

    @property
    def value(self) -> Any:
        """Raises `InputError`."""
        if not self.json:
            return self.text
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"The input '{self.name}' is not JSON: {error}.", "Mend it, or load the row anew."
            ) from error


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a try."""

    trace: str
    seconds: float
    value: Any = None
    error: WindlassError | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    attempts: int = 0

    @property
    def status(self) -> int:
        """Of the page that shows it."""
        if self.error is None:
            return 200
        if isinstance(self.error, OverBudget):
            return 429
        return 400 if isinstance(self.error, InputError | ConfigError) else 502


def show(visit: Visit) -> Response:
    artifact = prompts.find(visit.ws, visit.path("ref"))
    prompt = prompts.read(artifact)
    return _page(visit, artifact, prompt, _filled(visit, artifact, prompt))


def run(visit: Visit) -> Response:
    artifact = prompts.find(visit.ws, visit.path("ref"))
    prompt = prompts.read(artifact)
    form = visit.form
    boxes = [
        Box(key.removeprefix("in."), text.replace("\r\n", "\n"), f"json.{key.removeprefix('in.')}" in form)
        for key, text in form.items()
        if key.startswith("in.")
    ]
    try:
        inputs = {box.name: box.value for box in boxes}
        if not any(box.text.strip() for box in boxes):
            raise InputError("Nothing is typed into the inputs.", "Fill them in, or load a row of a dataset.")
        chosen = _chosen(visit.studio, prompt, form.get("model", ""))
        task = stand_in(artifact.record.name, prompt, list(inputs), form.get("form", forms(prompt)[0]))
    except InputError as error:
        return _page(visit, artifact, prompt, boxes, problem=error, status=400)
    take_place(visit.studio)
    try:
        result = tried(visit.studio, artifact, prompt, task, chosen, inputs)
    finally:
        visit.studio.asking.release()
    return _page(visit, artifact, prompt, boxes, result=result, status=result.status)


def tried(
    studio: Studio, artifact: Artifact, prompt: Prompt, task: Task[..., Any], chosen: str, inputs: Mapping[str, Any]
) -> Result:
    """`chosen`: the value of one of `models`. What fails is part of the result: it has a trace as well."""
    ws, limits = studio.ws, studio.ws.config.studio
    span = ws.recorder.span("try", "invoke_workflow")
    span.input = dict(inputs)
    started = time.monotonic()
    outcome: Outcome[Any] | NoAnswer
    try:
        with span, contextlib.closing(Surroundings(ws)) as around, surrounded(around):
            budget = Budget(BUDGET, dollars=limits.dollars_per_day, tokens=limits.tokens_per_day)
            with _asked(studio, around, prompt, chosen) as model:
                outcome = task.using(prompt=artifact.ref, budget=budget, model=model).run(**inputs)
            span.output = outcome.value
        value, error = outcome.value, None
    except NoAnswer as none:
        outcome, value, error = none, None, none
    except WindlassError as failed:
        return Result(span.trace_id, time.monotonic() - started, error=failed)
    seconds = time.monotonic() - started
    return Result(span.trace_id, seconds, value, error, outcome.usage, outcome.cost_usd, len(outcome.attempts))


@contextlib.contextmanager
def _asked(studio: Studio, around: Surroundings, prompt: Prompt, chosen: str) -> Iterator[Model]:
    """The model; one that is made for this call alone is closed after it."""
    if chosen.startswith(SERVED):
        yield studio.models[chosen.removeprefix(SERVED)]
        return
    model = around.model(prompt.settings["model"] if chosen == "prompt" else None)
    try:
        yield model
    finally:
        if (close := getattr(model, "close", None)) is not None:
            close()


def models(studio: Studio, prompt: Prompt) -> list[tuple[str, str]]:
    """(value, name) of what can be chosen: first the model that the prompt names, then that of windlass.toml."""
    found = []
    if named := prompt.settings.get("model"):
        found.append(("prompt", f"{named} (named by the prompt)"))
    config = studio.ws.config.model
    if config.base_url and config.model:
        found.append(("configured", f"{config.model} (windlass.toml)"))
    return [*found, *((f"{SERVED}{name}", name) for name in studio.models)]


def _chosen(studio: Studio, prompt: Prompt, value: str) -> str:
    """Raises `InputError` for what is not among the models."""
    known = [key for key, _ in models(studio, prompt)]
    if not known:
        raise InputError("No model is set up.", "Set [model] in windlass.toml, or serve one: windlass serve MODEL")
    value = value or known[0]
    if value not in known:
        raise InputError(f"There is no model '{value[:80]}' here.", "Choose one of the list.")
    return value


# what stands in the form --------------------------------------------------------------------------------------------


def _filled(visit: Visit, artifact: Artifact, prompt: Prompt) -> list[Box]:
    """A box for each input: with the row that the address names, else empty."""
    typed = [name.strip() for name in visit.query("fields").split(",") if name.strip()]
    names = typed or fields(prompt) or _seen(visit.ws, artifact)
    if not visit.query("dataset"):
        lead = prompt.examples[0].inputs if prompt.examples else {}
        return [Box(name, "", not isinstance(lead.get(name, ""), str)) for name in names or ["input"]]
    row, _ = row_of(visit.ws, visit.query("dataset"), visit.whole("row", 1, low=1), names)
    return [_box(name, value) for name, value in row.items()]


def _box(name: str, value: Any) -> Box:
    if isinstance(value, str):
        return Box(name, value)
    return Box(name, json.dumps(value, ensure_ascii=False, indent=1), json=True)


def _seen(ws: Workspace, artifact: Artifact) -> list[str]:
    """The inputs of the newest call with this prompt."""
    for trace in ws.store.traces(prompt=artifact.digest, evaluations=None, limit=1):
        if isinstance(trace.root.input, Mapping):
            return list(trace.root.input)
    return []


def row_of(ws: Workspace, reference: str, number: int, names: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """The inputs in a row of a dataset, counted from 1, and the answer that is right for them, None where none is told.

    A row is `{"inputs": {…}, "answer": …}`, which may be called `expected`, or holds the inputs themselves, of which
    `names` are taken. Raises `InputError` and `NotFound`.
    """
    dataset = ws.artifacts.get(reference)
    files = sorted((name for name in dataset.record.files if name.endswith(".jsonl")), key=lambda n: n != "items.jsonl")
    if not files:
        raise InputError(f"{dataset.ref} holds no rows: none of its files is .jsonl.", "Choose another dataset.")
    with (dataset.path / files[0]).open("rb") as file:
        line = next(itertools.islice(file, number - 1, number), None)
    where = f"Row {number} of {dataset.ref}"
    if line is None:
        raise NotFound(f"{dataset.ref} has no row {number}.", "Count from 1.")
    if len(line) > MAX_ROW:
        raise InputError(f"{where} has {len(line):,} bytes; at most {MAX_ROW:,} are put into the form.")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}.") from error
    if not isinstance(row, dict):
        return {names[0] if names else "input": row}, None
    if isinstance(row.get("inputs"), dict):
        return row["inputs"], row.get("answer", row.get("expected"))
    missing = [name for name in names if name not in row]
    if missing:
        raise InputError(
            f"{where} has no '{missing[0]}'; it has {', '.join(list(row)[:12]) or 'nothing'}.",
            "Choose another dataset, or name the inputs that are to be taken.",
        )
    return {name: row[name] for name in names or row}, None if "answer" in names else row.get("answer")


def _spent(ws: Workspace) -> int:
    """Tokens that tries have taken today."""
    if not ledger_path(ws.root).exists():
        return 0
    with contextlib.closing(Ledger(ledger_path(ws.root))) as ledger:
        return ledger.spent(Slot(BUDGET, period("day", time.time()))).tokens


def _page(
    visit: Visit,
    artifact: Artifact,
    prompt: Prompt,
    boxes: Sequence[Box],
    *,
    result: Result | None = None,
    problem: InputError | None = None,
    status: int = 200,
) -> Response:
    asked = visit.form or {"dataset": visit.query("dataset"), "row": visit.query("row")}
    wanted = None
    if asked.get("dataset") and re.fullmatch(_WHOLE, asked.get("row") or "1"):
        with contextlib.suppress(InputError, NotFound):  # what is wrong with the row was said when it was loaded
            inputs, wanted = row_of(visit.ws, asked["dataset"], int(asked.get("row") or 1), fields(prompt))
            if result is not None and [_box(*pair) for pair in inputs.items()] != list(boxes):
                wanted = None  # the inputs were changed since: what is right for the row says nothing of them
    response = visit.page(
        "prompt_try.html",
        "prompts",
        a=artifact.record,
        prompt=prompt,
        boxes=boxes,
        models=models(visit.studio, prompt),
        model=visit.form.get("model", ""),
        forms=[(key, FORMS[key]) for key in forms(prompt)],
        form=visit.form.get("form", ""),
        datasets=[r for r in visit.ws.store.artifacts("dataset", limit=DATASETS) if _has_rows(r.files)],
        dataset=asked.get("dataset", ""),
        row=asked.get("row") or "1",
        wanted=wanted,
        result=result,
        problem=problem,
        limits=visit.ws.config.studio,
        spent=_spent(visit.ws),
    )
    response.status_code = status
    return response


def _has_rows(files: Mapping[str, str]) -> bool:
    return any(name.endswith(".jsonl") for name in files)
