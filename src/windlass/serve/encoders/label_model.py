"""A classifier behind the interface of chat models, so that it can carry out a typed task.

A task whose answer is one of a few values asks for `{"value": ...}`, by a schema. A classifier that was tuned on such
answers (`windlass tune classify --from traces --task TASK`) gives the likeliest label in that form: it reads the last
message of the user, as it was shown to it in training, and none of the instructions.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from windlass.core.errors import InputError, Unsupported
from windlass.core.protocols import Classifying
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message, Usage


class LabelModel:
    """Implements `ChatModel` over a classifier. Safe to share between threads."""

    structured = "schema"

    def __init__(self, classifier: Classifying, *, name: str | None = None, digest: str | None = None) -> None:
        """`digest`: of the artifact that the classifier is."""
        self.name = name or classifier.name
        self.digest = digest or classifier.digest
        self._classifier = classifier

    def complete(self, request: ChatRequest) -> ChatResponse:
        """Raises `InputError` without a question, `Unsupported` for a form that no label has, and for tools."""
        text = next((one.text for one in reversed(request.messages) if one.role == "user"), None)
        if text is None:
            raise InputError(f"{self.name} reads the last message of the user, and there is none.")
        if request.tools:
            raise Unsupported(f"{self.name} gives labels; it calls no tools.")
        found = self._classifier.classify([text])
        if found.numbers:
            raise Unsupported(f"{self.name} gives numbers, not labels.", "Tune one with the recipe classify.")
        label = self._classifier.labels[int(found.probabilities[0].argmax())]
        said = Message("assistant", written(label, request.schema, self.name))
        usage = Usage(input=found.tokens, output=0)
        return ChatResponse(f"label-{secrets.token_hex(8)}", self.name, said, "stop", usage)

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        """The whole answer in one piece."""
        response = self.complete(request)
        yield ChatDelta(response.message.text)
        yield ChatDelta("", response=response)


def written(label: str, schema: Mapping[str, Any] | None, name: str) -> str:
    """The label as an answer of this form; itself where no form is asked for. Raises `Unsupported` for another form,
    or one that does not know the label."""
    if schema is None:
        return label
    properties = schema.get("properties") or {}
    if len(properties) != 1:
        raise Unsupported(f"{name} gives one label, but an answer of {len(properties)} fields is asked for.")
    ((field, form),) = properties.items()
    for value in _values(form):
        if label in (value, json.dumps(value)):
            return json.dumps({field: value}, ensure_ascii=False)
    raise Unsupported(
        f"{name} says '{label}', which is none of the answers that the task knows.", "Tune it on this task's answers."
    )


def _values(form: Mapping[str, Any]) -> Sequence[Any]:
    """All values of a form that has few of them."""
    if "enum" in form:
        return list(form["enum"])
    if "const" in form:
        return [form["const"]]
    return [True, False] if form.get("type") == "boolean" else []
